"""Every store keeps a queue's limits: never more jobs with machines than it allows, and no machine
bought for what it keeps back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from control_plane.core.model import JobState, MachineState, Need
from control_plane.ports import Store
from tests.conformance.builders import (
    BECAUSE,
    at,
    back,
    change_queue,
    claim,
    claim_order,
    counts,
    end,
    enqueue,
    groups,
    ids,
    machine,
    machine_record,
    queue,
)

NEED = Need()
CPU = Need(cpus=1)


def limited(store: Store, **limits: int | None) -> Store:
    """A queue `q` with these limits, one without, and two ready machines."""
    queue(store, **limits)
    queue(store, "free")
    machine(store)
    machine(store, "m-2")
    return store


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


# ------------------------------------------------------------------------------- in a claim


def test_a_queue_gives_out_no_more_jobs_than_its_limit_whoever_asks(store: Store) -> None:
    limited(store, max_running=3)
    enqueue(store, *names("j", 6), need=NEED)
    assert ids(claim(store, limit=2)) == ["j-0", "j-1"]
    assert ids(claim(store, machine_id="m-2", limit=9)) == ["j-2"]
    assert claim(store, limit=9) == []
    assert claim_order(store) == ["j-3", "j-4", "j-5"]


def test_a_limit_of_nought_gives_out_nothing(store: Store) -> None:
    limited(store, max_running=0)
    enqueue(store, "j", need=NEED)
    assert claim(store, limit=9) == []
    assert groups(store) == []
    assert counts(store) == (1, 0, 0, 0)


def test_a_limit_holds_for_its_own_queue_alone(store: Store) -> None:
    limited(store, max_running=1)
    enqueue(store, *names("j", 2), need=NEED)
    enqueue(store, *names("f", 3), queue="free", need=NEED)
    claimed = claim(store, "q", "free", limit=9)
    assert ids(claimed) == ["j-0", "f-0", "f-1", "f-2"]


def test_every_owner_has_the_same_share_and_the_next_in_line_is_taken(store: Store) -> None:
    limited(store, max_running_per_owner=2)
    enqueue(store, *names("ann", 4), owner="ann", need=NEED)
    enqueue(store, *names("bob", 1), owner="bob", need=NEED)
    enqueue(store, *names("nobody", 3), need=NEED)
    assert ids(claim(store, limit=9)) == ["ann-0", "ann-1", "bob-0", "nobody-0", "nobody-1"]
    assert claim(store, machine_id="m-2", limit=9) == []
    assert claim_order(store) == ["ann-2", "ann-3", "nobody-2"]


def test_both_limits_hold_together(store: Store) -> None:
    limited(store, max_running=3, max_running_per_owner=2)
    enqueue(store, *names("ann", 3), owner="ann", need=NEED)
    enqueue(store, *names("bob", 3), owner="bob", need=NEED)
    assert ids(claim(store, limit=9)) == ["ann-0", "ann-1", "bob-0"]


def test_jobs_that_run_count_like_those_that_are_leased_whatever_their_machine_does(
    store: Store,
) -> None:
    limited(store, max_running=2)
    enqueue(store, *names("j", 3), need=NEED)
    [held] = claim(store)
    store.job_start("j-0", held.epoch, now=at(1))
    draining = machine_record(state=MachineState.DRAINING)
    store.machine_put(draining, expected_version=1, fence=None)
    assert ids(claim(store, machine_id="m-2", limit=9)) == ["j-1"]
    store.job_cancel("j-0", reason=BECAUSE, now=at(2))
    assert claim(store, machine_id="m-2", limit=9) == []


# --------------------------------------------------------------------------- free again


def test_an_ending_of_any_kind_makes_room(store: Store) -> None:
    limited(store, max_running=1, max_running_per_owner=1)
    enqueue(store, *names("j", 5), need=NEED)
    for number, state in enumerate(
        (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXHAUSTED)
    ):
        [held] = claim(store, limit=9)
        assert held.id == f"j-{number}"
        end(store, held, state)
    assert ids(claim(store, limit=9)) == ["j-4"]


def test_a_job_given_back_makes_room_and_keeps_its_turn(store: Store) -> None:
    limited(store, max_running=1)
    enqueue(store, *names("j", 2), need=NEED)
    [held] = claim(store)
    back(store, held)
    back(store, held)
    [again] = claim(store, machine_id="m-2", limit=9)
    assert (again.id, again.epoch) == ("j-0", 2)
    assert claim(store, limit=9) == [], "giving it back twice made no more room than once"


def test_a_limit_changed_holds_from_the_next_claim_on(store: Store) -> None:
    limited(store, max_running=1)
    enqueue(store, *names("j", 6), need=NEED)
    held = claim(store, limit=9)
    change_queue(store, max_running=3)
    held += claim(store, limit=9)
    assert len(held) == 3
    change_queue(store, max_running=2)
    end(store, held[0])
    assert claim(store, limit=9) == [], "two are enough now"
    end(store, held[1])
    assert len(claim(store, limit=9)) == 1
    change_queue(store, max_running=None)
    assert ids(claim(store, limit=9)) == ["j-4", "j-5"]


# ------------------------------------------------------------------------------ in demand


def test_groups_leave_out_what_a_limit_keeps_back(store: Store) -> None:
    limited(store, max_running=3)
    enqueue(store, *names("low", 4), need=NEED)
    enqueue(store, *names("cpu", 2), need=CPU)
    enqueue(store, "high", need=CPU, priority=1)
    found = [(group.priority, group.need, group.count) for group in groups(store)]
    assert found == [(1, CPU, 1), (0, NEED, 2)]
    held = claim(store, limit=2)
    assert ids(held) == ["high", "low-0"]
    assert [(group.need, group.count) for group in groups(store)] == [(NEED, 1)]
    claim(store, limit=1)
    assert groups(store) == []
    end(store, held[0])
    assert [(group.need, group.count) for group in groups(store)] == [(NEED, 1)]
    assert counts(store) == (4, 0, 0, 2), "they wait all the same"


def test_groups_leave_out_what_an_owner_has_too_much_of(store: Store) -> None:
    limited(store, max_running_per_owner=2)
    enqueue(store, *names("ann", 5), owner="ann", need=NEED)
    enqueue(store, *names("bob", 1), owner="bob", need=NEED)
    enqueue(store, *names("cpu", 2), owner="bob", need=CPU)
    enqueue(store, "free", queue="free", owner="ann", need=NEED)
    found = {(group.queue, group.need): group.count for group in groups(store, "q", "free")}
    assert found == {("q", NEED): 3, ("q", CPU): 1, ("free", NEED): 1}
    claim(store, limit=2)
    found = {(group.queue, group.need): group.count for group in groups(store, "q", "free")}
    assert found == {("q", NEED): 1, ("q", CPU): 1, ("free", NEED): 1}


def test_groups_say_of_those_they_count_since_when_they_wait(store: Store) -> None:
    limited(store, max_running=1)
    enqueue(store, "new", need=NEED, submitted_at=at(-10))
    enqueue(store, "old", need=NEED, submitted_at=at(-90))
    [group] = groups(store, ripe_before={"q": at(-50)})
    assert (group.count, group.ripe, group.oldest_at) == (1, 0, at(-10))


# ------------------------------------------------------------------------------ all at once


@dataclass(frozen=True)
class Span:
    """A time in which a job was surely with a machine: from the answer to its claim until its
    ending was called."""

    owner: str
    start: float
    end: float


def most_at_once(spans: list[Span]) -> int:
    """How many of them there were at one instant, at most."""
    steps = sorted([(span.start, 1) for span in spans] + [(span.end, -1) for span in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


@pytest.mark.usefixtures("jumpy_threads")
def test_limits_are_never_exceeded_among_sixteen_claimers(store: Store) -> None:
    limited(store, max_running=5, max_running_per_owner=2)
    owners = ("ann", "bob", "eve", "dan")
    for number in range(48):
        enqueue(store, f"j-{number:02}", owner=owners[number % 4], need=NEED)
    for number in range(16):
        machine(store, f"w-{number}")
    ended: list[str] = []
    deadline = time.monotonic() + 60

    def work(number: int) -> list[Span]:
        spans: list[Span] = []
        while len(ended) < 48 and time.monotonic() < deadline:
            held = claim(store, machine_id=f"w-{number}", limit=1 + number % 3)
            start = time.monotonic()
            for each in held:
                spans.append(Span(each.owner, start, time.monotonic()))
                if number % 4 == 0 and each.attempt == 1:
                    back(store, each)
                else:
                    ended.append(end(store, each).id)
        return spans

    with ThreadPoolExecutor(16) as pool:
        spans = [span for mine in pool.map(work, range(16)) for span in mine]
    assert counts(store) == (0, 0, 0, 0)
    assert most_at_once(spans) <= 5
    for owner in owners:
        assert most_at_once([span for span in spans if span.owner == owner]) <= 2
