"""How long a refused offer rests, by the class of the refusal.

First waits and caps are those of the project's cloud reference, section 5; each refusal in a row
doubles the wait up to the cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """What rests after a refusal: one offer, the same in all zones of its region, or all of a
    region. Rights may be missing in one region alone: one that is not enabled says so in the same
    words as an account that may do nothing."""
    if error_class in (ErrorClass.AUTH, ErrorClass.THROTTLE):
        return api_key(offer.provider, offer.region)
    if error_class is ErrorClass.CAPACITY_REGION:
        return _in_all_zones(offer)
    return offer.key


def next_rest(
    offer: Offer,
    error_class: ErrorClass,
    code: str,
    *,
    before: Cooldown | None,
    retry_after_s: float | None,
    now: datetime,
    key: str = "",
    grows: bool = True,
) -> Cooldown:
    """The cool-down after a refusal, of what `rest_key` says unless a `key` is given. `before` is
    the one stored under the same key, if any: it counts as "in a row" when it was of the same class
    and ended no longer ago than it lasted at most, unless the rest is not to be one that `grows`. A
    longer rest that stands is kept: a hiccup does not cut short a lack of capacity."""
    return _grown(
        key or rest_key(offer, error_class),
        error_class,
        code,
        rest=_rest(offer, error_class),
        before=before,
        retry_after_s=retry_after_s,
        now=now,
        grows=grows,
    )


def api_key(provider: str, region: str = "") -> str:
    """What rests when an API asks for fewer calls: a region, or without one the whole provider."""
    return f"{provider}/{region}/*" if region else f"{provider}/*"


def next_throttle(
    key: str,
    code: str,
    *,
    before: Cooldown | None,
    retry_after_s: float | None,
    now: datetime,
    grows: bool = True,
) -> Cooldown:
    """The cool-down of an API (`api_key`) that answered "too many calls"."""
    return _grown(
        key,
        ErrorClass.THROTTLE,
        code,
        rest=_RESTS[ErrorClass.THROTTLE],
        before=before,
        retry_after_s=retry_after_s,
        now=now,
        grows=grows,
    )


def throttled(provider: str, region: str, cooldowns: Mapping[str, Cooldown], now: datetime) -> bool:
    """Whether calls to a region (empty = to all of the provider) are to be left out for now."""
    found = [cooldowns.get(key) for key in {api_key(provider), api_key(provider, region)}]
    return any(
        rest is not None and rest.error_class is ErrorClass.THROTTLE and rest.until > now
        for rest in found
    )


def _grown(
    key: str,
    error_class: ErrorClass,
    code: str,
    *,
    rest: Rest,
    before: Cooldown | None,
    retry_after_s: float | None,
    now: datetime,
    grows: bool,
) -> Cooldown:
    same = before if before is not None and before.error_class is error_class else None
    if same is not None and same.until > now:
        # It answers a call that was under way when the rest began, and counts with that refusal.
        return replace(same, until=max(same.until, now + timedelta(seconds=retry_after_s or 0)))
    in_a_row = same is not None and now - same.until <= timedelta(seconds=rest.cap_s)
    count = same.count + 1 if same is not None and in_a_row and grows else 1
    wait = min(rest.first_s * 2 ** min(count - 1, 30), rest.cap_s)
    until = now + timedelta(seconds=max(wait, retry_after_s or 0))
    if before is not None and before.until > until:
        return before
    return Cooldown(key=key, error_class=error_class, code=code, until=until, count=count)


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
    found = (cooldowns.get(key) for key in _keys(offer))
    return [rest for rest in found if rest is not None and rest.until > now]


def last_refusal(offer: Offer, cooldowns: Mapping[str, Cooldown]) -> str:
    """The code of the last refusal that concerned an offer, over or not; empty if there is none."""
    found = (cooldowns.get(key) for key in _keys(offer))
    last = max((each for each in found if each), key=lambda each: each.until, default=None)
    return last.code if last else ""


def _keys(offer: Offer) -> tuple[str, ...]:
    return (
        offer.key,
        _in_all_zones(offer),
        api_key(offer.provider, offer.region),
        api_key(offer.provider),
    )


def _in_all_zones(offer: Offer) -> str:
    return replace(offer, zone="").key
