"""How long a refused offer rests, by the class of the refusal.

First waits and caps are those of the project's cloud reference, section 5; each refusal in a row
doubles the wait up to the cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.core.model import Cooldown, ErrorClass, Machine, Market, Offer, breaker_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """First wait and longest wait, in seconds."""

    first_s: float
    cap_s: float


_SPOT_CAPACITY = Rest(first_s=180, cap_s=1800)
_ON_DEMAND_CAPACITY = Rest(first_s=600, cap_s=3600)
_RESTS: Mapping[ErrorClass, Rest] = {
    ErrorClass.CAPACITY_REGION: Rest(first_s=600, cap_s=3600),
    ErrorClass.QUOTA: Rest(first_s=600, cap_s=21_600),
    ErrorClass.AUTH: Rest(first_s=900, cap_s=900),
    ErrorClass.INVALID: Rest(first_s=86_400, cap_s=86_400),
    ErrorClass.THROTTLE: Rest(first_s=1, cap_s=60),
    ErrorClass.TRANSIENT: Rest(first_s=1, cap_s=30),
}


def rest_key(offer: Offer, error_class: ErrorClass) -> str:
    """What rests after a refusal: one offer, a region, or the whole provider."""
    if error_class is ErrorClass.AUTH:
        return f"{offer.provider}/*"
    if error_class in (ErrorClass.CAPACITY_REGION, ErrorClass.THROTTLE):
        return f"{offer.provider}/{offer.region}/*"
    return offer.key


def next_rest(
    offer: Offer,
    error_class: ErrorClass,
    code: str,
    *,
    before: Cooldown | None,
    retry_after_s: float | None,
    now: datetime,
) -> Cooldown:
    """The cool-down after a refusal. `before` is the one stored under the same key, if any: it
    counts as "in a row" when it ended no longer ago than it lasted at most."""
    rest = _rest(offer, error_class)
    in_a_row = before is not None and now - before.until <= timedelta(seconds=rest.cap_s)
    count = before.count + 1 if before is not None and in_a_row else 1
    wait = min(rest.first_s * 2 ** min(count - 1, 30), rest.cap_s)
    return Cooldown(
        key=rest_key(offer, error_class),
        error_class=error_class,
        code=code,
        until=now + timedelta(seconds=max(wait, retry_after_s or 0)),
        count=count,
    )


def next_boot_failure(
    machine: Machine, *, before: Cooldown | None, window_s: int, now: datetime
) -> Cooldown:
    """Count a machine that did not boot; the breaker of its pool and offer opens by this count."""
    open_still = before is not None and before.until > now
    return Cooldown(
        key=breaker_key(machine.pool, machine.offer),
        error_class=ErrorClass.TRANSIENT,
        code="boot-failed",
        until=now + timedelta(seconds=window_s),
        count=before.count + 1 if before is not None and open_still else 1,
    )


def _rest(offer: Offer, error_class: ErrorClass) -> Rest:
    if error_class is ErrorClass.CAPACITY_ZONE:
        return _SPOT_CAPACITY if offer.market is Market.SPOT else _ON_DEMAND_CAPACITY
    return _RESTS[error_class]


def rests(offer: Offer, cooldowns: Mapping[str, Cooldown], now: datetime) -> list[Cooldown]:
    """The cool-downs that keep an offer from being tried now."""
    region = f"{offer.provider}/{offer.region}"
    keys = (offer.key, f"{region}/*", f"{offer.provider}/*")
    found = (cooldowns.get(key) for key in keys)
    return [rest for rest in found if rest is not None and rest.until > now]
