"""What rests after a refusal, and the brake on an API that says "too many calls". Both live in the
store, by provider and region, so that all threads, ticks and controllers slow down together, and a
restart forgets nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime

from control_plane.core.cooldowns import api_key, next_throttle, throttled
from control_plane.core.model import Cooldown, ErrorClass
from control_plane.errors import ProviderError
from control_plane.ports import Store


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


def heed(rests: Rests, error: ProviderError, provider: str, region: str, now: datetime) -> None:
    """Let calls rest when this is what the provider asks for; other errors change nothing."""
    if error.error_class is not ErrorClass.THROTTLE:
        return
    key = api_key(provider, region)
    before = rests.known.get(key)
    rests.put(
        next_throttle(
            key, error.raw_code, before=before, retry_after_s=error.retry_after_s, now=now
        )
    )
