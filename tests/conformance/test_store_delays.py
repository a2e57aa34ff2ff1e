"""Every store keeps jobs back until their time, and stays sensible when a clock is wrong."""

from __future__ import annotations

from datetime import datetime

import pytest

from control_plane.core.model import JobState, Need
from control_plane.ports import Store
from tests.conformance.builders import (
    BECAUSE,
    NOW,
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
    machine,
    move,
    queue,
    run,
)

ANYTHING = Need()
FAR = at(10 * 365 * 86_400)


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with the queues `q` and `other` and one ready machine `m-1`."""
    queue(store)
    queue(store, "other")
    machine(store)
    return store


def later(store: Store, job_id: str, second: float, **changes: object) -> None:
    enqueue(store, job_id, not_before=at(second), **changes)


# ----------------------------------------------------------------------------------- claiming


def test_a_delayed_job_is_claimed_at_its_time_without_any_look(ready: Store) -> None:
    later(ready, "j", 10)
    assert claim(ready, now=at(9.999999)) == []
    [held] = claim(ready, now=at(10))
    assert (held.id, held.not_before) == ("j", at(10))


def test_a_delayed_job_stands_where_it_was_put_when_its_time_comes(ready: Store) -> None:
    later(ready, "first", 10)
    enqueue(ready, "second", need=ANYTHING)
    later(ready, "high", 10, priority=1)
    assert ids(claim(ready, limit=5)) == ["second"]
    enqueue(ready, "third")
    assert [ids(claim(ready, now=at(10))) for _ in range(3)] == [["high"], ["first"], ["third"]]


def test_a_time_that_has_passed_already_delays_nothing(ready: Store) -> None:
    later(ready, "j", -5)
    later(ready, "now", 0)
    assert counts(ready) == (2, 0, 0, 0)
    assert claim_order(ready) == ["j", "now"]
    run(ready, "j", "now")


def test_a_job_given_back_is_not_delayed_again(ready: Store) -> None:
    later(ready, "j", 10)
    enqueue(ready, "k")
    [held] = claim(ready, now=at(20))
    back(ready, held, now=at(21))
    assert counts(ready) == (2, 0, 0, 0)
    assert claim_order(ready) == ["j", "k"]
    assert ids(claim(ready, now=at(22))) == ["j"]


def test_its_wait_counts_from_its_time(ready: Store) -> None:
    later(ready, "j", 10)
    run(ready, "j", now=at(25))
    ready.machine_beat("m-1", now=at(30))
    [attempt] = ready.job_attempts("j")
    assert attempt.queued_at == at(10)
    assert list(ready.queue_waits("q")) == [15]


# -------------------------------------------------------------------------------- counting


def test_delayed_jobs_are_counted_until_a_look_finds_their_time_come(ready: Store) -> None:
    later(ready, "j", 10)
    later(ready, "k", 20)
    later(ready, "l", 10, queue="other")
    assert counts(ready) == (2, 2, 0, 0)
    assert ready.job_release(now=at(9)) == 0
    assert ready.job_release(now=at(10)) == 2
    assert counts(ready) == (2, 1, 0, 0)
    assert counts(ready, "other") == (1, 0, 0, 0)
    assert ready.job_release(now=at(10)) == 0
    assert ready.job_release(now=at(99)) == 1
    assert ready.queue_stats()["q"].oldest_at == NOW


def test_a_claim_is_a_look_at_the_queues_it_walks(ready: Store) -> None:
    enqueue(ready, "first")
    later(ready, "j", 10)
    later(ready, "k", 10, queue="other")
    assert ids(claim(ready, now=at(10))) == ["first"]
    assert counts(ready) == (1, 0, 0, 1)
    assert counts(ready, "other") == (1, 1, 0, 0)


def test_a_look_lets_go_no_more_than_its_limit_and_the_next_goes_on(ready: Store) -> None:
    for number in range(5):
        later(ready, f"j-{number}", 10 - number)
    assert [ready.job_release(now=at(10), limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert claim_order(ready) == [f"j-{number}" for number in range(5)]


def test_groups_hold_a_delayed_job_from_its_time_on(ready: Store) -> None:
    enqueue(ready, "now")
    later(ready, "j", 10)
    assert [group.count for group in groups(ready, now=at(9.999999))] == [1]
    [group] = groups(ready, now=at(10))
    assert (group.count, group.oldest_at) == (2, NOW)
    ready.job_release(now=at(10))
    assert groups(ready, now=at(10)) == [group]


def test_heads_leave_out_queues_in_which_nothing_may_start(ready: Store) -> None:
    later(ready, "j", 10)
    enqueue(ready, "k", queue="other")
    assert list(ready.queue_heads(["q", "other"])) == ["other"]
    ready.job_release(now=at(10))
    assert sorted(ready.queue_heads(["q", "other"])) == ["other", "q"]


def test_delayed_jobs_are_listed_last_by_their_time(ready: Store) -> None:
    later(ready, "c", 30, priority=9)
    later(ready, "b", 20)
    enqueue(ready, "z")
    later(ready, "a", 20)
    enqueue(ready, "y", priority=1)
    for limit in (1, 2, 3, 10):
        assert claim_order(ready, limit=limit) == ["y", "z", "a", "b", "c"]
    ready.job_release(now=at(20))
    for limit in (1, 2, 3, 10):
        assert claim_order(ready, limit=limit) == ["y", "b", "z", "a", "c"]


# ------------------------------------------------------------------------- what is done to them


def test_a_delayed_job_may_be_moved_and_keeps_its_time(ready: Store) -> None:
    enqueue(ready, "a", "b")
    later(ready, "j", 10)
    moved = move(ready, "j", "before", "b")
    assert (moved.not_before, moved.version) == (at(10), 2)
    assert claim_order(ready) == ["a", "b", "j"]
    assert counts(ready) == (3, 1, 0, 0)
    ready.job_release(now=at(10))
    assert claim_order(ready) == ["a", "j", "b"]


def test_a_delayed_job_may_be_moved_to_another_queue(ready: Store) -> None:
    later(ready, "j", 10)
    enqueue(ready, "k", queue="other")
    move(ready, "j", "top", queue="other")
    assert (counts(ready), counts(ready, "other")) == ((0, 0, 0, 0), (2, 1, 0, 0))
    assert ids(claim(ready, "other")) == ["k"]
    assert ids(claim(ready, "other", now=at(10))) == ["j"]


def test_a_delayed_job_is_cancelled_at_once(ready: Store) -> None:
    later(ready, "j", 10)
    assert ready.job_cancel("j", reason=BECAUSE, now=at(1)).state is JobState.CANCELLED
    assert counts(ready) == (0, 0, 0, 0)
    assert ready.job_release(now=at(10)) == 0
    assert claim(ready, now=at(10)) == []


def test_what_may_not_start_yet_does_not_age(ready: Store) -> None:
    later(ready, "j", 1000)
    enqueue(ready, "k")
    assert ready.queue_promote("q", waiting_since=at(500), now=at(560)) == 1
    assert ready.queue_promote("q", waiting_since=at(1000), now=at(1060)) == 1
    assert (ready.job_get("j").priority, ready.job_get("k").priority) == (0, 2)
    assert ready.queue_promote("q", waiting_since=at(1001), now=at(1061)) == 1
    assert (ready.job_get("j").priority, ready.job_get("k").priority) == (1, 2)


def test_a_job_may_wait_for_others_and_for_its_time(ready: Store) -> None:
    enqueue(ready, "a", "b")
    later(ready, "long", 100, depends_on=("a",))
    later(ready, "short", 5, depends_on=("b",))
    assert counts(ready) == (2, 0, 2, 0)
    run(ready, "a", "b", now=at(10))
    assert counts(ready) == (2, 1, 0, 0)
    assert ids(claim(ready, now=at(99))) == ["short"]
    assert claim(ready, now=at(99)) == []
    assert ids(claim(ready, now=at(100))) == ["long"]


# -------------------------------------------------------------------------------- wrong clocks


@pytest.mark.parametrize("now", [at(-86_400), FAR])
def test_a_claim_by_a_wrong_clock_is_a_claim_like_any_other(ready: Store, now: datetime) -> None:
    enqueue(ready, "j")
    [held] = claim(ready, now=now)
    assert (held.state, held.epoch, held.leased_at) == (JobState.LEASED, 1, now)
    assert [lease.job_id for lease in ready.job_leases()] == ["j"]
    assert back(ready, held).queued_at == NOW
    run(ready, "j", now=at(1))
    assert [each.number for each in ready.job_attempts("j")] == [1, 2]


def test_an_attempt_ends_no_earlier_than_it_began(ready: Store) -> None:
    enqueue(ready, "j", "k")
    held, other = claim(ready, now=at(100)) + claim(ready, now=at(100))
    ready.job_start("j", held.epoch, now=at(40))
    started = ready.job_get("j")
    ended = end(ready, held, now=at(50))
    back(ready, other, now=at(50))
    assert (started.started_at, ended.finished_at) == (at(100), at(100))
    for name in ("j", "k"):
        [attempt] = ready.job_attempts(name)
        assert attempt.ended_at == at(100)
    assert [each.job_id for each in ready.attempts_between(at(99), at(101))] == ["j", "k"]


def test_a_look_by_a_clock_far_ahead_loses_nothing_and_starts_nothing_early(ready: Store) -> None:
    later(ready, "j", 10)
    enqueue(ready, "k")
    ready.job_release(now=FAR)
    assert claim_order(ready) == ["j", "k"]
    assert ids(claim(ready)) == ["k"]
    assert claim(ready, now=at(9)) == []
    assert [group.count for group in groups(ready, now=at(9))] == []
    assert ids(claim(ready, now=at(10))) == ["j"]


def test_a_job_submitted_by_a_clock_far_ahead_is_claimed_all_the_same(ready: Store) -> None:
    ready.job_enqueue(job("j", submitted_at=FAR))
    assert ready.queue_stats()["q"].oldest_at == FAR
    assert [group.count for group in groups(ready)] == [1]
    assert ready.queue_promote("q", waiting_since=at(0), now=at(60)) == 0
    run(ready, "j")


def test_a_job_let_go_by_a_clock_that_went_back_starts_at_once(ready: Store) -> None:
    enqueue(ready, "a")
    enqueue(ready, "b", depends_on=("a",))
    run(ready, "a", now=at(-50))
    assert ready.job_get("b").queued_at == at(-50)
    run(ready, "b", now=at(-60))
