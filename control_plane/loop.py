"""The reconciler's thread on one machine: woken by what happens, and each minute anyway."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from control_plane.reconcile import Reconciler

log = logging.getLogger("orchctl.loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the loop looks, in seconds."""

    at_least_s: float = 60.0
    """Level-triggered: repairs whatever wake-up was lost."""
    unsettled_s: float = 1.0
    """While a machine is on its way in or out."""
    settle_s: float = 0.05
    """After a wake-up: what comes in a burst is looked at once."""


class Loop:
    """Runs a reconciler until it is stopped."""

    def __init__(
        self, reconciler: Reconciler, pace: Pace, ticked: Callable[[], None] = lambda: None
    ) -> None:
        """`ticked` is called after every look, for whoever waits to see its result."""
        self._reconciler = reconciler
        self._pace = pace
        self._ticked = ticked
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        """Begin; the first look is at once."""
        self._thread.start()

    def wake(self) -> None:
        """Look soon. Cheap, and callable from any thread."""
        self._woken.set()

    def stop(self) -> None:
        """End after the current look and wait for it."""
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            pause = self._look()
            self._ticked()
            self._woken.wait(pause)
            self._stopped.wait(self._pace.settle_s)

    def _look(self) -> float:
        try:
            ticks = self._reconciler.tick()
        except Exception:
            # The store itself does not answer: nothing can be noted there. Try again soon.
            log.exception("a look failed")
            return self._pace.unsettled_s
        for tick in ticks:
            for error in tick.done.errors if tick.done else ():
                log.warning("%s: %s", tick.autoscaler, error)
        unsettled = any(tick.unsettled for tick in ticks)
        return self._pace.unsettled_s if unsettled else self._pace.at_least_s
