"""Stores with a bug on purpose: each breaks one promise, most of them only now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from control_plane.core.model import Capacity, Job, QueueRecord
from control_plane.ports import Ending, Place
from control_plane.stores.memory import MemoryStore


class Mutant(MemoryStore):
    """A right store, and what its subclasses need to spoil it."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = 0

    def _every(self, turns: int) -> bool:
        self._turns += 1
        return self._turns % turns == 0

    @contextmanager
    def _pretending(self, queues: Mapping[str, QueueRecord]) -> Iterator[None]:
        """Let the right store work on other queue records for one step."""
        with self._lock:
            true = self._queues
            self._queues = {**true, **queues}
            yield
            self._queues = true

    def _without_limits(self, names: Sequence[str]) -> Mapping[str, QueueRecord]:
        return {
            name: replace(record, max_running=None, max_running_per_owner=None)
            for name, record in self._queues.items()
            if name in names
        }


# ------------------------------------------------------------- wrong whoever calls, and when


class ClaimsTwice(Mutant):
    def job_claim(self, machine_id: str, *args: Any, **kwargs: Any) -> Sequence[Job]:
        claimed = super().job_claim(machine_id, *args, **kwargs)
        held = list(self._held_jobs())
        return claimed or tuple(replace(job, machine_id=machine_id) for job in held[:1])


class ForgetsJobs(Mutant):
    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        if self._every(5) and not job.depends_on and job.queue in self._queues:
            return job, True
        return super().job_enqueue(job, idempotency_key=idempotency_key)


class ForgetsKeys(Mutant):
    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        return super().job_enqueue(job, idempotency_key="" if self._every(3) else idempotency_key)


class AcceptsLateWriters(Mutant):
    def job_finish(self, job_id: str, epoch: int, *args: Any, **kwargs: Any) -> Job:
        return super().job_finish(job_id, max(epoch, self.job_get(job_id).epoch), *args, **kwargs)


class IgnoresPause(Mutant):
    def job_claim(self, *args: Any, **kwargs: Any) -> Sequence[Job]:
        going_on = {name: replace(each, paused=False) for name, each in self._queues.items()}
        with self._pretending(going_on):
            return super().job_claim(*args, **kwargs)


class ExceedsLimits(Mutant):
    def job_claim(self, *args: Any, **kwargs: Any) -> Sequence[Job]:
        with self._pretending(self._without_limits(list(self._queues))):
            return super().job_claim(*args, **kwargs)


class ExceedsLimitsPerOwner(Mutant):
    def job_claim(self, *args: Any, **kwargs: Any) -> Sequence[Job]:
        shared = {
            name: replace(each, max_running_per_owner=None) for name, each in self._queues.items()
        }
        with self._pretending(shared):
            return super().job_claim(*args, **kwargs)


class ServesDrainingMachines(Mutant):
    def job_claim(self, machine_id: str, *args: Any, **kwargs: Any) -> Sequence[Job]:
        with self._lock:
            machine = self.machine_get(machine_id)
            ready = next(
                (each for each in self._machines.values() if each.state == "ready"), machine
            )
            self._machines[machine_id] = replace(machine, state=ready.state)
            claimed = super().job_claim(machine_id, *args, **kwargs)
            self._machines[machine_id] = replace(self._machines[machine_id], state=machine.state)
            return claimed


class LosesMoves(Mutant):
    def job_move(self, job_id: str, **kwargs: Any) -> Job:
        before = self.job_get(job_id)
        moved = super().job_move(job_id, **kwargs)
        if self._every(3):
            self._save(replace(before, version=moved.version))
        return moved


class GivesBackAtTheEnd(Mutant):
    def job_requeue(self, job_id: str, *args: Any, **kwargs: Any) -> Job:
        job = super().job_requeue(job_id, *args, **kwargs)
        if job.state == "queued" and self._every(2):
            self._save(replace(job, position=self._fresh_position()))
        return job


class StartsBlockedJobs(Mutant):
    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        return super().job_enqueue(replace(job, depends_on=()), idempotency_key=idempotency_key)


