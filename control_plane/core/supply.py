"""What waiting jobs can be put on: machines grouped by what they have left.

Machines with the same room are one group, so packing a hundred thousand jobs onto ten thousand
machines costs as many steps as there are different shapes, not as there are jobs or machines.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from enum import IntEnum

from control_plane.core.model import Capacity, Need


class Rank(IntEnum):
    """How soon a machine serves; lower ones are filled first."""

    READY = 0
    BOOTING = 1
    NEW = 2


class Supply:
    """Room for jobs, by pool. Filling it is the packing."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[tuple[Rank, Capacity], list[str]]] = defaultdict(dict)

    def add(self, pool: str, rank: Rank, machine_id: str, free: Capacity) -> None:
        """A machine of a pool has this much left."""
        ids = self._rooms[pool].setdefault((rank, free), [])
        insort(ids, machine_id)

    def take(self, pool: str, need: Need, count: int) -> dict[Rank, dict[str, int]]:
        """Put up to `count` jobs of one need onto a pool's machines; returns how many went to which
        machine. Fuller machines come first, so that empty ones can go idle and end."""
        taken: dict[Rank, dict[str, int]] = defaultdict(dict)
        for rank, free in sorted(self._rooms[pool], key=_fullest_first):
            each = free.count(need)
            if count <= 0:
                break
            if each == 0:
                continue
            for machine_id, jobs in self._fill(pool, rank, free, need, each, count):
                taken[rank][machine_id] = jobs
                count -= jobs
        return taken

    def _fill(
        self, pool: str, rank: Rank, free: Capacity, need: Need, each: int, count: int
    ) -> list[tuple[str, int]]:
        rooms = self._rooms[pool]
        ids = rooms[(rank, free)]
        machines = min(len(ids), -(-count // each))
        chosen, rest = ids[:machines], ids[machines:]
        if rest:
            rooms[(rank, free)] = rest
        else:
            del rooms[(rank, free)]
        filled = []
        for machine_id in chosen:
            jobs = min(each, count)
            count -= jobs
            self.add(pool, rank, machine_id, free.less(need, jobs))
            filled.append((machine_id, jobs))
        return filled


def _fullest_first(key: tuple[Rank, Capacity]) -> tuple[object, ...]:
    rank, free = key
    return (
        rank,
        free.gpus,
        free.share_ppm,
        free.cpus,
        free.memory_mib,
        free.disk_gib,
        free.gpu_name,
        free.gpu_memory_gib,
        free.market,
    )
