"""What comes from another store stands where ours would have put it, in whatever order it comes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.model import Artifact, JobState, MachineState, Need
from control_plane.ports import Ending, Row, Store, TransferKind
from control_plane.stores.dynamodb import DynamoStore, arrivals
from control_plane.stores.dynamodb import layout as at_
from control_plane.stores.memory import MemoryStore
from tests.conformance.builders import (
    BOX,
    LOST,
    NOW,
    at,
    autoscaler,
    back,
    change_queue,
    claim,
    claim_order,
    end,
    enqueue,
    ids,
    job,
    listed,
    machine,
    machine_record,
    queue,
    run,
)
from tests.unit.stores.dynamodb.stores import billed, make_store

UUID7 = "0199a0b1-c2d3-7abc-8def-0123456789ab"


@pytest.fixture
def store(dynamodb: Any, table_name: str) -> DynamoStore:
    return make_store(dynamodb, table_name)


@pytest.fixture
def source() -> MemoryStore:
    """A store with a queue and a machine."""
    made = MemoryStore()
    queue(made)
    machine(made)
    return made


def rows(store: Store, kind: TransferKind, limit: int = 1000) -> list[Row]:
    return list(store.transfer_read(kind, limit=limit).items)


def move(source: Store, store: Store, *, backwards: bool = False) -> None:
    for kind in TransferKind:
        of_kind = rows(source, kind)
        for row in reversed(of_kind) if backwards else of_kind:
            store.transfer_write(kind, [row])


def same(store: Store, source: Store, kind: TransferKind) -> bool:
    return sorted(map(repr, rows(store, kind))) == sorted(map(repr, rows(source, kind)))


def artifact(name: str, size: int = 1) -> Artifact:
    return Artifact(name=name, size_bytes=size, sha256="ab" * 32, blob=f"artifacts/{name}")


MANY = tuple(artifact(f"{n:04}-{n * 7919:06}") for n in range(200))


# -------------------------------------------------------------------------------------- jobs


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_a_job_is_let_go_whichever_came_first(
    store: DynamoStore, source: MemoryStore, order: Sequence[str]
) -> None:
    enqueue(source, "a")
    enqueue(source, "b", depends_on=("a",))
    enqueue(source, "c", depends_on=("a", "b"))
    by_id = {row["job"]["id"]: row for row in rows(source, TransferKind.JOB)}  # type: ignore[index]
    move(MemoryStore(), store)
    for kind in (TransferKind.QUEUE, TransferKind.MACHINE):
        store.transfer_write(kind, rows(source, kind))
    for job_id in order:
        store.transfer_write(TransferKind.JOB, [by_id[job_id]])
    for job_id in ("a", "b", "c"):
        assert claim_order(store) == [job_id], "at once, by nobody's look"
        end(store, claim(store)[0])


def test_more_dependents_than_a_job_can_tell_are_found_by_the_looks(
    store: DynamoStore, source: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "DEPENDENTS_MAX", 2)
    enqueue(source, "z")
    enqueue(source, *"abcd", depends_on=("z",))
    move(source, store)
    end(store, claim(store)[0])
    assert len(claim_order(store)) == 2
    assert store.job_release(now=at(3600)) == 2
    assert claim_order(store) == list("abcd")


def test_a_large_spec_comes_along_and_is_forgotten_with_its_job(
    store: DynamoStore, source: MemoryStore
) -> None:
    text = "".join(f"{n * 2654435761 % 2**32:08x}" for n in range(9000))
    for job_id in ("ended", "waits"):
        large = replace(job(job_id).spec, env={"DATA": text})
        source.job_enqueue(replace(job(job_id), spec=large))
    run(source, "ended")
    move(source, store)
    assert [each.spec.env["DATA"] for each in listed(store)] == [text, text]
    assert same(store, source, TransferKind.JOB)

    def expires(job_id: str) -> tuple[bool, bool]:
        item = store._table.get(*at_.job_key(job_id))
        [spec] = store._table.query(at_.beside_job(job_id), sk_prefix="S#", consistent=True)
        assert item is not None
        return at_.TTL in item, at_.TTL in spec

    assert (expires("ended"), expires("waits")) == ((True, True), (False, False))


@pytest.mark.parametrize("key", ["nightly", f"client {UUID7}"])
def test_an_idempotency_key_leads_to_its_job(
    store: DynamoStore, source: MemoryStore, key: str
) -> None:
    source.job_enqueue(job("first"), idempotency_key=key)
    move(source, store)
    again, new = store.job_enqueue(job("second"), idempotency_key=key)
    assert (again.id, new) == ("first", False)


def test_a_page_of_jobs_costs_little_more_than_its_writes(
    store: DynamoStore, source: MemoryStore
) -> None:
    enqueue(source, *(f"j-{n:03}" for n in range(100)))
    for kind in (TransferKind.QUEUE, TransferKind.MACHINE):
        store.transfer_write(kind, rows(source, kind))
    store.transfer_write(TransferKind.JOB, rows(source, TransferKind.JOB)[:1])
    with billed(store) as bill:
        store.transfer_write(TransferKind.JOB, rows(source, TransferKind.JOB)[1:])
    assert bill.requests["BatchWriteItem"] == 4
    assert bill.requests["UpdateItem"] == bill.requests["PutItem"] == 0
    assert bill.requests["BatchGetItem"] <= 4


# --------------------------------------------------------------------------------- held jobs


def test_what_runs_is_still_held_counted_and_fenced(
    store: DynamoStore, source: MemoryStore
) -> None:
    change_queue(source, max_running=2)
    enqueue(source, "a", "b", "c")
    held = claim(source, free=replace(BOX, gpus=2), limit=2)
    move(source, store)
    assert store.fleet_read() == source.fleet_read()
    assert claim(store, free=replace(BOX, gpus=8)) == [], "the limit is reached"
    assert store.machine_get("m-1").idle_since is None
    for each in held:
        end(store, each, now=at(50))
    assert store.machine_get("m-1").idle_since == at(50)
    assert ids(claim(store, now=at(51))) == ["c"]


def test_a_job_of_a_machine_that_has_ended_is_shown_until_it_is_given_back(
    store: DynamoStore, source: MemoryStore
) -> None:
    enqueue(source, "a", "b")
    held = claim(source, free=replace(BOX, gpus=2), limit=2)
    record = source.machine_get("m-1")
    for state in (MachineState.TERMINATING, MachineState.TERMINATED):
        record = source.machine_put(
            replace(record, state=state), expected_version=record.version, fence=None
        )
    move(source, store)
    assert store.fleet_read() == source.fleet_read()
    assert [lease.job_id for lease in store.job_leases()] == ["a", "b"]
    assert claim(store) == []
    for each in held:
        back(store, each)
    assert store.job_leases() == ()
    assert claim_order(store) == ["a", "b"]


@pytest.mark.parametrize("state", [MachineState.BOOTING, MachineState.DRAINING])
def test_a_machine_that_is_not_ready_gets_nothing(
    store: DynamoStore, source: MemoryStore, state: MachineState
) -> None:
    machine(source, "m-2", state=state, idle_since=at(5), last_beat_at=at(7))
    enqueue(source, "a")
    move(source, store)
    assert store.machine_get("m-2") == source.machine_get("m-2")
    assert claim(store, machine_id="m-2") == []


def test_a_machine_that_comes_again_in_another_state_moves(store: DynamoStore) -> None:
    for state in (MachineState.READY, MachineState.TERMINATED, MachineState.READY):
        record = machine_record(state=state, version=3)
        store.transfer_write(TransferKind.MACHINE, rows_of(record))
        assert store.machine_list(open_only=False) == (record,)
        assert len(store.machine_list()) == (state is MachineState.READY)


def rows_of(record: Any) -> list[Row]:
    other = MemoryStore()
    other.machine_put(replace(record, version=0), expected_version=0, fence=None)
    [row] = rows(other, TransferKind.MACHINE)
    return [{**row, "version": record.version}]


# ---------------------------------------------------------------------------------- attempts


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("last", [None, JobState.SUCCEEDED, JobState.FAILED])
def test_every_attempt_comes_with_what_it_left(
    store: DynamoStore, source: MemoryStore, last: JobState | None, *, backwards: bool
) -> None:
    """A job that was given back four times, and then runs, or has ended."""
    enqueue(source, "j")
    left = [(artifact("a"),), (), MANY, (artifact("b"), artifact("c"))]
    for number, artifacts in enumerate(left):
        [held] = claim(source, now=at(number * 10))
        ending = replace(LOST, artifacts=artifacts)
        need = Need(gpus=1, on_demand_only=number > 1)
        now = at(number * 10 + 5)
        source.job_requeue("j", held.epoch, ending, need=need, now=now)
    [held] = claim(source, now=at(100))
    source.job_start("j", held.epoch, now=at(101))
    if last:
        ending = Ending(outcome="failed", exit_code=3, artifacts=MANY[:150])
        source.job_finish("j", held.epoch, ending, state=last, now=at(102))
    move(source, store, backwards=backwards)
    assert store.job_attempts("j") == source.job_attempts("j")
    assert store.job_artifacts("j") == source.job_artifacts("j")
    assert same(store, source, TransferKind.ATTEMPT)
    far = timedelta(days=9)
    assert store.attempts_between(NOW - far, NOW + far) == source.attempts_between(
        NOW - far, NOW + far
    )
    assert store.queue_waits("q") == source.queue_waits("q")
    move(store, again := MemoryStore())
    assert same(again, source, TransferKind.ATTEMPT)


def test_a_cancelled_job_keeps_its_reason_apart_from_its_attempts(
    store: DynamoStore, source: MemoryStore
) -> None:
    enqueue(source, "j")
    [held] = claim(source)
    source.job_cancel("j", reason=LOST.reason, now=at(1))  # type: ignore[arg-type]
    ending = Ending(outcome="cancelled")
    source.job_finish("j", held.epoch, ending, state=JobState.CANCELLED, now=at(2))
    assert source.job_attempts("j")[0].reason is None
    move(source, store)
    assert store.job_attempts("j") == source.job_attempts("j")
    assert store.job_get("j") == source.job_get("j")


def test_attempts_of_jobs_that_are_forgotten_come_along_both_ways(
    store: DynamoStore, source: MemoryStore
) -> None:
    for number in range(7):
        job_id = f"j-{number}"
        enqueue(source, job_id)
        [held] = claim(source, now=at(number * 86_400))
        end(source, held, now=at(number * 86_400 + 60))
    old = source.history_old(before=at(5 * 86_400))
    assert len(old) == 5
    source.history_prune(old, before=at(5 * 86_400))
    move(source, store)
    assert same(store, source, TransferKind.ATTEMPT)
    far = timedelta(days=30)
    assert store.attempts_between(NOW, NOW + far) == source.attempts_between(NOW, NOW + far)
    for limit in (1, 2, 3):
        found: list[Row] = []
        cursor = ""
        while True:
            page = store.transfer_read(TransferKind.ATTEMPT, cursor=cursor, limit=limit)
            found, cursor = [*found, *page.items], page.cursor
            if not cursor:
                break
        assert len(found) == 7


@pytest.mark.parametrize("seconds", [1, 86_400])
def test_an_attempt_that_a_crash_has_booked_twice_is_moved_once(
    store: DynamoStore, source: MemoryStore, seconds: int
) -> None:
    enqueue(source, "j")
    run(source, "j")
    source.history_prune(["j"], before=at(999))
    move(source, store)
    [item] = store._table.query(at_.bookings_of(at_.day(NOW)))
    later = NOW + timedelta(seconds=seconds)
    store._note_day(at_.BOOKED_DAYS, at_.day(later))
    key = {"pk": at_.bookings_of(at_.day(later)), "sk": f"{at_.time_text(later)}#m-1#0"}
    store._table.put({**item, **key})
    assert len(rows(store, TransferKind.ATTEMPT)) == 1


# ---------------------------------------------------------------------------------- the rest


def test_versions_keep_their_order_and_new_ones_come_behind(
    store: DynamoStore, source: MemoryStore
) -> None:
    for number in range(3):
        source.autoscaler_put(autoscaler(1, document=f"life {number}"), expected_version=0)
        source.autoscaler_put(autoscaler(2, document=f"life {number}"), expected_version=1)
        source.autoscaler_remove("a")
    for _ in range(2):
        move(source, store)
        assert store.autoscaler_history("a") == source.autoscaler_history("a")
    store.autoscaler_put(autoscaler(1, document="new"), expected_version=0)
    assert store.autoscaler_history("a")[0].document == "new"


def test_what_is_imported_into_a_queue_that_was_removed_is_found(
    store: DynamoStore, source: MemoryStore
) -> None:
    queue(store)
    enqueue(store, "before")
    end(store, claim(store, machine_id=machine(store).id)[0])
    store.queue_remove("q")
    enqueue(source, "a")
    move(source, store)
    assert claim_order(store) == ["a"]
