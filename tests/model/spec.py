"""The queue as a small pure machine: a second opinion on what every store answers.

Written from the words of `control_plane.ports`, not from a store. The order of a queue is a list
here, not a number per job, and one operation is one function from a world to the next. Where the
port leaves a choice the operation names every answer that is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

from control_plane.core.model import Capacity, JobState, Need

HELD = (JobState.LEASED, JobState.RUNNING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXHAUSTED)
DOOMED = ENDED[1:]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An operation that changed nothing, by the names of the errors that may say so."""

    errors: frozenset[str]


class No(Exception):
    """Raised inside a step: the operation is refused with one of these errors."""

    def __init__(self, *errors: str) -> None:
        super().__init__(*errors)
        self.errors = frozenset(errors)


def check(**faults: bool) -> None:
    """Refuse when any of these named errors is called for; which one is told first is open."""
    found = [name for name, wrong in faults.items() if wrong]
    if found:
        raise No(*found)


class Seen(NamedTuple):
    """What an answer shows of a job."""

    id: str
    queue: str
    state: JobState
    version: int
    priority: int
    epoch: int
    attempt: int
    failures: int
    losses: int
    machine: str
    cancel_requested: bool
    need: Need
    queued_at: datetime


Answer: TypeAlias = Any
"""A `Refusal`, a `Seen`, or plain tuples of such; compared as a whole."""


