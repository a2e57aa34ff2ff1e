"""The brake on an API that says "too many calls". It lives in the store, by provider and region, so
that all threads, ticks and controllers slow down together, and a restart forgets nothing.
"""

from __future__ import annotations

from datetime import datetime

from control_plane.core.cooldowns import api_key, next_throttle, throttled
from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from control_plane.ports import Store


def resting(store: Store, provider: str, region: str, now: datetime) -> bool:
    """Whether calls to a region (empty = to the whole provider) are to be left out for now."""
    return throttled(provider, region, {each.key: each for each in store.cooldown_list()}, now)


def heed(store: Store, error: ProviderError, provider: str, region: str, now: datetime) -> None:
    """Let calls rest when this is what the provider asks for; other errors change nothing."""
    if error.error_class is not ErrorClass.THROTTLE:
        return
    key = api_key(provider, region)
    before = next((each for each in store.cooldown_list() if each.key == key), None)
    store.cooldown_put(
        next_throttle(
            key, error.raw_code, before=before, retry_after_s=error.retry_after_s, now=now
        )
    )
