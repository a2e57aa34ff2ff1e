"""What the loop of this process has done since it started, in figures for Prometheus.

The store holds what is; how often something was tried, and how long a look took, nobody else keeps.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the durations that are counted together, in seconds."""

LAUNCHED, REFUSED, FAILED = "launched", "refused", "failed"
"""What a launch may come to: a machine; one offer's refusal; no machine of any offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One reading."""

    launches: Mapping[str, int]
    """By what they came to."""
    interruptions: int
    """Machines that their cloud took back."""
    looks: Sequence[int]
    """How many took at most each of `BOUNDS_S`, and longer than all of them."""
    looks_s: float
    """How long all of them took."""


class LoopFigures:
    """Counts; any number of threads may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._launches = Counter({LAUNCHED: 0, REFUSED: 0, FAILED: 0})
        self._interruptions = 0
        self._looks = [0] * (len(BOUNDS_S) + 1)
        self._looks_s = 0.0

    def launch(self, result: str) -> None:
        """A launch came to something."""
        with self._lock:
            self._launches[result] += 1

    def interruption(self) -> None:
        """A machine that its cloud took back is gone."""
        with self._lock:
            self._interruptions += 1

    def look(self, seconds: float) -> None:
        """A look at all autoscalers took so long."""
        with self._lock:
            self._looks[bisect_left(BOUNDS_S, seconds)] += 1
            self._looks_s += seconds

    def read(self) -> Figures:
        """All of it at one moment."""
        with self._lock:
            return Figures(
                launches=dict(self._launches),
                interruptions=self._interruptions,
                looks=tuple(self._looks),
                looks_s=self._looks_s,
            )