class Attempt(NamedTuple):
    """One attempt; its outcome is empty while it goes on."""

    machine: str
    outcome: str
    queue: str
    leased_at: datetime
    waited_s: float
    """How long its job had waited; a clock that went back makes it 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job; it has had as many attempts as its epoch says."""

    id: str
    queue: str
    priority: int
    owner: str
    need: Need
    queued_at: datetime
    not_before: datetime | None
    depends_on: tuple[str, ...]
    state: JobState = JobState.QUEUED
    version: int = 1
    epoch: int = 0
    failures: int = 0
    losses: int = 0
    machine: str = ""
    leased_at: datetime | None = None
    cancel_requested: bool = False
    promoted_at: datetime | None = None
    apart: bool = False
    """Delayed, and no claim or release has found its time come since: it is listed behind the
    line."""
    attempts: tuple[Attempt, ...] = ()

    @property
    def seen(self) -> Seen:
        counts = (self.epoch, self.epoch, self.failures, self.losses)
        place = (self.id, self.queue, self.state, self.version, self.priority)
        return Seen(*place, *counts, self.machine, self.cancel_requested, self.need, self.queued_at)

    def delayed(self, now: datetime) -> bool:
        return self.not_before is not None and self.not_before > now

    @property
    def waited_since(self) -> datetime:
        return max(self.queued_at, self.not_before or self.queued_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    version: int
    paused: bool
    max_running: int | None
    max_running_per_owner: int | None

    def admits(self, held: Counter[str], owner: str) -> bool:
        in_all = self.max_running is None or held.total() < self.max_running
        each = self.max_running_per_owner
        return in_all and (each is None or held[owner] < each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    ready: bool = True
    idle_since: datetime | None = None
    latest: datetime | None = None
    """The latest time at which a job of it ended, or it was made: another right answer where the
    clock has gone back since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything there is. A step never changes one, it makes the next."""

    queues: Mapping[str, Queue] = field(default_factory=dict)
    machines: Mapping[str, Machine] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By queue, every job that has not ended, first to last: a job that is blocked, or that a
    machine has, keeps its place."""
    keys: Mapping[str, str] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()
    """Jobs that stand anywhere among those of their queue and priority: they were moved while the
    line was changing, in a store that does not lock it for that."""
    told_at: datetime | None = None
    """The latest time that a store was told: which delayed jobs it may know to be due."""

    def line(self, queue: str) -> list[Job]:
        return [self.jobs[job_id] for job_id in self.lines.get(queue, ())]

    def waiting(self, queue: str) -> list[Job]:
        return [job for job in self.line(queue) if job.state is JobState.QUEUED]

    def listed(self, queue: str, heard: Sequence[str]) -> tuple[str, ...]:
        """What waits: the line, then the delayed ones by their time. Those that a store may have
        let go already stand as they were `heard`."""
        waiting = self.waiting(queue)
        apart = [job for job in waiting if job.apart]
        apart.sort(key=lambda job: (job.waited_since, job.id))
        due = [job for job in apart if self.told_at and not job.delayed(self.told_at)]
        choices = [gone for count in range(len(due) + 1) for gone in combinations(due, count)]
        answers = [
            (
                *(job.id for job in waiting if not job.apart or job in gone),
                *(job.id for job in apart if job not in gone),
            )
            for gone in choices
        ]
        right = (each for each in answers if each == tuple(heard[: len(each)]))
        return next(right, answers[0])

    def looked(self, queues: Sequence[str], now: datetime) -> World:
        """The world after a claim or release by a clock that says `now`."""
        due = [
            job
            for queue in queues
            for job in self.waiting(queue)
            if job.apart and not job.delayed(now)
        ]
        in_line = {job.id: replace(job, apart=False) for job in due}
        return replace(self, jobs={**self.jobs, **in_line}) if due else self

    def loosened(self, job_id: str, loose: bool) -> World:
        return replace(self, loose=self.loose | {job_id} if loose else self.loose - {job_id})

    def told(self, now: datetime) -> World:
        return replace(self, told_at=max(now, self.told_at or now))

    def job(self, job_id: str) -> Job:
        check(NotFound=job_id not in self.jobs)
        return self.jobs[job_id]

    def held_by(self, machine: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in HELD and job.machine == machine]

    def wrote(self, old: Job, **changes: object) -> World:
        """The world with a job changed; one that has ended leaves the line."""
        job = replace(old, version=old.version + 1, **changes)  # type: ignore[arg-type]
        world = replace(self, jobs={**self.jobs, job.id: job})
        return world.without(job) if job.state in ENDED else world

    def without(self, job: Job) -> World:
        """The world with a job in no line."""
        left = tuple(other for other in self.lines.get(job.queue, ()) if other != job.id)
        return replace(self, lines={**self.lines, job.queue: left})

    def placed(self, job: Job, spot: int) -> World:
        """The world with a job that is in no line at this index of its queue's."""
        line = self.lines.get(job.queue, ())
        lines = {**self.lines, job.queue: (*line[:spot], job.id, *line[spot:])}
        return replace(self, jobs={**self.jobs, job.id: job}, lines=lines)

    def top(self, queue: str, priority: int) -> int:
        return sum(job.priority > priority for job in self.line(queue))

    def bottom(self, queue: str, priority: int) -> int:
        return sum(job.priority >= priority for job in self.line(queue))

    def let_go(self, ended: str, now: datetime) -> World:
        """The world after what waited for this job, and so on down the line, has moved."""
        world = self
        for job in self.jobs.values():
            if ended not in job.depends_on or world.jobs[job.id].state is not JobState.BLOCKED:
                continue
            states = [world.jobs[other].state for other in job.depends_on]
            if any(state in DOOMED for state in states):
                world = world.wrote(job, state=JobState.CANCELLED).let_go(job.id, now)
            elif all(state is JobState.SUCCEEDED for state in states):
                apart = job.delayed(now)
                world = world.wrote(job, state=JobState.QUEUED, queued_at=now, apart=apart)
        return world

    def rested(self, job: Job, now: datetime) -> World:
        """The world with the machine that had this job idle, unless it holds something still."""
        if job.machine not in self.machines:
            return self
        machine = self.machines[job.machine]
        times = (now, machine.latest, job.leased_at)
        machine = replace(machine, latest=max(each for each in times if each is not None))
        if not self.held_by(job.machine):
            machine = replace(machine, idle_since=now)
        return replace(self, machines={**self.machines, job.machine: machine})

    def fingerprint(self) -> object:
        """Equal for worlds that only `Idle` can tell apart."""
        return (
            frozenset(self.jobs.values()),
            frozenset(self.lines.items()),
            frozenset(self.queues.items()),
            frozenset(name for name, machine in self.machines.items() if machine.ready),
            frozenset(self.keys.items()),
            self.loose,
        )


Result: TypeAlias = tuple[World, Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of the store."""

    def on(self, world: World) -> Result:
        """The world after it and the answer. Raises `No`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Operation):
    """One with several right answers: the spec says what was `heard`, if that is one of them."""

    heard: Any = ()


def step(world: World, operation: Operation) -> Result:
    """The world after an operation and its answer, which is a `Refusal` when nothing changed."""
    try:
        return operation.on(world)
    except No as no:
        return world, Refusal(no.errors)


def agrees(expected: Answer, seen: Answer) -> bool:
    """Whether an answer is the one expected, or one of the refusals."""
    if isinstance(expected, Refusal) and isinstance(seen, Refusal):
        return seen.errors <= expected.errors
    return bool(expected == seen)


# ------------------------------------------------------------------------- queues and machines


@dataclass(frozen=True, slots=True, kw_only=True)
class PutQueue(Operation):
    """Make a queue, pause it or set its limits."""

    queue: str
    expected_version: int
    paused: bool = False
    max_running: int | None = None
    max_running_per_owner: int | None = None

    def on(self, world: World) -> Result:
        stored = world.queues.get(self.queue)
        check(Conflict=self.expected_version != (stored.version if stored else 0))
        record = Queue(
            version=self.expected_version + 1,
            paused=self.paused,
            max_running=self.max_running,
            max_running_per_owner=self.max_running_per_owner,
        )
        return replace(world, queues={**world.queues, self.queue: record}), None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveQueue(Operation):
    queue: str

    def on(self, world: World) -> Result:
        check(Refused=bool(world.lines.get(self.queue)))
        left = {name: queue for name, queue in world.queues.items() if name != self.queue}
        return replace(world, queues=left), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear(Choice):
    queue: str
    now: datetime

    def on(self, world: World) -> Result:
        check(NotFound=self.queue not in world.queues)
        listed = world.listed(self.queue, self.heard)
        blocked = [job.id for job in world.line(self.queue) if job.state is JobState.BLOCKED]
        if sorted(blocked) == sorted(self.heard[len(listed) :]):
            blocked = list(self.heard[len(listed) :])
        cleared = (*listed, *blocked)
        for job_id in cleared:
            world = world.wrote(world.jobs[job_id], state=JobState.CANCELLED)
        for job_id in cleared:
            world = world.let_go(job_id, self.now)
        return world, cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote(Operation):
    """Ageing. Which of two jobs comes first that had different priorities until now is the store's
    to say (by `Job.position`); each priority keeps its own order."""

    queue: str
    waiting_since: datetime
    now: datetime
    told: tuple[str, ...] = ()
    """The jobs of the queue by position, whatever their priority, as the store tells it."""

    def on(self, world: World) -> Result:
        aged = [job for job in world.waiting(self.queue) if self._waited(job)]
        for job in aged:
            world = world.wrote(job, priority=job.priority + 1, promoted_at=self.now)
        lines: dict[int, tuple[list[str], list[str]]] = {}
        for job_id in world.lines.get(self.queue, ()):
            job = world.jobs[job_id]
            raised = job.promoted_at == self.now and any(job_id == each.id for each in aged)
            lines.setdefault(job.priority, ([], []))[raised].append(job_id)
        merged = [self._merged(*lines[priority]) for priority in sorted(lines, reverse=True)]
        line = tuple(job_id for part in merged for job_id in part)
        return replace(world, lines={**world.lines, self.queue: line}), len(aged)

    def _waited(self, job: Job) -> bool:
        since = max(job.waited_since, job.promoted_at or job.waited_since)
        return since < self.waiting_since

    def _merged(self, one: list[str], other: list[str]) -> list[str]:
        line: list[str] = []
        while one and other:
            first = min(one[0], other[0], key=self.told.index)
            line.append((one if first == one[0] else other).pop(0))
        return [*line, *one, *other]


@dataclass(frozen=True, slots=True, kw_only=True)
class PutMachine(Operation):
    """Make a machine, ready and idle, or let it drain, or take that back."""

    machine: str
    ready: bool
    now: datetime

    def on(self, world: World) -> Result:
        stored = world.machines.get(self.machine, Machine(idle_since=self.now, latest=self.now))
        machines = {**world.machines, self.machine: replace(stored, ready=self.ready)}
        return replace(world, machines=machines), None


# ---------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueue(Operation):
    job: str
    queue: str
    now: datetime
    priority: int = 0
    owner: str = ""
    need: Need = field(default_factory=Need)
    not_before: datetime | None = None
    depends_on: tuple[str, ...] = ()
    key: str = ""

    def on(self, world: World) -> Result:
        if self.key in world.keys:
            return world, (world.jobs[world.keys[self.key]].seen, False)
        states = [world.jobs[other].state for other in self.depends_on if other in world.jobs]
        check(
            NotFound=self.queue not in world.queues or len(states) < len(self.depends_on),
            Refused=any(state in DOOMED for state in states),
            Conflict=self.job in world.jobs,
            InvalidInput=self.job in self.depends_on
            or len(set(self.depends_on)) < len(self.depends_on),
        )
        waits = any(state is not JobState.SUCCEEDED for state in states)
        job = Job(
            id=self.job,
            queue=self.queue,
            priority=self.priority,
            owner=self.owner,
            need=self.need,
            queued_at=self.now,
            not_before=self.not_before,
            depends_on=self.depends_on,
            state=JobState.BLOCKED if waits else JobState.QUEUED,
            apart=self.not_before is not None and self.not_before > self.now,
        )
        keys = {**world.keys, self.key: self.job} if self.key else world.keys
        placed = replace(world, keys=keys).placed(job, world.bottom(self.queue, self.priority))
        return placed, (job.seen, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Operation):
    machine: str
    queues: tuple[str, ...]
    free: Capacity
    limit: int
    now: datetime

    def on(self, world: World) -> Result:
        check(NotFound=self.machine not in world.machines)
        if world.machines[self.machine].ready:
            world = world.looked(self.queues, self.now)
        free, taken = self.free, list[str]()
        for queue in self.queues:
            while len(taken) < self.limit and (able := self.able(world, queue, free)):
                world, free = self.lease(world, able[0]), free.less(able[0].need)
                taken.append(able[0].id)
        return world, tuple(world.jobs[job_id].seen for job_id in taken)

    def able(self, world: World, queue: str, free: Capacity) -> list[Job]:
        """What the machine could be given of a queue now, first to last."""
        record = world.queues.get(queue)
        if record is None or record.paused or not world.machines[self.machine].ready:
            return []
        held = Counter(job.owner for job in world.line(queue) if job.state in HELD)
        return [
            job
            for job in world.waiting(queue)
            if free.fits(job.need) and not job.delayed(self.now) and record.admits(held, job.owner)
        ]

    def lease(self, world: World, job: Job) -> World:
        """The world with the machine having the job."""
        waited_s = max(0.0, (self.now - job.waited_since).total_seconds())
        attempt = Attempt(self.machine, "", job.queue, self.now, waited_s)
        busy = {
            **world.machines,
            self.machine: replace(world.machines[self.machine], idle_since=None),
        }
        return replace(world, machines=busy).wrote(
            job,
            state=JobState.LEASED,
            epoch=job.epoch + 1,
            apart=False,
            machine=self.machine,
            leased_at=self.now,
            attempts=(*job.attempts, attempt),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(Operation):
    job: str
    epoch: int
    now: datetime

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        check(StaleEpoch=job.state not in HELD or job.epoch != self.epoch)
        if job.state is JobState.LEASED:
            world = world.wrote(job, state=JobState.RUNNING)
        return world, world.jobs[self.job].seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Operation):
    job: str
    epoch: int
    state: JobState
    now: datetime

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        if job.state in ENDED and job.epoch == self.epoch and job.machine:
            return world, job.seen
        check(StaleEpoch=job.state not in HELD or job.epoch != self.epoch)
        world = _attempt_over(world, job, self.state.value, state=self.state)
        world = world.rested(job, self.now).let_go(job.id, self.now)
        return world, world.jobs[self.job].seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue(Operation):
    job: str
    epoch: int
    outcome: str
    need: Need
    now: datetime

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        if 0 < job.epoch == self.epoch and not job.machine:
            return world, job.seen
        check(StaleEpoch=job.state not in HELD or job.epoch != self.epoch)
        world = _attempt_over(
            world, job, self.outcome, state=JobState.QUEUED, machine="", need=self.need
        )
        return world.rested(job, self.now), world.jobs[self.job].seen


def _attempt_over(world: World, job: Job, outcome: str, **changes: object) -> World:
    return world.wrote(
        job,
        attempts=(*job.attempts[:-1], job.attempts[-1]._replace(outcome=outcome)),
        failures=job.failures + (outcome == "failed"),
        losses=job.losses + (outcome in ("interrupted", "lost")),
        **changes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Operation):
    job: str
    now: datetime

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        if job.state in (JobState.QUEUED, JobState.BLOCKED):
            world = world.wrote(job, state=JobState.CANCELLED).let_go(job.id, self.now)
        elif job.state in HELD and not job.cancel_requested:
            world = world.wrote(job, cancel_requested=True)
        return world, world.jobs[self.job].seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Operation):
    job: str
    queue: str
    where: str
    now: datetime
    neighbour: str = ""
    expected_version: int | None = None

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        beside = self.where in ("before", "after")
        neighbours = [each.id for each in world.waiting(self.queue)] if beside else []
        check(
            Conflict=self.expected_version not in (None, job.version),
            Refused=job.state is not JobState.QUEUED or self.neighbour == self.job,
            NotFound=self.queue not in world.queues
            or (beside and self.neighbour not in neighbours),
        )
        present = [job.priority, *(each.priority for each in world.waiting(self.queue))]
        world = world.wrote(job).without(job)
        if self.where == "top":
            priority, spot = max(present), world.top(self.queue, max(present))
        elif self.where == "bottom":
            priority, spot = min(present), world.bottom(self.queue, min(present))
        else:
            priority = world.jobs[self.neighbour].priority
            spot = world.lines[self.queue].index(self.neighbour) + (self.where == "after")
        moved = replace(world.jobs[self.job], queue=self.queue, priority=priority)
        world = world.loosened(moved.id, self.neighbour in world.loose)
        return world.placed(moved, spot), moved.seen


@dataclass(frozen=True, slots=True, kw_only=True)
class LooseMove(Choice):
    """A move to a place that was worked out a moment before: all but the place is as it must be."""

    move: Move

    def on(self, world: World) -> Result:
        moved = self.heard
        if not isinstance(moved, Seen):
            return self.move.on(world)
        job = world.job(self.move.job)
        check(
            Conflict=self.move.expected_version not in (None, job.version),
            Refused=job.state is not JobState.QUEUED,
            NotFound=self.move.queue not in world.queues,
        )
        world = world.wrote(job).without(job).loosened(job.id, True)
        changed = replace(
            job, version=job.version + 1, queue=self.move.queue, priority=moved.priority
        )
        return world.placed(changed, world.bottom(changed.queue, changed.priority)), changed.seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Operation):
    """What else it repairs is never broken here. How many delayed jobs it finds is not said: they
    may have been let go already."""

    now: datetime

    def on(self, world: World) -> Result:
        return world.looked(tuple(world.lines), self.now), None


