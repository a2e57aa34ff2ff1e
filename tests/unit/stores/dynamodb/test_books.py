"""What a machine's run lists is sorted out and written to the ledger: nothing is missing, nothing
counted twice, and the run stays small; and what jobs and queues outgrow has a place of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.model import Artifact, JobState, MachineState, Need
from control_plane.errors import Refused
from control_plane.ports import Ending
from control_plane.stores.dynamodb import DynamoStore, dependents, runs, shapes
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.capacity import item_size
from control_plane.stores.dynamodb.items import encode_item
from tests.conformance.builders import (
    BOX,
    DONE,
    NOW,
    ONE_GPU,
    back,
    change_queue,
    claim,
    claim_order,
    end,
    enqueue,
    groups,
    ids,
    job,
    machine,
    queue,
)
from tests.conformance.builders import at as second
from tests.unit.stores.dynamodb.stores import make_store

ANYTHING = Need()
ALWAYS = (NOW - timedelta(days=9), NOW + timedelta(days=9))


@pytest.fixture
def store(dynamodb: Any, table_name: str) -> DynamoStore:
    made = make_store(dynamodb, table_name)
    queue(made)
    machine(made)
    return made


def attempts(store: DynamoStore) -> list[tuple[str, int]]:
    return [(each.job_id, each.number) for each in store.attempts_between(*ALWAYS)]


def bookings(store: DynamoStore) -> int:
    days = store._days(at.BOOKED_DAYS)
    return sum(len(list(store._table.query(at.bookings_of(day)))) for day in days)


def run_size(store: DynamoStore) -> int:
    item = store._table.get(*at.run_key("m-1"))
    assert item is not None
    return item_size(encode_item(item))


def test_many_jobs_of_one_machine_are_booked_together_and_all_found(store: DynamoStore) -> None:
    names = [f"j-{number:02}" for number in range(50)]
    for number, name in enumerate(names):
        enqueue(store, name, need=ANYTHING)
        [held] = claim(store, now=second(number))
        end(store, held, now=second(number + 0.5))
        assert run_size(store) < 1024
    assert bookings(store) == 2
    assert attempts(store) == [(name, 1) for name in names]
    assert len(store.queue_waits("q")) == 50
    assert list(store.queue_waits("q", limit=3)) == [49, 48, 47]
    assert store.attempts_between(second(10.6), second(10.9)) == ()
    between = store.attempts_between(second(10.1), second(12.1))
    assert [each.job_id for each in between] == ["j-10", "j-11", "j-12"]


def test_earlier_attempts_are_booked_for_the_machines_that_had_them(store: DynamoStore) -> None:
    for name in ("m-2", "m-3"):
        machine(store, name)
    enqueue(store, "j", need=ANYTHING)
    for number, name in enumerate(("m-1", "m-2", "m-1", "m-3")):
        [held] = claim(store, machine_id=name, now=second(10 * number))
        back(store, held, now=second(10 * number + 5))
    enqueue(store, "k", need=ANYTHING)
    for name in ("m-1", "m-2", "m-3"):
        store.machine_put(
            replace(store.machine_get(name), state=MachineState.TERMINATED),
            expected_version=1,
            fence=None,
        )
    assert attempts(store) == [("j", 1), ("j", 2), ("j", 3), ("j", 4)]
    found = store.attempts_between(*ALWAYS)
    assert [each.machine_id for each in found] == ["m-1", "m-2", "m-1", "m-3"]
    assert found == store.job_attempts("j")


def test_a_few_ended_attempts_do_not_wait_for_company_for_ever(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(store, "a", "b", need=ANYTHING)
    end(store, claim(store)[0])
    monkeypatch.setattr(runs, "BOOKED_AFTER_S", -10)
    end(store, claim(store)[0])
    assert bookings(store) == 1
    assert attempts(store) == [("a", 1), ("b", 1)]


def test_a_machine_that_ended_while_it_held_a_job_is_shown_until_that_is_given_back(
    store: DynamoStore,
) -> None:
    enqueue(store, "j", need=ANYTHING)
    [held] = claim(store)
    gone = replace(store.machine_get("m-1"), state=MachineState.TERMINATED)
    store.machine_put(gone, expected_version=1, fence=None)
    machines, leases = store.fleet_read()
    assert (machines, [lease.job_id for lease in leases]) == ((), ["j"])
    assert store.job_leases(machine_id="m-1") == leases
    assert store.queue_stats()["q"].running == 1
    back(store, held)
    assert store.fleet_read() == ((), ())
    assert list(store._table.query(at.MACHINES)) == []
    assert attempts(store) == [("j", 1)]


def test_idle_time_outlives_the_booking_of_what_came_before_it(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "BOOKED_TOGETHER", 1)
    enqueue(store, "a", "b", "c", need=ANYTHING)
    for number in range(3):
        [held] = claim(store, now=second(10 * number))
        end(store, held, now=second(10 * number + 3))
        assert store.machine_get("m-1").idle_since == second(10 * number + 3)
    assert claim(store, now=second(99)) == []
    assert store.machine_get("m-1").idle_since == second(23)


# ------------------------------------------------------------------------------- limits


def test_a_limit_that_comes_while_jobs_run_counts_them(store: DynamoStore) -> None:
    enqueue(store, *(f"j-{number}" for number in range(6)), owner="ann", need=ANYTHING)
    held = claim(store, limit=3)
    change_queue(store, max_running=3)
    assert claim(store, limit=9) == []
    end(store, held[0])
    assert ids(claim(store, limit=9)) == ["j-3"]
    change_queue(store, max_running=None, max_running_per_owner=4)
    assert ids(claim(store, limit=9)) == ["j-4"]
    assert claim(store, limit=9) == []
    assert groups(store) == []


def test_an_entry_that_a_crash_left_is_struck_out_when_the_limit_is_reached(
    store: DynamoStore,
) -> None:
    change_queue(store, max_running=1)
    enqueue(store, "a", need=ANYTHING)
    long_ago = int(store._clock.now().timestamp()) - 100
    mark = at.entry_mark(long_ago, 7)
    left = frozenset({at.entry("a", 1, mark), at.entry("gone", 7, mark)})
    store._table.update(*at.limit_key("q"), add={at.MEMBERS: left})
    assert [group.count for group in groups(store)] == [1], "a machine is bought all the same"
    assert ids(claim(store)) == ["a"]


def test_an_entry_of_a_claim_that_may_be_under_way_counts(store: DynamoStore) -> None:
    change_queue(store, max_running=1)
    enqueue(store, "a", "b", need=ANYTHING)
    mark = at.entry_mark(int(store._clock.now().timestamp()), 7)
    just_now = frozenset({at.entry("a", 1, mark)})
    store._table.update(*at.limit_key("q"), add={at.MEMBERS: just_now})
    assert claim(store) == []


# ---------------------------------------------------------------------- what outgrows its place


def test_needs_beyond_the_registry_share_a_line(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "SHAPES_MAX", 2)
    for number in range(6):
        enqueue(store, f"j-{number}", need=Need(cpus=number + 1))
    assert len(store._queue("q").shapes) == 3
    assert claim_order(store) == [f"j-{number}" for number in range(6)]
    assert len(groups(store)) == 6
    four = replace(BOX, cpus=4)
    assert ids(claim(store, free=four, limit=9)) == ["j-0", "j-1"]
    assert ids(claim(store, free=four, limit=9)) == ["j-2"]
    assert ids(claim(store, free=four, limit=9)) == ["j-3"]
    assert claim(store, free=four) == []
    assert store.queue_waits("q") == (0, 0, 0, 0)


def test_many_artifacts_are_kept_beside_their_job(store: DynamoStore) -> None:
    many = tuple(
        Artifact(name=f"out/{n:04}.bin", size_bytes=n, sha256=f"{n * 7919:064x}", blob=f"b/{n}")
        for n in range(2000)
    )
    enqueue(store, "j")
    [held] = claim(store)
    back_ = Ending(outcome="lost", artifacts=many)
    store.job_requeue("j", held.epoch, back_, need=ONE_GPU, now=NOW)
    assert store.job_artifacts("j") == many
    [held] = claim(store)
    assert store.job_artifacts("j") == many
    item = store._table.get(*at.job_key("j"))
    assert item is not None
    assert item_size(encode_item(item)) < 1024
    end(store, held)
    assert store.job_artifacts("j") == ()


def test_a_large_spec_is_kept_beside_its_job_and_forgotten_with_it(store: DynamoStore) -> None:
    text = "".join(f"{n * 2654435761 % 2**32:08x}" for n in range(9000))
    large = replace(job("j").spec, env={"DATA": text})
    enqueue(store, "small")
    store.job_enqueue(replace(job("j"), spec=large))

    def spec() -> dict[str, Any]:
        [item] = store._table.query(at.beside_job("j"), sk_prefix="S#", consistent=True)
        return item

    assert at.TTL not in spec()
    held = {each.id: each for each in claim(store, free=replace(BOX, gpus=2), limit=2)}
    assert held["j"].spec == large
    end(store, held["j"])
    item = store._table.get(*at.job_key("j"))
    assert item is not None
    assert spec()[at.TTL] == item[at.TTL]
    assert item_size(encode_item(item)) < 1024
    assert [each.spec == large for each in store.job_list().items] == [False, True]


def test_no_more_jobs_may_wait_for_one_than_its_item_can_hold(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(dependents._OPEN, values={**dependents._OPEN.values, "most": 3})
    monkeypatch.setattr(dependents, "_OPEN", few)
    enqueue(store, "a")
    for number in range(3):
        store.job_enqueue(job(f"b-{number}", depends_on=("a",)))
    with pytest.raises(Refused, match="wait for job a already"):
        store.job_enqueue(job("b-3", depends_on=("a",)))
    end(store, claim(store)[0])
    assert claim_order(store) == ["b-0", "b-1", "b-2"]


def test_an_expired_job_is_forgotten_before_dynamodb_deletes_it(
    dynamodb: Any, table_name: str
) -> None:
    store = make_store(dynamodb, table_name, retention=timedelta(seconds=-5))
    queue(store)
    machine(store)
    enqueue(store, "a", "b")
    [held] = claim(store)
    store.job_finish(held.id, held.epoch, DONE, state=JobState.FAILED, now=NOW)
    assert ids(store.job_list().items) == ["b"]
    assert ids(store.job_list(queue="q", states=frozenset({JobState.FAILED})).items) == []
    assert store.job_attempts("a") == ()
    [again] = enqueue(store, "a")
    assert again.state is JobState.QUEUED
    assert claim_order(store) == ["b", "a"]
