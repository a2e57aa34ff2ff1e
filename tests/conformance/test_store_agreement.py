"""Every store does what the memory store does, whatever is asked of it in whatever order.

A script of random calls goes to both; each answer, each refusal and now and then everything that
can be read must be the same. What the port leaves to a store is left out: positions, which of
several failed dependencies is named, when a delayed job whose time has come joins the line, whether
a claim is a beat, since when a machine is idle by a clock that went back, and the order of what it
lists without order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import count
from random import Random
from typing import Any

import pytest

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Capacity, Job, JobState, Machine, MachineState, Need, Reason
from control_plane.errors import OrchctlError
from control_plane.ports import Ending, Place, Store
from tests.conformance import builders
from tests.conformance.builders import (
    BECAUSE,
    NOW,
    at,
    change_queue,
    claim_order,
    groups,
    listed,
    machine,
    queue,
)

QUEUES = ("q-1", "q-2")
MACHINES = ("m-1", "m-2", "m-3")
OWNERS = ("", "ann", "bob")
NEEDS = (Need(gpus=1), Need(gpus=2), Need(cpus=4))
FREE = Capacity(gpus=3, cpus=8)
ENDINGS = (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.EXHAUSTED)
STEPS = 160

Call = Callable[[Store], object]


class Script:
    """Random calls that make sense for what a store holds at the moment."""

    def __init__(self, seed: int, seen: Store) -> None:
        self._chance = Random(seed)
        self._seen = seen
        self.second = 0.0
        self.now = self.latest = NOW
        self._ids = count(1)
        self._keys: dict[str, str] = {}
        # Ageing puts jobs of two priorities in one line by their positions, and what those are
        # after a move is the store's to say: a script does the one or the other.
        order = [self._move] * 3 if seed % 2 else [self._age]
        often = [*[self._enqueue] * 10, *[self._claim] * 4, *[self._end] * 3, *order]
        seldom = [self._start, self._give_back, self._cancel, self._release]
        self._makers = [*often, *seldom, self._limit, self._drain, self._use_late_lease]

    def calls(self) -> Iterator[tuple[str, Call]]:
        for _ in range(STEPS):
            self._pass_time()
            maker = self._chance.choice(self._makers)
            yield maker.__name__.strip("_"), maker()
        yield "clear", self._clear()

    def _pass_time(self) -> None:
        step = self._chance.choice((0, 1, 1, 5, 30, -3))
        self.second = max(0, self.second + step)
        self.now = at(self.second)
        self.latest = max(self.now, self.latest)

    def _any_job(self) -> str:
        return self._chance.choice([each.id for each in self._jobs()] or ["j-nowhere"])

    def _jobs(self) -> list[Job]:
        return listed(self._seen, limit=1000)

    def _held(self) -> Job | None:
        held = [each for each in self._jobs() if each.state in (JobState.LEASED, JobState.RUNNING)]
        return self._chance.choice(held) if held else None

    def _enqueue(self) -> Call:
        # An ended job to depend on is a refusal more often than not.
        known = [
            each.id
            for each in self._jobs()
            if each.state not in JOB_ENDED or self._chance.random() < 0.1
        ]
        depends_on = self._chance.sample(known, min(len(known), self._chance.choice((0, 0, 1, 2))))
        not_before = self._chance.choice((None, None, None, at(self.second + 20), NOW))
        new = builders.job(
            f"j-{next(self._ids):04}",
            self._chance.choice(QUEUES),
            need=self._chance.choice(NEEDS),
            priority=self._chance.choice((0, 0, 1)),
            owner=self._chance.choice(OWNERS),
            submitted_at=self.now,
            not_before=not_before,
            depends_on=tuple(depends_on),
        )
        key = self._chance.choice(("", "", f"k-{new.id}", self._used_key()))
        self._keys[new.id] = key
        return lambda store: store.job_enqueue(new, idempotency_key=key)

    def _used_key(self) -> str:
        """One that a job has; one that was refused may fix the id of the next job that bears it."""
        return self._keys.get(self._any_job(), "")

    def _claim(self) -> Call:
        machine_id = self._chance.choice(MACHINES)
        queues = self._chance.sample(QUEUES, 2)
        limit, now = self._chance.randint(1, 4), self.now
        return lambda store: store.job_claim(machine_id, queues, FREE, limit=limit, now=now)

    def _start(self) -> Call:
        held, now = self._held(), self.now
        name, epoch = (held.id, held.epoch) if held else (self._any_job(), 1)
        machine_id = self._chance.choice(("", *MACHINES))
        return lambda store: store.job_start(name, epoch, now=now, machine_id=machine_id)

    def _end(self) -> Call:
        held, now = self._held(), self.now
        name, epoch = (held.id, held.epoch) if held else (self._any_job(), 1)
        state = self._chance.choice(ENDINGS)
        ending = Ending(outcome="failed", exit_code=1)
        machine_id = self._chance.choice(("", "", held.machine_id if held else "", *MACHINES))
        return lambda store: store.job_finish(
            name, epoch, ending, state=state, now=now, machine_id=machine_id
        )

    def _give_back(self) -> Call:
        held, now = self._held(), self.now
        name, epoch = (held.id, held.epoch) if held else (self._any_job(), 1)
        ending = Ending(outcome=self._chance.choice(("lost", "failed", "returned")))
        need = self._chance.choice(NEEDS)
        return lambda store: store.job_requeue(name, epoch, ending, need=need, now=now)

    def _use_late_lease(self) -> Call:
        name, epoch, now = self._any_job(), self._chance.randint(0, 2), self.now
        return lambda store: store.job_start(name, epoch, now=now)

    def _cancel(self) -> Call:
        name, now = self._any_job(), self.now
        return lambda store: store.job_cancel(name, reason=BECAUSE, now=now)

    def _move(self) -> Call:
        waiting = [each for each in self._jobs() if each.state is JobState.QUEUED]
        job = self._chance.choice(waiting or self._jobs() or [builders.job("j-nowhere")])
        neighbour = self._chance.choice(waiting or [job])
        where = self._chance.choice(("top", "bottom", "before", "before", "after", "after"))
        beside = where in ("before", "after")
        place = Place(where=where, job_id=neighbour.id if beside else "")
        near = neighbour.queue if beside else job.queue
        queue = near if self._chance.random() < 0.8 else self._chance.choice(QUEUES)
        version = job.version if self._chance.random() < 0.8 else 1
        return lambda store: store.job_move(
            job.id, queue=queue, place=place, expected_version=version, now=NOW
        )

    def _age(self) -> Call:
        queue, now, since = self._chance.choice(QUEUES), self.now, at(self.second - 25)
        return lambda store: store.queue_promote(queue, waiting_since=since, now=now)

    def _release(self) -> Call:
        now = self.now
        return lambda store: 0 * store.job_release(now=now)

    def _limit(self) -> Call:
        name = self._chance.choice(QUEUES)
        most, each = self._chance.choice((None, 0, 2, 5)), self._chance.choice((None, 1, 3))
        paused = self._chance.random() < 0.1
        return lambda store: change_queue(
            store, name, max_running=most, max_running_per_owner=each, paused=paused
        )

    def _drain(self) -> Call:
        name = self._chance.choice(MACHINES)
        state = self._chance.choice((MachineState.READY, MachineState.READY, MachineState.DRAINING))
        return lambda store: store.machine_put(
            replace(store.machine_get(name), state=state),
            expected_version=store.machine_get(name).version,
            fence=None,
        )

    def _clear(self) -> Call:
        queue, now = self._chance.choice(QUEUES), self.now
        return lambda store: sorted(store.queue_clear(queue, now=now, reason=BECAUSE))


def answer(store: Store, call: Call) -> object:
    """What a call comes to: its answer, or the kind of its refusal."""
    try:
        return plain(call(store))
    except (OrchctlError, ValueError) as error:
        return type(error)


def plain(value: Any) -> Any:
    """A value without what the port leaves to the store."""
    if isinstance(value, Job):
        reason = value.reason
        if reason is not None and reason.code == "dependency-failed":
            reason = Reason(code=reason.code, sentence="")
        return replace(value, position=0.0, reason=reason)
    if isinstance(value, Machine):
        idle = None if value.idle_since is None else NOW
        return replace(value, last_beat_at=None, idle_since=idle)
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value


def everything(store: Store, now: datetime) -> dict[str, object]:
    store.job_release(now=now)
    jobs = listed(store, limit=1000)
    return {
        "jobs": plain(jobs),
        "lines": [claim_order(store, name, limit=50) for name in QUEUES],
        "stats": store.queue_stats(),
        "heads": sorted(store.queue_heads(QUEUES)),
        "groups": groups(store, *QUEUES, now=now),
        "fleet": plain(store.fleet_read()),
        "attempts": {each.id: store.job_attempts(each.id) for each in jobs if each.attempt},
    }


def check(seed: int, store: Store, reference: Store) -> None:
    for each in (store, reference):
        for name in QUEUES:
            queue(each, name)
        for name in MACHINES:
            machine(each, name)
    script = Script(seed, reference)
    for number, (name, call) in enumerate(script.calls()):
        expected = answer(reference, call)
        assert answer(store, call) == expected, f"step {number} of seed {seed}: {name}"
        if number % 20 == 0 or number == STEPS:
            for each in (store, reference):
                for machine_id in MACHINES:
                    each.machine_beat(machine_id, now=script.now)
            there = everything(reference, script.latest)
            for part, value in everything(store, script.latest).items():
                assert value == there[part], f"{part} after step {number} of seed {seed}: {name}"


@pytest.mark.parametrize("seed", range(6))
def test_a_store_answers_as_the_memory_store_does(
    store: Store, reference: Store, seed: int
) -> None:
    check(seed, store, reference)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_a_store_answers_as_the_memory_store_does_for_long(
    store: Store, reference: Store, seed: int
) -> None:
    check(seed, store, reference)
