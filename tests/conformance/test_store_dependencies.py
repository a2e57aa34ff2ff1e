"""Every store lets a job wait for others: it starts when all have succeeded, and never when one has
not, however long the line of jobs behind it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from control_plane.core.model import Job, JobState, Need
from control_plane.errors import InvalidInput, NotFound, Refused, StaleEpoch
from control_plane.ports import Store, TransferKind
from control_plane.stores import transfer
from tests.conformance.builders import (
    BECAUSE,
    DONE,
    LOST,
    NOW,
    ONE_GPU,
    at,
    back,
    claim,
    claim_order,
    counts,
    end,
    enqueue,
    groups,
    ids,
    job,
    listed,
    machine,
    move,
    queue,
    run,
)
from tests.conformance.conftest import Adapter

BLOCKED = frozenset({JobState.BLOCKED})
WITHOUT_SUCCESS = (JobState.FAILED, JobState.CANCELLED, JobState.EXHAUSTED)


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with the queues `q` and `other` and one ready machine `m-1`."""
    queue(store)
    queue(store, "other")
    machine(store)
    return store


def after(store: Store, job_id: str, *others: str, queue: str = "q", **changes: object) -> Job:
    """Submit a job that depends on others."""
    stored, _ = store.job_enqueue(job(job_id, queue, depends_on=others, **changes))
    return stored


def state(store: Store, job_id: str) -> JobState:
    return store.job_get(job_id).state


# ------------------------------------------------------------------------------- succeeding


def test_a_job_is_blocked_until_all_it_depends_on_have_succeeded(ready: Store) -> None:
    enqueue(ready, "a", "b")
    stored = after(ready, "c", "b", "a")
    enqueue(ready, "d")
    assert (stored.state, stored.depends_on) == (JobState.BLOCKED, ("b", "a"))
    assert ready.job_get("c") == stored
    assert claim_order(ready) == ["a", "b", "d"]
    assert counts(ready) == (3, 0, 1, 0)
    assert sum(group.count for group in groups(ready)) == 3
    run(ready, "a")
    assert ready.job_get("c") == stored
    run(ready, "b", now=at(7))
    let_go = replace(stored, state=JobState.QUEUED, queued_at=at(7), version=stored.version + 1)
    assert ready.job_get("c") == let_go
    assert claim_order(ready) == ["c", "d"], "it has kept its place"
    run(ready, "c")


def test_a_job_whose_dependencies_have_succeeded_already_waits_at_once(ready: Store) -> None:
    enqueue(ready, "a")
    run(ready, "a")
    assert after(ready, "b", "a").state is JobState.QUEUED
    assert claim_order(ready) == ["b"]


def test_the_state_given_is_ignored(ready: Store) -> None:
    enqueue(ready, "a")
    assert after(ready, "b", "a", state=JobState.QUEUED).state is JobState.BLOCKED
    enqueue(ready, "c", state=JobState.BLOCKED)
    assert claim_order(ready) == ["a", "c"]


