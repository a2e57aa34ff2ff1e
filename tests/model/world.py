"""What the spec is made of: worlds, and how one becomes the next.

The order of a queue is a list here, not a number per job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

from control_plane.core.model import JobState, Need

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

    def in_new_hands(self) -> World:
        """The world as a store has it that was given all records, and has not looked yet."""
        apart = {
            job.id: replace(job, apart=True)
            for job in self.jobs.values()
            if job.state is JobState.QUEUED and not job.attempts and job.delayed(job.queued_at)
        }
        # Of a machine that is at work nobody told when it was idle last.
        busy = {
            name: replace(machine, latest=None)
            for name, machine in self.machines.items()
            if machine.idle_since is None
        }
        return replace(self, jobs={**self.jobs, **apart}, machines={**self.machines, **busy})

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
