"""Every store keeps queues in order: counted exactly, moved atomically, aged fairly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from control_plane.core.model import Job, JobState, Need, QueueRecord, QueueStats, WaitingGroup
from control_plane.errors import Conflict, InvalidInput, NotFound, Refused
from control_plane.ports import Place, Store
from tests.conformance.builders import (
    BECAUSE,
    DONE,
    LOST,
    NOW,
    ONE_GPU,
    at,
    back,
    change_queue,
    claim,
    claim_order,
    counts,
    end,
    enqueue,
    groups,
    job,
    machine,
    move,
    queue,
    run,
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
    queue(store, "b", autoscaler="research", max_running=7, max_running_per_owner=2)
    queue(store, "a")
    record = QueueRecord(
        name="b", autoscaler="research", max_running=7, max_running_per_owner=2, created_at=NOW
    )
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
    line.job_enqueue(job("blocked", depends_on=(held.id,)))
    with pytest.raises(Refused):
        line.queue_remove("q")
    end(line, held, JobState.FAILED)
    line.queue_remove("q")
    line.queue_remove("q")
    assert line.queue_list() == ()
    with pytest.raises(NotFound):
        line.queue_get("q")
    assert line.job_get("a").state is JobState.FAILED


# ------------------------------------------------------------------------------------ counts


def test_stats_count_every_queue_exactly(line: Store) -> None:
    queue(line, "empty")
    enqueue(line, "old", submitted_at=at(-500))
    line.job_enqueue(job("blocked", depends_on=("d",), submitted_at=at(-900)))
    claim(line)
    [second] = claim(line)
    line.job_start(second.id, second.epoch, now=at(1))
    stats = line.queue_stats()
    assert stats == {
        "empty": QueueStats(name="empty", waiting=0, running=0),
        "q": QueueStats(name="q", waiting=3, running=2, oldest_at=at(-500), blocked=1),
    }


def test_stats_follow_every_change_of_state(line: Store) -> None:
    assert counts(line) == (4, 0, 0, 0)
    [held] = claim(line)
    assert counts(line) == (3, 0, 0, 1)
    back(line, held)
    assert counts(line) == (4, 0, 0, 0)
    run(line, "a")
    assert counts(line) == (3, 0, 0, 0)
    line.job_cancel("b", reason=BECAUSE, now=at(3))
    assert counts(line) == (2, 0, 0, 0)
    line.job_enqueue(job("e", depends_on=("c",)))
    assert counts(line) == (2, 0, 1, 0)
    run(line, "c")
    assert counts(line) == (2, 0, 0, 0)


def test_heads_say_since_when_the_first_waits(store: Store) -> None:
    for name in ("q", "other", "held", "empty", "blocked"):
        queue(store, name)
    machine(store)
    enqueue(store, "a", submitted_at=at(-50))
    enqueue(store, "b", submitted_at=at(-10))
    enqueue(store, "c", queue="other", submitted_at=at(-70))
    enqueue(store, "d", queue="held", submitted_at=at(-90))
    enqueue(store, "e", queue="blocked", depends_on=("d",))
    claim(store, "held")
    asked = ["q", "other", "held", "empty", "blocked", "nowhere"]
    assert store.queue_heads(asked) == {"q": at(-50), "other": at(-70)}
    assert store.queue_heads(["other"]) == {"other": at(-70)}
    assert store.queue_heads([]) == {}
    run(store, "a")
    assert store.queue_heads(["q"]) == {"q": at(-10)}


def test_the_line_before_a_place_holds_who_would_be_claimed_first(store: Store) -> None:
    for name in ("q", "other"):
        queue(store, name)
    enqueue(store, "a")
    enqueue(store, "b", need=Need(cpus=2))
    enqueue(store, "urgent", priority=5)
    enqueue(store, "c", need=Need(gpus=1))
    enqueue(store, "later", not_before=at(1000))
    enqueue(store, "elsewhere", queue="other")
    last = store.job_enqueue(job("d"))[0]
    assert line_before(store, last) == ["urgent", "a", "b", "c"]
    assert line_before(store, last, limit=3) == ["urgent", "a", "b"]
    assert line_before(store, store.job_get("b")) == ["urgent", "a"]
    assert line_before(store, store.job_get("urgent")) == []
    assert list(store.queue_line("nowhere", before=last)) == []
    move(store, "c", "before", "a")
    assert line_before(store, store.job_get("a")) == ["urgent", "c"]


def line_before(store: Store, job: Job, **limit: int) -> list[str]:
    return list(store.queue_line("q", before=job, **limit))


def waited(store: Store, **changes: Any) -> list[float]:
    return list(store.queue_waits("q", **changes))


def heard_of(store: Store) -> None:
    """The machine's agent has spoken: what was claimed is known for sure."""
    store.machine_beat("m-1", now=at(1000))


