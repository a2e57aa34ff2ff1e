"""Every operation costs what it must, by our own meter: one DynamoDB unit is money, at any scale.

The units are those of AWS, computed from sizes (`test_capacity.py` proves the computing).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from control_plane.core.alerts import DeliveryState
from control_plane.core.codec import to_json
from control_plane.core.job_ids import id_for
from control_plane.core.model import Artifact, Job, JobState, Machine, MachineState, Reason
from control_plane.ports import Ending, Place, TransferKind
from control_plane.spending import Spending
from control_plane.stores.dynamodb import DynamoStore
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.capacity import item_size
from control_plane.stores.dynamodb.items import encode_item
from control_plane.stores.transfer import JobRow
from tests.conformance.builders import delivery, interval
from tests.emulators.ministack import Ministack
from tests.unit.stores.dynamodb.stores import (
    BOX,
    NEED,
    billed,
    make_store,
    now,
    ready_machine,
    small,
    typical,
    with_queue,
)

DONE = Ending(
    outcome="succeeded",
    exit_code=0,
    reason=Reason(code="succeeded", sentence="the command ended with exit code 0 after 2 h 13 min"),
    artifacts=(
        Artifact(name="out/model.pt", size_bytes=97_812_345, sha256="ab" * 32, blob="artifacts/a"),
        Artifact(name="out/log.csv", size_bytes=12_345, sha256="cd" * 32, blob="artifacts/b"),
    ),
)
LOST = Ending(outcome="lost", reason=Reason(code="silent", sentence="m-1 was silent for 90 s"))
WHY = Reason(code="asked", sentence="ann asked for it")


@pytest.fixture
def store(dynamodb: Any, table_name: str) -> DynamoStore:
    """A store in use: its queue has had a job of this need today."""
    made = with_queue(make_store(dynamodb, table_name))
    made.job_enqueue(typical())
    return made


def claimed(store: DynamoStore, count: int = 1) -> list[Job]:
    machine = ready_machine(store)
    jobs = store.job_claim(machine.id, ["research"], BOX, limit=count, now=now())
    assert len(jobs) == count
    return list(jobs)


def uuid7(number: int) -> str:
    milliseconds = int(now().timestamp() * 1000)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number))


# ---------------------------------------------------------------------------- submitting


def test_a_submission_writes_two_units(store: DynamoStore) -> None:
    with billed(store) as bill:
        store.job_enqueue(typical())
    assert (bill.writes, bill.reads) == (2, 0.5)
    assert bill.requests == {"GetItem": 1, "PutItem": 1}


def test_a_key_that_carries_its_time_costs_nothing_and_a_repeat_one_unit(
    store: DynamoStore,
) -> None:
    key = uuid7(1)
    job_id = id_for(key)
    assert job_id is not None
    with billed(store) as bill:
        first, new = store.job_enqueue(typical(id=job_id), idempotency_key=key)
    assert (new, bill.writes, bill.reads) == (True, 2, 0.5)
    with billed(store) as bill:
        again = store.job_enqueue(typical(id=job_id), idempotency_key=key)
    assert (again, bill.writes, bill.reads) == ((first, False), 1, 0.5)


def test_any_other_key_costs_one_unit_more_and_its_repeat_none(store: DynamoStore) -> None:
    with billed(store) as bill:
        first, _ = store.job_enqueue(typical(), idempotency_key="nightly/2026-11-22")
    assert bill.writes == 3
    with billed(store) as bill:
        again = store.job_enqueue(typical(), idempotency_key="nightly/2026-11-22")
    assert (again, bill.writes) == ((first, False), 0)


def test_the_first_job_of_a_need_or_a_day_writes_one_unit_more(
    dynamodb: Any, table_name: str
) -> None:
    store = with_queue(make_store(dynamodb, table_name))
    with billed(store) as bill:
        store.job_enqueue(typical())
    assert bill.writes == 2 + 1 + 1


def test_a_delayed_and_a_blocked_job_cost_little_more(store: DynamoStore) -> None:
    later = now().replace(year=2030)
    with billed(store) as bill:
        store.job_enqueue(typical(not_before=later))
    assert bill.writes == 2
    first, _ = store.job_enqueue(typical())
    with billed(store) as bill:
        store.job_enqueue(typical(depends_on=(first.id,)))
    assert bill.writes == 2 + 1, "the job it waits for is told"


# ------------------------------------------------------------------------------ claiming


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_claim_writes_two_units_a_job_and_one_for_the_agent(
    store: DynamoStore, count: int
) -> None:
    for _ in range(count):
        store.job_enqueue(typical())
    machine = ready_machine(store)
    with billed(store) as bill:
        jobs = store.job_claim(machine.id, ["research"], BOX, limit=count, now=now())
    assert len(jobs) == count
    assert bill.writes == 2 * count + 1
    assert bill.conflicts == 0


def test_a_claim_of_nothing_writes_nothing(store: DynamoStore) -> None:
    claimed(store)
    machine = ready_machine(store)
    with billed(store) as bill:
        assert store.job_claim(machine.id, ["research"], BOX, limit=8, now=now()) == ()
    assert bill.writes == 0
    assert bill.reads <= 3


def test_a_claim_reads_no_more_from_a_deep_line_than_from_a_short_one(store: DynamoStore) -> None:
    reads = []
    for _ in range(2):
        for _ in range(60):
            store.job_enqueue(small())
        machine = ready_machine(store)
        with billed(store) as bill:
            store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
        reads.append(bill.reads)
    assert reads[0] == reads[1] <= 5


def test_a_limit_costs_one_unit_each_way(dynamodb: Any, table_name: str) -> None:
    store = with_queue(make_store(dynamodb, table_name), max_running=5, max_running_per_owner=3)
    store.job_enqueue(typical())
    machine = ready_machine(store)
    with billed(store) as bill:
        [job] = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
    assert bill.writes == 2 + 1 + 2
    with billed(store) as bill:
        store.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    assert bill.writes == 1 + 2


# ------------------------------------------------------------------------------- running


def test_a_start_and_a_finish_write_one_unit_each(store: DynamoStore) -> None:
    [job] = claimed(store)
    with billed(store) as bill:
        store.job_start(job.id, job.epoch, now=now())
    assert (bill.writes, bill.reads) == (1, 1)
    with billed(store) as bill:
        store.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    assert (bill.writes, bill.reads) == (1, 1)
    with billed(store) as bill:
        store.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    assert bill.writes == 0, "a repeat"


def test_a_dead_letter_writes_one_unit_more(store: DynamoStore) -> None:
    [job] = claimed(store)
    with billed(store) as bill:
        store.job_finish(job.id, job.epoch, LOST, state=JobState.EXHAUSTED, now=now())
    assert bill.writes == 1 + 1


def test_giving_back_writes_two_units_and_one_for_each_attempt_but_the_last(
    store: DynamoStore,
) -> None:
    costs = []
    for _ in range(3):
        [job] = claimed(store)
        with billed(store) as bill:
            store.job_requeue(job.id, job.epoch, LOST, need=NEED, now=now())
        costs.append(bill.writes)
    assert costs == [2, 3, 3]


def test_a_beat_writes_one_unit(store: DynamoStore) -> None:
    machine = ready_machine(store)
    with billed(store) as bill:
        store.machine_beat(machine.id, now=now())
    assert bill.writes == 1


def test_a_beat_still_writes_one_unit_when_the_machine_has_run_many_jobs(
    store: DynamoStore,
) -> None:
    machine = ready_machine(store)
    for _ in range(55):
        store.job_enqueue(small())
        jobs = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
        for job in jobs:
            store.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    for _ in range(8):
        store.job_enqueue(small())
    store.job_claim(machine.id, ["research"], BOX, limit=8, now=now())
    with billed(store) as bill:
        store.machine_beat(machine.id, now=now())
    assert bill.writes == 1


def test_writing_the_ledger_costs_a_fraction_of_a_unit_per_job(store: DynamoStore) -> None:
    machine = ready_machine(store)
    rounds = 60
    with billed(store) as bill:
        for _ in range(rounds):
            store.job_enqueue(small())
            [job] = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
            store.job_finish(job.id, job.epoch, DONE, state=JobState.SUCCEEDED, now=now())
    assert bill.writes - rounds * (2 + 3 + 1) <= 0.2 * rounds


# ---------------------------------------------------------------------- what people do


def test_cancelling_a_waiting_job_writes_two_units_and_a_running_one_one(
    store: DynamoStore,
) -> None:
    waiting, _ = store.job_enqueue(typical())
    with billed(store) as bill:
        store.job_cancel(waiting.id, reason=WHY, now=now())
    assert bill.writes == 2
    [job] = claimed(store)
    with billed(store) as bill:
        store.job_cancel(job.id, reason=WHY, now=now())
    assert bill.writes == 1


@pytest.mark.parametrize("where", ["top", "bottom", "before", "after"])
def test_a_move_writes_three_units(store: DynamoStore, where: str) -> None:
    jobs = [store.job_enqueue(typical())[0] for _ in range(3)]
    place = Place(where=where, job_id=jobs[0].id if where in ("before", "after") else "")
    with billed(store) as bill:
        store.job_move(jobs[1].id, queue="research", place=place, expected_version=None, now=now())
    assert bill.writes == 3


# ------------------------------------------------------------------------------- the look


def idle_look(store: DynamoStore) -> None:
    """What a controller reads at each look that finds nothing to do."""
    shared = store.shared_read()
    store.job_release(now=now())
    store.fleet_read(sure=False)
    names = [queue.name for queue in shared.queues]
    store.waiting_groups(names, ripe_before={}, now=now())


def test_an_idle_look_reads_one_unit_and_a_half_and_writes_nothing(
    dynamodb: Any, table_name: str
) -> None:
    store = make_store(dynamodb, table_name)
    for name in ("research", "nightly", "interactive"):
        with_queue(store, name)
    with billed(store) as bill:
        idle_look(store)
    assert (bill.reads, bill.writes) == (1.5, 0)
    assert bill.requests == {"Query": 3}


def test_a_message_costs_looks_nothing_once_it_is_sent(dynamodb: Any, table_name: str) -> None:
    store = make_store(dynamodb, table_name)
    with_queue(store, "research")
    with billed(store) as bill:
        store.delivery_put(delivery(), expected_version=0)
    assert bill.writes == 4, "a transaction over two small items"
    store.delivery_put(delivery(version=2, state=DeliveryState.SENT), expected_version=1)
    with billed(store) as bill:
        idle_look(store)
    assert (bill.reads, bill.writes) == (1.5, 0)


def test_counting_what_waits_reads_no_more_of_a_deep_line_than_its_limit(
    store: DynamoStore,
) -> None:
    reads = []
    for _ in range(2):
        for _ in range(80):
            store.job_enqueue(small())
        with billed(store) as bill:
            [group] = store.waiting_groups(["research"], ripe_before={}, now=now(), limit=40)
        assert (group.count, group.exact) == (40, False)
        reads.append(bill.reads)
    assert reads[1] <= reads[0] <= 3


def test_the_place_of_a_job_costs_by_who_stands_before_it_and_reads_none_of_them(
    store: DynamoStore,
) -> None:
    jobs = [store.job_enqueue(typical())[0] for _ in range(101)]
    reads: dict[int, float] = {}
    for place in (10, 100):
        with billed(store) as bill:
            line = store.queue_line("research", before=jobs[place])
        assert list(line[1:]) == [job.id for job in jobs[:place]]
        assert set(bill.requests) == {"GetItem", "Query"}
        reads[place] = bill.reads
    # A row of the line is an eighth of a kilobyte at most, and the queue's item is looked at first.
    assert reads[10] == 1
    assert reads[100] <= 0.5 + 100 / 8 / 4 / 2 + 0.5


WORTH_COUNTING = 40
"""Jobs of one need; what the machines that may be bought can run at once."""


@pytest.fixture
def patient(ministack: Ministack) -> Iterator[Any]:
    """A client that waits: the emulator goes through all that is in a table at each query."""
    client = connect(
        region="eu-central-1",
        endpoint_url=ministack.endpoint,
        access_key=ministack.new_account(),
        secret_key="any",
        read_timeout_s=300,
    )
    yield client
    client.close()


@pytest.mark.parametrize("deep", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_look_costs_no_more_at_a_deep_queue(patient: Any, table_name: str, deep: int) -> None:
    store = with_queue(make_store(patient, table_name))
    ready_machine(store)
    depth, units = 0, {}
    for wanted in (10, 200, deep):
        while depth < wanted:
            rows = [to_json(JobRow(job=small())) for _ in range(min(1_000, wanted - depth))]
            store.transfer_write(TransferKind.JOB, rows)
            depth += len(rows)
        with billed(store) as bill:
            store.shared_read()
            store.job_release(now=now())
            store.fleet_read()
            [group] = store.waiting_groups(
                ["research"], ripe_before={}, now=now(), limit=WORTH_COUNTING
            )
        assert group.count == min(wanted, WORTH_COUNTING)
        units[wanted] = (bill.reads, bill.writes)
    assert units[10] <= units[200] == units[deep] == (4, 0)


def test_a_look_at_the_fleet_reads_by_machine_and_lease_not_by_job(store: DynamoStore) -> None:
    for _ in range(4):
        store.job_enqueue(small())
    claimed(store, 2)
    before = []
    for _ in range(2):
        with billed(store) as bill:
            machines, leases = store.fleet_read(sure=False)
        assert (len(machines), len(leases)) == (1, 2)
        before.append(bill.reads)
        for _ in range(30):
            store.job_enqueue(small())
    assert before[0] == before[1] <= 0.5 + 0.5 * (2 + 3)


def test_what_was_spent_costs_no_more_to_know_at_the_end_of_a_dear_month(
    store: DynamoStore,
) -> None:
    """Of what is over, all is read once a day."""
    began = now().replace(day=2, hour=0, minute=0)
    for number in range(150):
        at_ = began + timedelta(minutes=number)
        store.price_open(interval(f"m-{number}", start=at_))
        if number:
            store.price_close(f"m-{number}", at=at_ + timedelta(minutes=5))
    look = began + timedelta(days=3)
    spending = Spending(store)
    with billed(store) as first:
        spent = spending.of("a", look)
    with billed(store) as again:
        assert spending.of("a", look + timedelta(seconds=1)).month_usd > spent.month_usd
    assert again.reads <= 3 < 8 < first.reads


# ------------------------------------------------------------------- nothing dear in between


def test_the_life_of_a_job_needs_no_transaction_and_no_scan(store: DynamoStore) -> None:
    machine = ready_machine(store)
    with billed(store) as bill:
        store.job_enqueue(typical())
        jobs = store.job_claim(machine.id, ["research"], BOX, limit=2, now=now())
        store.machine_beat(machine.id, now=now())
        for job in jobs:
            store.job_start(job.id, job.epoch, now=now())
        store.job_requeue(jobs[0].id, 1, LOST, need=NEED, now=now())
        store.job_finish(jobs[1].id, 1, DONE, state=JobState.SUCCEEDED, now=now())
        store.job_cancel(jobs[0].id, reason=WHY, now=now())
        store.job_list(limit=20)
        store.job_release(now=now())
        store.queue_stats()
    assert not {"TransactWriteItems", "Scan"} & set(bill.requests)


def size_of(store: DynamoStore, job_id: str) -> int:
    item = store._table.get(*at.job_key(job_id))
    assert item is not None
    return item_size(encode_item(item))


def test_a_typical_job_stays_below_one_kilobyte_all_its_life(store: DynamoStore) -> None:
    key = uuid7(7)
    job, _ = store.job_enqueue(typical(id=id_for(key)), idempotency_key=key)
    sizes = [size_of(store, job.id)]
    assert claimed(store, 2)[1].id == job.id
    sizes.append(size_of(store, job.id))
    store.job_start(job.id, 1, now=now())
    sizes.append(size_of(store, job.id))
    store.job_finish(job.id, 1, DONE, state=JobState.SUCCEEDED, now=now())
    sizes.append(size_of(store, job.id))
    assert all(500 < size < 1024 for size in sizes), sizes


def test_a_write_of_a_machine_that_changes_no_readiness_is_one_unit(store: DynamoStore) -> None:
    machine = ready_machine(store)
    with billed(store) as bill:
        store.machine_put(machine, expected_version=1, fence=None)
    assert bill.writes == 1
    assert machine.state is MachineState.READY


# ------------------------------------------------------------------------ all at once


@pytest.fixture
def many_connections(ministack: Ministack) -> Iterator[Any]:
    client = connect(
        region="eu-central-1",
        endpoint_url=ministack.endpoint,
        access_key=ministack.new_account(),
        secret_key="any",
        connections=64,
    )
    yield client
    client.close()


def test_fifty_agents_at_once_waste_less_than_half_a_write_a_claim(
    many_connections: Any, table_name: str
) -> None:
    """Each has a process of its own: nothing is learned from one another but by losing. The first
    time they all go for the head of the line, which a single claimer is promised; it is reported
    and not asserted."""
    agents, rounds = 50, 3
    first = with_queue(make_store(many_connections, table_name))
    stores = [first] + [
        DynamoStore(many_connections, table=table_name, clock=first._clock)
        for _ in range(agents - 1)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(first.job_enqueue, [small() for _ in range(agents * rounds + 200)]))
        machines = list(pool.map(ready_machine, [first] * agents))
    taken: list[str] = []
    wasted = []
    for _ in range(rounds):
        with billed(*stores) as bill:
            taken += claim_at_once(stores, machines)
        wasted.append(bill.conflicts / agents)
    assert len(taken) == len(set(taken)) == agents * rounds
    assert sum(wasted[1:]) / (rounds - 1) <= 0.5, wasted


def claim_at_once(stores: Sequence[DynamoStore], machines: Sequence[Machine]) -> list[str]:
    """One job for every machine; all ask at the same instant."""
    start = threading.Barrier(len(stores))

    def claim(store: DynamoStore, machine: Machine) -> list[str]:
        start.wait(timeout=60)
        jobs = store.job_claim(machine.id, ["research"], BOX, limit=1, now=now())
        return [job.id for job in jobs]

    with ThreadPoolExecutor(len(stores)) as pool:
        return [job_id for mine in pool.map(claim, stores, machines) for job_id in mine]
