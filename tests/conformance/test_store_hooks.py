"""Webhooks: hooks are versioned, and what waits to be sent is seen by every look."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from control_plane.core.alerts import Delivery, DeliveryState
from control_plane.errors import Conflict, InvalidInput, NotFound
from control_plane.ports import Store
from tests.conformance.builders import at, delivery, federation, hook


def ended(record: Delivery, state: DeliveryState = DeliveryState.SENT) -> Delivery:
    return replace(
        record, state=state, version=record.version + 1, attempts=1, status=200, ended_at=at(60)
    )


def test_a_hook_is_kept_as_it_was_written(store: Store) -> None:
    for each in (hook(), hook(name="build", refs=(), repositories=(), rotated_at=None)):
        store.hook_put(each, expected_version=0)
    assert store.hook_get("deploy") == hook()
    assert [each.name for each in store.hook_list()] == ["build", "deploy"]
    assert store.hook_list()[1] == hook()


def test_a_hook_is_written_by_whoever_has_seen_the_last_one(store: Store) -> None:
    store.hook_put(hook(), expected_version=0)
    for version, expected in ((1, 0), (3, 2)):
        with pytest.raises(Conflict):
            store.hook_put(hook(version), expected_version=expected)
    with pytest.raises(InvalidInput):
        store.hook_put(hook(5), expected_version=1)
    store.hook_put(hook(2, generation=2), expected_version=1)
    assert store.hook_get("deploy").generation == 2


def test_a_removed_hook_is_gone_and_nothing_else(store: Store) -> None:
    store.hook_put(hook(name="x"), expected_version=0)
    store.federation_put(federation(name="x"), expected_version=0)
    store.hook_remove("x")
    store.hook_remove("x")
    with pytest.raises(NotFound):
        store.hook_get("x")
    assert store.federation_list() == (federation(name="x"),)
    store.hook_put(hook(name="x"), expected_version=0)


def test_what_waits_is_seen_by_every_look_until_it_has_ended(store: Store) -> None:
    later = delivery("20260302.budget.a.a.0")
    for each in (later, delivery()):
        store.delivery_put(each, expected_version=0)
    assert store.shared_read().deliveries == (delivery(), later)
    store.delivery_put(ended(delivery()), expected_version=1)
    given_up = ended(later, DeliveryState.GIVEN_UP)
    store.delivery_put(given_up, expected_version=1)
    assert store.shared_read().deliveries == ()
    assert store.delivery_list() == (given_up, ended(delivery()))


def test_a_message_is_written_once(store: Store) -> None:
    """One that was sent is not written anew either: that is what a day's repeat is known by."""
    store.delivery_put(delivery(), expected_version=0)
    with pytest.raises(Conflict):
        store.delivery_put(delivery(), expected_version=0)
    store.delivery_put(ended(delivery()), expected_version=1)
    for stale in (0, 1):
        with pytest.raises(Conflict):
            store.delivery_put(delivery(version=stale + 1), expected_version=stale)
    with pytest.raises(InvalidInput):
        store.delivery_put(delivery(version=9), expected_version=2)
    assert store.delivery_list() == (ended(delivery()),)


def test_the_log_begins_with_the_newest_day(store: Store) -> None:
    for day in (3, 1, 2):
        store.delivery_put(delivery(f"2026030{day}.budget.a.a.0"), expected_version=0)
    assert [each.id[:8] for each in store.delivery_list(limit=2)] == ["20260303", "20260302"]


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_that_begin_an_attempt_one_does(store: Store) -> None:
    store.delivery_put(delivery(), expected_version=0)

    def begin(number: int) -> bool:
        try:
            record = delivery(version=2, attempts=1, problem=str(number))
            store.delivery_put(record, expected_version=1)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(begin, range(8)))
    assert done.count(True) == 1
    (waiting,) = store.shared_read().deliveries
    assert waiting.problem == str(done.index(True))