def test_waits_are_those_of_the_last_claims_newest_first(store: Store) -> None:
    queue(store)
    queue(store, "other")
    machine(store)
    for number, second in enumerate((0, 5, 30)):
        enqueue(store, f"j-{number}", submitted_at=at(-10 * number))
        [held] = claim(store, now=at(second))
        store.job_start(held.id, held.epoch, now=at(second + 1))
    enqueue(store, "elsewhere", queue="other", submitted_at=at(-999))
    claim(store, "other", now=at(40))
    enqueue(store, "waits", submitted_at=at(-999))
    heard_of(store)
    assert waited(store) == [50, 15, 0]
    assert waited(store, limit=2) == [50, 15]
    assert list(store.queue_waits("nowhere")) == []


def test_only_the_first_wait_of_a_job_counts(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "j-1", submitted_at=at(-7))
    [held] = claim(store)
    back(store, held, now=at(100))
    run(store, "j-1", now=at(200))
    heard_of(store)
    assert [each.number for each in store.job_attempts("j-1")] == [1, 2]
    assert waited(store) == [7]


def test_a_wait_by_a_clock_that_went_back_is_nought(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "j-1", submitted_at=at(60))
    run(store, "j-1", now=at(0))
    heard_of(store)
    assert waited(store) == [0]


# ------------------------------------------------------------------------------ waiting groups


def test_groups_count_waiting_work_by_queue_priority_and_need(store: Store) -> None:
    for name in ("q", "other"):
        queue(store, name)
    enqueue(store, "c-1", "c-2", need=CPU, submitted_at=at(-100))
    enqueue(store, "g-1", need=ONE_GPU, submitted_at=at(-10))
    enqueue(store, "g-2", need=ONE_GPU, submitted_at=at(-90))
    enqueue(store, "high", need=ONE_GPU, priority=7, submitted_at=at(-1))
    enqueue(store, "future", need=CPU, not_before=at(60))
    enqueue(store, "there", queue="other", need=CPU, submitted_at=at(-5))
    store.job_enqueue(job("blocked", depends_on=("c-1",)))

    def group(need: Need, count: int, ripe: int, oldest: float, **changes: Any) -> WaitingGroup:
        values: dict[str, Any] = {"queue": "q", "priority": 0, **changes}
        since = at(oldest)
        return WaitingGroup(
            **values, need=need, count=count, ripe=ripe, oldest_at=since, aged_at=since
        )

    ripe_before = {"q": at(-90), "other": at(-6)}
    assert groups(store, "other", "q", "nowhere", ripe_before=ripe_before) == [
        group(CPU, 1, 0, -5, queue="other"),
        group(ONE_GPU, 1, 0, -1, priority=7),
        group(CPU, 2, 2, -100),
        group(ONE_GPU, 2, 1, -90),
    ]


def test_groups_are_in_the_order_of_their_first_job(line: Store) -> None:
    enqueue(line, "cpu", need=CPU)
    assert [group.need for group in groups(line)] == [ONE_GPU, CPU]
    move(line, "cpu", "top")
    assert [group.need for group in groups(line)] == [CPU, ONE_GPU]


def test_groups_include_paused_queues_and_leave_out_held_jobs(line: Store) -> None:
    claim(line)
    change_queue(line, paused=True)
    [group] = groups(line, ripe_before={"q": NOW})
    assert (group.count, group.ripe) == (3, 3)


def test_a_group_says_since_when_it_waits_at_its_priority(line: Store) -> None:
    line.queue_promote("q", waiting_since=at(60), now=at(120))
    enqueue(line, "new", priority=1, submitted_at=at(100))
    [group] = groups(line, now=at(130))
    assert (group.count, group.oldest_at, group.aged_at) == (5, NOW, at(100))
    line.job_cancel("new", reason=BECAUSE, now=at(130))
    [group] = groups(line, now=at(130))
    assert (group.oldest_at, group.aged_at) == (NOW, at(120))


