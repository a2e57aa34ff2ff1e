"""Every store lets controllers share: one leader, cool-downs, plans, events, answers given once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from control_plane.core.model import Cooldown, ErrorClass
from control_plane.core.pacing import Bucket
from control_plane.errors import Conflict, InvalidInput, NotFound
from control_plane.ports import Fence, HeldFence, PlanRecord, Shared, Store, StoredAnswer
from tests.conformance.builders import (
    NOW,
    at,
    autoscaler,
    event,
    events,
    queue,
    tampered,
)
from tests.conformance.conftest import Adapter

# ------------------------------------------------------------------------------- autoscalers


def test_documents_are_versioned_with_their_history(store: Store) -> None:
    first, second = autoscaler(1), autoscaler(2, document="name: a  # changed")
    store.autoscaler_put(first, expected_version=0)
    store.autoscaler_put(second, expected_version=1)
    store.autoscaler_put(autoscaler(1, name="b"), expected_version=0)
    assert store.autoscaler_get("a") == second
    assert [each.name for each in store.autoscaler_list()] == ["a", "b"]
    assert store.autoscaler_history("a") == (second, first)
    assert store.autoscaler_history("a", limit=1) == (second,)
    assert store.autoscaler_history("x") == ()


@pytest.mark.parametrize(("version", "expected"), [(1, 0), (3, 2)])
def test_a_document_over_another_version_is_a_conflict(
    store: Store, version: int, expected: int
) -> None:
    store.autoscaler_put(autoscaler(1), expected_version=0)
    with pytest.raises(Conflict):
        store.autoscaler_put(autoscaler(version, document="x"), expected_version=expected)
    assert store.autoscaler_history("a") == (autoscaler(1),)


def test_a_removed_document_leaves_its_history(store: Store) -> None:
    store.autoscaler_put(autoscaler(1), expected_version=0)
    store.autoscaler_remove("a")
    store.autoscaler_remove("a")
    with pytest.raises(NotFound):
        store.autoscaler_get("a")
    again = autoscaler(1, document="again")
    store.autoscaler_put(again, expected_version=0)
    assert store.autoscaler_history("a") == (again, autoscaler(1))


# ------------------------------------------------------------------------- the controller lease


def take(store: Store, owner: str, second: float, expected: int | None = None) -> Fence | None:
    return store.lease_take("a", owner, ttl_s=30, now=at(second), expected_generation=expected)


def test_one_controller_holds_the_lease_until_it_runs_out(store: Store) -> None:
    assert take(store, "one", 0) == Fence(name="a", owner="one", generation=1)
    assert take(store, "two", 29.9) is None
    assert take(store, "two", 30) == Fence(name="a", owner="two", generation=2)
    assert take(store, "one", 31) is None


def test_renewing_keeps_the_generation_and_the_lease(store: Store) -> None:
    take(store, "one", 0)
    assert take(store, "one", 20) == Fence(name="a", owner="one", generation=1)
    assert take(store, "two", 45) is None
    assert take(store, "one", 99) == Fence(name="a", owner="one", generation=1)


def test_a_lease_given_back_is_free_and_counts_on(store: Store) -> None:
    fence = take(store, "one", 0)
    assert fence is not None
    store.lease_release(fence)
    assert take(store, "one", 1) == Fence(name="a", owner="one", generation=2)


def test_releasing_a_lease_that_is_over_changes_nothing(store: Store) -> None:
    old = take(store, "one", 0)
    assert old is not None
    take(store, "two", 40)
    store.lease_release(old)
    assert take(store, "one", 41) is None


def test_leases_of_different_names_are_apart(store: Store) -> None:
    take(store, "one", 0)
    assert store.lease_take("b", "two", ttl_s=30, now=NOW) is not None


@pytest.mark.parametrize("expected", [1, 2, -1])
def test_a_lease_that_was_never_held_has_generation_nought(store: Store, expected: int) -> None:
    assert take(store, "one", 0, expected) is None
    assert take(store, "one", 0, 0) == Fence(name="a", owner="one", generation=1)


def test_a_lease_is_taken_only_at_the_generation_that_was_read(store: Store) -> None:
    """Who looked first at an idle store must not act when somebody has acted since."""
    take(store, "one", 0)
    assert take(store, "one", 1, 0) is None
    assert take(store, "one", 1, 2) is None
    assert take(store, "one", 1, 1) == Fence(name="a", owner="one", generation=1)
    assert take(store, "two", 2, 1) is None, "it is held"
    assert take(store, "two", 40, 1) == Fence(name="a", owner="two", generation=2)
    fence = store.shared_read().leases["a"].fence
    store.lease_release(fence)
    assert take(store, "three", 41, 1) is None
    assert take(store, "three", 41, 2) == Fence(name="a", owner="three", generation=3)


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_that_read_the_same_generation_one_takes_the_lease(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda number: take(store, f"c-{number}", 0, 0), range(8)))
    [fence] = [each for each in taken if each is not None]
    assert fence.generation == 1


def test_a_lease_renewed_by_a_clock_that_went_back_is_not_lost(store: Store) -> None:
    take(store, "one", 100)
    assert take(store, "one", 90) == Fence(name="a", owner="one", generation=1)
    assert take(store, "two", 119) is None
    assert take(store, "two", 131) == Fence(name="a", owner="two", generation=2)


def test_small_records_are_read_together(store: Store) -> None:
    assert store.shared_read() == Shared(autoscalers=(), queues=(), leases={}, cooldowns=())
    store.autoscaler_put(autoscaler(1, name="b"), expected_version=0)
    store.autoscaler_put(autoscaler(1), expected_version=0)
    queue(store, "y", max_running=3)
    queue(store, "x", paused=True)
    first = take(store, "one", 0)
    assert first is not None
    store.lease_take("b", "two", ttl_s=60, now=at(1))
    for key in ("gcp/*", "aws/*"):
        store.cooldown_put(
            Cooldown(key=key, error_class=ErrorClass.QUOTA, code="Quota", until=at(5))
        )
    shared = store.shared_read()
    assert list(shared.autoscalers) == [autoscaler(1), autoscaler(1, name="b")]
    assert list(shared.queues) == [store.queue_get("x"), store.queue_get("y")]
    assert list(shared.cooldowns) == list(store.cooldown_list())
    assert [each.key for each in shared.cooldowns] == ["aws/*", "gcp/*"]
    assert dict(shared.leases) == {
        "a": HeldFence(fence=first, until=at(30)),
        "b": HeldFence(fence=Fence(name="b", owner="two", generation=1), until=at(61)),
    }
    store.lease_release(first)
    free = store.shared_read().leases["a"].fence
    assert free == Fence(name="a", owner="", generation=1)


# ------------------------------------------------------------------------------ small records


def test_cooldowns_are_replaced_by_key(store: Store) -> None:
    first = Cooldown(
        key="aws/*", error_class=ErrorClass.THROTTLE, code="RequestLimitExceeded", until=at(5)
    )
    other = replace(first, key="aws/us-east-1/*")
    again = replace(first, until=at(-99), count=2)
    for each in (other, first, again):
        store.cooldown_put(each)
    assert store.cooldown_list() == (again, other)


def bucket(version: int, tokens: float = 3.5, key: str = "aws/us-east-1/launches") -> Bucket:
    return Bucket(key=key, version=version, tokens=tokens, per_s=0.1, at=at(7), short=True)


def test_a_bucket_is_written_by_whoever_has_seen_the_last_one(store: Store) -> None:
    assert store.bucket_get("aws/us-east-1/launches") is None
    with pytest.raises(Conflict):
        store.bucket_put(bucket(2))
    store.bucket_put(bucket(1))
    for late in (bucket(1, 9.0), bucket(3, 9.0)):
        with pytest.raises(Conflict):
            store.bucket_put(late)
    assert store.bucket_get("aws/us-east-1/launches") == bucket(1)
    store.bucket_put(bucket(2, 0.0))
    store.bucket_put(bucket(1, key="gcp/europe-west4/requests"))
    assert store.bucket_get("aws/us-east-1/launches") == bucket(2, 0.0)


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_that_have_seen_the_same_bucket_one_writes_it(store: Store) -> None:
    def put(tokens: int) -> bool:
        try:
            store.bucket_put(bucket(1, tokens))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(8))) == 1


def plan(number: int, name: str = "a") -> PlanRecord:
    return PlanRecord(
        id=f"{name}-{number:03}", autoscaler=name, at=at(number), plan="{}", snapshot="[1]"
    )


def test_plans_are_listed_newest_first_and_only_the_last_stay(store: Store) -> None:
    store.plan_put(plan(0, "b"), keep=3)
    for number in range(6):
        store.plan_put(plan(number), keep=3)
    assert store.plan_list("a") == (plan(5), plan(4), plan(3))
    assert store.plan_list("a", limit=1) == (plan(5),)
    assert store.plan_list("b") == (plan(0, "b"),)


def texts(store: Store, **query: str) -> list[str]:
    return [each.text for each in events(store, **query)]


def test_events_are_numbered_and_read_newest_first(store: Store) -> None:
    for text in ("first", "second", "third"):
        store.event_append(event(text))
    assert texts(store) == ["third", "second", "first"]
    third, second, first = events(store)
    assert third.seq > second.seq > first.seq > 0
    assert first == replace(event("first"), seq=first.seq)


def test_events_are_paged_without_gap_while_new_ones_come(store: Store) -> None:
    for number in range(5):
        store.event_append(event(str(number)))
    page = store.event_list(limit=2)
    store.event_append(event("new"))
    seen = [each.text for each in page.items]
    while page.cursor:
        page = store.event_list(limit=2, cursor=page.cursor)
        seen += [each.text for each in page.items]
    assert seen == ["4", "3", "2", "1", "0"]


def test_events_are_found_by_kind_and_subject(store: Store) -> None:
    store.event_append(event("1", kind="job", subject="j-1"))
    store.event_append(event("2", kind="machine", subject="m-1"))
    store.event_append(event("3", kind="job", subject="j-2"))
    assert texts(store, kind="job") == ["3", "1"]
    assert texts(store, subject="m-1") == ["2"]
    assert texts(store, kind="job", subject="j-2") == ["3"]
    assert texts(store, kind="machine", subject="j-2") == []


def test_an_event_cursor_of_another_query_is_invalid(store: Store) -> None:
    for text in ("1", "2"):
        store.event_append(event(text))
    cursor = store.event_list(limit=1).cursor
    for wrong in tampered(cursor):
        with pytest.raises(InvalidInput):
            store.event_list(cursor=wrong)
    with pytest.raises(InvalidInput):
        store.event_list(kind="job", cursor=cursor)


@pytest.mark.usefixtures("jumpy_threads")
def test_events_of_many_threads_are_all_kept_with_numbers_of_their_own(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.event_append(event(str(number))), range(40)))
    kept = events(store, limit=9)
    assert sorted(int(each.text) for each in kept) == list(range(40))
    numbers = [each.seq for each in kept]
    assert numbers == sorted(set(numbers), reverse=True)


# -------------------------------------------------------------------------- idempotency answers

ANSWER = StoredAnswer(fingerprint="f", status=201, headers={"ETag": '"1"'}, body='{"id": "j"}')


def begin(store: Store, second: float, fingerprint: str = "f") -> StoredAnswer | None:
    return store.answer_begin("k", fingerprint, now=at(second), keep_s=600)


def test_a_key_is_reserved_once_and_then_answered(store: Store) -> None:
    assert begin(store, 0) is None
    assert begin(store, 1, "g") == StoredAnswer(fingerprint="f")
    store.answer_finish("k", ANSWER)
    assert begin(store, 2, "g") == ANSWER
    assert begin(store, 600) == ANSWER


def test_an_old_answer_is_as_if_never_written(store: Store) -> None:
    begin(store, 0)
    store.answer_finish("k", ANSWER)
    assert begin(store, 601, "g") is None
    assert begin(store, 602) == StoredAnswer(fingerprint="g")


def test_a_request_in_flight_for_over_a_minute_is_given_up(store: Store) -> None:
    begin(store, 0)
    assert begin(store, 60) == StoredAnswer(fingerprint="f")
    assert begin(store, 61, "g") is None
    assert begin(store, 62) == StoredAnswer(fingerprint="g")


def test_a_finished_answer_does_not_end_after_a_minute(store: Store) -> None:
    begin(store, 0)
    store.answer_finish("k", ANSWER)
    assert begin(store, 120) == ANSWER


def test_an_answer_outlives_a_clock_that_went_back(store: Store) -> None:
    begin(store, 100)
    assert begin(store, 50) == StoredAnswer(fingerprint="f")
    store.answer_finish("k", ANSWER)
    assert begin(store, 50) == ANSWER


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_that_begin_with_one_key_one_goes_on(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: begin(store, 0), range(8)))
    assert answers.count(None) == 1


def test_an_abandoned_key_is_free_and_a_finished_one_stays(store: Store) -> None:
    begin(store, 0)
    store.answer_abandon("k")
    assert begin(store, 1) is None
    store.answer_finish("k", ANSWER)
    store.answer_abandon("k")
    assert begin(store, 2) == ANSWER


def test_all_reserved_keys_can_be_freed_at_once(adapter: Adapter, store: Store) -> None:
    """A server that starts alone frees what its dead predecessor was answering, nothing else."""
    begin(store, 0)
    store.answer_begin("done", "f", now=at(0), keep_s=600)
    store.answer_finish("done", ANSWER)
    store.answer_abandon_all()
    assert begin(store, 1) == (StoredAnswer(fingerprint="f") if adapter.shared else None)
    assert store.answer_begin("done", "f", now=at(1), keep_s=600) == ANSWER


def test_keys_do_not_touch_each_other(store: Store) -> None:
    begin(store, 0)
    assert store.answer_begin("other", "f", now=at(61), keep_s=600) is None
    store.answer_finish("other", ANSWER)
    assert begin(store, 62) is None
