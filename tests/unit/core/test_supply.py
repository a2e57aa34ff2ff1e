"""Packing: which machine takes which job, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.core.model import Market, Need
from control_plane.core.supply import Rank, Supply, room_of
from tests.build import capacity

READY, BOOTING = Rank.READY, Rank.BOOTING
ONE = Need(gpus=1)


def filled(*machines: tuple[Any, ...]) -> Supply:
    """A supply of (id, free GPUs[, rank[, pool[, further capacity]]])."""
    supply = Supply()
    for name, gpus, *rest in machines:
        rank, pool, more = (*rest, *(READY, "l4", {})[len(rest) :])
        supply.add(pool, rank, room_of(capacity(gpus, **more)), [name])
    return supply


@pytest.mark.parametrize(
    ("machines", "need", "count", "taken"),
    [
        ([("a", 1)], ONE, 1, {READY: {"a": 1}}),
        ([("a", 1)], ONE, 3, {READY: {"a": 1}}),  # one fits, two are left over
        ([("a", 1)], ONE, 0, {}),
        ([("a", 4)], ONE, 3, {READY: {"a": 3}}),
        ([("a", 4)], Need(gpus=3), 2, {READY: {"a": 1}}),  # 4 // 3
        ([("a", 4)], Need(gpus=5), 1, {}),
        # The fullest first: b has one card left, so a can stay empty and end.
        ([("a", 4), ("b", 1)], ONE, 1, {READY: {"b": 1}}),
        ([("a", 4), ("b", 1)], ONE, 3, {READY: {"b": 1, "a": 2}}),
        ([("a", 4), ("b", 2), ("c", 3)], Need(gpus=2), 2, {READY: {"b": 1, "c": 1}}),
        # Equal ones in the order of their names, each filled before the next.
        ([("b", 2), ("a", 2), ("c", 2)], ONE, 3, {READY: {"a": 2, "b": 1}}),
        # What is up comes first, however full what is coming may be.
        ([("a", 4), ("b", 1, BOOTING)], ONE, 1, {READY: {"a": 1}}),
        ([("a", 1), ("b", 1, BOOTING)], ONE, 2, {READY: {"a": 1}, BOOTING: {"b": 1}}),
        # What is coming in the order in which it was added, not the fullest first.
        ([("b", 4, BOOTING), ("a", 1, BOOTING)], ONE, 2, {BOOTING: {"b": 2}}),
        ([("b", 4, BOOTING), ("a", 1, BOOTING)], ONE, 5, {BOOTING: {"b": 4, "a": 1}}),
        ([("b", 1, BOOTING), ("a", 4, BOOTING)], Need(gpus=2), 1, {BOOTING: {"a": 1}}),
        # Another pool's machines are not for this queue.
        ([("a", 1, READY, "other"), ("b", 1, BOOTING, "other")], ONE, 1, {}),
        # A share of a machine: 1000000 // 250000 = 4 side by side.
        ([("a", 1)], Need(share_ppm=250_000), 6, {READY: {"a": 4}}),
    ],
)
def test_where_jobs_go(
    machines: list[tuple[Any, ...]], need: Need, count: int, taken: dict[Rank, dict[str, int]]
) -> None:
    """One kind of job onto a few machines of the pool `l4`."""
    assert filled(*machines).take(("l4",), need, count) == taken


def test_what_was_taken_is_gone() -> None:
    """Each call sees what the calls before it have left."""
    supply = filled(("a", 4), ("b", 4, BOOTING))
    assert supply.take(("l4",), Need(gpus=3), 1) == {READY: {"a": 1}}  # a has 1 left
    assert supply.take(("l4",), Need(gpus=3), 2) == {BOOTING: {"b": 1}}  # b has 1 left
    assert supply.take(("l4",), ONE, 9) == {READY: {"a": 1}, BOOTING: {"b": 1}}
    assert supply.take(("l4",), ONE, 1) == {}


def test_what_several_jobs_have_taken_of_a_coming_machine_is_gone() -> None:
    """4 - 3 = 1."""
    supply = filled(("a", 4, BOOTING))
    assert supply.take(("l4",), ONE, 3) == {BOOTING: {"a": 3}}
    assert supply.take(("l4",), ONE, 3) == {BOOTING: {"a": 1}}


def test_part_of_a_group_of_equal_machines_stays_as_it_was() -> None:
    """Three equal machines, one and a half used: the rest is found again."""
    supply = filled(("a", 2), ("b", 2), ("c", 2))
    assert supply.take(("l4",), ONE, 3) == {READY: {"a": 2, "b": 1}}
    assert supply.take(("l4",), ONE, 2) == {READY: {"b": 1, "c": 1}}
    assert supply.take(("l4",), Need(gpus=2), 1) == {}


def test_the_preferred_pool_is_filled_first() -> None:
    """Pools are asked in the order of the queue; a machine that is up in the second one comes
    before a machine that boots in the first."""
    supply = filled(("a", 1, READY, "x"), ("b", 1, READY, "y"), ("c", 1, BOOTING, "x"))
    assert supply.take(("y", "x"), ONE, 1) == {READY: {"b": 1}}
    assert supply.take(("x", "y"), ONE, 2) == {READY: {"a": 1}, BOOTING: {"c": 1}}


def test_spot_room_is_used_before_on_demand_room() -> None:
    """Jobs that must not be interrupted have nowhere else to go."""
    steady = {"market": Market.ON_DEMAND}
    supply = filled(("a", 1, READY, "l4", steady), ("b", 4))
    assert supply.take(("l4",), ONE, 1) == {READY: {"b": 1}}
    assert supply.take(("l4",), Need(gpus=1, on_demand_only=True), 2) == {READY: {"a": 1}}


@pytest.mark.parametrize(
    "more",
    [
        {"share_ppm": 999_999},
        {"cpus": 15},
        {"memory_mib": 65_535},
        {"disk_gib": 99},
        {"gpu_name": "A10"},  # by name, so that the choice is always the same
        {"gpu_memory_gib": 22},
    ],
)
def test_fuller_is_decided_by_every_resource(more: dict[str, Any]) -> None:
    """Among machines with four cards left, the one that has less of anything comes first."""
    supply = filled(("a", 4), ("b", 4, READY, "l4", more))
    assert supply.take(("l4",), ONE, 1) == {READY: {"b": 1}}


@pytest.mark.parametrize("rank", [READY, BOOTING])
def test_machines_that_come_to_the_same_room_are_still_filled_in_their_order(rank: Rank) -> None:
    """c gives three of its four cards and then has as little as a, b and d; e has more."""
    supply = filled(("c", 4, rank), ("a", 1, rank), ("b", 1, rank), ("d", 1, rank), ("e", 2, rank))
    assert supply.take(("l4",), Need(gpus=3), 1) == {rank: {"c": 1}}
    first, second = ("a", "b"), ("c", "d")
    if rank is BOOTING:  # the oldest first
        first, second = ("c", "a"), ("b", "d")
    assert supply.take(("l4",), ONE, 2) == {rank: dict.fromkeys(first, 1)}
    assert supply.take(("l4",), ONE, 4) == {rank: {**dict.fromkeys(second, 1), "e": 2}}


def test_several_machines_are_added_at_once() -> None:
    """And what was added before and between is not forgotten."""
    supply = Supply()
    for rank, machine_ids in ((READY, "bd"), (READY, "ac"), (BOOTING, "yz"), (BOOTING, "x")):
        supply.add("l4", rank, room_of(capacity(1)), list(machine_ids))
    assert supply.take(("l4",), ONE, 3) == {READY: {"a": 1, "b": 1, "c": 1}}
    assert supply.take(("l4",), ONE, 3) == {READY: {"d": 1}, BOOTING: {"y": 1, "z": 1}}
    assert supply.take_coming(("l4",), ONE, 3) == {"x": 1}


def test_coming_machines_of_several_pools_are_filled_by_age() -> None:
    """Whichever pool is preferred: the first one was bought for the most urgent job."""
    supply = filled(("a", 1, BOOTING, "x"), ("b", 2, BOOTING, "y"), ("c", 1, BOOTING, "x"))
    assert supply.take(("x", "y"), ONE, 2) == {BOOTING: {"a": 1, "b": 1}}
    assert supply.take(("x", "y"), ONE, 2) == {BOOTING: {"b": 1, "c": 1}}


def test_what_only_comes_can_be_asked_for_alone() -> None:
    """What is up stays free."""
    supply = filled(("a", 1), ("b", 1, BOOTING))
    assert supply.take_coming(("l4",), ONE, 2) == {"b": 1}
    assert supply.take(("l4",), ONE, 2) == {READY: {"a": 1}}


def test_a_machine_never_has_less_than_nothing() -> None:
    """Its agent found less than was offered, and more runs there than fits."""
    total = capacity(2, cpus=3, memory_mib=100, disk_gib=10)
    used = (1, 1_500_000, 9, 101, 10)
    assert room_of(total, used) == (False, (1, 0, 0, 0, 0), "L4", 24)


def test_a_job_that_takes_nothing_is_put_nowhere() -> None:
    """No number of such jobs would fill a machine."""
    assert filled(("a", 1)).take(("l4",), Need(), 1) == {}
