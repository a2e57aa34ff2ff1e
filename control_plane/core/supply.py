"""What waiting jobs can be put on: machines that serve, and machines that are coming.

Machines that serve and have the same room are one group, so packing a hundred thousand jobs onto
ten thousand machines costs as many steps as there are different shapes, not as there are jobs or
machines.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from control_plane.core.model import Capacity, Market, Need


class Rank(IntEnum):
    """How soon a machine serves; lower ones are filled first."""

    READY = 0
    BOOTING = 1
    """Booting, launched, or about to be."""


@dataclass(slots=True)
class _Coming:
    pool: str
    rank: Rank
    machine_id: str
    free: Capacity


class Supply:
    """Room for jobs, by pool. Filling it is the packing."""

    def __init__(self) -> None:
        self._ready: dict[str, dict[Capacity, list[str]]] = defaultdict(dict)
        self._coming: list[_Coming] = []

    def add(self, pool: str, rank: Rank, machine_id: str, free: Capacity) -> None:
        """A machine of a pool has this much left. Those that do not serve yet are filled in the
        order in which they are added."""
        if rank is Rank.READY:
            insort(self._ready[pool].setdefault(free, []), machine_id)
        else:
            self._coming.append(_Coming(pool, rank, machine_id, free))

    def take(self, pools: Sequence[str], need: Need, count: int) -> dict[Rank, dict[str, int]]:
        """Put up to `count` jobs of one need onto the machines of some pools, the preferred pool
        first; returns how many went to which machine.

        Of the machines that serve the fuller come first, so that empty ones can go idle and end. Of
        those that are coming the older come first: a plan made again then finds for every job the
        very machine that was bought for it, and buys no second one.
        """
        taken: dict[Rank, dict[str, int]] = defaultdict(dict)
        for rank, machine_id, jobs in self._walk(pools, need, count):
            taken[rank][machine_id] = jobs
        return taken

    def _walk(
        self, pools: Sequence[str], need: Need, count: int
    ) -> Iterator[tuple[Rank, str, int]]:
        for pool in pools:
            for free in sorted(self._ready[pool], key=_fullest_first):
                for machine_id, jobs in self._fill(pool, free, need, count):
                    yield Rank.READY, machine_id, jobs
                    count -= jobs
        for machine in self._coming:
            jobs = min(count, machine.free.count(need)) if machine.pool in pools else 0
            if jobs > 0:
                machine.free = machine.free.less(need, jobs)
                yield machine.rank, machine.machine_id, jobs
                count -= jobs

    def _fill(self, pool: str, free: Capacity, need: Need, count: int) -> list[tuple[str, int]]:
        each = free.count(need)
        if each == 0 or count == 0:
            return []
        groups = self._ready[pool]
        ids = groups.pop(free)
        machines = min(len(ids), -(-count // each))
        if ids[machines:]:
            groups[free] = ids[machines:]
        filled = []
        for machine_id in ids[:machines]:
            jobs = min(each, count)
            count -= jobs
            self.add(pool, Rank.READY, machine_id, free.less(need, jobs))
            filled.append((machine_id, jobs))
        return filled


def _fullest_first(free: Capacity) -> tuple[object, ...]:
    """Spot before on-demand, which some jobs cannot do without; then by what is left."""
    return (
        free.market is Market.ON_DEMAND,
        free.gpus,
        free.share_ppm,
        free.cpus,
        free.memory_mib,
        free.disk_gib,
        free.gpu_name,
        free.gpu_memory_gib,
    )
