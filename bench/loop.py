"""What one decision costs: 10,000 machines and 100,000 waiting jobs, against a bare floor.

    python -m bench.loop [--rounds 7] [--no-store] [--json]

`floor` is the least that a decision is made of, as a plain program. `plan` and `check` are ours, on
the same jobs and machines, given as a snapshot. `decide` is what an embedded control plane does for
it a second after the last time: read waiting jobs, machines and leases from SQLite, of which it
remembers what has not changed, then plan and check. `bare read` fetches all rows, grouped the same
way, and decodes nothing; `decide_vs_bare` is over it and the floor together. All of it is CPU time
of this process. Floor and ours take turns in every round, and of three runs in a row the best one
counts, since what else the machine does can only add; a ratio is the median of the rounds' own
ratios.

Growth is what each doubling costs, over linear: 1 is linear, 2 would be quadratic. `plan_growth` is
that of ten times the jobs, of ten times as many kinds; `plan_growth_fleet` is that of ten times
everything, machines, leases and sightings too, which no longer fit into the processor's caches.

The last line is JSON; the promises are `plan_vs_floor` <= 4, `decide_vs_bare` <= 4 and
`plan_growth` <= 1.1.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from bench.loop_world import (
    NOW,
    QUEUES,
    SIZES,
    PlainJob,
    PlainMachine,
    Shape,
    World,
    plain_room,
    world,
)
from control_plane.api.server import spare_the_collector
from control_plane.core.check import check
from control_plane.core.model import Job, JobSpec, JobState, QueueRecord, WaitingGroup
from control_plane.core.planner import plan
from control_plane.core.snapshot import Snapshot
from control_plane.ports import Ending, Store
from control_plane.stores.sqlite import SqliteStore

ROUNDS, STORE_ROUNDS, TRIES = 7, 3, 3
MACHINES, JOBS, KINDS, MORE = 10_000, 100_000, 50, 10
STALE_S, IDLE_S = 90, 330
BEAT_S, JOB_S = 15, 600
"""Between two beats of an agent; that a job takes."""

Phases = Mapping[str, Callable[[], object]]
Times = Mapping[str, Sequence[float]]


# ------------------------------------------------------------------------------- the floor


def floor(
    jobs: Sequence[PlainJob],
    machines: Sequence[PlainMachine],
    queues: Mapping[str, Sequence[str]],
    sizes: Mapping[str, Shape],
) -> tuple[list[str], list[str], Counter[str]]:
    """The bare decision: who is stale, who is idle, and how many machines to buy of which pool.

    It counts the jobs by shape, sorts out the stale and the idle machines, counts the others by the
    room they have left, puts the shapes onto these rooms, the largest shape and the fullest room
    first, and opens new machines for what is left. It knows no caps, prices, markets, offers, GPU
    models and sightings, gives no reasons, and finds on every machine the room that is left: a
    lower bound, not a planner."""
    wanted = Counter(jobs)
    stale = [each[0] for each in machines if each[3] > STALE_S]
    idle = [each[0] for each in machines if each[4] > IDLE_S]
    out = {*stale, *idle}
    rooms: dict[str, dict[Shape, int]] = {pool: {} for pool in sizes}
    for name, pool, state, _, _, room in machines:
        if state in ("ready", "booting") and name not in out:
            rooms[pool][room] = rooms[pool].get(room, 0) + 1
    bought: Counter[str] = Counter()
    for (queue, _, shape), count in sorted(wanted.items(), key=_largest_first):
        left = count
        for pool in queues[queue]:
            left = left and _fill(rooms[pool], shape, left)
        if left:
            _open(queues[queue], sizes, shape, left, rooms, bought)
    return stale, idle, bought


def _largest_first(item: tuple[PlainJob, int]) -> tuple[object, ...]:
    (queue, priority, shape), _ = item
    return -priority, tuple(-part for part in shape), queue


def _fill(rooms: dict[Shape, int], shape: Shape, count: int) -> int:
    """Put jobs of one shape into the rooms of one pool; returns how many found none."""
    parts = [(number, part) for number, part in enumerate(shape) if part]
    for room in sorted(rooms):
        each = count
        for number, part in parts:
            each = min(each, room[number] // part)
            if not each:
                break
        else:
            used = min(rooms[room], -(-count // each))
            _move(rooms, room, _less(room, shape, each), used)
            count -= min(count, used * each)
            if not count:
                break
    return count


def _move(rooms: dict[Shape, int], old: Shape, new: Shape, machines: int) -> None:
    rooms[old] -= machines
    if not rooms[old]:
        del rooms[old]
    rooms[new] = rooms.get(new, 0) + machines


def _open(
    pools: Sequence[str],
    sizes: Mapping[str, Shape],
    shape: Shape,
    count: int,
    rooms: Mapping[str, dict[Shape, int]],
    bought: Counter[str],
) -> None:
    """Open as many machines as it takes of the first pool that can hold the shape at all."""
    for pool in pools:
        size = sizes[pool]
        each = min(have // want for have, want in zip(size, shape, strict=True) if want)
        if each:
            new, room = -(-count // each), _less(size, shape, each)
            bought[pool] += new
            rooms[pool][room] = rooms[pool].get(room, 0) + new
            return


def _less(room: Shape, shape: Shape, count: int) -> Shape:
    return (
        room[0] - shape[0] * count,
        room[1] - shape[1] * count,
        room[2] - shape[2] * count,
        room[3] - shape[3] * count,
        room[4] - shape[4] * count,
    )


# ------------------------------------------------------------------------------- the store


def fill(store: Store, snapshot: Snapshot) -> None:
    """Write a situation as it comes about: machines, jobs that they claim, jobs that wait."""
    for name in snapshot.policy.queues:
        store.queue_put(QueueRecord(name=name, created_at=NOW), expected_version=0)
    for machine in snapshot.machines:
        store.machine_put(replace(machine, version=0), expected_version=0, fence=None)
    free = {machine.id: machine.total for machine in snapshot.machines}
    for lease in snapshot.leases:
        _enqueue(store, lease.job_id, lease.queue, JobSpec(command="true", need=lease.need))
        store.job_claim(lease.machine_id, [lease.queue], free[lease.machine_id], limit=1, now=NOW)
    for number, group in enumerate(snapshot.waiting):
        _enqueue_all(store, group, f"w-{number}")


def _enqueue_all(store: Store, group: WaitingGroup, prefix: str) -> None:
    spec = JobSpec(command="true", need=group.need)
    for number in range(group.count):
        waited_s = (NOW - group.oldest_at).total_seconds() if number < group.ripe else 1
        _enqueue(store, f"{prefix}-{number}", group.queue, spec, group.priority, waited_s)


def _enqueue(
    store: Store, job_id: str, queue: str, spec: JobSpec, priority: int = 0, waited_s: float = 1
) -> None:
    at = NOW - timedelta(seconds=waited_s)
    store.job_enqueue(
        Job(id=job_id, queue=queue, spec=spec, priority=priority, submitted_at=at, queued_at=at)
    )


def read(store: Store, known: Snapshot) -> Snapshot:
    """The situation as a control plane reads it; what clouds show and sell is known already."""
    ripe_before = {
        queue.name: known.now - timedelta(seconds=queue.launch_after_s)
        for queue in known.policy.queues.values()
    }
    machines, leases = store.fleet_read()
    waiting = store.waiting_groups(sorted(ripe_before), ripe_before=ripe_before, now=known.now)
    return replace(known, waiting=tuple(waiting), machines=tuple(machines), leases=tuple(leases))


class Second:
    """What goes on between two looks, a second apart: each agent says every 15 seconds that it is
    alive, and some jobs end and others begin in their place."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self._store = store
        alive = NOW - timedelta(seconds=STALE_S / 2)
        self._agents = cycle(
            machine for machine in snapshot.machines if (machine.last_beat_at or alive) > alive
        )
        self._beats = len(snapshot.machines) // BEAT_S
        self._jobs = len(snapshot.leases) // JOB_S
        self._queues = sorted(snapshot.policy.queues)
        self._now = NOW

    def __call__(self) -> None:
        self._now += timedelta(microseconds=1)
        for machine in islice(self._agents, self._beats):
            self._store.machine_beat(machine.id, now=self._now)
        for machine in islice(self._agents, self._jobs):
            for lease in self._store.job_leases(machine_id=machine.id):
                done = Ending(outcome="succeeded", exit_code=0)
                ended = (lease.job_id, lease.epoch, done)
                self._store.job_finish(*ended, state=JobState.SUCCEEDED, now=NOW)
            free = machine.total
            self._store.job_claim(machine.id, self._queues, free, limit=1, now=NOW)


