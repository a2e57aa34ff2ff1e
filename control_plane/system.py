"""The real clock, real ids and real offers: adapters small enough to share a room."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from control_plane.core.job_ids import TIME_DIGITS, base32
from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy, merged
from control_plane.ports import Provider


class SystemClock:
    """`ports.Clock` on this computer's clock; a clock set back makes it stand still, not go
    back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        with self._lock:
            now = datetime.now(UTC)
            if now > self._latest:
                self._latest = now
            return self._latest

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class TimeOrderedIds:
    """`ports.Ids`: milliseconds since 1970, then chance, in base 32."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._latest_ms = 0

    def new(self, prefix: str) -> str:
        # Counting on within one millisecond keeps ids of one process in the order they were made.
        with self._lock:
            self._latest_ms = max(self._latest_ms + 1, int(self._now().timestamp() * 1000))
            moment = self._latest_ms
        return f"{prefix}-{base32(moment, TIME_DIGITS)}{base32(secrets.randbits(20), 4)}"


_ASK_AGAIN = timedelta(minutes=1)
"""After a provider did not answer: prices are needed at every look, but a cloud that is in trouble
is not asked that often."""


class LivePrices:
    """`ports.PriceBook`: offers from the providers that are set up, from the shipped catalogue for
    the others and before a provider was asked, so that a document can be checked and priced before
    any credentials exist, and no request waits for a cloud."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        catalogue: Callable[[Sequence[str]], Sequence[Offer]],
        now: Callable[[], datetime],
        *,
        keep: timedelta = timedelta(minutes=5),
    ) -> None:
        self._providers = providers
        self._catalogue = catalogue
        self._now = now
        self._keep = keep
        self._lock = threading.Lock()
        self._due: dict[str, datetime] = {}
        """When each cloud is to be asked again."""
        self._known: dict[str, Sequence[Offer]] = {}

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        return [offer for cloud in merged(clouds) for offer in self._of(cloud)]

    def refresh(self, clouds: Sequence[CloudPolicy]) -> None:
        for cloud in merged(clouds):
            if cloud.provider not in self._providers or not self._is_due(cloud):
                continue
            try:
                fresh = self._providers[cloud.provider].offers([cloud])
            except Exception:  # noqa: BLE001 - one that fails in any way keeps its last offers
                with self._lock:
                    self._due[repr(cloud)] = self._now() + _ASK_AGAIN
            else:
                with self._lock:
                    self._known[repr(cloud)] = fresh

    def _is_due(self, cloud: CloudPolicy) -> bool:
        """Whether a cloud is to be asked now; whoever hears so asks, and nobody else."""
        now, name = self._now(), repr(cloud)
        with self._lock:
            if now < self._due.get(name, now):
                return False
            self._due[name] = now + self._keep
            return True

    def _of(self, cloud: CloudPolicy) -> Sequence[Offer]:
        with self._lock:
            known = self._known.get(repr(cloud))
        if known is not None:
            return known
        provider = self._providers.get(cloud.provider)
        if provider is None:
            return self._catalogue([cloud.provider])
        try:
            return provider.offers([])
        except Exception:  # noqa: BLE001 - what it sells is unknown, whatever went wrong
            return ()
