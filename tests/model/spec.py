"""The queue as a small pure machine: a second opinion on what every store answers.

Written from the words of `control_plane.ports`, not from a store. One operation is one function
from a world to the next; where the port leaves a choice it names every answer that is right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime

from control_plane.core.model import Capacity, JobState, Need
from tests.model.world import (
    DOOMED,
    ENDED,
    HELD,
    Attempt,
    Choice,
    Job,
    Machine,
    Operation,
    Queue,
    Result,
    Seen,
    World,
    check,
)

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
        return world, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish(Operation):
    job: str
    epoch: int
    state: JobState
    now: datetime

    def on(self, world: World) -> Result:
        job = world.job(self.job)
        if job.state in ENDED and job.epoch == self.epoch and job.machine:
            return world, None
        check(StaleEpoch=job.state not in HELD or job.epoch != self.epoch)
        world = _attempt_over(world, job, self.state.value, state=self.state)
        return world.rested(job, self.now).let_go(job.id, self.now), None


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
