"""The dicts that the parts of the memory store share, under one lock."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from control_plane.core.access import ApiToken, Federation
from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Cooldown,
    Event,
    Job,
    JobState,
    Lease,
    Machine,
    Need,
    PriceInterval,
    QueueRecord,
)
from control_plane.core.pacing import Bucket
from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import FencedOut, NotFound
from control_plane.ports import Fence, HeldFence, PlanRecord, StoredAnswer
from control_plane.stores import transitions
from control_plane.stores.figures import Figures
from control_plane.stores.limits import Room, room

Spot = tuple[float, str]
"""Position and id: the order inside one priority."""

ALL = 1 << 62
"""More than there will ever be of anything."""


class Waiting:
    """What waits in one queue: the line, grouped by priority and need, so that a claim looks at one
    job of each kind instead of at every job; and beside it the delayed ones by their time."""

    def __init__(self) -> None:
        self.groups: dict[tuple[int, Need], list[Spot]] = {}
        """Each sorted; never empty."""
        self.delayed: list[tuple[datetime, str]] = []
        """Sorted."""

    def add(self, job: Job, *, held_back: bool) -> None:
        if held_back and job.not_before is not None:
            insort(self.delayed, (job.not_before, job.id))
        else:
            kind = (job.priority, job.spec.need)
            insort(self.groups.setdefault(kind, []), (job.position, job.id))

    def remove(self, job: Job, *, held_back: bool) -> None:
        if held_back and job.not_before is not None:
            del self.delayed[bisect_left(self.delayed, (job.not_before, job.id))]
            return
        kind = (job.priority, job.spec.need)
        spots = self.groups[kind]
        del spots[bisect_left(spots, (job.position, job.id))]
        if not spots:
            del self.groups[kind]

    def spots(self) -> list[tuple[int, float, str]]:
        """Priority with the sign turned, position and id, in claim order, without the delayed
        ones."""
        return sorted(
            (-priority, *spot) for (priority, _), group in self.groups.items() for spot in group
        )

    def line(self) -> list[str]:
        """Ids in claim order, without the delayed ones."""
        return [job_id for _, _, job_id in self.spots()]

    def ids(self) -> list[str]:
        """All ids: those in the line in claim order, then the delayed ones by their time."""
        return [*self.line(), *(job_id for _, job_id in self.delayed)]

    def next_fitting(self, free: Capacity, may_start: Callable[[str], bool]) -> str | None:
        """The first job of the line that fits into `free` and may start."""
        firsts = (
            (-priority, *first)
            for (priority, need), spots in self.groups.items()
            if free.fits(need)
            and (first := next((spot for spot in spots if may_start(spot[1])), None))
        )
        best = min(firsts, default=None)
        return None if best is None else best[2]


class Tables:
    """All state. Values are frozen records: a change replaces one, so a method that raises before
    its first write has changed nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._figures = Figures()
        self._autoscalers: dict[str, AutoscalerRecord] = {}
        self._autoscaler_versions: dict[str, list[AutoscalerRecord]] = {}
        self._queues: dict[str, QueueRecord] = {}
        self._jobs: dict[str, Job] = {}
        self._ids: list[str] = []
        """Of all jobs, sorted."""
        self._jobs_by_key: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        """Idempotency keys by job."""
        self._waiting: defaultdict[str, Waiting] = defaultdict(Waiting)
        """By queue."""
        self._let_go: set[str] = set()
        """Delayed jobs whose time a look has found come."""
        self._blocked: defaultdict[str, set[str]] = defaultdict(set)
        """Blocked jobs by queue."""
        self._dependents: dict[str, set[str]] = {}
        """Blocked jobs by each job they depend on; no empty sets."""
        self._held: dict[str, set[str]] = {}
        """Job ids by the machine that has them; no empty sets."""
        self._running: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """How many jobs machines have, by queue and owner."""
        self._promoted_at: dict[str, datetime] = {}
        self._position = 0
        self._attempts: dict[str, list[Attempt]] = {}
        self._artifacts: dict[tuple[str, int], tuple[Artifact, ...]] = {}
        self._machines: dict[str, Machine] = {}
        self._prices: dict[str, dict[datetime, PriceInterval]] = {}
        """By machine and start."""
        self._leases: dict[str, HeldFence] = {}
        self._cooldowns: dict[str, Cooldown] = {}
        self._buckets: dict[str, Bucket] = {}
        self._tokens: dict[str, ApiToken] = {}
        self._federations: dict[str, Federation] = {}
        self._hooks: dict[str, Hook] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._plans: dict[str, PlanRecord] = {}
        self._events: dict[int, Event] = {}
        """By number, in order."""
        self._last_event = 0
        self._answers: dict[str, tuple[datetime, StoredAnswer]] = {}

    def _job(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise NotFound(f"there is no job {job_id}")
        return self._jobs[job_id]

    def _queue(self, name: str) -> QueueRecord:
        if name not in self._queues:
            raise NotFound(f"there is no queue {name}")
        return self._queues[name]

    def _machine(self, machine_id: str) -> Machine:
        if machine_id not in self._machines:
            raise NotFound(f"there is no machine {machine_id}")
        return self._machines[machine_id]

    # ------------------------------------------------------------- jobs and what is derived

    def _save(self, job: Job) -> None:
        """Write a job, new or changed, and keep what is derived from it."""
        old = self._jobs.get(job.id)
        if old is None:
            insort(self._ids, job.id)
        else:
            self._leave(old)
        self._jobs[job.id] = job
        if job.state is JobState.QUEUED:
            self._waiting[job.queue].add(job, held_back=self._held_back(job))
        elif job.state is JobState.BLOCKED:
            self._blocked[job.queue].add(job.id)
            for dependency in job.depends_on:
                self._dependents.setdefault(dependency, set()).add(job.id)
        elif job.state in transitions.HELD:
            self._held.setdefault(job.machine_id, set()).add(job.id)
            self._running[job.queue][job.owner] += 1

    def _leave(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self._waiting[job.queue].remove(job, held_back=self._held_back(job))
        elif job.state is JobState.BLOCKED:
            self._blocked[job.queue].remove(job.id)
            for dependency in job.depends_on:
                _take_out(self._dependents, dependency, job.id)
        elif job.state in transitions.HELD:
            _take_out(self._held, job.machine_id, job.id)
            self._running[job.queue][job.owner] -= 1

    def _held_back(self, job: Job) -> bool:
        return transitions.held_back(job) and job.id not in self._let_go

    def _let_due_go(self, queues: Iterable[str], now: datetime, *, limit: int = ALL) -> int:
        """Put delayed jobs whose time has come into their lines; returns how many."""
        due = [
            self._jobs[job_id]
            for queue in queues
            for not_before, job_id in self._waiting[queue].delayed
            if not_before <= now
        ]
        for job in due[:limit]:
            self._leave(job)
            self._let_go.add(job.id)
            self._waiting[job.queue].add(job, held_back=False)
        return len(due[:limit])

    def _let_dependents_go(self, ended: str, now: datetime) -> None:
        """What follows for blocked jobs from the end of a job."""
        self._look_again(self._dependents_of(ended), now)

    def _look_again(self, blocked: Iterable[str], now: datetime, *, limit: int = ALL) -> int:
        """Let go or cancel those of these blocked jobs that have nothing to wait for, and so on
        down the line; returns how many moved."""
        moved = 0
        line = deque(blocked)
        while line and moved < limit:
            job = self._jobs[line.popleft()]
            after = transitions.unblocked(job, self._dependencies(job), now)
            if after is job:
                continue
            self._save(after)
            moved += 1
            if after.state in JOB_ENDED:
                line.extend(self._dependents_of(after.id))
        return moved

    def _dependents_of(self, job_id: str) -> Sequence[str]:
        return sorted(self._dependents.get(job_id, ()))

    def _dependencies(self, job: Job) -> Sequence[Job]:
        # One that is forgotten by now has succeeded: else this job would not wait any more.
        return [self._jobs[each] for each in job.depends_on if each in self._jobs]

    def _fresh_position(self) -> float:
        self._position += 1
        return float(self._position)

    def _waiting_jobs(self, queue: str) -> Sequence[Job]:
        """What waits in a queue: the line in claim order, then the delayed ones by their time."""
        return [self._jobs[job_id] for job_id in self._waiting[queue].ids()]

    def _blocked_jobs(self, queue: str) -> Sequence[Job]:
        """What waits for other jobs in a queue, by id."""
        return [self._jobs[job_id] for job_id in sorted(self._blocked[queue])]

    def _held_jobs(self) -> Iterator[Job]:
        return (self._jobs[job_id] for held in self._held.values() for job_id in held)

    def _leases_of(self, held: Iterable[Job]) -> Sequence[Lease]:
        """Oldest first."""
        leases = [transitions.lease_of(job) for job in held]
        return tuple(sorted(leases, key=lambda lease: (lease.leased_at, lease.job_id)))

    def _room(self, queue: str) -> Room:
        return room(self._queues[queue], self._running[queue])

    def _check_fence(self, fence: Fence) -> None:
        if fence.name not in self._leases or self._leases[fence.name].fence != fence:
            raise FencedOut(
                f"{fence.owner} no longer controls {fence.name}: "
                f"generation {fence.generation} is over"
            )


def _take_out(sets: dict[str, set[str]], key: str, member: str) -> None:
    sets[key].remove(member)
    if not sets[key]:
        del sets[key]


S = TypeVar("S", bound=Tables)
P = ParamSpec("P")
R = TypeVar("R")


def atomic(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let one thread at a time into the store."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return call