class AgesTwice(Mutant):
    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        raised = super().queue_promote(name, waiting_since=waiting_since, now=now)
        self._promoted_at.clear()
        return raised


class HurriesDelayedJobs(Mutant):
    def job_claim(
        self, machine_id: str, queues: Sequence[str], free: Capacity, *, limit: int, now: datetime
    ) -> Sequence[Job]:
        delays = [job.not_before for job in self._jobs.values() if job.not_before]
        ahead = max([now, *delays]) if self._every(2) else now
        return super().job_claim(machine_id, queues, free, limit=limit, now=ahead)


# --------------------------------------------------------- wrong only when others are in between


class LooksBeforeItClaims(Mutant):
    """Two machines may both take the job that they both saw waiting."""

    def job_claim(
        self, machine_id: str, queues: Sequence[str], *args: Any, **kwargs: Any
    ) -> Sequence[Job]:
        with self._lock:
            seen = {job.id for queue in queues for job in self._waiting_jobs(queue)}
        time.sleep(0)
        with self._lock:
            gone = [job for job in self._held_jobs() if job.id in seen]
            claimed = super().job_claim(machine_id, queues, *args, **kwargs)
            stolen = tuple(replace(job, machine_id=machine_id) for job in gone[:1])
            return claimed or stolen


class CountsBeforeItClaims(Mutant):
    """A limit may be exceeded by as many as count at once."""

    def job_claim(
        self, machine_id: str, queues: Sequence[str], *args: Any, **kwargs: Any
    ) -> Sequence[Job]:
        with self._lock:
            rooms = [name for name in queues if name in self._queues and self._open(name)]
        time.sleep(0)
        with self._pretending(self._without_limits(rooms)):
            return super().job_claim(machine_id, queues, *args, **{**kwargs, "limit": 1})

    def _open(self, name: str) -> bool:
        most, running = self._queues[name].max_running, self._running[name]
        each = self._queues[name].max_running_per_owner
        return (most is None or running.total() < most) and (
            each is None or all(count < each for count in running.values())
        )


class ChecksVersionsTooEarly(Mutant):
    """Of two moves that both expect the version they saw, the later one wins."""

    def job_move(
        self, job_id: str, *, queue: str, place: Place, expected_version: int | None, now: datetime
    ) -> Job:
        same = expected_version == self.job_get(job_id).version
        time.sleep(0)
        checked = None if same else expected_version
        return super().job_move(job_id, queue=queue, place=place, expected_version=checked, now=now)


class ChecksLeasesTooEarly(Mutant):
    """A late writer may end the attempt that began while he was checked."""

    def job_finish(self, job_id: str, epoch: int, ending: Ending, **kwargs: Any) -> Job:
        good = epoch == self.job_get(job_id).epoch
        time.sleep(0)
        with self._lock:
            current = self.job_get(job_id).epoch if good else epoch
            return super().job_finish(job_id, current, ending, **kwargs)


ALWAYS_WRONG: Sequence[type[Mutant]] = (
    ClaimsTwice,
    ForgetsJobs,
    ForgetsKeys,
    AcceptsLateWriters,
    IgnoresPause,
    ExceedsLimits,
    ExceedsLimitsPerOwner,
    ServesDrainingMachines,
    LosesMoves,
    GivesBackAtTheEnd,
    StartsBlockedJobs,
    AgesTwice,
    HurriesDelayedJobs,
)

WRONG_TOGETHER: Sequence[type[Mutant]] = (
    LooksBeforeItClaims,
    CountsBeforeItClaims,
    ChecksVersionsTooEarly,
    ChecksLeasesTooEarly,
)

WRONG_WITHOUT_A_LOCK_TOO: Sequence[type[Mutant]] = (
    ClaimsTwice,
    ForgetsJobs,
    AcceptsLateWriters,
    IgnoresPause,
    ExceedsLimits,
    LosesMoves,
    LooksBeforeItClaims,
    CountsBeforeItClaims,
    ChecksVersionsTooEarly,
    ChecksLeasesTooEarly,
)
"""What no rule for simultaneous callers excuses."""
