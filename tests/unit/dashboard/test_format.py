"""Figures read the way people write them, and rounded columns still add up."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.model import Capacity, Need
from control_plane.dashboard import format as fmt


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", "$0.00"),
        ("0.004", "<$0.01"),
        ("0.31", "$0.31"),
        ("88.2", "$88.20"),
        ("120", "$120"),
        ("13136.4", "$13,136"),
        ("-3.5", "-$3.50"),
    ],
)
def test_money_is_as_fine_as_it_matters(usd: str, text: str) -> None:
    assert fmt.money(Decimal(usd)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8, "8 s"),
        (59.9, "59 s"),
        (2520, "42 min"),
        (24720, "6 h 52"),
        (360_000, "4 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert fmt.duration(seconds) == text


def test_three_thirds_of_a_dollar_still_make_one() -> None:
    third = Decimal(1) / 3
    assert fmt.cents_that_add_up([third, third, third]) == (
        Decimal("0.34"),
        Decimal("0.33"),
        Decimal("0.33"),
    )


amounts = st.lists(st.decimals(min_value=-1000, max_value=10_000, places=9), max_size=30)


@given(amounts)
def test_rounded_amounts_sum_to_the_rounded_total_and_none_is_off_by_a_cent(
    exact: list[Decimal],
) -> None:
    rounded = fmt.cents_that_add_up(exact)
    assert sum(rounded, Decimal(0)) == sum(exact, Decimal(0)).quantize(Decimal("0.01"))
    assert all(abs(a - b) <= Decimal("0.01") for a, b in zip(exact, rounded, strict=True))


@given(amounts, st.sampled_from((ROUND_FLOOR, ROUND_CEILING)))
def test_a_total_that_was_rounded_either_way_is_met(exact: list[Decimal], rounding: str) -> None:
    total = sum(exact, Decimal(0)).quantize(Decimal("0.01"), rounding=rounding)
    assert sum(fmt.cents_that_add_up(exact, total), Decimal(0)) == total


def test_needs_and_sizes_in_words() -> None:
    assert fmt.need(Need(gpus=8, gpu_name="A100", cpus=4)) == "A100 ×8, 4 CPU"
    assert fmt.need(Need(share_ppm=125_000)) == "12.5%"
    assert fmt.need(Need()) == "whole machine"
    assert fmt.capacity(Capacity(cpus=4, memory_mib=16_384)) == "4 CPU, 16 GiB"
    assert fmt.size(999) == "999 B"
    assert fmt.size(1_500_000) == "1.5 MB"
    assert fmt.percent(Decimal(1), Decimal(0)) == "0%"
    assert (fmt.plural(1, "job"), fmt.plural(1200, "job")) == ("1 job", "1,200 jobs")
