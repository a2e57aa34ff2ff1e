"""What waiting jobs can be put on: machines that serve, and machines that are coming.

Machines that have the same room are one group, so packing a hundred thousand jobs onto ten thousand
machines costs as many steps as there are different rooms, not as there are jobs or machines. A room
is a plain tuple, since packing does little else than compare and subtract them.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import IntEnum
from heapq import merge
from itertools import repeat
from typing import Generic, TypeVar

from control_plane.core.model import Capacity, Market, Need


class Rank(IntEnum):
    """How soon a machine serves; lower ones are filled first."""

    READY = 0
    BOOTING = 1
    """Booting, launched, or about to be."""


Amounts = tuple[int, int, int, int, int]
"""What jobs use up: GPUs, share, CPUs, memory, disk."""

NOTHING: Amounts = (0, 0, 0, 0, 0)

Room = tuple[bool, Amounts, str, int]
"""On demand or not, what is left, the GPUs' name and their memory. The order of rooms is that in
which machines are filled: spot before on-demand, which some jobs cannot do without; then by what is
left, the fullest first."""

_ON_DEMAND = Market.ON_DEMAND
_Place = TypeVar("_Place", str, int)
"""What decides between machines with the same room."""


class Supply:
    """Room for jobs, by pool. Filling it is the packing."""

    def __init__(self) -> None:
        self._ready: dict[str, _Rooms[str]] = defaultdict(_Rooms)
        self._coming: dict[str, _Rooms[int]] = defaultdict(_Rooms)
        self._coming_ids: list[str] = []

    def add(self, pool: str, rank: Rank, room: Room, machine_ids: Sequence[str]) -> None:
        """Machines of a pool, in the order of their ids, have this much room each. Those that do
        not serve yet are filled in the order in which they are added."""
        if rank is Rank.READY:
            self._ready[pool].add(room, machine_ids)
        else:
            first = len(self._coming_ids)
            self._coming_ids += machine_ids
            self._coming[pool].add(room, range(first, len(self._coming_ids)))

    def take(self, pools: Sequence[str], need: Need, count: int) -> dict[Rank, dict[str, int]]:
        """Put up to `count` jobs of one need onto the machines of some pools, the preferred pool
        first; returns how many went to which machine.

        Of the machines that serve the fuller come first, so that empty ones can go idle and end. Of
        those that are coming the older come first: a plan made again then finds for every job the
        very machine that was bought for it, and buys no second one.
        """
        ready = self._take_ready(pools, need, count)
        left = count - sum(ready.values())
        coming = self.take_coming(pools, need, left) if left else {}
        taken = {Rank.READY: ready, Rank.BOOTING: coming}
        return {rank: machines for rank, machines in taken.items() if machines}

    def _take_ready(self, pools: Sequence[str], need: Need, count: int) -> dict[str, int]:
        wanted = _Wanted(need)
        taken: dict[str, int] = {}
        for pool in pools:
            rooms = self._ready[pool]
            for room, each in rooms.fitting(wanted):
                filled = rooms.fill(room, wanted, each, count)
                taken |= filled
                count -= sum(filled.values())
                if count == 0:
                    return taken
        return taken

    def take_coming(self, pools: Sequence[str], need: Need, count: int) -> dict[str, int]:
        """The same with machines that are coming alone."""
        wanted = _Wanted(need)
        taken: dict[str, int] = {}
        for rooms, room, each, jobs in self._shares(pools, wanted, count):
            filled = rooms.fill(room, wanted, each, jobs)
            taken |= {self._coming_ids[place]: here for place, here in filled.items()}
        return taken

    def _shares(
        self, pools: Sequence[str], wanted: _Wanted, count: int
    ) -> list[tuple[_Rooms[int], Room, int, int]]:
        """How many jobs each room gets of machines that are coming, the oldest machine of all
        filled first."""
        fitting = [
            (rooms, room, each)
            for rooms in (self._coming[pool] for pool in pools)
            for room, each in rooms.fitting(wanted)
        ]
        jobs = [0] * len(fitting)
        places = (rooms.places(room) for rooms, room, _ in fitting)
        for _, at in merge(*(zip(each, repeat(at)) for at, each in enumerate(places))):
            if count == 0:
                break
            put = min(count, fitting[at][2])
            jobs[at] += put
            count -= put
        return [(*found, put) for found, put in zip(fitting, jobs, strict=True) if put]


class _Wanted:
    """One need, made ready to be held against many rooms."""

    def __init__(self, need: Need) -> None:
        self.need = need
        self._parts = [(at, amount) for at, amount in enumerate(amounts_of(need)) if amount > 0]
        self._will_do: dict[tuple[bool, str, int], bool] = {}

    def fitting(self, rooms: Sequence[Room]) -> Iterator[tuple[Room, int]]:
        """The rooms that hold at least one such job, and how many: `Capacity.count`."""
        for room in rooms if self._parts else ():
            left, each = room[1], sys.maxsize
            for at, amount in self._parts:
                fits = left[at] // amount
                if fits < each:
                    each = fits
                    if fits == 0:
                        break
            if each and self._suits(room):
                yield room, each

    def _suits(self, room: Room) -> bool:
        """Whether a machine of this kind will do, however much it has left."""
        on_demand, _, gpu_name, gpu_memory_gib = room
        kind = on_demand, gpu_name, gpu_memory_gib
        if kind not in self._will_do:
            just_enough = Capacity(
                gpus=self.need.gpus,
                gpu_name=gpu_name,
                gpu_memory_gib=gpu_memory_gib,
                cpus=self.need.cpus,
                memory_mib=self.need.memory_mib,
                disk_gib=self.need.disk_gib,
                share_ppm=self.need.share_ppm,
                market=Market.ON_DEMAND if on_demand else Market.SPOT,
            )
            self._will_do[kind] = just_enough.fits(self.need)
        return self._will_do[kind]


class _Rooms(Generic[_Place]):
    """Machines of one pool by their room, in the order of rooms; equal ones by their place."""

    def __init__(self) -> None:
        self._order: list[Room] = []
        self._places: dict[Room, list[_Place]] = {}

    def add(self, room: Room, places: Sequence[_Place]) -> None:
        """Machines, given in the order of their places, have this room now."""
        here = self._places.get(room)
        if here is None:
            insort(self._order, room)
            self._places[room] = list(places)
            return
        apart = here[-1] < places[0]
        here += places
        if not apart:
            here.sort()

    def places(self, room: Room) -> Sequence[_Place]:
        return self._places[room]

    def fitting(self, wanted: _Wanted) -> Iterator[tuple[Room, int]]:
        """The rooms that hold at least one job, and how many one machine holds. A room may be
        filled before the next one is asked for."""
        return wanted.fitting(tuple(self._order))

    def fill(self, room: Room, wanted: _Wanted, each: int, jobs: int) -> dict[_Place, int]:
        """Put up to `jobs` jobs onto the machines of one room, `each` on all but the last; returns
        how many went where."""
        places = self._places[room]
        full, rest = divmod(min(jobs, each * len(places)), each)
        filled = dict.fromkeys(places[:full], each)
        if full:
            self.add(less(room, wanted.need, each), places[:full])
        if rest:
            filled[places[full]] = rest
            self.add(less(room, wanted.need, rest), places[full : full + 1])
        self._keep(room, places[len(filled) :])
        return filled

    def _keep(self, room: Room, places: list[_Place]) -> None:
        """Only these machines of a room still have it."""
        if places:
            self._places[room] = places
        else:
            del self._places[room]
            del self._order[bisect_left(self._order, room)]


def amounts_of(need: Need) -> Amounts:
    """What one job of this need uses up."""
    return need.gpus, need.share_ppm, need.cpus, need.memory_mib, need.disk_gib


def both(some: Amounts, more: Amounts) -> Amounts:
    """The sum of two."""
    gpus, share_ppm, cpus, memory_mib, disk_gib = some
    return (
        gpus + more[0],
        share_ppm + more[1],
        cpus + more[2],
        memory_mib + more[3],
        disk_gib + more[4],
    )


def room_of(total: Capacity, used: Amounts = NOTHING) -> Room:
    """What a machine has left of all it has; never below zero."""
    gpus, share_ppm, cpus, memory_mib, disk_gib = used
    left = (
        total.gpus - gpus,
        total.share_ppm - share_ppm,
        total.cpus - cpus,
        total.memory_mib - memory_mib,
        total.disk_gib - disk_gib,
    )
    if min(left) < 0:
        gpus, share_ppm, cpus, memory_mib, disk_gib = left
        left = max(0, gpus), max(0, share_ppm), max(0, cpus), max(0, memory_mib), max(0, disk_gib)
    return total.market is _ON_DEMAND, left, total.gpu_name, total.gpu_memory_gib


def less(room: Room, need: Need, jobs: int) -> Room:
    """What is left of a room that holds at least so many jobs when they run there."""
    on_demand, (gpus, share_ppm, cpus, memory_mib, disk_gib), gpu_name, gpu_memory_gib = room
    left = (
        gpus - need.gpus * jobs,
        share_ppm - need.share_ppm * jobs,
        cpus - need.cpus * jobs,
        memory_mib - need.memory_mib * jobs,
        disk_gib - need.disk_gib * jobs,
    )
    return on_demand, left, gpu_name, gpu_memory_gib
