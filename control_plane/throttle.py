"""What rests after a refusal, the brake on an API that says "too many calls", and the pace that
keeps it from saying so. All live in the store, by provider and region, so that all threads, ticks
and controllers slow down together, and a restart forgets nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from control_plane.core.cooldowns import api_key, next_throttle, throttled
from control_plane.core.model import Cooldown, ErrorClass
from control_plane.core.pacing import Bucket, Pace, can_slow, full, slowed, taken
from control_plane.errors import Conflict, ProviderError
from control_plane.ports import Clock, Limits, Paced, Provider, Store

T = TypeVar("T")

CHUNK = 32
"""So many calls are taken out of a bucket at once; what a look takes and does not make is lost."""
TRIES = 8
"""Of writing a bucket that other controllers write too; then its calls wait for the next look."""


class Rests:
    """The cool-downs as they were last read, with what was written here since. Controllers alone
    write any, so whoever acts as the only one knows them all; another autoscaler's controller may
    have added one, which costs a refused call and no more."""

    def __init__(self, store: Store, known: Iterable[Cooldown]) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.known: Mapping[str, Cooldown] = _by_key(known)
        """All of them by key, over or not; never changed, only replaced."""

    def read_again(self) -> None:
        """Take in what others have written since."""
        self.known = _by_key(self._store.cooldown_list())

    def put(self, cooldown: Cooldown) -> None:
        """Write or replace one. Any number of threads may do so."""
        self._store.cooldown_put(cooldown)
        with self._lock:
            self.known = {**self.known, cooldown.key: cooldown}


def _by_key(cooldowns: Iterable[Cooldown]) -> Mapping[str, Cooldown]:
    return {each.key: each for each in cooldowns}


def resting(rests: Rests, provider: str, region: str, now: datetime) -> bool:
    """Whether calls to a region (empty = to the whole provider) are to be left out for now."""
    return throttled(provider, region, rests.known, now)


def heed(
    rests: Rests,
    error: ProviderError,
    provider: str,
    region: str,
    now: datetime,
    *,
    grows: bool = True,
) -> None:
    """Let calls rest when this is what the provider asks for, longer each time if the rest `grows`;
    other errors change nothing."""
    if error.error_class is not ErrorClass.THROTTLE:
        return
    key = api_key(provider, region)
    before = rests.known.get(key)
    rests.put(
        next_throttle(
            key,
            error.raw_code,
            before=before,
            retry_after_s=error.retry_after_s,
            now=now,
            grows=grows,
        )
    )


class CallKind(StrEnum):
    """What a cloud counts apart. Whoever asks what becomes of many launches does not keep machines
    from being ended."""

    LAUNCH = "launches"
    RESULT = "results"
    END = "ends"


@dataclass(slots=True)
class _Held:
    """What one look has of a bucket."""

    tokens: int = 0
    empty: bool = False
    slowed: bool = False
    gave_way: bool = False


@dataclass(frozen=True, slots=True)
class Pacer:
    """The calls that one look may make. What is expected is taken out of a shared bucket at once,
    so a thousand launches cost the store a write, not a thousand."""

    store: Store
    clock: Clock
    providers: Mapping[str, Provider]
    _expected: Counter[str] = field(default_factory=Counter)
    _held: dict[str, _Held] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, kind: CallKind, provider: str, region: str) -> None:
        """Say that one more call will be asked for, before the first is."""
        self._expected[_bucket_key(kind, provider, region)] += 1

    def may(self, kind: CallKind, provider: str, region: str) -> bool:
        """Whether one more call may be made now; if not, it is the next look's."""
        pace = self._pace(kind, provider)
        if pace is None:
            return True
        key = _bucket_key(kind, provider, region)
        with self._lock:
            held = self._held.setdefault(key, _Held())
            if not held.tokens and not held.empty:
                # As many as are expected and not yet taken; at least this one.
                want = min(max(self._expected[key], 1), CHUNK)
                held.tokens = self._take(key, pace, want)
                held.empty = held.tokens < want
            allowed = held.tokens > 0
            held.tokens -= int(allowed)
            self._expected[key] -= int(allowed)
            return allowed

    def spent(self, kind: CallKind, provider: str, region: str) -> bool:
        """Whether this look is known to have no call left."""
        held = self._held.get(_bucket_key(kind, provider, region))
        return held is not None and held.empty and not held.tokens

    def refused(self, kind: CallKind, provider: str, region: str) -> bool:
        """The cloud says that calls came too fast; whether the pace gives way. Where it does not,
        being slower is no cure: the API needs a rest that grows. Calls under way when it first
        refused one in this look say nothing new."""
        pace = self._pace(kind, provider)
        if pace is None:
            return False
        key = _bucket_key(kind, provider, region)
        with self._lock:
            held = self._held.setdefault(key, _Held())
            if not held.slowed:
                held.gave_way = bool(
                    self._change(key, pace, lambda bucket: self._slow(bucket, pace))
                )
            held.tokens, held.empty, held.slowed = 0, True, True
            return held.gave_way

    def _take(self, key: str, pace: Pace, want: int) -> int:
        now = self.clock.now()
        return self._change(key, pace, lambda bucket: taken(bucket, pace, want, now)) or 0

    def _slow(self, bucket: Bucket, pace: Pace) -> tuple[Bucket, bool]:
        return slowed(bucket, pace, self.clock.now()), can_slow(bucket, pace)

    def _change(
        self, key: str, pace: Pace, change: Callable[[Bucket], tuple[Bucket, T]]
    ) -> T | None:
        """Change a bucket and return what `change` says; None when others write it all the time."""
        for _ in range(TRIES):
            bucket = self.store.bucket_get(key) or full(key, pace, self.clock.now())
            changed, got = change(bucket)
            try:
                self.store.bucket_put(replace(changed, version=bucket.version + 1))
            except Conflict:
                continue
            return got
        return None

    def _pace(self, kind: CallKind, provider: str) -> Pace | None:
        limits = _limits(self.providers.get(provider))
        if limits is None:
            return None
        return limits.launches if kind is CallKind.LAUNCH else limits.requests


def _limits(provider: Provider | None) -> Limits | None:
    return provider.limits if isinstance(provider, Paced) else None


def _bucket_key(kind: CallKind, provider: str, region: str) -> str:
    return f"{provider}/{region}/{kind}"
