"""What another process does between any two requests of an operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any

import pytest

from control_plane.core.model import Job, JobState, MachineState, Need
from control_plane.errors import NotFound, Refused
from control_plane.ports import Place
from control_plane.stores.dynamodb import DynamoStore, shapes
from tests.conformance.builders import (
    BECAUSE,
    NOW,
    at,
    back,
    claim,
    claim_order,
    end,
    enqueue,
    ids,
    job,
    machine,
    queue,
)
from tests.unit.stores.dynamodb.stores import make_store

_tables = count(1)
ANYTHING = Need()
Act = Callable[[DynamoStore], object]


@contextmanager
def in_between(client: Any, request: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Before this request is sent, somebody else acts; the list says whether it came to that."""
    came: list[int] = []
    numbers = count()

    def interrupt(**_: Any) -> None:
        if not came and next(numbers) == request:
            came.append(request)
            act()

    client.meta.events.register("before-call.dynamodb", interrupt, unique_id="between")
    try:
        yield came
    finally:
        client.meta.events.unregister("before-call.dynamodb", unique_id="between")


def every_point(
    client: Any, before: Act, act: Callable[[DynamoStore], object], other: Act
) -> Iterator[tuple[DynamoStore, Any, Any]]:
    """For each request of `act`: the store after `other` happened right before it, and what both
    returned."""
    for request in count():
        mine = make_store(client, f"race-{next(_tables)}")
        theirs = DynamoStore(client, table=mine._table.table, clock=mine._clock)
        queue(mine)
        machine(mine)
        machine(mine, "m-2")
        before(mine)
        answers: dict[str, Any] = {}

        def interrupt(answers: dict[str, Any] = answers, theirs: DynamoStore = theirs) -> None:
            answers["other"] = other(theirs)

        with in_between(client, request, interrupt) as came:
            answer = act(mine)
        if not came:
            assert request > 1
            return
        yield mine, answer, answers["other"]


def four_jobs(store: DynamoStore) -> None:
    enqueue(store, "a", "b", "c", "d", need=ANYTHING)


def claim_two(store: DynamoStore) -> list[Job]:
    return claim(store, limit=2)


def listed(store: DynamoStore) -> list[str]:
    return sorted(lease.job_id for lease in store.job_leases())


def close_and_look(store: DynamoStore) -> list[str]:
    """What a controller does that wants to end a machine."""
    ready = store.machine_get("m-1")
    draining = replace(ready, state=MachineState.DRAINING)
    store.machine_put(draining, expected_version=ready.version, fence=None)
    return [lease.job_id for lease in store.job_leases(machine_id="m-1")]


def test_a_machine_seen_without_a_lease_after_it_was_closed_never_gets_one(dynamodb: Any) -> None:
    seen = set()
    for store, got, held in every_point(dynamodb, four_jobs, claim_two, close_and_look):
        seen.add(len(held))
        if not held:
            assert got == []
            assert listed(store) == []
        assert set(ids(got)) <= set(listed(store))
        rest = claim(store, machine_id="m-2", limit=9)
        assert listed(store) == ["a", "b", "c", "d"]
        assert ids(rest) == sorted(ids(rest)), "given back to their places"
    assert seen == {0, 1, 2}, "every step of a claim was met"


def test_two_claims_never_share_a_job_and_every_lease_is_listed(dynamodb: Any) -> None:
    def claim_others(store: DynamoStore) -> list[Job]:
        return claim(store, machine_id="m-2", limit=2)

    for store, mine, theirs in every_point(dynamodb, four_jobs, claim_two, claim_others):
        assert len(theirs) == 2
        assert 1 <= len(mine) <= 2
        assert not set(ids(mine)) & set(ids(theirs))
        for machine_id, jobs in (("m-1", mine), ("m-2", theirs)):
            leases = store.job_leases(machine_id=machine_id)
            assert sorted(lease.job_id for lease in leases) == sorted(ids(jobs))


