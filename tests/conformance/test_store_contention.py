"""Every store gives out each job once and in order while a whole fleet asks at the same time.

What can be seen of an order among simultaneous callers: a claim takes effect at some instant
between its call and its answer. So when the call that brought job k began only after the call that
brought job j had been answered, k surely still waited when j was taken. The port promises that a
job overtakes no more than `CLAIM_WINDOW` jobs of its own priority in that way, and none of a higher
one. Every claim of the run is checked for both: what is asserted is exactly the promise, for all
pairs of jobs whose order in time is beyond doubt.
"""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, repeat
from random import Random

import pytest

from control_plane.core.model import Job, JobState, Need
from control_plane.ports import CLAIM_WINDOW, Store
from tests.conformance.builders import (
    QUEUED,
    at,
    claim,
    counts,
    end,
    enqueue,
    listed,
    machine,
    queue,
)
from tests.conformance.conftest import Adapter

CLAIMERS = 64
LIMIT_MAX = 8
PRIORITIES = (0, 1, 0, 2)
"""Taken in turn, so that half of the line is of one priority."""
PER_JOB_S = 0.15
"""Far more than any store takes: a run that gets stuck ends."""


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A job as one call of a claimer brought it."""

    job: Job
    called: float
    answered: float


def fill(store: Store, count: int) -> list[Job]:
    """A queue of so many jobs and a machine for each claimer; returns the line."""
    queue(store)
    for number in range(CLAIMERS):
        machine(store, f"w-{number}")
    ids = [f"j-{number:05}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, repeat(store), ids, cycle(PRIORITIES)))
    line = listed(store, queue="q", states=QUEUED, limit=500)
    assert len(line) == count
    return line


def submit(store: Store, job_id: str, priority: int) -> None:
    enqueue(store, job_id, priority=priority, need=Need())


def drain(store: Store, count: int, ended: list[str], seed: int) -> list[Claimed]:
    """One claimer: take a few jobs, end them, until all of them have `ended`."""
    chance = Random(seed)
    mine: list[Claimed] = []
    deadline = time.monotonic() + 30 + count * PER_JOB_S
    # A claim that lost its races may come back empty while something waits.
    while len(ended) < count:
        called = time.monotonic()
        held = claim(store, machine_id=f"w-{seed}", limit=chance.randint(1, LIMIT_MAX), now=at(1))
        answered = time.monotonic()
        mine += [Claimed(job=each, called=called, answered=answered) for each in held]
        ended += [end(store, each, now=at(2)).id for each in held]
        assert answered < deadline, f"stuck after {len(ended)} of {count} jobs"
    return mine


def overtaken(line: Sequence[Job], claims: Sequence[Claimed]) -> tuple[int, int]:
    """The most jobs of its own priority that any job overtook for sure, and the most of a higher
    one; `line` is the order in which the jobs waited."""
    by_id = {each.job.id: each for each in claims}
    own = higher = 0
    ahead: dict[int, list[float]] = {}
    for waiting in line:
        claimed = by_id[waiting.id]
        for priority, calls in ahead.items():
            later = len(calls) - bisect_right(calls, claimed.answered)
            if priority == waiting.priority:
                own = max(own, later)
            else:
                higher = max(higher, later)
        insort(ahead.setdefault(waiting.priority, []), claimed.called)
    return own, higher


def run_crowd(
    store: Store, count: int, record_property: Callable[[str, object], None]
) -> list[Claimed]:
    """Let the crowd empty a queue of so many jobs, and check all that the port promises."""
    line = fill(store, count)
    began = time.monotonic()
    with ThreadPoolExecutor(CLAIMERS) as pool:
        ended: list[str] = []
        mine = pool.map(partial(drain, store, count, ended), range(CLAIMERS))
        claims = list(chain.from_iterable(mine))
    seconds = time.monotonic() - began
    leases = Counter((each.job.id, each.job.epoch) for each in claims)
    assert leases == Counter((each.id, 1) for each in line), "each job leased once, at one epoch"
    own, higher = overtaken(line, claims)
    assert own <= CLAIM_WINDOW
    assert higher == 0
    figures = store.figures()["job_claim"]
    report = {
        "jobs_per_second": round(count / seconds),
        "claims": figures.calls,
        "conflicts_per_claim": round(figures.conflicts / figures.calls, 3),
        "conflicts_per_job": round(figures.conflicts / count, 3),
        "most_overtaken": own,
    }
    for name, value in report.items():
        record_property(name, value)
    print(f"\n{CLAIMERS} claimers, {count} jobs: {report}")  # noqa: T201 - what the run is for
    return claims


def check_ended(store: Store, claims: Sequence[Claimed]) -> None:
    """Every job ended once, by the lease that was given for it."""
    assert counts(store) == (0, 0, 0, 0)
    assert store.job_leases() == ()
    machine_of = {each.job.id: each.job.machine_id for each in claims}
    for ended in listed(store, limit=500):
        assert (ended.state, ended.epoch, ended.attempt) == (JobState.SUCCEEDED, 1, 1)
        assert ended.machine_id == machine_of[ended.id]
    for name in list(machine_of)[::97]:
        [attempt] = store.job_attempts(name)
        assert (attempt.machine_id, attempt.outcome) == (machine_of[name], "succeeded")


def test_a_crowd_of_claimers_gets_each_job_once_and_in_order(
    adapter: Adapter, store: Store, record_property: Callable[[str, object], None]
) -> None:
    check_ended(store, run_crowd(store, adapter.crowd, record_property))


@pytest.mark.long
def test_a_crowd_of_claimers_empties_a_long_queue(
    adapter: Adapter, store: Store, record_property: Callable[[str, object], None]
) -> None:
    check_ended(store, run_crowd(store, adapter.crowd_long, record_property))


def test_one_caller_sees_the_exact_order(store: Store) -> None:
    line = fill(store, 60)
    seen: list[str] = []
    while held := claim(store, machine_id="w-0", limit=7):
        seen += [each.id for each in held]
    assert seen == [each.id for each in line]


def test_what_the_crowd_test_would_notice() -> None:
    """The measure itself: a job that was taken while others ahead of it surely waited."""

    def one(number: int, priority: int, called: float, answered: float) -> Claimed:
        base = Job(
            id=f"j-{number}",
            queue="q",
            spec=None,  # type: ignore[arg-type]
            priority=priority,
            submitted_at=at(0),
            queued_at=at(0),
        )
        return Claimed(job=base, called=called, answered=answered)

    line = [one(0, 1, 9, 10), one(1, 0, 3, 4), one(2, 0, 4.5, 6), one(3, 0, 1, 2)]
    jobs = [each.job for each in line]
    assert overtaken(jobs, line) == (2, 1)
    assert overtaken(jobs[1:3], line[1:3]) == (0, 0)
    overlapping = [one(0, 0, 3, 9), one(1, 0, 1, 4)]
    assert overtaken([each.job for each in overlapping], overlapping) == (0, 0)
