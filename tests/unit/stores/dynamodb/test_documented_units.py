"""The units that `docs/store.md` names are what the store consumes.

`ORCHCTL_WRITE_UNITS=1` writes down what was measured instead of comparing; `make docs` then writes
the page.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.job_ids import id_for
from control_plane.core.model import JobState, Reason
from control_plane.ports import Ending, Place
from control_plane.stores.dynamodb import DynamoStore
from docs.generate_store import UNITS
from tests.unit.stores.dynamodb.stores import (
    BOX,
    Bill,
    billed,
    make_store,
    now,
    ready_machine,
    typical,
    with_queue,
)
from tests.unit.stores.dynamodb.test_cost import DONE, LOST, uuid7

LIVES = 100
WHY = Reason(code="asked", sentence="ann asked for it")


@pytest.fixture
def store(dynamodb: Any, table_name: str) -> DynamoStore:
    """A store in use: its queue has had a job of this need today."""
    made = with_queue(make_store(dynamodb, table_name))
    made.job_enqueue(typical())
    machine = ready_machine(made)
    [job] = made.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
    made.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    return made


def test_the_documented_units_are_the_consumed_ones(store: DynamoStore) -> None:
    measured = {
        name: {"writes": round(bill.writes, 2), "reads": round(bill.reads, 2)}
        for name, bill in _operations(store).items()
    }
    if os.environ.get("ORCHCTL_WRITE_UNITS"):
        UNITS.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    assert json.loads(UNITS.read_text(encoding="utf-8")) == measured


def _operations(store: DynamoStore) -> dict[str, Bill]:
    bills: dict[str, Bill] = {}
    key = uuid7(9)
    keyed = typical(id=id_for(key))
    with billed(store) as bills["submit"]:
        store.job_enqueue(keyed, idempotency_key=key)
    with billed(store) as bills["submit once more with the same key"]:
        store.job_enqueue(keyed, idempotency_key=key)
    machine = ready_machine(store)
    with billed(store) as bills["claim one job (the machine's beat among it)"]:
        [job] = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
    with billed(store) as bills["start"]:
        store.job_start(job.id, job.epoch, now=now())
    with billed(store) as bills["beat of a machine"]:
        store.machine_beat(machine.id, now=now() + timedelta(seconds=30))
    with billed(store) as bills["finish"]:
        _finish(store, job.id, job.epoch, DONE)
    store.job_enqueue(typical())
    [job] = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
    with billed(store) as bills["give back a job whose machine was lost"]:
        store.job_requeue(job.id, job.epoch, LOST, need=job.spec.need, now=now())
    waiting, _ = store.job_enqueue(typical())
    with billed(store) as bills["move or reorder a waiting job"]:
        place = Place(where="top")
        store.job_move(waiting.id, queue="research", place=place, expected_version=None, now=now())
    with billed(store) as bills["cancel a waiting job"]:
        store.job_cancel(waiting.id, reason=WHY, now=now())
    bills["a job's life, one at a time, mean of 100"] = _lives(store)
    bills["tick with nothing to do"] = _idle_tick(store)
    return bills


def _finish(store: DynamoStore, job_id: str, epoch: int, ending: Ending) -> None:
    store.job_finish(job_id, epoch, ending, state=JobState.SUCCEEDED, now=now())


def _lives(store: DynamoStore) -> Bill:
    """Submit, claim, start, finish, and the booking of what ended."""
    machine = ready_machine(store)
    with billed(store) as bill:
        for _ in range(LIVES):
            store.job_enqueue(typical())
            [job] = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
            store.job_start(job.id, job.epoch, now=now())
            _finish(store, job.id, job.epoch, DONE)
    return Bill(writes=bill.writes / LIVES, reads=bill.reads / LIVES)


def _idle_tick(used: DynamoStore) -> Bill:
    """A look at a store in which nothing waits and nothing runs."""
    store = with_queue(make_store(used._table._client, f"{used._table.table}-idle"))
    with billed(store) as bill:
        store.shared_read()
        store.job_release(now=now())
        store.fleet_read(sure=False)
        store.waiting_groups(["research"], ripe_before={}, now=now())
    return bill