def test_a_count_may_stop_and_says_so(line: Store) -> None:
    enqueue(line, "e", "f", priority=5)
    enqueue(line, "cpu", need=CPU)
    exact = {(group.priority, group.need): group.count for group in groups(line)}
    assert exact == {(5, ONE_GPU): 2, (0, ONE_GPU): 4, (0, CPU): 1}
    for limit in (1, 2, 3, 5):
        cut = groups(line, limit=limit)
        assert all(group.count <= exact[group.priority, group.need] for group in cut)
        gpu = [group for group in cut if group.need == ONE_GPU]
        assert sum(group.count for group in gpu) >= limit
        if sum(group.count for group in gpu) < 6:
            assert not all(group.exact for group in gpu)
        for group in cut:
            assert not group.exact or group.count == exact[group.priority, group.need]
    assert all(group.exact for group in groups(line, limit=6))


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


def test_clear_takes_delayed_and_blocked_jobs_too_and_lists_the_blocked_last(line: Store) -> None:
    queue(line, "other")
    [held] = claim(line)
    enqueue(line, "later", "sooner", not_before=at(900), priority=9)
    enqueue(line, "urgent", priority=3)
    enqueue(line, "after-held", "after-b", depends_on=("a",))
    line.job_enqueue(job("after-c", depends_on=("c",), priority=99))
    enqueue(line, "elsewhere", queue="other", depends_on=("c",))
    cleared = line.queue_clear("q", now=at(5), reason=BECAUSE)
    assert list(cleared[:4]) == ["urgent", "b", "c", "d"]
    assert sorted(cleared[4:6]) == ["later", "sooner"]
    assert sorted(cleared[6:]) == ["after-b", "after-c", "after-held"]
    for job_id in cleared:
        gone = line.job_get(job_id)
        assert (gone.state, gone.finished_at) == (JobState.CANCELLED, at(5))
    assert line.job_get("elsewhere").state is JobState.CANCELLED, "it would never have started"
    assert counts(line) == (0, 0, 0, 1)
    assert end(line, held).state is JobState.SUCCEEDED
    assert line.job_get("after-held").state is JobState.CANCELLED
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
        if number % 10 == 9:
            assert claim_order(line) == ["a", "c", "b", "d"], number
        move(line, "b", "before", "c")
        if number % 10 == 9:
            assert claim_order(line) == ["a", "b", "c", "d"], number
    positions = [line.job_get(each).position for each in "abcd"]
    assert all(one < other for one, other in pairwise(positions))


def test_a_held_job_keeps_its_place_while_others_move_around_it(line: Store) -> None:
    [held] = claim(line)
    for _ in range(20):
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


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_moves_from_one_version_one_goes_through(line: Store) -> None:
    def top(_: int) -> bool:
        try:
            line.job_move("d", queue="q", place=Place(where="top"), expected_version=1, now=NOW)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(top, range(8))).count(True) == 1
    assert claim_order(line) == ["d", "a", "b", "c"]
    assert line.job_get("d").version == 2


def test_only_a_waiting_job_moves(line: Store) -> None:
    line.job_enqueue(job("blocked", depends_on=("d",)))
    with pytest.raises(Refused):
        move(line, "blocked", "top")
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


def test_ageing_by_a_clock_that_went_back_does_nothing(store: Store) -> None:
    queue(store)
    enqueue(store, "j", submitted_at=NOW)
    assert store.queue_promote("q", waiting_since=at(-3660), now=at(-3600)) == 0
    assert store.queue_promote("q", waiting_since=at(10**8), now=at(10**8 + 60)) == 1
    assert store.queue_promote("q", waiting_since=at(10), now=at(70)) == 0
    assert store.job_get("j").priority == 1


def test_a_job_given_back_keeps_its_age(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "j", submitted_at=at(-100))
    [held] = claim(store)
    back(store, held, now=at(50))
    assert store.queue_promote("q", waiting_since=at(-60), now=at(60)) == 1
    assert store.job_get("j").queued_at == at(-100)


def test_ageing_of_a_queue_without_jobs_does_nothing(store: Store) -> None:
    assert store.queue_promote("nowhere", waiting_since=NOW, now=NOW) == 0