# --------------------------------------------------------------------------------------- reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Get(Operation):
    job: str

    def on(self, world: World) -> Result:
        return world, world.job(self.job).seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Everything(Operation):
    """All jobs, newest first."""

    def on(self, world: World) -> Result:
        return world, tuple(world.jobs[job_id].seen for job_id in sorted(world.jobs, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Choice):
    """Ids of what waits in a queue, in claim order, the delayed ones last."""

    queue: str

    def on(self, world: World) -> Result:
        listed = world.listed(self.queue, self.heard)
        return world, self.heard if self._same_but_loose(world, listed) else listed

    def _same_but_loose(self, world: World, listed: Sequence[str]) -> bool:
        def firm(ids: Sequence[str]) -> list[str]:
            return [job_id for job_id in ids if job_id not in world.loose]

        def priorities(ids: Sequence[str]) -> list[int]:
            return [world.jobs[job_id].priority for job_id in ids]

        return (
            sorted(self.heard) == sorted(listed)
            and firm(self.heard) == firm(listed)
            and priorities(self.heard) == priorities(listed)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases(Operation):
    """Machine, job and epoch of every open lease."""

    def on(self, world: World) -> Result:
        held = [job for job in world.jobs.values() if job.state in HELD]
        return world, frozenset((job.machine, job.id, job.epoch, job.queue) for job in held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths(Operation):
    """Waiting, running and blocked of each queue."""

    def on(self, world: World) -> Result:
        return world, {queue: self._depth(world.line(queue)) for queue in world.queues}

    def _depth(self, line: Sequence[Job]) -> tuple[int, int, int]:
        states = Counter(job.state for job in line)
        running = states[JobState.LEASED] + states[JobState.RUNNING]
        return states[JobState.QUEUED], running, states[JobState.BLOCKED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups(Operation):
    """Queue, priority, need, count and ripe count of what may start now."""

    queues: tuple[str, ...]
    ripe_before: datetime
    now: datetime

    def on(self, world: World) -> Result:
        counts: Counter[tuple[str, int, Need]] = Counter()
        ripe: Counter[tuple[str, int, Need]] = Counter()
        for queue in self.queues:
            held = Counter(job.owner for job in world.line(queue) if job.state in HELD)
            for job in world.waiting(queue):
                if job.delayed(self.now) or not world.queues[queue].admits(held, job.owner):
                    continue
                held[job.owner] += 1
                counts[queue, job.priority, job.need] += 1
                ripe[queue, job.priority, job.need] += job.queued_at <= self.ripe_before
        groups = tuple((*kind, count, ripe[kind]) for kind, count in counts.items())
        return world, groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts(Operation):
    """Machine, outcome and queue of each attempt of a job, and when it was leased."""

    job: str

    def on(self, world: World) -> Result:
        return world, tuple(attempt[:4] for attempt in world.job(self.job).attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits(Operation):
    """How long first attempts waited, newest claim first."""

    queue: str

    def on(self, world: World) -> Result:
        firsts = [(job.attempts[0], job.id) for job in world.jobs.values() if job.attempts]
        firsts.sort(key=lambda first: (first[0].leased_at, first[1]), reverse=True)
        here = [attempt.waited_s for attempt, _ in firsts if attempt.queue == self.queue]
        return world, tuple(here)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads(Choice):
    """Since when somebody waits in each queue; whose wait it is may be the store's to choose."""

    def on(self, world: World) -> Result:
        heads: dict[str, datetime] = {}
        for queue in world.queues:
            waiting = world.waiting(queue)
            told: Any = dict(self.heard).get(queue)
            if any(job.waited_since == told for job in waiting):
                heads[queue] = told
            elif not all(job.apart for job in waiting):
                heads[queue] = min(job.waited_since for job in waiting if not job.apart)
        return world, heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(Choice):
    """Since when a machine has run nothing."""

    machine: str

    def on(self, world: World) -> Result:
        machine = world.machines[self.machine]
        idle = machine.idle_since is not None
        return (
            world,
            machine.latest if idle and self.heard == machine.latest else machine.idle_since,
        )