def test_two_claims_for_one_machine_both_count(dynamodb: Any) -> None:
    for store, mine, theirs in every_point(dynamodb, four_jobs, claim_two, claim_two):
        assert not set(ids(mine)) & set(ids(theirs))
        assert listed(store) == sorted(ids(mine) + ids(theirs))


def test_a_claim_and_a_clearing_share_nothing(dynamodb: Any) -> None:
    def clear(store: DynamoStore) -> list[str]:
        return list(store.queue_clear("q", now=NOW, reason=BECAUSE))

    for store, mine, cleared in every_point(dynamodb, four_jobs, claim_two, clear):
        assert not set(ids(mine)) & set(cleared)
        assert sorted(ids(mine) + cleared) == ["a", "b", "c", "d"] or mine == []
        assert listed(store) == sorted(ids(mine))


def test_a_job_moved_away_while_it_is_claimed_is_claimed_or_moved(dynamodb: Any) -> None:
    def move_away(store: DynamoStore) -> str:
        queue(store, "other")
        place = Place(where="top")
        try:
            store.job_move("a", queue="other", place=place, expected_version=1, now=NOW)
        except Exception:  # noqa: BLE001 - claimed already, in whichever words
            return "stays"
        return "moved"

    for store, mine, moved in every_point(dynamodb, four_jobs, claim_two, move_away):
        assert ("a" in ids(mine)) == (moved == "stays")
        assert claim_order(store, "other") == (["a"] if moved == "moved" else [])


def test_a_job_submitted_while_its_dependency_ends_is_let_go(dynamodb: Any) -> None:
    def held(store: DynamoStore) -> None:
        enqueue(store, "a", need=ANYTHING)
        claim(store)

    def submit(store: DynamoStore) -> Job:
        return store.job_enqueue(job("b", need=ANYTHING, depends_on=("a",)))[0]

    def finish(store: DynamoStore) -> Job:
        return end(store, store.job_get("a"), now=at(1))

    for store, _, _ in every_point(dynamodb, held, finish, submit):
        assert claim_order(store) == ["b"]
    for store, _, _ in every_point(dynamodb, held, submit, finish):
        assert claim_order(store) == ["b"]


def test_a_job_submitted_while_its_dependency_fails_is_refused_or_cancelled(dynamodb: Any) -> None:
    def held(store: DynamoStore) -> None:
        enqueue(store, "a", need=ANYTHING)
        claim(store)

    def fail(store: DynamoStore) -> Job:
        return end(store, store.job_get("a"), JobState.FAILED, now=at(1))

    def submit(store: DynamoStore) -> bool:
        with suppress(Refused):
            store.job_enqueue(job("b", need=ANYTHING, depends_on=("a",)))
            return True
        return False

    for store, submitted, _ in every_point(dynamodb, held, submit, fail):
        if submitted:
            assert store.job_get("b").state is JobState.CANCELLED
        else:
            with pytest.raises(NotFound):
                store.job_get("b")


def test_a_job_put_into_a_queue_while_that_is_removed_is_never_lost(dynamodb: Any) -> None:
    def submit(store: DynamoStore) -> bool:
        with suppress(NotFound):
            store.job_enqueue(job("a", need=ANYTHING))
            return True
        return False

    def remove(store: DynamoStore) -> None:
        with suppress(Refused):
            store.queue_remove("q")

    def nothing(_: DynamoStore) -> None:
        pass

    for store, submitted, _ in every_point(dynamodb, nothing, submit, remove):
        if not store.queue_list():
            queue(store)
        assert ids(claim(store)) == (["a"] if submitted else [])


