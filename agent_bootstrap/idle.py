"""The timers that end a machine from inside, whatever the control plane does.

Pure: time comes from the clock given, a monotonic one, in seconds.
"""

from __future__ import annotations

from typing import Callable

from agent_bootstrap.wire import Advice


class Timers:
    """Since when the machine lives, is idle, and has heard nothing; and which limit that breaks.

    `boot_timeout_s` and `max_lifetime_s` hold before the control plane has given any advice; of two
    life limits the shorter one counts."""

    def __init__(
        self, clock: Callable[[], float], *, boot_timeout_s: float, max_lifetime_s: float
    ) -> None:
        self._clock = clock
        self._boot_timeout_s = boot_timeout_s
        self._max_lifetime_s = max_lifetime_s
        self._started = clock()
        self._heard = self._started
        self._idle_since = self._started
        self._busy = False
        self._registered = False
        self.advice = Advice(max_lifetime_s=max_lifetime_s)

    def registered(self, advice: Advice) -> None:
        """The machine is known now: idle time and contact begin to count."""
        self.advice = advice
        self._registered = True
        self._heard = self._idle_since = self._clock()

    def heard(self) -> None:
        """The control plane answered."""
        self._heard = self._clock()

    def busy(self) -> None:
        """Something runs."""
        self._busy = True

    def idle(self) -> None:
        """Nothing runs: the idle time starts anew."""
        self._busy = False
        self._idle_since = self._clock()

    def silence_s(self) -> float:
        """For how long the control plane has not answered."""
        return self._clock() - self._heard

    def idle_left_s(self) -> float:
        """Until the machine has been idle for too long; infinite while it is busy or may stay."""
        if self._busy or self.advice.idle_timeout_s < 0:
            return float("inf")
        return self._idle_since + self.advice.idle_timeout_s - self._clock()

    def boot_over(self) -> bool:
        """Not registered in time."""
        return not self._registered and self._age_s() >= self._boot_timeout_s

    def contact_lost(self) -> bool:
        """Registered, and not heard of for too long."""
        return self._registered and self.silence_s() >= self.advice.contact_timeout_s

    def life_over(self) -> bool:
        """Older than the machine may become."""
        return self._age_s() >= min(self._max_lifetime_s, self.advice.max_lifetime_s)

    def _age_s(self) -> float:
        return self._clock() - self._started
