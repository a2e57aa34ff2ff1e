"""Rounds: every phase once, between two looks at what the disk can do right now.

A disk's fsync rate can change twentyfold within the hour, so no figure is compared across rounds,
and a round in which the disk itself changed is not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.work import Phase

UNSTEADY = 2.0
"""A round whose floor differs more than this between its two ends is skipped."""
PATIENCE = 3
"""Tries per round that is wanted; a disk that never settles must not keep us for ever."""
FLOOR_S = 0.4
_BLOCK = bytes(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run of every phase; floors in fdatasync per second."""

    phases: Mapping[str, Phase]
    floor_before: float
    floor_after: float

    @property
    def steady(self) -> bool:
        low, high = sorted((self.floor_before, self.floor_after))
        return high <= low * UNSTEADY


def floor(folder: Path) -> float:
    """How often per second a file grows durably by 4 KiB here."""
    path = folder / "floor"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    count = 0
    began = now = time.perf_counter()
    while now < began + FLOOR_S:
        os.write(handle, _BLOCK)
        os.fdatasync(handle)
        count += 1
        now = time.perf_counter()
    os.close(handle)
    path.unlink()
    return count / (now - began)


def run(
    phases: Mapping[str, Callable[[], Phase]], rounds: int, look: Callable[[], float]
) -> tuple[Sequence[Round], Sequence[Round]]:
    """Measure until `rounds` steady ones are there or patience ends; returns the steady and the
    skipped ones. Every second round runs backwards, so a drift favours nobody."""
    steady: list[Round] = []
    skipped: list[Round] = []
    while len(steady) < rounds and len(steady) + len(skipped) < rounds * PATIENCE:
        order = list(phases)[:: 1 if len(steady) % 2 == 0 else -1]
        before = look()
        done = {name: phases[name]() for name in order}
        made = Round(phases=done, floor_before=before, floor_after=look())
        (steady if made.steady else skipped).append(made)
    return steady, skipped
