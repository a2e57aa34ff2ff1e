"""Everything in a store can be moved to any other one, which then does the same; and what is long
over can be forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.model import JobState
from control_plane.errors import FencedOut, InvalidInput, NotFound, StaleEpoch
from control_plane.ports import Ending, Fence, Row, Store, TransferKind
from control_plane.stores import transfer
from tests.conformance.builders import (
    BECAUSE,
    ONE_GPU,
    at,
    back,
    claim,
    claim_order,
    counts,
    end,
    enqueue,
    event,
    events,
    groups,
    ids,
    interval,
    job,
    listed,
    machine,
    machine_record,
    queue,
    tampered,
)
from tests.conformance.busy import ARTIFACT, make_busy, plan
from tests.conformance.conftest import Adapter


def dump(store: Store, *, limit: int = 3) -> dict[TransferKind, list[Row]]:
    """Everything, as it would lie in a file."""
    rows: dict[TransferKind, list[Row]] = {}
    for kind in TransferKind:
        found: list[Row] = []
        cursor = ""
        while True:
            page = store.transfer_read(kind, cursor=cursor, limit=limit)
            assert len(page.items) <= limit
            assert cursor != page.cursor or not cursor, "it would go on for ever"
            found += page.items
            cursor = page.cursor
            if not cursor:
                break
        rows[kind] = json.loads(json.dumps(found))
    return rows


def load(store: Store, rows: dict[TransferKind, list[Row]]) -> None:
    for kind, of_kind in rows.items():
        for start in range(0, len(of_kind), 4):
            store.transfer_write(kind, of_kind[start : start + 4])


def unordered(rows: dict[TransferKind, list[Row]]) -> dict[TransferKind, list[str]]:
    """Each store has an order of its own."""
    return {kind: sorted(map(json.dumps, of_kind)) for kind, of_kind in rows.items()}


def contents(store: Store) -> dict[str, object]:
    """All that the port lets anybody see."""
    jobs = listed(store, limit=100)
    return {
        "documents": store.autoscaler_list(),
        "history": [store.autoscaler_history(name) for name in ("a", "gone")],
        "shared": store.shared_read(),
        "jobs": jobs,
        "lines": [claim_order(store, name) for name in ("q", "other")],
        "stats": store.queue_stats(),
        "groups": groups(store, "q", "other", now=at(12)),
        "attempts": [store.job_attempts(each.id) for each in jobs],
        "artifacts": [store.job_artifacts(each.id) for each in jobs],
        "ledger": (store.attempts_between(at(-999), at(999)), everything_paid(store)),
        "waits": store.queue_waits("q"),
        "fleet": store.fleet_read(),
        "machines": store.machine_list(open_only=False),
        "plans": store.plan_list("a"),
        "events": events(store),
        "access": (store.token_list(), store.federation_list()),
        "hooks": (store.hook_list(), store.delivery_list()),
    }


def everything_paid(store: Store) -> object:
    return store.prices_between(at(-9999), at(9999))


def test_a_busy_store_looks_the_same_when_it_has_moved(store: Store, other: Store) -> None:
    make_busy(store)
    rows = dump(store)
    assert all(rows[kind] for kind in TransferKind), "a kind that was not tried"
    load(other, rows)
    there, here = contents(other), contents(store)
    for name, value in here.items():
        assert there[name] == value, name
    assert unordered(dump(other, limit=50)) == unordered(rows)
    load(other, rows)
    assert contents(other) == here, "repeating it changes nothing"


def test_a_job_that_was_delayed_once_is_not_again_where_it_moves(
    store: Store, other: Store
) -> None:
    queue(store)
    machine(store)
    enqueue(store, "was", not_before=at(10))
    [held] = claim(store, now=at(20))
    back(store, held, now=at(21))
    enqueue(store, "is", not_before=at(30))
    load(other, dump(store))
    assert counts(other) == counts(store) == (2, 1, 0, 0)
    assert claim_order(other) == ["was", "is"]


def same(store: Store, other: Store, do: Callable[[Store], Any]) -> Any:
    """What something comes to in both stores, which must be the same."""
    one, two = do(store), do(other)
    assert one == two
    return one


def test_a_busy_store_goes_on_the_same_when_it_has_moved(store: Store, other: Store) -> None:
    fence = make_busy(store)
    load(other, dump(store))

    def both(do: Callable[[Store], Any]) -> Any:
        return same(store, other, do)

    for key, first in (("key of the ended", "ended"), ("key of the waiting", "keyed")):
        kept, new = both(lambda each, key=key: each.job_enqueue(job("new"), idempotency_key=key))
        assert (kept.id, new) == (first, False)
    # keyed, x, y and z; `returned` has aged at 10 already.
    assert both(lambda each: each.queue_promote("q", waiting_since=at(9), now=at(13))) == 4
    both(lambda each: ids(claim(each, "q", now=at(14), limit=1)))
    bottom = both(lambda each: (enqueue(each, "new"), claim_order(each))[1])
    assert bottom == ["x", "z", "y", "keyed", "new", "delayed"]
    for job_id, epoch in (("leased", 0), ("leased", 2), ("returned", 0)):
        for each in (store, other):
            with pytest.raises(StaleEpoch):
                each.job_start(job_id, epoch, now=at(15))
    both(lambda each: end(each, each.job_get("running"), now=at(16)))
    assert store.job_get("blocked").state is JobState.BLOCKED, "it waits for x too"
    order = both(lambda each: [ids(claim(each, now=at(5000 + n))) for n in range(8)])
    assert order == [["x"], ["z"], ["y"], ["keyed"], [], [], [], []], "its limit holds there too"
    both(lambda each: end(each, each.job_get("x"), now=at(6000)))
    assert store.job_get("blocked").queued_at == at(6000)
    both(lambda each: each.queue_clear("q", now=at(6001), reason=BECAUSE))
    assert store.job_get("blocked-too").state is JobState.CANCELLED
    # Which numbers a store gives to places is its own affair.
    both(lambda each: [replace(one, position=0.0) for one in listed(each, limit=50)])
    check_fences(store, fence)
    check_fences(other, fence)
    for each in (store, other):
        each.event_append(event("new"))
        each.price_open(interval(start=at(70), price="0.40"))
    # Which number comes next is the store's own affair too.
    assert both(lambda each: [replace(one, seq=0) for one in events(each)])[0].text == "new"
    both(everything_paid)


def check_fences(store: Store, fence: Fence) -> None:
    """The lease goes on where it stood."""
    record = store.machine_get("m-1")
    store.machine_put(record, expected_version=record.version, fence=fence)
    assert store.lease_take("a", "two", ttl_s=30, now=at(20)) is None
    new = store.lease_take("a", "two", ttl_s=30, now=at(31), expected_generation=1)
    assert new == Fence(name="a", owner="two", generation=2)
    with pytest.raises(FencedOut):
        store.machine_put(record, expected_version=record.version + 1, fence=fence)


WRONG_ROWS: tuple[Row, ...] = (
    {},
    {"name": 5},
    {"job": {"id": "x"}},
    {"key": "k", "until": "x"},
    {"id": "m", "state": "dancing"},
)


@pytest.mark.parametrize("kind", TransferKind)
def test_a_row_that_is_none_of_its_kind_is_invalid(store: Store, kind: TransferKind) -> None:
    for row in WRONG_ROWS:
        with pytest.raises(InvalidInput, match=kind):
            store.transfer_write(kind, [row])
    assert store.transfer_read(kind).items == ()


def test_a_row_replaces_what_is_there_under_the_same_key(store: Store) -> None:
    queue(store)
    store.job_enqueue(job("j-1"), idempotency_key="old")
    changed = job("j-1", priority=7, position=3.5, name="changed")
    row = transfer.row(transfer.JobRow(job=changed, idempotency_key="new"))
    store.transfer_write(TransferKind.JOB, [row])
    assert store.job_get("j-1") == changed
    assert counts(store) == (1, 0, 0, 0)
    assert store.job_enqueue(job("j-2"), idempotency_key="new") == (changed, False)
    assert store.job_enqueue(job("j-3"), idempotency_key="old")[1]
    assert claim_order(store) == ["j-1", "j-3"]
    machine(store)
    store.transfer_write(TransferKind.MACHINE, [transfer.row(machine_record(pool="x", version=9))])
    assert store.machine_get("m-1") == machine_record(pool="x", version=9)


def test_a_cursor_of_a_transfer_that_was_touched_is_invalid(store: Store) -> None:
    for name in "abc":
        queue(store, name)
    cursor = store.transfer_read(TransferKind.QUEUE, limit=1).cursor
    for wrong in tampered(cursor):
        with pytest.raises(InvalidInput):
            store.transfer_read(TransferKind.QUEUE, cursor=wrong)
    with pytest.raises(InvalidInput):
        store.transfer_read(TransferKind.MACHINE, cursor=cursor)


# ----------------------------------------------------------------------------------- forgetting


@pytest.fixture
def old(store: Store) -> Store:
    """Jobs that ended at 10, 20, 30 and 40 seconds, one that runs and one that waits."""
    queue(store)
    machine(store)
    for number in (1, 2, 3, 4):
        store.job_enqueue(job(f"j-{number}"), idempotency_key=f"k-{number}")
        [held] = claim(store, now=at(number))
        state = JobState.FAILED if number == 2 else JobState.SUCCEEDED
        ending = Ending(outcome="failed", artifacts=(ARTIFACT,))
        store.job_finish(held.id, held.epoch, ending, state=state, now=at(number * 10))
    enqueue(store, "runs", "waits")
    claim(store)
    return store


def prune(store: Store, before: int, limit: int = 1000) -> list[str]:
    """Forget what is old and return the ids of its jobs."""
    old = store.history_old(before=at(before), limit=limit)
    store.history_prune(old, before=at(before))
    return list(old)


def forgets(adapter: Adapter, pruned: list[str], *job_ids: str) -> bool:
    """Whether these jobs were forgotten now; elsewhere they go by themselves, later."""
    assert pruned == ([] if adapter.expires else list(job_ids))
    return not adapter.expires


def test_jobs_that_ended_before_a_time_are_forgotten(adapter: Adapter, old: Store) -> None:
    paid = old.attempts_between(at(-999), at(999))
    waits = list(old.queue_waits("q"))
    if forgets(adapter, prune(old, 30), "j-1", "j-2"):
        assert ids(listed(old)) == ["waits", "runs", "j-4", "j-3"]
        with pytest.raises(NotFound):
            old.job_get("j-1")
        assert old.job_enqueue(job("again"), idempotency_key="k-1")[1]
    assert old.job_enqueue(job("x"), idempotency_key="k-3") == (old.job_get("j-3"), False)
    assert old.attempts_between(at(-999), at(999)) == paid, "what was paid for stays"
    assert list(old.queue_waits("q")) == waits
    assert prune(old, 30) == []


def test_no_more_jobs_are_forgotten_at_once_than_asked_for(adapter: Adapter, old: Store) -> None:
    forgets(adapter, prune(old, 9999, 3), "j-1", "j-2", "j-3")
    forgets(adapter, prune(old, 9999, 3), "j-4")
    assert prune(old, 9999, 3) == []
    assert ids(listed(old))[:2] == ["waits", "runs"]


def test_a_job_that_is_not_old_is_not_forgotten_whoever_names_it(old: Store) -> None:
    old.history_prune(["j-3", "runs", "waits", "nobody"], before=at(30))
    assert {"j-3", "runs", "waits"} <= set(ids(listed(old)))


def test_plans_and_events_before_a_time_are_forgotten(adapter: Adapter, store: Store) -> None:
    for number in range(4):
        store.plan_put(plan(number))
        store.event_append(replace(event(str(number)), at=at(number)))
    newest = events(store)[0].seq
    assert prune(store, 2) == []
    if not adapter.expires:
        assert [each.id for each in store.plan_list("a")] == ["p-3", "p-2"]
        assert [each.text for each in events(store)] == ["3", "2"]
    prune(store, 99)
    store.event_append(event("new"))
    assert events(store)[0].seq > newest


def test_a_job_that_waits_for_a_forgotten_one_still_starts(adapter: Adapter, old: Store) -> None:
    """A success that is forgotten has been a success."""
    enqueue(old, "after", depends_on=("j-1", "runs"))
    forgets(adapter, prune(old, 15), "j-1")
    assert counts(old) == (1, 0, 1, 1)
    assert old.job_release(now=at(50)) == 0
    end(old, old.job_get("runs"))
    assert old.job_get("after").state is JobState.QUEUED


def test_what_has_not_ended_is_never_forgotten(old: Store) -> None:
    enqueue(old, "delayed", not_before=at(10))
    enqueue(old, "blocked", depends_on=("runs",))
    assert set(prune(old, 10**9)) <= {"j-1", "j-2", "j-3", "j-4"}
    assert ids(listed(old))[:2] == ["waits", "runs"]
    assert counts(old) == (2, 1, 1, 1)
    assert old.job_get("runs").spec.need == ONE_GPU
