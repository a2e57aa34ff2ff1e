"""Every store keeps price intervals that neither overlap nor leave a gap for one machine."""

from __future__ import annotations

from dataclasses import replace

from control_plane.core.model import PriceInterval
from control_plane.ports import Store
from tests.conformance.builders import NOW, at, interval


def everything(store: Store) -> tuple[PriceInterval, ...]:
    return tuple(store.prices_between(at(-1_000_000), at(1_000_000)))


def test_a_new_price_closes_the_one_before(store: Store) -> None:
    store.price_open(interval(price="0.31"))
    store.price_open(interval(start=at(60), price="0.35"))
    store.price_close("m-1", at=at(90))
    assert everything(store) == (
        replace(interval(price="0.31"), ended_at=at(60)),
        replace(interval(start=at(60), price="0.35"), ended_at=at(90)),
    )


def test_repeating_an_interval_changes_nothing_even_when_it_is_closed(store: Store) -> None:
    store.price_open(interval())
    store.price_open(interval())
    assert everything(store) == (interval(),)
    store.price_open(interval(start=at(60), price="0.35"))
    store.price_open(interval())
    assert everything(store) == (
        replace(interval(), ended_at=at(60)),
        interval(start=at(60), price="0.35"),
    )
    store.price_close("m-1", at=at(70))
    store.price_open(interval(start=at(60), price="0.35"))
    assert everything(store)[1].ended_at == at(70)


def test_a_price_corrected_at_the_same_instant_replaces_the_first(store: Store) -> None:
    store.price_open(interval(price="0.31"))
    store.price_open(interval(price="0.35"))
    assert everything(store) == (interval(price="0.35"),)


def test_closing_without_an_open_interval_does_nothing(store: Store) -> None:
    store.price_close("m-1", at=NOW)
    store.price_open(interval())
    store.price_close("m-1", at=at(5))
    store.price_close("m-1", at=at(9))
    store.price_close("m-2", at=at(9))
    assert everything(store) == (replace(interval(), ended_at=at(5)),)


def test_an_interval_never_ends_before_it_starts(store: Store) -> None:
    store.price_open(interval(start=at(10)))
    store.price_close("m-1", at=at(5))
    assert everything(store)[0].ended_at == at(10)


def test_intervals_are_found_by_the_time_they_overlap(store: Store) -> None:
    store.price_open(interval("m-2"))
    store.price_open(interval("m-1"))
    store.price_close("m-1", at=at(10))
    store.price_open(interval("m-3", start=at(20)))

    def found(start: float, end: float) -> list[str]:
        return [each.machine_id for each in store.prices_between(at(start), at(end))]

    assert found(-5, 0) == []
    assert found(-5, 1) == ["m-1", "m-2"]
    assert found(9, 10) == ["m-1", "m-2"]
    assert found(10, 20) == ["m-2"]
    assert found(10, 21) == ["m-2", "m-3"]


def test_what_is_open_or_began_since_a_time_is_found_whatever_was_closed_before(
    store: Store,
) -> None:
    for machine_id, began in (("m-1", 0), ("m-2", 5), ("m-3", 10), ("m-4", 40 * 86_400)):
        store.price_open(interval(machine_id, start=at(began)))
    store.price_close("m-1", at=at(10))
    store.price_close("m-3", at=at(35 * 86_400))

    def begun(since: float) -> list[str]:
        return sorted(each.machine_id for each in store.prices_begun(at(since)))

    assert begun(-5) == begun(0) == ["m-1", "m-2", "m-3", "m-4"]
    assert begun(1) == begun(10) == ["m-2", "m-3", "m-4"]
    assert begun(11) == begun(50 * 86_400) == ["m-2", "m-4"]


def test_intervals_are_found_by_machine_and_start(store: Store) -> None:
    store.price_open(interval(price="0.31"))
    store.price_open(interval(start=at(60), price="0.35"))
    store.price_open(interval("m-2"))
    asked = [("m-1", NOW), ("m-2", NOW), ("m-2", at(1)), ("m-3", NOW)]
    found = {each.machine_id: each for each in store.prices_get(asked)}
    assert found == {
        "m-1": replace(interval(price="0.31"), ended_at=at(60)),
        "m-2": interval("m-2"),
    }
    assert list(store.prices_get([])) == []
