"""An answer that waits: a fake has done what it was asked, and the caller does not hear of it."""

from __future__ import annotations

import threading


class Holds:
    """Which answer waits. Any number of threads may use it."""

    def __init__(self) -> None:
        self.held = ""
        """The call whose answer waits now; empty = none."""
        self._lock = threading.Condition()
        self._calls: tuple[str, ...] = ()
        self._left = 0

    def hold_next(self, *calls: str, skip: int = 0) -> None:
        """The answer to the next call of one of these names (none = any) waits for `release`; so
        many go out first."""
        with self._lock:
            self._calls, self._left = calls, skip + 1

    def release(self) -> None:
        """Let it go out, and hold no more."""
        with self._lock:
            self._left, self.held = 0, ""
            self._lock.notify_all()

    def before_answer(self, call: str) -> None:
        """Called by a fake that is about to answer."""
        with self._lock:
            if not self._left or (self._calls and call not in self._calls):
                return
            self._left -= 1
            if self._left:
                return
            self.held = call
            self._lock.wait_for(lambda: not self.held)