def test_an_attempt_that_is_tried_again_lets_nothing_go(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    [held] = claim(ready)
    ready.job_start("a", held.epoch, now=at(1))
    back(ready, held)
    assert state(ready, "b") is JobState.BLOCKED
    run(ready, "a")
    assert state(ready, "b") is JobState.QUEUED


def test_a_line_of_jobs_goes_on_step_by_step(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    after(ready, "c", "b")
    after(ready, "d", "c", "b")
    for name in "abcd":
        assert claim_order(ready) == [name]
        run(ready, name)
    assert counts(ready) == (0, 0, 0, 0)


def test_many_jobs_may_wait_for_one_in_any_queue(ready: Store) -> None:
    enqueue(ready, "a")
    fan = [f"b-{number:02}" for number in range(20)]
    for number, name in enumerate(fan):
        after(ready, name, "a", queue="other" if number % 2 else "q")
    assert counts(ready, "other") == (0, 0, 10, 0)
    run(ready, "a")
    assert claim_order(ready) == fan[::2]
    assert claim_order(ready, "other") == fan[1::2]
    assert counts(ready, "other") == (10, 0, 0, 0)


def test_blocked_jobs_are_listed_like_others(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    after(ready, "c", "b", queue="other")
    assert ids(listed(ready)) == ["c", "b", "a"]
    assert ids(listed(ready, states=BLOCKED)) == ["c", "b"]
    assert ids(listed(ready, queue="other", states=BLOCKED)) == ["c"]


# ----------------------------------------------------------------------------- not succeeding


@pytest.mark.parametrize("ending", WITHOUT_SUCCESS)
def test_what_depends_on_a_job_without_success_is_cancelled_down_the_line(
    ready: Store, ending: JobState
) -> None:
    enqueue(ready, "a", "z")
    after(ready, "b", "a")
    after(ready, "c", "b", "z", queue="other")
    after(ready, "d", "b", "c")
    after(ready, "e", "z")
    [held] = claim(ready)
    end(ready, held, ending, now=at(9))
    for name, cause in (("b", "a"), ("c", "b"), ("d", "b")):
        gone = ready.job_get(name)
        assert (gone.state, gone.finished_at) == (JobState.CANCELLED, at(9))
        assert gone.reason is not None
        assert gone.reason.code == "dependency-failed"
        assert gone.reason.numbers["job"] in (cause, "c")
        assert gone.attempt == 0
    assert state(ready, "e") is JobState.BLOCKED
    assert claim_order(ready) == ["z"]
    run(ready, "z")
    assert claim_order(ready) == ["e"]


def test_a_cancelled_waiting_job_takes_along_what_depends_on_it(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    ready.job_cancel("a", reason=BECAUSE, now=at(3))
    assert (state(ready, "b"), ready.job_get("b").finished_at) == (JobState.CANCELLED, at(3))


def test_a_blocked_job_is_cancelled_at_once_with_what_depends_on_it(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    after(ready, "c", "b")
    gone = ready.job_cancel("b", reason=BECAUSE, now=at(3))
    assert (gone.state, gone.reason, gone.finished_at) == (JobState.CANCELLED, BECAUSE, at(3))
    assert state(ready, "c") is JobState.CANCELLED
    run(ready, "a")
    assert (state(ready, "b"), claim_order(ready)) == (JobState.CANCELLED, [])


def test_asking_a_running_job_to_end_decides_nothing_yet(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    [held] = claim(ready)
    ready.job_cancel("a", reason=BECAUSE, now=at(3))
    assert state(ready, "b") is JobState.BLOCKED
    end(ready, held, JobState.SUCCEEDED)
    assert state(ready, "b") is JobState.QUEUED, "it was done before it was asked"


def test_a_cleared_queue_takes_along_what_depends_on_it_elsewhere(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a", queue="other")
    after(ready, "c", "b", queue="other")
    assert ready.queue_clear("q", now=at(3), reason=BECAUSE) == ("a",)
    assert [state(ready, name) for name in "bc"] == [JobState.CANCELLED] * 2


def test_an_end_repeated_changes_nothing_down_the_line(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "b", "a")
    [held] = claim(ready)
    end(ready, held, now=at(1))
    [second] = claim(ready, now=at(2))
    end(ready, held, JobState.FAILED, now=at(3))
    assert ready.job_get("b") == second


def test_the_end_of_a_line_of_many_jobs_comes_at_once(ready: Store, adapter: Adapter) -> None:
    """No step of it may need a deeper stack or another look."""
    length = adapter.many
    enqueue(ready, "j-00000", need=Need())
    for number in range(1, length):
        after(ready, f"j-{number:05}", f"j-{number - 1:05}", need=Need())
    assert counts(ready) == (1, 0, length - 1, 0)
    ready.job_cancel("j-00000", reason=BECAUSE, now=at(1))
    assert counts(ready) == (0, 0, 0, 0)
    assert state(ready, f"j-{length - 1:05}") is JobState.CANCELLED


# ------------------------------------------------------------------------------ refusing


def test_an_unknown_dependency_is_not_found(ready: Store) -> None:
    enqueue(ready, "a")
    with pytest.raises(NotFound, match="x-1"):
        after(ready, "b", "a", "x-1")
    with pytest.raises(NotFound):
        ready.job_get("b")
    assert counts(ready) == (1, 0, 0, 0)


@pytest.mark.parametrize("ending", WITHOUT_SUCCESS)
def test_a_dependency_that_ended_without_success_is_refused(ready: Store, ending: JobState) -> None:
    enqueue(ready, "a", "b")
    [held] = claim(ready)
    end(ready, held, ending)
    with pytest.raises(Refused, match="a"):
        after(ready, "c", "b", "a")
    with pytest.raises(NotFound):
        ready.job_get("c")
    assert counts(ready) == (1, 0, 0, 0)


@pytest.mark.parametrize("wrong", [("b",), ("a", "b"), ("a", "a")])
def test_depending_on_itself_or_twice_on_another_is_invalid(
    ready: Store, wrong: tuple[str, ...]
) -> None:
    enqueue(ready, "a")
    with pytest.raises(InvalidInput):
        after(ready, "b", *wrong)
    with pytest.raises(NotFound):
        ready.job_get("b")


def test_a_repeated_submission_is_answered_whatever_became_of_its_dependency(ready: Store) -> None:
    enqueue(ready, "a")
    first, _ = ready.job_enqueue(job("b", depends_on=("a",)), idempotency_key="k")
    ready.job_cancel("a", reason=BECAUSE, now=at(3))
    gone = ready.job_get("b")
    assert ready.job_enqueue(job("c", depends_on=("a",)), idempotency_key="k") == (gone, False)
    assert (first.state, gone.state) == (JobState.BLOCKED, JobState.CANCELLED)


def test_a_blocked_job_cannot_be_moved_started_or_ended(ready: Store) -> None:
    enqueue(ready, "a")
    stored = after(ready, "b", "a")
    with pytest.raises(Refused):
        move(ready, "b", "top")
    with pytest.raises(NotFound):
        move(ready, "a", "after", "b")
    calls: tuple[Callable[[], object], ...] = (
        lambda: ready.job_start("b", 0, now=NOW),
        lambda: ready.job_finish("b", 0, DONE, state=JobState.SUCCEEDED, now=NOW),
        lambda: ready.job_requeue("b", 0, LOST, need=ONE_GPU, now=NOW),
    )
    for call in calls:
        with pytest.raises(StaleEpoch):
            call()
    assert ready.job_get("b") == stored


def test_a_blocked_job_keeps_its_place_while_others_move_around_it(ready: Store) -> None:
    enqueue(ready, "a", "b")
    after(ready, "aa", "a")
    enqueue(ready, "c", "d")
    move(ready, "d", "after", "b")
    move(ready, "c", "before", "d")
    run(ready, "a")
    assert claim_order(ready) == ["b", "c", "d", "aa"]


def test_the_top_is_before_a_blocked_job_too(ready: Store) -> None:
    enqueue(ready, "a")
    after(ready, "aa", "a", queue="other")
    enqueue(ready, "b", "c", queue="other")
    move(ready, "c", "top", queue="other")
    run(ready, "a")
    assert claim_order(ready, "other") == ["c", "aa", "b"]


def test_a_blocked_job_does_not_age_and_ages_from_its_release(ready: Store) -> None:
    enqueue(ready, "a", submitted_at=at(-1000))
    after(ready, "b", "a", submitted_at=at(-1000))
    assert ready.queue_promote("q", waiting_since=at(-500), now=NOW) == 1
    run(ready, "a", now=at(10))
    assert state(ready, "b") is JobState.QUEUED
    assert ready.queue_promote("q", waiting_since=at(10), now=at(500)) == 0
    assert ready.queue_promote("q", waiting_since=at(11), now=at(500)) == 1
    [held] = claim(ready, now=at(600))
    [attempt] = ready.job_attempts("b")
    assert (held.id, attempt.queued_at) == ("b", at(10)), "before, it could not have started"


# ------------------------------------------------------------------------- repairing, racing


def end_without_telling(store: Store, job_id: str, state: JobState) -> None:
    """What a crash leaves behind between a job's end and what follows from it."""
    ended = replace(store.job_get(job_id), state=state, finished_at=NOW)
    store.transfer_write(TransferKind.JOB, [transfer.row(transfer.JobRow(job=ended))])


def test_a_look_lets_go_what_a_crash_left_blocked(ready: Store) -> None:
    enqueue(ready, "a", "b")
    for name in ("c", "d"):
        after(ready, name, "a")
    after(ready, "e", "b")
    end_without_telling(ready, "a", JobState.SUCCEEDED)
    assert claim_order(ready) == ["b"]
    assert ready.job_release(now=at(5)) == 2
    assert claim_order(ready) == ["b", "c", "d"]
    assert ready.job_get("c").queued_at == at(5)
    assert state(ready, "e") is JobState.BLOCKED
    assert ready.job_release(now=at(6)) == 0


def test_a_look_cancels_what_a_crash_left_without_hope(ready: Store) -> None:
    enqueue(ready, "a", "b")
    after(ready, "c", "a", "b")
    after(ready, "d", "c")
    end_without_telling(ready, "a", JobState.FAILED)
    assert ready.job_release(now=at(5)) == 2
    assert [state(ready, name) for name in "cd"] == [JobState.CANCELLED] * 2
    assert ready.job_get("d").finished_at == at(5)
    assert claim_order(ready) == ["b"]


def test_a_look_moves_no_more_than_its_limit_and_the_next_goes_on(ready: Store) -> None:
    enqueue(ready, "a", "b")
    for name in ("c", "d", "e"):
        after(ready, name, "a")
    after(ready, "f", "b")
    after(ready, "g", "f")
    end_without_telling(ready, "a", JobState.SUCCEEDED)
    end_without_telling(ready, "b", JobState.CANCELLED)
    moved = [ready.job_release(now=at(5), limit=2) for _ in range(4)]
    assert sum(moved) == 5
    assert max(moved) == 2
    assert moved[-1] == 0
    assert claim_order(ready) == ["c", "d", "e"]
    assert [state(ready, name) for name in "fg"] == [JobState.CANCELLED] * 2


def test_delayed_and_blocked_jobs_share_the_limit_of_a_look(ready: Store) -> None:
    enqueue(ready, "a")
    for name in ("b", "c"):
        after(ready, name, "a")
    enqueue(ready, "d", "e", not_before=at(5))
    end_without_telling(ready, "a", JobState.SUCCEEDED)
    moved = [ready.job_release(now=at(5), limit=3) for _ in range(3)]
    assert moved == [3, 1, 0]
    assert claim_order(ready) == ["b", "c", "d", "e"]


@pytest.mark.usefixtures("jumpy_threads")
def test_dependencies_that_end_at_the_same_time_let_go_once(ready: Store) -> None:
    names = [f"a-{number}" for number in range(8)]
    enqueue(ready, *names, need=Need())
    stored = after(ready, "b", *names)
    held = claim(ready, limit=8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: end(ready, each, now=at(1)), held))
    let_go = ready.job_get("b")
    assert (let_go.state, let_go.version) == (JobState.QUEUED, stored.version + 1)
    assert claim_order(ready) == ["b"]


@pytest.mark.usefixtures("jumpy_threads")
def test_jobs_submitted_while_their_dependency_ends_are_never_left_behind(ready: Store) -> None:
    """At the latest the next look finds those that came between the end and what follows."""
    enqueue(ready, "a")
    [held] = claim(ready)
    names = [f"b-{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        submitted = [pool.submit(after, ready, name, "a") for name in names]
        end(ready, held)
    assert all(each.result().depends_on == ("a",) for each in submitted)
    ready.job_release(now=at(1))
    assert sorted(claim_order(ready)) == sorted(names)
