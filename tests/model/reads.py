"""The spec of what is read: nothing here changes a world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.core.model import JobState, Need
from tests.model.world import HELD, Choice, Job, Operation, Result, World


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
class Places(Operation):
    """Ids of what waits in a queue by the places it has there, blocked jobs too: where these will
    stand one day is told by nothing else."""

    queue: str

    def on(self, world: World) -> Result:
        waits = (JobState.QUEUED, JobState.BLOCKED)
        return world, tuple(job.id for job in world.line(self.queue) if job.state in waits)


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