def bare_read(connection: sqlite3.Connection) -> int:
    """The least that reading is: the same rows, what waits counted by queue, lane and priority.
    Returns how many rows."""
    return sum(len(connection.execute(query).fetchall()) for query in (_FLEET, _HELD, _WAITING))


_FLEET = """select data, last_beat_at, idle_since
    from machines indexed by machines_open cross join machine_records as record
    where state not in ('terminated', 'launch_failed') and record.id = machines.id"""
_HELD = """select id, epoch, machine_id, queue, need, leased_at from jobs indexed by jobs_held
    where state in ('leased', 'running')"""
_WAITING = f"""select queue, lane, priority, count(*), sum(queued_at <= '{NOW.isoformat()}'),
    min(queued_at) from jobs indexed by jobs_ready where lane is not null
    group by queue, lane, priority"""


def decide(store: Store, known: Snapshot) -> None:
    """A whole decision of an embedded control plane, from reading to the checked plan."""
    snapshot = read(store, known)
    if check(plan(snapshot), snapshot):
        raise AssertionError("the plan breaks a promise")


# ------------------------------------------------------------------------------- measuring


def main() -> None:
    options = _options()
    print(f"{MACHINES:,} machines, {JOBS:,} waiting jobs; CPU ms, min/median/max\n")
    here = world(MACHINES, JOBS)
    figures = {**_decision(here, options.rounds), **_growth(here, options.rounds)}
    if not options.no_store:
        figures |= _embedded(here, min(options.rounds, STORE_ROUNDS))
    print()
    for name, value in figures.items():
        print(f"{name:24} {value:10.2f}")
    print(json.dumps(figures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-store", action="store_true", help="leave SQLite out: it takes long")
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    return parser.parse_args()


def _decision(here: World, rounds: int) -> dict[str, float]:
    decided = plan(here.snapshot)
    print(
        f"the plan: {len(decided.launches):,} launches, {len(decided.terminations):,} terminations,"
        f" {len(decided.requeues):,} requeues, {len(decided.refusals)} refusals\n"
    )
    times = _measured(
        {
            "floor": _bare(here),
            "plan": partial(plan, here.snapshot),
            "check": partial(check, decided, here.snapshot),
        },
        rounds,
    )
    return {
        "plan_vs_floor": _ratio(times, "plan", "floor"),
        "check_vs_floor": _ratio(times, "check", "floor"),
        "floor_ms": _ms(times["floor"]),
        "plan_ms": _ms(times["plan"]),
        "check_ms": _ms(times["check"]),
    }


def _growth(here: World, rounds: int) -> dict[str, float]:
    busy = world(MACHINES, JOBS * MORE, kinds=KINDS * MORE)
    large = world(MACHINES * MORE, JOBS * MORE)
    times = _measured(
        {
            "plan": partial(plan, here.snapshot),
            "plan, ten times the jobs": partial(plan, busy.snapshot),
            "plan, ten times everything": partial(plan, large.snapshot),
        },
        rounds,
    )
    jobs, everything = list(times)[1:]
    return {
        "plan_growth": _per_doubling(_ratio(times, jobs, "plan")),
        "plan_growth_fleet": _per_doubling(_ratio(times, everything, "plan")),
    }


def _embedded(here: World, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.sqlite"
        store = SqliteStore(path, durability="normal")
        fill(store, here.snapshot)
        bare = sqlite3.connect(path)
        spare_the_collector()  # as the server does in which this runs
        times = _measured(
            {
                "floor": _bare(here),
                "bare read": partial(bare_read, bare),
                "read": partial(read, store, here.snapshot),
                "decide, reading included": partial(decide, store, here.snapshot),
            },
            rounds,
            before=Second(store, here.snapshot),
        )
        bare.close()
        store.close()
    least = [sum(both) for both in zip(times["floor"], times["bare read"], strict=True)]
    times = {**times, "bare": least}
    return {
        "decide_vs_bare": _ratio(times, "decide, reading included", "bare"),
        "decide_vs_floor": _ratio(times, "decide, reading included", "floor"),
        "decide_embedded_ms": _ms(times["decide, reading included"]),
        "read_embedded_ms": _ms(times["read"]),
    }


def _bare(here: World) -> Callable[[], object]:
    sizes = {name: plain_room(size) for name, size in SIZES.items()}
    return partial(floor, here.jobs, here.machines, QUEUES, sizes)


def _measured(phases: Phases, rounds: int, *, before: Callable[[], object] = lambda: None) -> Times:
    """CPU milliseconds of every phase, in turn, in each of so many rounds; what comes `before` each
    try is not counted."""
    times: dict[str, list[float]] = {name: [] for name in phases}
    for _ in range(rounds):
        for name, work in phases.items():
            times[name].append(min(_cpu_ms(work, before) for _ in range(TRIES)))
    for name, taken in times.items():
        print(f"{name:28} {min(taken):8.1f} / {median(taken):8.1f} / {max(taken):8.1f}")
    return times


def _cpu_ms(work: Callable[[], object], before: Callable[[], object]) -> float:
    before()
    gc.collect()
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def _ratio(times: Times, ours: str, other: str) -> float:
    return round(median(a / b for a, b in zip(times[ours], times[other], strict=True)), 3)


def _per_doubling(ratio: float) -> float:
    """From what `MORE` times as much costs to what each doubling costs, over linear."""
    return round(math.exp(math.log(ratio) / math.log2(MORE)) / 2, 3)


def _ms(times: Sequence[float]) -> float:
    return round(median(times), 1)


if __name__ == "__main__":
    main()
