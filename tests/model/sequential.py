"""A store and the spec side by side: whatever one client does, both answer the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from control_plane.core.job_ids import id_for
from control_plane.core.model import Capacity, JobState, Market, Need
from control_plane.ports import TransferKind
from tests.conformance.builders import NOW
from tests.model import reads, spec
from tests.model.calls import all_jobs, perform
from tests.model.conftest import Adapter
from tests.model.searching import STEPS_REMOTE
from tests.model.telling import brief
from tests.model.world import ENDED, HELD, Choice, Job, Operation, Refusal, World, agrees, step

T = TypeVar("T")

LOOK_CLOSELY = 4
"""Every so many calls."""
QUEUES = ("q", "r")
MACHINES = ("m-1", "m-2")
KEYS = ("k-1", "k-2", *(f"019cb000-0000-7000-8000-00000000000{last}" for last in (1, 2)))
"""Some carry the id of their job."""
NEEDS = (Need(), Need(), Need(gpus=1), Need(gpus=2), Need(cpus=2, on_demand_only=True))
ROOM = Capacity(gpus=4, cpus=8, memory_mib=1000)
ROOMS = (
    ROOM,
    ROOM,
    replace(ROOM, gpus=1),
    replace(ROOM, cpus=1),
    replace(ROOM, market=Market.SPOT),
)

picks = st.integers(0, 63)
"""Which of what is there: what that is depends on the history, the number does not."""
queues = st.sampled_from((*QUEUES, *QUEUES, *QUEUES, "nowhere"))
limits = st.sampled_from((None, None, None, None, 2, 2, 1, 0))
jumps = st.sampled_from((0.0, 0.0, 0.0, 1.0, 7.0, 60.0, 200.0, -5.0, -90.0))
"""By how many seconds the clock has moved since the call before."""

CALLS: Mapping[str, tuple[int, Mapping[str, st.SearchStrategy[Any]]]] = {
    "enqueue": (
        12,
        {
            "queue": queues,
            "priority": st.sampled_from((0, 0, 0, 1, -1)),
            "owner": st.sampled_from(("", "ann", "bob")),
            "need": st.sampled_from(NEEDS),
            "delay": st.sampled_from((None, None, 5.0, 60.0, -1.0)),
            "depends_on": st.one_of(st.just([]), st.just([]), st.lists(picks, max_size=2)),
            "key": st.sampled_from(("", "", "", "", *KEYS)),
        },
    ),
    "enqueue_wrongly": (1, {"which": picks, "dependency": picks}),
    "claim": (
        14,
        {
            "machine": st.sampled_from((*MACHINES, *MACHINES, *MACHINES, "m-unknown")),
            "among": st.sampled_from((("q",), ("q", "r"), ("r", "q"), ("nowhere", "r"))),
            "free": st.sampled_from(ROOMS),
            "limit": st.sampled_from((1, 1, 2, 3, 10, 0)),
        },
    ),
    "start": (3, {"which": picks}),
    "finish": (8, {"which": picks, "state": st.sampled_from((JobState.SUCCEEDED, *ENDED))}),
    "requeue": (
        8,
        {
            "which": picks,
            "outcome": st.sampled_from(("interrupted", "lost", "failed", "returned")),
            "need": st.sampled_from(NEEDS),
        },
    ),
    "call_late": (
        6,
        {"which": picks, "epoch": st.sampled_from((0, -1, -1, 1)), "call": st.integers(0, 2)},
    ),
    "cancel": (3, {"which": picks}),
    "move": (
        8,
        {
            "which": picks,
            "elsewhere": st.sampled_from((None, None, None, *QUEUES, "nowhere")),
            "where": st.sampled_from(("top", "bottom", "before", "before", "after", "after")),
            "other": picks,
            "older": st.sampled_from((None, None, None, 0, 0, 1)),
        },
    ),
    "set_queue": (
        4,
        {
            "queue": st.sampled_from(QUEUES),
            "paused": st.sampled_from((False, True)),
            "limit": limits,
            "per_owner": limits,
            "older": st.sampled_from((0, 0, 0, 1)),
        },
    ),
    "clear": (1, {"queue": queues}),
    "remove_queue": (1, {"queue": queues}),
    "promote": (5, {"queue": queues, "age": st.sampled_from((0.0, 1.0, 60.0))}),
    "release": (2, {}),
    "set_machine": (
        3,
        {"machine": st.sampled_from(MACHINES), "ready": st.sampled_from((True, True, False))},
    ),
    "call_again": (5, {}),
    "reopen": (1, {}),
    "emigrate": (1, {}),
    "crash": (1, {}),
}
"""What may happen next: how often it does, and what has to be chosen for it."""

calls = st.sampled_from([name for name, (often, _) in CALLS.items() for _ in range(often)]).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(dict(CALLS[name][1])))
)


class Sequential(RuleBasedStateMachine):
    """One rule for all calls: rules of their own would be switched off by turns, and most
    histories would have jobs and no claims, or claims and no jobs."""

    adapter: ClassVar[Adapter]

    def __init__(self) -> None:
        super().__init__()
        self.scratch = TemporaryDirectory(prefix="model-")
        self.folder = Path(self.scratch.name) / "0"
        self.folder.mkdir()
        self.store = self.adapter.empty(self.folder)
        self.world = World()
        self.now = NOW
        self.last: Operation = reads.Leases()
        self.steps = 0

    def teardown(self) -> None:
        self.store.close()
        self.scratch.cleanup()

    @initialize(
        ages=st.lists(st.integers(0, 100), min_size=2, max_size=8),
        limit=limits,
        per_owner=limits,
    )
    def begin(self, ages: Sequence[int], limit: int | None, per_owner: int | None) -> None:
        """Two queues, one of them perhaps with limits, two machines, and jobs that wait already."""
        for queue in QUEUES:
            self.do(spec.PutQueue(queue=queue, expected_version=0))
        self.set_queue("q", False, limit, per_owner, 0)
        for machine in MACHINES:
            self.do(spec.PutMachine(machine=machine, ready=True, now=self.now))
        for number, age in enumerate(ages):
            operation = spec.Enqueue(
                job=f"j-{number:02}",
                queue="r" if age % 3 == 2 else "q",
                priority=age % 2,
                owner=("", "ann", "bob")[age % 5 // 2],
                not_before=self.now + timedelta(seconds=20) if age % 4 == 3 else None,
                now=self.now - timedelta(seconds=age),
            )
            self.do(operation)

    @rule(jump=jumps, call=calls)
    def go(self, jump: float, call: tuple[str, Mapping[str, Any]]) -> None:
        name, choices = call
        self.steps += 1
        self.now += timedelta(seconds=jump)
        getattr(self, name)(**choices)

    # ------------------------------------------------------------------------- both, side by side

    def do(self, operation: Operation) -> None:
        """Call the store, and hold its answer against the spec's."""
        self.last = operation
        answer = perform(self.store, operation)
        if isinstance(operation, spec.Promote):
            operation = replace(operation, told=self.told(operation.queue))
        if isinstance(operation, Choice) and not isinstance(answer, Refusal):
            operation = replace(operation, heard=answer)
        self.world, expected = step(self.world.told(self.now), operation)
        if not agrees(expected, answer):
            should, says = brief(expected), brief(answer)
            raise AssertionError(f"{brief(operation)}\n  should say {should}\n  but says   {says}")

    def told(self, queue: str) -> tuple[str, ...]:
        stored = all_jobs(self.store, queue=queue)
        return tuple(job.id for job in sorted(stored, key=lambda job: (job.position, job.id)))

    @invariant()
    def look(self) -> None:
        """Nothing changed but what had to."""
        if self.adapter.remote and self.steps < STEPS_REMOTE - 1:
            return
        last = self.last
        for read in self.reads():
            self.do(read)
        self.last = last

    def reads(self) -> Iterator[Operation]:
        """What is looked at after each call, and now and then what can only be wrong with it."""
        yield reads.Everything()
        for queue in QUEUES:
            yield reads.Order(queue=queue)
        yield reads.Leases()
        if self.steps % LOOK_CLOSELY == LOOK_CLOSELY - 1:
            yield from (reads.Idle(machine=machine) for machine in self.world.machines)
            yield from (reads.Attempts(job=job.id) for job in self.jobs()[-3:])
            yield from (reads.Waits(queue=queue) for queue in QUEUES)
            yield reads.Depths()
            yield reads.Heads()
            ripe_before = NOW + timedelta(seconds=1)
            present = tuple(self.world.queues)
            yield reads.Groups(queues=present, ripe_before=ripe_before, now=self.now)

    def jobs(self, *states: JobState) -> list[Job]:
        return [job for job in self.world.jobs.values() if not states or job.state in states]

    # ----------------------------------------------------------------------------------- agents

    def claim(self, machine: str, among: tuple[str, ...], free: Capacity, limit: int) -> None:
        operation = spec.Claim(machine=machine, queues=among, free=free, limit=limit, now=self.now)
        self.do(operation)

    def start(self, which: int) -> None:
        if job := one(self.jobs(*HELD), which):
            self.do(spec.Start(job=job.id, epoch=job.epoch, now=self.now))

    def finish(self, which: int, state: JobState) -> None:
        if job := one(self.jobs(*HELD), which):
            self.do(spec.Finish(job=job.id, epoch=job.epoch, state=state, now=self.now))

    def requeue(self, which: int, outcome: str, need: Need) -> None:
        if job := one(self.jobs(*HELD), which):
            operation = spec.Requeue(
                job=job.id, epoch=job.epoch, outcome=outcome, need=need, now=self.now
            )
            self.do(operation)

    def call_late(self, which: int, epoch: int, call: int) -> None:
        """A writer whose lease is over, who repeats himself, or who never had one."""
        again = [job for job in self.jobs() if job.epoch > 1]
        job = one([*again, *again, *self.jobs(), None], which)
        name, at = ("j-unknown", 1) if job is None else (job.id, job.epoch + epoch)
        late: tuple[Operation, ...] = (
            spec.Start(job=name, epoch=at, now=self.now),
            spec.Finish(job=name, epoch=at, state=JobState.FAILED, now=self.now),
            spec.Requeue(job=name, epoch=at, outcome="lost", need=Need(), now=self.now),
        )
        self.do(late[call])

    # ------------------------------------------------------------------------------------ users

    def enqueue(
        self,
        queue: str,
        priority: int,
        owner: str,
        need: Need,
        delay: float | None,
        depends_on: Sequence[int],
        key: str,
    ) -> None:
        there = list(self.world.jobs)
        operation = spec.Enqueue(
            job=id_for(key) or f"j-{len(there):02}",
            queue=queue,
            priority=priority,
            owner=owner,
            need=need,
            not_before=None if delay is None else self.now + timedelta(seconds=delay),
            depends_on=tuple(
                dict.fromkeys(there[pick % len(there)] for pick in depends_on if there)
            ),
            key=key,
            now=self.now,
        )
        self.do(operation)

    def enqueue_wrongly(self, which: int, dependency: int) -> None:
        job = f"j-{which % (len(self.world.jobs) + 1):02}"
        others = ((), ("j-unknown",), (job,), ("j-00", "j-00"))[dependency % 4]
        self.do(spec.Enqueue(job=job, queue="q", depends_on=others, now=self.now))

    def cancel(self, which: int) -> None:
        job = one([*self.world.jobs, "j-unknown"], which)
        self.do(spec.Cancel(job=job or "", now=self.now))

    def move(
        self, which: int, elsewhere: str | None, where: str, other: int, older: int | None
    ) -> None:
        job = one(self.jobs(JobState.QUEUED) or self.jobs(), which)
        if job is None:
            return
        queue = elsewhere or job.queue
        others = [each for each in self.world.waiting(queue) if each.id != job.id]
        beside = one(others or self.jobs(), other)
        operation = spec.Move(
            job=job.id,
            queue=queue,
            where=where,
            neighbour=beside.id if beside and where in ("before", "after") else "",
            expected_version=None if older is None else job.version - older,
            now=self.now,
        )
        self.do(operation)

    # -------------------------------------------------------------------------------- operators

    def set_queue(
        self, queue: str, paused: bool, limit: int | None, per_owner: int | None, older: int
    ) -> None:
        stored = self.world.queues.get(queue)
        operation = spec.PutQueue(
            queue=queue,
            paused=paused,
            max_running=limit,
            max_running_per_owner=per_owner,
            expected_version=max(0, stored.version - older) if stored else 0,
        )
        self.do(operation)

    def clear(self, queue: str) -> None:
        self.do(spec.Clear(queue=queue, now=self.now))

    def remove_queue(self, queue: str) -> None:
        self.do(spec.RemoveQueue(queue=queue))

    def promote(self, queue: str, age: float) -> None:
        since = self.now - timedelta(seconds=age)
        self.do(spec.Promote(queue=queue, waiting_since=since, now=self.now))

    def release(self) -> None:
        self.do(spec.Release(now=self.now))

    def set_machine(self, machine: str, ready: bool) -> None:
        self.do(spec.PutMachine(machine=machine, ready=ready, now=self.now))

    # -------------------------------------------------------------------------------- accidents

    def call_again(self) -> None:
        """The answer was lost, and the same call is made again."""
        self.do(self.last)

    def reopen(self) -> None:
        if self.adapter.again:
            self.store.close()
            self.store = self.adapter.again(self.folder)

    def emigrate(self) -> None:
        """All records go to a new store of the same kind."""
        before, after = self.store, self.adapter.empty(self._next_folder())
        for kind in TransferKind:
            cursor = ""
            while True:
                page = before.transfer_read(kind, cursor=cursor, limit=5)
                after.transfer_write(kind, page.items)
                cursor = page.cursor
                if not cursor:
                    break
        before.close()
        self.store = after
        self.world = self.world.in_new_hands()

    def _next_folder(self) -> Path:
        self.folder = self.folder.with_name(str(int(self.folder.name) + 1))
        self.folder.mkdir()
        return self.folder

    def crash(self) -> None:
        """The files as they are now, without a farewell."""
        if self.adapter.again:
            shutil.copytree(self.folder, self._next_folder(), dirs_exist_ok=True)
            self.store.close()
            self.store = self.adapter.again(self.folder)


def one(things: Sequence[T], pick: int) -> T | None:
    return things[pick % len(things)] if things else None
