"""The dicts that the parts of the memory store share, under one lock."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Cooldown,
    Event,
    Job,
    JobState,
    Machine,
    Need,
    PriceInterval,
    QueueRecord,
)
from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import FencedOut, NotFound
from control_plane.ports import Fence, PlanRecord, StoredAnswer
from control_plane.stores import transitions

Spot = tuple[float, str]
"""Position and id: the order inside one priority."""


class Waiting:
    """What waits in one queue, grouped by priority and need, so that a claim looks at one job of
    each kind instead of at every job."""

    def __init__(self) -> None:
        self.groups: dict[tuple[int, Need], list[Spot]] = {}
        """Each sorted; never empty."""

    def add(self, job: Job) -> None:
        insort(self.groups.setdefault((job.priority, job.spec.need), []), (job.position, job.id))

    def remove(self, job: Job) -> None:
        kind = (job.priority, job.spec.need)
        spots = self.groups[kind]
        del spots[bisect_left(spots, (job.position, job.id))]
        if not spots:
            del self.groups[kind]

    def ids(self) -> Iterator[str]:
        """Ids in no order."""
        return (job_id for spots in self.groups.values() for _, job_id in spots)

    def in_order(self) -> list[str]:
        """Ids in claim order."""
        spots = (
            (-priority, *spot) for (priority, _), group in self.groups.items() for spot in group
        )
        return [job_id for _, _, job_id in sorted(spots)]

    def next_fitting(self, free: Capacity, may_start: Callable[[str], bool]) -> str | None:
        """The first job in claim order that fits into `free` and may start."""
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
        self._autoscalers: dict[str, AutoscalerRecord] = {}
        self._autoscaler_versions: dict[str, list[AutoscalerRecord]] = {}
        self._queues: dict[str, QueueRecord] = {}
        self._jobs: dict[str, Job] = {}
        self._jobs_by_time: list[tuple[datetime, str]] = []
        self._jobs_by_key: dict[str, str] = {}
        self._waiting: dict[str, Waiting] = {}
        self._held: dict[str, set[str]] = {}
        """Job ids by the machine that has them; no empty sets."""
        self._promoted_at: dict[str, datetime] = {}
        self._position = 0
        self._attempts: dict[str, list[Attempt]] = {}
        self._artifacts: dict[tuple[str, int], tuple[Artifact, ...]] = {}
        self._machines: dict[str, Machine] = {}
        self._prices: dict[str, dict[datetime, PriceInterval]] = {}
        """By machine and start."""
        self._leases: dict[str, tuple[Fence, datetime]] = {}
        self._cooldowns: dict[str, Cooldown] = {}
        self._plans: dict[str, PlanRecord] = {}
        self._events: list[Event] = []
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

    def _save(self, job: Job) -> None:
        """Write a job, new or changed, and keep what is derived from it."""
        old = self._jobs.get(job.id)
        if old is None:
            insort(self._jobs_by_time, (job.submitted_at, job.id))
        else:
            self._leave(old)
        self._jobs[job.id] = job
        if job.state is JobState.QUEUED:
            self._waiting.setdefault(job.queue, Waiting()).add(job)
        elif job.state in transitions.HELD:
            self._held.setdefault(job.machine_id, set()).add(job.id)

    def _leave(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self._waiting[job.queue].remove(job)
        elif job.state in transitions.HELD:
            self._held[job.machine_id].remove(job.id)
            if not self._held[job.machine_id]:
                del self._held[job.machine_id]

    def _fresh_position(self) -> float:
        self._position += 1
        return float(self._position)

    def _waiting_jobs(self, queue: str) -> Iterator[Job]:
        """What waits in a queue, in no order."""
        waiting = self._waiting.get(queue, Waiting())
        return (self._jobs[job_id] for job_id in waiting.ids())

    def _waiting_in_order(self, queue: str) -> list[Job]:
        waiting = self._waiting.get(queue, Waiting())
        return [self._jobs[job_id] for job_id in waiting.in_order()]

    def _held_jobs(self) -> Iterator[Job]:
        return (self._jobs[job_id] for held in self._held.values() for job_id in held)

    def _check_fence(self, fence: Fence) -> None:
        if fence.name not in self._leases or self._leases[fence.name][0] != fence:
            raise FencedOut(
                f"{fence.owner} no longer controls {fence.name}: "
                f"generation {fence.generation} is over"
            )


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
