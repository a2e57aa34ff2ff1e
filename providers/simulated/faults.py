"""What goes wrong between a caller and the simulated cloud: by script, by chance, by rate limit."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime

from providers.simulated.errors import refusal
from providers.simulated.spec import CloudSpec

ANY_CALL = ""
"""Stands for all of `offers`, `launch`, `launch_result`, `observe`, `sighting`, `terminate`."""


class Faults:
    """Decides for each call whether it fails before it acts, or loses its answer afterwards."""

    def __init__(self, stream: random.Random, spec: CloudSpec, start: datetime) -> None:
        self._random = stream
        self._spec = spec
        self._failures: list[tuple[str, str]] = []
        self._drops: Counter[str] = Counter()
        self._tokens = float(spec.calls_per_minute or 0)
        self._filled_at = start
        self.calls: Counter[str] = Counter()
        """All calls so far by name."""
        self.throttled = 0
        """How many of them met the rate limit."""

    def fail_next(self, code: str, times: int, call: str) -> None:
        """The next `times` calls of this name fail with `code` before they act."""
        self._failures += [(call, code)] * times

    def drop_next(self, times: int, call: str) -> None:
        """The next `times` calls of this name act, and their answer is lost."""
        self._drops[call] += times

    def before(self, call: str, now: datetime) -> None:
        """Raise when a call fails before it acts."""
        self.calls[call] += 1
        self._throttle(now)
        for index, (name, code) in enumerate(self._failures):
            if name in (ANY_CALL, call):
                del self._failures[index]
                raise refusal(code, f"the cloud refused to {call}")
        if self._happens(self._spec.error_rate):
            raise refusal("InternalError", f"the cloud failed to {call}")

    def after(self, call: str) -> None:
        """Raise when a call has acted and its answer is lost."""
        for name in (call, ANY_CALL):
            if self._drops[name]:
                self._drops[name] -= 1
                raise refusal("AnswerLost", f"no answer to {call}: connection closed")
        if self._happens(self._spec.lost_answer_rate):
            raise refusal("AnswerLost", f"no answer to {call}: connection closed")

    def unreadable(self) -> bool:
        """Whether a region leaves a listing unanswered, by chance."""
        return self._happens(self._spec.unreadable_region_rate)

    def _happens(self, rate: float) -> bool:
        # Without a rate nothing is drawn, so a calm cloud has the same path whatever is called.
        return rate > 0 and self._random.random() < rate

    def _throttle(self, now: datetime) -> None:
        limit = self._spec.calls_per_minute
        if limit is None:
            return
        per_second = limit / 60
        waited = (now - self._filled_at).total_seconds()
        self._tokens = min(float(limit), self._tokens + waited * per_second)
        self._filled_at = now
        if self._tokens < 1:
            self.throttled += 1
            wait_s = (1 - self._tokens) / per_second
            raise refusal("RequestLimitExceeded", "too many calls", retry_after_s=wait_s)
        self._tokens -= 1
