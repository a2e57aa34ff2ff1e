"""Every store keeps queues in order: counted exactly, moved atomically, aged fairly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from control_plane.core.model import JobState, Need, QueueRecord, WaitingGroup
from control_plane.errors import Conflict, InvalidInput, NotFound, Refused
from control_plane.ports import Place, Store
from tests.conformance.builders import (
    BECAUSE,
    DONE,
    LOST,
    NOW,
    ONE_GPU,
    at,
    claim,
    claim_order,
    enqueue,
    job,
    machine,
    move,
    queue,
)

CPU = Need(cpus=1)


@pytest.fixture
def line(store: Store) -> Store:
    """A store with queue `q` in which a, b, c, d wait, and a ready machine."""
    queue(store)
    machine(store)
    enqueue(store, "a", "b", "c", "d")
    return store


# ---------------------------------------------------------------------------------- records


def test_queues_are_versioned_and_listed_by_name(store: Store) -> None:
    queue(store, "b", autoscaler="research")
    queue(store, "a")
    record = QueueRecord(name="b", autoscaler="research", created_at=NOW)
    assert store.queue_get("b") == record
    paused = replace(record, paused=True, version=2)
    store.queue_put(paused, expected_version=1)
    assert store.queue_get("b") == paused
    assert [each.name for each in store.queue_list()] == ["a", "b"]


@pytest.mark.parametrize(("version", "expected"), [(1, 0), (3, 2)])
def test_a_queue_write_over_another_version_is_a_conflict(
    store: Store, version: int, expected: int
) -> None:
    queue(store)
    record = QueueRecord(name="q", paused=True, version=version, created_at=NOW)
    with pytest.raises(Conflict):
        store.queue_put(record, expected_version=expected)
    assert not store.queue_get("q").paused


def test_a_record_that_carries_the_wrong_version_is_invalid(store: Store) -> None:
    with pytest.raises(InvalidInput):
        store.queue_put(QueueRecord(name="q", version=2, created_at=NOW), expected_version=0)
    with pytest.raises(NotFound):
        store.queue_get("q")


def test_only_an_empty_queue_is_removed(line: Store) -> None:
    with pytest.raises(Refused):
        line.queue_remove("q")
    [held] = claim(line)
    line.queue_clear("q", now=at(1), reason=BECAUSE)
    with pytest.raises(Refused):
        line.queue_remove("q")
    line.job_finish(held.id, held.epoch, DONE, state=JobState.SUCCEEDED, now=at(2))
    line.queue_remove("q")
    line.queue_remove("q")
    assert line.queue_list() == ()
    with pytest.raises(NotFound):
        line.queue_get("q")
    assert line.job_get("a").state is JobState.SUCCEEDED


# ------------------------------------------------------------------------------------ counts


def test_stats_count_every_queue_exactly(line: Store) -> None:
    queue(line, "empty")
    line.job_enqueue(job("old", submitted_at=at(-500), not_before=at(900)))
    claim(line, limit=1)
    [second] = claim(line, limit=1)
    line.job_start(second.id, second.epoch, now=at(1))
    stats = line.queue_stats()
    assert sorted(stats) == ["empty", "q"]
    assert (stats["q"].waiting, stats["q"].running, stats["q"].oldest_at) == (3, 2, at(-500))
    assert (stats["empty"].waiting, stats["empty"].running) == (0, 0)
    assert stats["empty"].oldest_at is None


def test_stats_follow_every_change_of_state(line: Store) -> None:
    def counts() -> tuple[int, int]:
        stats = line.queue_stats()["q"]
        return stats.waiting, stats.running

    assert counts() == (4, 0)
    [held] = claim(line)
    assert counts() == (3, 1)
    line.job_requeue(held.id, held.epoch, LOST, need=ONE_GPU, now=at(1))
    assert counts() == (4, 0)
    [again] = claim(line)
    line.job_finish(again.id, again.epoch, DONE, state=JobState.SUCCEEDED, now=at(2))
    assert counts() == (3, 0)
    line.job_cancel("b", reason=BECAUSE, now=at(3))
    assert counts() == (2, 0)


def test_groups_count_waiting_work_by_queue_priority_and_need(store: Store) -> None:
    for name in ("q", "other"):
        queue(store, name)
    enqueue(store, "c-1", "c-2", need=CPU, submitted_at=at(-100))
    enqueue(store, "g-1", need=ONE_GPU, submitted_at=at(-10))
    enqueue(store, "g-2", need=ONE_GPU, submitted_at=at(-90))
    enqueue(store, "high", need=ONE_GPU, priority=7, submitted_at=at(-1))
    enqueue(store, "future", need=CPU, not_before=at(60))
    enqueue(store, "there", queue="other", need=CPU, submitted_at=at(-5))
    groups = store.waiting_groups(
        ["other", "q", "nowhere"], ripe_before={"q": at(-90), "other": at(-6)}, now=NOW
    )
    shared = {"queue": "q", "priority": 0}
    assert groups == (
        WaitingGroup(queue="other", priority=0, need=CPU, count=1, ripe=0, oldest_at=at(-5)),
        WaitingGroup(queue="q", priority=7, need=ONE_GPU, count=1, ripe=0, oldest_at=at(-1)),
        WaitingGroup(**shared, need=CPU, count=2, ripe=2, oldest_at=at(-100)),  # type: ignore[arg-type]
        WaitingGroup(**shared, need=ONE_GPU, count=2, ripe=1, oldest_at=at(-90)),  # type: ignore[arg-type]
    )


def test_groups_are_in_the_order_of_their_first_job(line: Store) -> None:
    enqueue(line, "cpu", need=CPU)

    def needs() -> list[Need]:
        groups = line.waiting_groups(["q"], ripe_before={}, now=NOW)
        return [group.need for group in groups]

    assert needs() == [ONE_GPU, CPU]
    move(line, "cpu", "top")
    assert needs() == [CPU, ONE_GPU]


def test_groups_include_paused_queues_and_leave_out_held_jobs(line: Store) -> None:
    claim(line)
    record = line.queue_get("q")
    line.queue_put(replace(record, paused=True, version=2), expected_version=1)
    [group] = line.waiting_groups(["q"], ripe_before={"q": NOW}, now=NOW)
    assert (group.count, group.ripe) == (3, 3)


# ------------------------------------------------------------------------------------- clear


def test_clear_cancels_what_waits_and_does_not_touch_what_runs(line: Store) -> None:
    [held] = claim(line)
    queue(line, "other")
    enqueue(line, "elsewhere", queue="other")
    assert line.queue_clear("q", now=at(5), reason=BECAUSE) == ("b", "c", "d")
    assert line.job_get("a") == held
    assert line.job_get("elsewhere").state is JobState.QUEUED
    gone = line.job_get("c")
    assert (gone.state, gone.finished_at, gone.reason) == (JobState.CANCELLED, at(5), BECAUSE)
    assert gone.version == 2
    assert line.queue_clear("q", now=at(6), reason=BECAUSE) == ()


def test_clear_of_an_unknown_queue_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.queue_clear("q", now=NOW, reason=BECAUSE)


# -------------------------------------------------------------------------------------- move


@pytest.mark.parametrize(
    ("moved", "where", "of", "order"),
    [
        ("c", "top", "", "cabd"),
        ("a", "top", "", "abcd"),
        ("b", "bottom", "", "acdb"),
        ("d", "before", "b", "adbc"),
        ("d", "before", "a", "dabc"),
        ("a", "before", "b", "abcd"),
        ("a", "after", "c", "bcad"),
        ("a", "after", "d", "bcda"),
        ("b", "after", "a", "abcd"),
    ],
)
def test_a_move_puts_the_job_exactly_there(
    line: Store, moved: str, where: str, of: str, order: str
) -> None:
    result = move(line, moved, where, of)
    assert claim_order(line) == list(order)
    assert result == line.job_get(moved)
    assert result.version == 2


def test_a_new_job_still_goes_to_the_bottom_after_moves(line: Store) -> None:
    move(line, "a", "bottom")
    move(line, "b", "after", "a")
    enqueue(line, "e")
    assert claim_order(line) == ["c", "d", "a", "b", "e"]


def test_top_and_bottom_take_the_priority_that_stands_there(line: Store) -> None:
    enqueue(line, "high", priority=5)
    enqueue(line, "low", priority=-5)
    assert move(line, "c", "top").priority == 5
    assert move(line, "b", "bottom").priority == -5
    assert claim_order(line) == ["c", "high", "a", "d", "low", "b"]


def test_top_and_bottom_keep_a_priority_that_stands_there_already(line: Store) -> None:
    enqueue(line, "high", priority=5)
    enqueue(line, "low", priority=-5)
    assert move(line, "high", "top").priority == 5
    assert move(line, "low", "bottom").priority == -5
    assert claim_order(line) == ["high", "a", "b", "c", "d", "low"]


def test_beside_another_job_its_priority_is_taken(line: Store) -> None:
    enqueue(line, "high-1", "high-2", priority=5)
    assert move(line, "d", "after", "high-1").priority == 5
    assert move(line, "high-2", "before", "b").priority == 0
    assert claim_order(line) == ["high-1", "d", "a", "high-2", "b", "c"]


def test_a_job_moves_to_another_queue(line: Store) -> None:
    queue(line, "other")
    assert move(line, "b", "top", queue="other").priority == 0
    enqueue(line, "x", queue="other")
    move(line, "c", "before", "x", queue="other")
    assert claim_order(line) == ["a", "d"]
    assert claim_order(line, "other") == ["b", "c", "x"]
    stats = line.queue_stats()
    assert (stats["q"].waiting, stats["other"].waiting) == (2, 3)


def test_two_hundred_moves_into_the_same_gap_keep_the_order(line: Store) -> None:
    for number in range(100):
        move(line, "c", "before", "b")
        assert claim_order(line) == ["a", "c", "b", "d"], number
        move(line, "b", "before", "c")
        assert claim_order(line) == ["a", "b", "c", "d"], number
    positions = [line.job_get(each).position for each in "abcd"]
    assert all(one < other for one, other in pairwise(positions))


def test_a_held_job_keeps_its_place_while_others_move_around_it(line: Store) -> None:
    [held] = claim(line)
    for _ in range(40):
        move(line, "c", "after", "b")
        move(line, "b", "after", "c")
        move(line, "c", "before", "b")
        move(line, "b", "before", "c")
    line.job_requeue("a", held.epoch, LOST, need=ONE_GPU, now=at(1))
    assert claim_order(line) == ["a", "b", "c", "d"]


def test_a_place_next_to_a_held_job_is_next_to_it_when_it_comes_back(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "z", "b", "c")
    [held] = claim(store)
    move(store, "c", "before", "b")
    store.job_requeue(held.id, held.epoch, LOST, need=ONE_GPU, now=at(1))
    assert claim_order(store) == ["z", "c", "b"]


def test_the_top_is_before_a_held_job_too(line: Store) -> None:
    [held] = claim(line)
    move(line, "d", "top")
    line.job_requeue(held.id, held.epoch, LOST, need=ONE_GPU, now=at(1))
    assert claim_order(line) == ["d", "a", "b", "c"]


def test_a_move_is_conditional_on_the_version(line: Store) -> None:
    place = Place(where="top")
    with pytest.raises(Conflict):
        line.job_move("c", queue="q", place=place, expected_version=2, now=NOW)
    assert claim_order(line) == ["a", "b", "c", "d"]
    moved = line.job_move("c", queue="q", place=place, expected_version=1, now=NOW)
    with pytest.raises(Conflict):
        line.job_move("c", queue="q", place=place, expected_version=1, now=NOW)
    assert line.job_get("c") == moved


def test_only_a_waiting_job_moves(line: Store) -> None:
    [held] = claim(line)
    with pytest.raises(Refused):
        move(line, "a", "bottom")
    line.job_finish("a", held.epoch, DONE, state=JobState.SUCCEEDED, now=at(1))
    with pytest.raises(Refused):
        move(line, "a", "bottom")


def test_a_move_names_what_is_not_there(line: Store) -> None:
    queue(line, "other")
    enqueue(line, "elsewhere", queue="other")
    claim(line)  # a
    with pytest.raises(NotFound):
        move(line, "x", "top")
    with pytest.raises(NotFound):
        move(line, "b", "top", queue="nowhere")
    for neighbour in ("x", "elsewhere", "a"):
        with pytest.raises(NotFound):
            move(line, "b", "before", neighbour)
    assert claim_order(line) == ["b", "c", "d"]


def test_a_move_that_means_nothing_is_refused(line: Store) -> None:
    with pytest.raises(Refused):
        move(line, "b", "before", "b")
    with pytest.raises(InvalidInput):
        move(line, "b", "sideways", "a")


# ----------------------------------------------------------------------------------- promote


def test_ageing_raises_what_waited_long_enough_by_one(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "held", submitted_at=at(-100))
    claim(store)
    enqueue(store, "old", submitted_at=at(-61))
    enqueue(store, "new", submitted_at=at(-59))
    enqueue(store, "high", submitted_at=at(-59), priority=1)
    assert store.queue_promote("q", waiting_since=at(-60), now=NOW) == 1
    promoted = store.job_get("old")
    assert (promoted.priority, promoted.version) == (1, 2)
    assert claim_order(store) == ["old", "high", "new"]
    assert store.job_get("held").priority == 0


def test_ageing_promotes_once_per_span(store: Store) -> None:
    queue(store)
    enqueue(store, "j", submitted_at=at(-3600))
    counts = [
        store.queue_promote("q", waiting_since=at(second - 60), now=at(second))
        for second in (0, 1, 59, 61, 62, 121, 122)
    ]
    assert counts == [1, 0, 0, 1, 0, 0, 1]
    assert store.job_get("j").priority == 3


def test_ageing_of_a_queue_without_jobs_does_nothing(store: Store) -> None:
    assert store.queue_promote("nowhere", waiting_since=NOW, now=NOW) == 0
