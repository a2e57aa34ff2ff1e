"""Quantities: every form that is read, every form that is refused, and that writing reads back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.config import units
from control_plane.config.units import UnitError
from control_plane.core.policy import GpuRange, Range
from control_plane.errors import InvalidInput

ONE = Range(low=1, high=1)


def per_hour(text: str) -> Decimal:
    return units.parse_money_usd(text, per="hour")


READ: list[tuple[Callable[[str], object], str, object]] = [
    (units.parse_duration_s, "90s", 90),  # plain
    (units.parse_duration_s, "5m", 300),  # 5 * 60
    (units.parse_duration_s, "10h", 36_000),  # 10 * 3600
    (units.parse_duration_s, "1d", 86_400),  # 24 * 3600
    (units.parse_duration_s, "1h30m", 5_400),  # 3600 + 30 * 60
    (units.parse_duration_s, " 0s ", 0),  # blanks around it, and zero with its unit
    (units.parse_money_usd, "20 USD", Decimal(20)),  # plain
    (units.parse_money_usd, "0.0042USD", Decimal("0.0042")),  # no blank, below a cent
    (per_hour, "1.50 USD/hour", Decimal("1.50")),  # the period that is expected
    (per_hour, "20 USD", Decimal(20)),  # the period may be left out
    (per_hour, "1 USD / hour", Decimal(1)),  # blanks around the slash
    (units.parse_memory_mib, "16GB", 16_384),  # GB is GiB: 16 * 1024
    (units.parse_memory_mib, "200 GiB", 204_800),  # 200 * 1024
    (units.parse_memory_mib, "512MB", 512),  # plain
    (units.parse_memory_mib, "1.5GB", 1_536),  # 1.5 * 1024
    (units.parse_memory_mib, "1TiB", 1_048_576),  # 1024 * 1024
    (units.parse_disk_gib, "100GB", 100),  # plain
    (units.parse_disk_gib, "1TB", 1_024),  # 1024 GiB
    (units.parse_disk_gib, "1500MB", 2),  # 1.46 GiB: a part counts as a whole
    (units.parse_count_range, "4..", Range(low=4)),  # at least
    (units.parse_count_range, "2..8", Range(low=2, high=8)),  # both ends
    (units.parse_count_range, "..8", Range(high=8)),  # at most
    (units.parse_count_range, "4", Range(low=4, high=4)),  # exactly
    (units.parse_memory_range_mib, "16GB..", Range(low=16_384)),  # at least
    (units.parse_memory_range_mib, "1GB..2GB", Range(low=1_024, high=2_048)),  # both ends
    (units.parse_gpu_range, "L4:1", GpuRange(name="L4", count=ONE)),  # plain
    (units.parse_gpu_range, "l4", GpuRange(name="L4", count=ONE)),  # one card, catalogue spelling
    (units.parse_gpu_range, "A100:1..8", GpuRange(name="A100", count=Range(low=1, high=8))),
    (
        units.parse_gpu_range,
        "H100:80GB:8",  # exactly this memory
        GpuRange(name="H100", count=Range(low=8, high=8), memory_gib=Range(low=80, high=80)),
    ),
    (
        units.parse_gpu_range,
        "nvidia:24GB..:1",  # any model
        GpuRange(count=ONE, memory_gib=Range(low=24)),
    ),
    (
        units.parse_gpu_range,
        "A100:80GB",  # the catalogue calls the larger card by a name of its own
        GpuRange(name="A100-80GB", count=ONE, memory_gib=Range(low=80, high=80)),
    ),
    (units.parse_gpu_range, "A100-80GB:2", GpuRange(name="A100-80GB", count=Range(low=2, high=2))),
    (units.parse_gpu_range, "2", GpuRange(count=Range(low=2, high=2))),  # any two
    (units.parse_gpu_need, "L4:1", ("L4", 1, 0)),  # plain
    (units.parse_gpu_need, "H100:80GB:8", ("H100", 8, 80)),  # memory and count
    (units.parse_gpu_need, "nvidia:24GB..:1", ("", 1, 24)),  # any model
    (units.parse_gpu_need, "A100:80GB:1", ("A100-80GB", 1, 80)),  # the larger card
]


@pytest.mark.parametrize(("parse", "text", "value"), READ)
def test_a_valid_form_is_read(parse: Callable[[str], object], text: str, value: object) -> None:
    """Each way of writing a quantity means what its comment says."""
    assert parse(text) == value


REFUSED: list[tuple[Callable[[str], object], str, str]] = [
    (units.parse_duration_s, "300", "did you mean `300s`?"),  # no unit
    (units.parse_duration_s, "5 min", "did you mean `5m`?"),  # a word for a unit
    (units.parse_duration_s, "10 Hours", "did you mean `10h`?"),  # the same, in another case
    (units.parse_duration_s, "1.5h", ""),  # whole numbers only
    (units.parse_duration_s, "5m1h", ""),  # smaller before larger
    (units.parse_duration_s, "-5m", ""),  # no negative time
    (units.parse_duration_s, "٥m", ""),  # digits of other scripts
    (units.parse_duration_s, "", ""),  # nothing
    (units.parse_money_usd, "20", "did you mean `20 USD`?"),  # no currency
    (units.parse_money_usd, "$20", "did you mean `20 USD`?"),  # a sign for a currency
    (units.parse_money_usd, "20 usd", "did you mean `20 USD`?"),  # another case
    (units.parse_money_usd, "20 EUR", ""),  # no other currency
    (units.parse_money_usd, "20 USD/hour", ""),  # a total is not a price
    (per_hour, "$2/hour", "did you mean `2 USD/hour`?"),  # the period is kept
    (per_hour, "20 USD/day", ""),  # another period
    (per_hour, "-1 USD", ""),  # no negative money
    (per_hour, "NaN USD", ""),  # a number
    (units.parse_memory_mib, "16", "did you mean `16GB`?"),  # no unit
    (units.parse_memory_mib, "16g", "did you mean `16GB`?"),  # half a unit
    (units.parse_memory_mib, "16gib", "did you mean `16GB`?"),  # another case
    (units.parse_memory_mib, "16KB", ""),  # too small to mean
    (units.parse_disk_gib, "large", ""),  # a word
    (units.parse_count_range, "8..2", ""),  # ends before it begins
    (units.parse_count_range, "..", ""),  # no end at all
    (units.parse_count_range, "two", ""),  # a word
    (units.parse_count_range, "1..2..3", ""),  # three ends
    (units.parse_memory_range_mib, "16..64", ""),  # no units
    (units.parse_gpu_range, "8 x A100", "did you mean `A100:8`?"),  # the other way round
    (units.parse_gpu_range, "H100:0", ""),  # no card
    (units.parse_gpu_range, "L4:1:24GB", ""),  # memory goes before the count
    (units.parse_gpu_range, "L4:", ""),  # a part that is not there
    (units.parse_gpu_range, "", ""),  # nothing
    (units.parse_gpu_need, "A100:1..8", ""),  # a job takes a number, not a range
]


@pytest.mark.parametrize(("parse", "text", "fix"), REFUSED)
def test_another_form_is_refused_with_the_valid_ones(
    parse: Callable[[str], object], text: str, fix: str
) -> None:
    """The error is one sentence with the valid forms; a likely meaning is offered."""
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    error = caught.value
    assert isinstance(error, UnitError)
    assert "write " in error.message
    assert "`" in error.forms
    assert error.fix == fix


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No reader ever raises anything but `InvalidInput`."""
    for parse in {row[0] for row in READ}:
        with suppress(InvalidInput):
            parse(text)