def test_a_shape_that_is_retired_while_a_job_comes_is_there_again(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark was set more than ten minutes ago; another process looks at this very moment."""

    def marked(store: DynamoStore) -> None:
        enqueue(store, "z", need=ANYTHING)
        end(store, claim(store)[0])
        look(store)
        assert store._queue("q").retired

    def look(store: DynamoStore, now: datetime = NOW) -> None:
        store.waiting_groups(["q"], ripe_before={}, now=now)
        store.job_release(now=now)

    for store, _, _ in every_point(
        dynamodb,
        marked,
        lambda store: enqueue(store, "a", need=ANYTHING),
        lambda store: look(store, at(shapes.RETIRED_AFTER_S + 1)),
    ):
        assert claim_order(store) == ["a"]
        assert ids(claim(store)) == ["a"]


def test_a_line_without_jobs_is_forgotten_after_ten_minutes(dynamodb: Any) -> None:
    store = make_store(dynamodb, f"race-{next(_tables)}")
    queue(store)
    machine(store)
    enqueue(store, "a", need=ANYTHING)
    enqueue(store, "b", need=Need(cpus=1))
    end(store, claim(store)[0])
    for second in (0, 60, 599, 601, 660):
        store.waiting_groups(["q"], ripe_before={}, now=at(second))
        store.job_release(now=at(second))
        known = sorted(need.cpus for need in store._queue("q").shapes.values() if need)
        assert known == ([0, 1] if second < 601 else [1])
    enqueue(store, "c", need=ANYTHING)
    assert claim_order(store) == ["b", "c"]


def test_a_late_finish_after_the_job_was_given_back_in_between_is_refused(dynamodb: Any) -> None:
    def held(store: DynamoStore) -> None:
        enqueue(store, "a", need=ANYTHING)
        claim(store)

    def finish(store: DynamoStore) -> str:
        try:
            return end(store, replace(store.job_get("a"), epoch=1), now=at(1)).state
        except Exception as error:  # noqa: BLE001 - its name is what counts
            return type(error).__name__

    def give_back(store: DynamoStore) -> str:
        try:
            return back(store, replace(store.job_get("a"), epoch=1), now=at(1)).state
        except Exception as error:  # noqa: BLE001
            return type(error).__name__

    for store, finished, given in every_point(dynamodb, held, finish, give_back):
        assert {finished, given} in ({"succeeded", "StaleEpoch"}, {"queued", "StaleEpoch"})
        assert store.job_get("a").state in (finished, given)
        assert len(store.job_attempts("a")) == 1


def test_a_lagging_index_costs_a_single_claimer_neither_order_nor_writes(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read of the index shows what it was at the read before."""
    store = make_store(dynamodb, f"race-{next(_tables)}")
    queue(store)
    machine(store)
    names = [f"j-{number}" for number in range(12)]
    enqueue(store, *names, need=ANYTHING)
    lag(store, monkeypatch)
    taken = []
    for number in range(12):
        [held] = claim(store, now=at(number))
        taken.append(held.id)
        if number % 2:
            end(store, held, now=at(number))
    assert taken == names
    assert store.figures()["job_claim"].conflicts == 0


def test_a_lagging_index_never_gives_a_job_twice(
    dynamodb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(dynamodb, f"race-{next(_tables)}")
    queue(store)
    names = [f"j-{number:02}" for number in range(12)]
    for number in range(3):
        machine(store, f"m-{number}")
    enqueue(store, *names, need=ANYTHING)
    lag(store, monkeypatch)
    taken = []
    for number in range(60):
        taken += ids(claim(store, machine_id=f"m-{number % 3}", limit=2))
    assert sorted(taken) == names


def lag(store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now_, before = store._table.query_page, {}

    def query_page(pk: str, **query: Any) -> Any:
        page = now_(pk, **query)
        if query.get("index") is None:
            return page
        seen = before.get((pk, str(query)), page)
        before[pk, str(query)] = page
        return seen

    monkeypatch.setattr(store._table, "query_page", query_page)


def test_a_line_in_shards_gives_every_job_once(dynamodb: Any) -> None:
    store = make_store(dynamodb, f"race-{next(_tables)}", ready_shards=4)
    queue(store)
    machine(store)
    names = [f"j-{number:02}" for number in range(20)]
    enqueue(store, *names, need=ANYTHING)
    assert claim_order(store) == names
    assert store.queue_stats()["q"].waiting == 20
    taken = [each for _ in range(5) for each in ids(claim(store, limit=4))]
    assert taken == names
