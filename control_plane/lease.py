"""The controller lease in the hands of the one who acts."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from control_plane.errors import FencedOut
from control_plane.ports import Clock, Fence, Store

LEASE_TTL_S = 120.0
"""How long a controller that died while it acted keeps others out, and how old a look may be that
is acted on. One that works for longer renews it on its way."""

_KEPT = timedelta(seconds=LEASE_TTL_S / 2)
"""What is left of it at least when a cloud is called: more than any call may take."""


class Lease:
    """Held by this controller, until another one has it."""

    def __init__(self, store: Store, clock: Clock, fence: Fence, until: datetime) -> None:
        self.fence = fence
        self._store = store
        self._clock = clock
        self._until = until
        self._lock = threading.Lock()

    def keep(self) -> None:
        """Make sure before what no fence can guard, such as a cloud call, that it will hold for the
        next minute. Any number of threads may ask. Raises `FencedOut` when another controller has
        taken over."""
        with self._lock:
            now = self._clock.now()
            if self._until - now >= _KEPT:
                return
            name, owner = self.fence.name, self.fence.owner
            if self._store.lease_take(name, owner, ttl_s=LEASE_TTL_S, now=now) != self.fence:
                raise FencedOut(f"another controller has taken over {name}")
            self._until = now + timedelta(seconds=LEASE_TTL_S)

    def release(self) -> None:
        """Give it back."""
        self._store.lease_release(self.fence)


def take_lease(store: Store, clock: Clock, name: str, owner: str, *, generation: int) -> Lease:
    """The lease of this name, if nobody has held it since its generation was read. Raises
    `FencedOut`."""
    now = clock.now()
    fence = store.lease_take(
        name, owner, ttl_s=LEASE_TTL_S, now=now, expected_generation=generation
    )
    if fence is None:
        raise FencedOut(f"another controller has held {name} meanwhile")
    return Lease(store, clock, fence, now + timedelta(seconds=LEASE_TTL_S))
