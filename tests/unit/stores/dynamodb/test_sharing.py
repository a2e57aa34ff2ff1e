"""What controllers share, in DynamoDB: what it costs, what several processes do to it at a time,
what expires, and what a crash or a lost answer leaves."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from control_plane.core.model import Cooldown, ErrorClass, Event, PriceInterval
from control_plane.errors import Conflict
from control_plane.ports import Fence, PlanRecord, StoredAnswer, TransferKind
from control_plane.stores.dynamodb import DynamoStore, history
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.table import create_table
from tests.conformance.builders import autoscaler, event, events, interval
from tests.emulators.ministack import Ministack
from tests.emulators.unreliable import LOSE, PASS, Unreliable
from tests.unit.stores.dynamodb.stores import billed
from tests.unit.stores.dynamodb.test_crashes import dying_before

START = datetime(2040, 3, 1, 12, 0, tzinfo=UTC)
"""Ahead of any computer's clock: ministack deletes what has expired by that."""
_tables = count(1)


@dataclass
class HandClock:
    """Stands until a test moves it."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a store does not wait")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


Open = Callable[[], DynamoStore]


@pytest.fixture
def process(dynamodb: Any, clock: HandClock) -> Open:
    """Each call is a process of its own with the same table."""
    table = f"sharing-{next(_tables)}"
    create_table(dynamodb, table, at.INDEXES)
    return lambda: DynamoStore(dynamodb, table=table, clock=clock)


@pytest.fixture
def store(process: Open) -> DynamoStore:
    return process()


# --------------------------------------------------------------------------------- the lease


def take(
    store: DynamoStore, owner: str, second: float = 0, expected: int | None = None
) -> Fence | None:
    now = START + timedelta(seconds=second)
    return store.lease_take("a", owner, ttl_s=30, now=now, expected_generation=expected)


def test_after_a_look_taking_and_giving_back_are_one_write_each(store: DynamoStore) -> None:
    for generation in (0, 1, 2):
        store.shared_read()
        with billed(store) as bill:
            fence = take(store, "one", expected=generation)
            assert fence is not None
            store.lease_release(fence)
        assert bill.requests == {"UpdateItem": 2}
        assert (bill.reads, bill.writes, bill.conflicts) == (0, 2, 0)


def test_renewing_is_one_write(store: DynamoStore) -> None:
    take(store, "one")
    with billed(store) as bill:
        assert take(store, "one", 20) == Fence(name="a", owner="one", generation=1)
    assert bill.requests == {"UpdateItem": 1}


def test_what_another_process_has_done_since_the_look_decides(process: Open) -> None:
    one, two = process(), process()
    one.shared_read()
    fence = take(two, "two")
    assert fence is not None
    assert take(one, "one") is None
    assert take(one, "one", expected=0) is None
    two.lease_release(fence)
    assert take(one, "one", expected=0) is None, "somebody has had it"
    assert take(one, "one", expected=1) == Fence(name="a", owner="one", generation=2)
    assert take(two, "two") is None, "what it remembers of its own is over"
    assert take(one, "one", 20) == Fence(name="a", owner="one", generation=2)


def test_of_many_processes_one_takes_the_lease(process: Open) -> None:
    stores = [process() for _ in range(6)]
    for store in stores:
        store.shared_read()
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda n: take(stores[n], f"c-{n}", expected=0), range(6)))
    assert [each.generation for each in taken if each] == [1]


# ------------------------------------------------------------------------------- small records


def test_a_look_at_what_small_teams_share_is_the_smallest_read_there_is(
    store: DynamoStore,
) -> None:
    document = "name: vision\n" + "# what this queue is for, in a sentence or two\n" * 20
    store.autoscaler_put(autoscaler(1, document=document), expected_version=0)
    take(store, "one")
    for zone in "abcd":
        store.cooldown_put(cooldown(f"aws/us-east-1/us-east-1{zone}/g6.xlarge/spot"))
    with billed(store) as bill:
        shared = store.shared_read()
    assert len(shared.cooldowns) == 4
    assert (bill.requests, bill.reads) == ({"Query": 1}, 0.5)


def cooldown(key: str, until: datetime = START) -> Cooldown:
    return Cooldown(
        key=key, error_class=ErrorClass.QUOTA, code="InsufficientInstanceCapacity", until=until
    )


def test_a_cooldown_is_remembered_for_a_week_after_its_end(
    store: DynamoStore, clock: HandClock
) -> None:
    store.cooldown_put(cooldown("x", START + timedelta(hours=1)))
    clock.at = START + timedelta(days=7)
    assert [each.key for each in store.cooldown_list()] == ["x"]
    assert store.shared_read().cooldowns == store.cooldown_list()
    clock.at = START + timedelta(days=7, hours=2)
    assert store.cooldown_list() == store.shared_read().cooldowns == ()
    assert store.transfer_read(TransferKind.COOLDOWN).items == ()


def test_of_two_that_write_the_same_version_one_is_refused(process: Open) -> None:
    stores = [process() for _ in range(4)]

    def put(number: int) -> bool:
        try:
            record = autoscaler(1, document=f"name: a  # {number}")
            stores[number].autoscaler_put(record, expected_version=0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(put, range(4)))
    assert done.count(True) == 1
    [kept] = stores[0].autoscaler_history("a")
    assert kept == stores[0].autoscaler_get("a")
    assert kept.document == f"name: a  # {done.index(True)}"


# ------------------------------------------------------------------------------------- plans


def plan(number: int, snapshot: str = "[]") -> PlanRecord:
    at_ = START + timedelta(seconds=number)
    return PlanRecord(id=f"p-{number}", autoscaler="a", at=at_, plan="{}", snapshot=snapshot)


def test_a_plan_larger_than_an_item_is_kept_whole(store: DynamoStore) -> None:
    snapshot = random.Random(1).randbytes(1_000_000).hex()  # compresses to half
    store.plan_put(plan(1, snapshot))
    store.plan_put(plan(2))
    assert store.plan_list("a") == (plan(2), plan(1, snapshot))
    rows = store.transfer_read(TransferKind.PLAN).items
    assert [row["snapshot"] for row in rows] == [snapshot, "[]"]


def test_keeping_few_plans_deletes_none(store: DynamoStore) -> None:
    for number in range(5):
        with billed(store) as bill:
            store.plan_put(plan(number), keep=2)
    assert bill.requests == {"PutItem": 1}
    assert store.plan_list("a", limit=9) == (plan(4), plan(3))
    assert len(store.transfer_read(TransferKind.PLAN).items) == 2


def test_plans_and_events_expire_with_the_retention(store: DynamoStore, clock: HandClock) -> None:
    store.plan_put(plan(1))
    store.event_append(event("x"))
    clock.at += timedelta(days=91)
    assert store.plan_list("a") == ()
    assert events(store) == events(store, subject="j-1") == []
    for kind in (TransferKind.PLAN, TransferKind.EVENT):
        assert store.transfer_read(kind).items == ()


# ------------------------------------------------------------------------------------ events


def test_an_event_is_two_writes(store: DynamoStore) -> None:
    store.event_append(event("first of the day"))
    with billed(store) as bill:
        store.event_append(event("x"))
    assert bill.requests == {"PutItem": 2}
    assert bill.writes == 2


def test_processes_whose_clocks_agree_to_the_microsecond_lose_no_event(process: Open) -> None:
    stores = [process() for _ in range(3)]
    for number in range(12):
        stores[number % 3].event_append(event(str(number), subject=f"j-{number % 2}"))
    found = events(stores[0], limit=5)
    assert sorted(int(each.text) for each in found) == list(range(12))
    assert len({each.seq for each in found}) == 12
    odd = events(stores[1], subject="j-1", limit=5)
    assert odd == [each for each in found if each.subject == "j-1"]


def days_of_events(store: DynamoStore, clock: HandClock, days: int) -> list[Event]:
    """One job event a day and two of machines; newest first."""
    for _ in range(days):
        for number in range(3):
            kind = "job" if number == 1 else "machine"
            store.event_append(Event(at=clock.at, kind=kind, subject=f"s-{number}", text="x"))
        clock.at += timedelta(days=1)
    return events(store, limit=1000)


def test_events_are_read_over_many_days(store: DynamoStore, clock: HandClock) -> None:
    every = days_of_events(store, clock, 30)
    assert len(every) == 90
    assert [each.seq for each in every] == sorted((each.seq for each in every), reverse=True)
    for limit in (10, 100):
        assert events(store, limit=limit) == every
        assert events(store, limit=limit, kind="job") == [e for e in every if e.kind == "job"]
        assert events(store, limit=limit, subject="s-2") == [e for e in every if e.subject == "s-2"]


def test_a_page_of_rare_events_reads_no_more_than_its_bound(
    store: DynamoStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = days_of_events(store, clock, 20)
    monkeypatch.setattr(history, "READS_MAX", 3)
    with billed(store) as bill:
        page = store.event_list(kind="job")
    assert (len(page.items), bool(page.cursor)) == (3, True)
    assert bill.requests == {"Query": 3, "GetItem": 1}
    assert events(store, kind="job", limit=100) == [e for e in every if e.kind == "job"]


# ----------------------------------------------------------------------------------- answers


def test_a_request_with_a_key_costs_two_writes_and_its_repeat_one(store: DynamoStore) -> None:
    with billed(store) as bill:
        assert store.answer_begin("k", "f", now=START, keep_s=600) is None
        answer = StoredAnswer(fingerprint="f", status=201, headers={"etag": '"1"'}, body="{}")
        store.answer_finish("k", answer)
    assert (bill.writes, bill.reads) == (2, 0)
    with billed(store) as bill:
        assert store.answer_begin("k", "f", now=START, keep_s=600) == answer
    assert (bill.writes, bill.reads) == (1, 0)


def test_an_answer_stands_at_least_until_it_may_be_forgotten(store: DynamoStore) -> None:
    store.answer_begin("k", "f", now=START, keep_s=600.5)
    item = store._table.get(*at.answer_key("k"))
    assert item is not None
    assert item[at.TTL] == START.timestamp() + 601


# ------------------------------------------------------------------------------------ ledger


def everything(store: DynamoStore) -> list[PriceInterval]:
    far = timedelta(days=9000)
    return list(store.prices_between(START - far, START + far))


def test_intervals_of_all_months_are_found_and_no_other_month_is_read(
    store: DynamoStore,
) -> None:
    month = timedelta(days=31)
    kept = []
    for number in range(24):
        opened = interval(f"m-{number:02}", START + number * month)
        store.price_open(opened)
        store.price_close(opened.machine_id, at=opened.started_at + timedelta(hours=1))
        kept.append(replace(opened, ended_at=opened.started_at + timedelta(hours=1)))
    assert everything(store) == kept
    first = START + 20 * month
    with billed(store) as bill:
        found = store.prices_between(first, first + timedelta(minutes=5))
    assert list(found) == [kept[20]]
    assert bill.requests["Query"] == 1 + 4, "what is open, and the months from then on"


def test_an_interval_over_many_months_is_found_in_each(store: DynamoStore) -> None:
    store.price_open(interval(start=START))
    store.price_close("m-1", at=START + timedelta(days=300))
    for days in (0, 100, 299):
        start = START + timedelta(days=days)
        assert len(store.prices_between(start, start + timedelta(days=1))) == 1
    late = START + timedelta(days=300)
    assert store.prices_between(late, late + timedelta(days=1)) == ()


def test_two_processes_keep_one_interval_open(process: Open) -> None:
    stores = [process() for _ in range(4)]
    prices = [interval(start=START + timedelta(seconds=n), price=f"0.3{n}") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: stores[n].price_open(prices[n]), range(4)))
    found = everything(stores[0])
    assert [each.price_usd_hour for each in found] == [each.price_usd_hour for each in prices]
    assert sum(each.ended_at is None for each in found) == 1
    with ThreadPoolExecutor(4) as pool:
        end = START + timedelta(hours=1)
        list(pool.map(lambda n: stores[n].price_close("m-1", at=end), range(4)))
    assert sum(each.ended_at is None for each in everything(stores[0])) == 0


# ----------------------------------------------------------------------- crashes, lost answers


@dataclass(frozen=True)
class Case:
    """An operation, repeated by its caller, and what must be true when it is over."""

    before: Callable[[DynamoStore], object]
    act: Callable[[DynamoStore], object]
    after: Callable[[DynamoStore], bool]
    repeated: bool = True


def nothing(_: DynamoStore) -> None:
    pass


LATER = START + timedelta(hours=1)
PAID = [replace(interval(), ended_at=LATER), interval(start=LATER, price="0.35")]


def declare(store: DynamoStore) -> None:
    have = store.autoscaler_history("a")
    if not have:
        store.autoscaler_put(autoscaler(1), expected_version=0)


CASES = {
    "a document": Case(
        nothing,
        declare,
        lambda store: store.autoscaler_history("a") == (store.autoscaler_get("a"),),
    ),
    "a first price": Case(
        nothing,
        lambda store: store.price_open(interval()),
        lambda store: everything(store) == [interval()],
    ),
    "a new price": Case(
        lambda store: store.price_open(interval()),
        lambda store: store.price_open(PAID[1]),
        lambda store: everything(store) == PAID,
    ),
    "the end of a price": Case(
        lambda store: store.price_open(interval()),
        lambda store: store.price_close("m-1", at=LATER),
        lambda store: everything(store) == PAID[:1],
    ),
    "a plan": Case(
        nothing,
        lambda store: store.plan_put(plan(1)),
        lambda store: store.plan_list("a") == (plan(1),),
    ),
    "an event": Case(
        nothing,
        lambda store: store.event_append(event("x")),
        lambda store: [each.text for each in events(store)] == ["x"],
        repeated=False,
    ),
    "a lease": Case(
        lambda store: store.shared_read(),
        lambda store: take(store, "one"),
        lambda store: (
            take(store, "one") == Fence(name="a", owner="one", generation=1)
            and take(store, "two") is None
        ),
    ),
    "an answer": Case(
        lambda store: store.answer_begin("k", "f", now=START, keep_s=600),
        lambda store: store.answer_finish("k", StoredAnswer(fingerprint="f", status=200)),
        lambda store: (
            store.answer_begin("k", "f", now=START, keep_s=600)
            == StoredAnswer(fingerprint="f", status=200)
        ),
    ),
}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.repeated])
def test_a_crash_before_any_request_is_made_good_by_a_repeat(
    dynamodb: Any, clock: HandClock, name: str
) -> None:
    case = CASES[name]
    for request in count():
        table = f"sharing-{next(_tables)}"
        create_table(dynamodb, table, at.INDEXES)
        store = DynamoStore(dynamodb, table=table, clock=clock)
        case.before(store)
        with dying_before(dynamodb, request) as died:
            case.act(store)
        if not died:
            break
        again = DynamoStore(dynamodb, table=table, clock=clock)
        case.act(again)
        assert case.after(again), f"after a crash before request {request}"
    assert request >= 1


@pytest.mark.parametrize("name", CASES)
def test_a_lost_answer_to_any_request_changes_nothing(
    ministack: Ministack, unreliable: Unreliable, clock: HandClock, name: str
) -> None:
    case = CASES[name]
    client = connect(
        region="eu-central-1",
        endpoint_url=unreliable.url,
        access_key=ministack.new_account(),
        secret_key="any",
    )
    for request in count():
        table = f"sharing-{next(_tables)}"
        create_table(client, table, at.INDEXES)
        store = DynamoStore(client, table=table, clock=clock)
        case.before(store)
        unreliable.script = [*[PASS] * request, LOSE]
        case.act(store)
        over = bool(unreliable.script)
        unreliable.script = []
        assert case.after(store), f"after the answer to request {request} was lost"
        if over:
            break
    client.close()
    assert request >= 1