@given(st.integers(0, 10**9 - 1))
def test_durations_and_sizes_read_back(amount: int) -> None:
    """What is written is what was meant."""
    assert units.parse_duration_s(units.duration_text(amount)) == amount
    assert units.parse_memory_mib(units.memory_text(amount)) == amount


@given(st.decimals(0, 10**6, places=6))
def test_money_reads_back(usd: Decimal) -> None:
    """No figure is rounded."""
    assert units.parse_money_usd(units.usd_text(usd)) == usd


RANGES = st.builds(
    lambda low, more: Range(low=low, high=None if more is None else low + more),
    st.integers(1, 500),
    st.none() | st.integers(0, 500),
)


@given(st.sampled_from(["", "L4", "RTX-PRO-6000"]), RANGES, st.just(Range()) | RANGES)
def test_gpus_read_back(name: str, count: Range, memory: Range) -> None:
    """Model, memory and count all survive."""
    gpu = GpuRange(name=name, count=count, memory_gib=memory)
    assert units.parse_gpu_range(units.gpu_text(gpu)) == gpu


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (units.duration_text(90), "90s"),  # not 1m30s: one number is easier to compare
        (units.duration_text(5_400), "90m"),  # the largest unit that fits
        (units.duration_text(0), "0s"),  # zero has a unit too
        (units.usd_text(Decimal("1.5"), per="hour"), "1.50 USD/hour"),  # cents
        (units.usd_text(Decimal("20.00")), "20 USD"),  # no cents, no dot
        (units.usd_text(Decimal("0.0042")), "0.0042 USD"),  # nothing is rounded
        (units.usd_text(Decimal("3E+3")), "3000 USD"),  # no exponent
        (units.disk_text(1024), "1TB"),  # the largest unit that fits
        (units.range_text(Range(high=8)), "..8"),  # open below
        (units.gpu_text(GpuRange(name="L4")), "L4:1"),  # one card
        (units.gpu_text(GpuRange(memory_gib=Range(low=24))), "nvidia:24GB..:1"),  # any model
    ],
)
def test_quantities_are_written_short(text: str, shown: str) -> None:
    """The form people use themselves."""
    assert text == shown
