"""Money is conserved: however machine time is cut and shared, the pieces sum to the whole."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.cost import Charge, ChargeKind, charges, interval_cost, spend
from control_plane.core.model import Attempt, Capacity, Market, Need, PriceInterval

ZERO = datetime(2026, 11, 1, tzinfo=UTC)
HORIZON_US = 40 * 3600 * 1_000_000
MACHINES = ("m-1", "m-2", "m-3")

moments = st.integers(0, HORIZON_US).map(lambda us: ZERO + timedelta(microseconds=us))
prices = st.decimals(min_value=0, max_value=100, places=6)
needs = st.builds(
    Need,
    gpus=st.integers(0, 8),
    cpus=st.integers(0, 96),
    memory_mib=st.integers(0, 400_000),
    share_ppm=st.sampled_from((0, 125_000, 333_333, 1_000_000)),
)
totals = st.builds(
    Capacity,
    gpus=st.sampled_from((0, 1, 3, 8)),
    cpus=st.sampled_from((4, 48)),
    memory_mib=st.sampled_from((0, 16_384, 196_608)),
)


@st.composite
def intervals(draw: st.DrawFn) -> PriceInterval:
    start, end = sorted((draw(moments), draw(moments)))
    return PriceInterval(
        machine_id=draw(st.sampled_from(MACHINES)),
        autoscaler="a",
        pool="p",
        provider="aws",
        region="r",
        zone="z",
        instance_type="t",
        market=draw(st.sampled_from(Market)),
        total=draw(totals),
        price_usd_hour=draw(prices),
        on_demand_usd_hour=draw(st.none() | prices),
        started_at=start,
        ended_at=draw(st.sampled_from((None, end))),
    )


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    start, end = sorted((draw(moments), draw(moments)))
    job = draw(st.integers(1, 5))
    return Attempt(
        job_id=f"j-{job}",
        number=1,
        epoch=draw(st.integers(1, 3)),
        queue=f"q{job % 2}",
        owner="",
        machine_id=draw(st.sampled_from(MACHINES)),
        need=draw(needs),
        leased_at=start,
        ended_at=draw(st.sampled_from((None, end))),
    )


interval_lists = st.lists(intervals(), max_size=4)
attempt_lists = st.lists(attempts(), max_size=8, unique_by=lambda a: (a.job_id, a.epoch))
ready_maps = st.dictionaries(st.sampled_from(MACHINES), moments)


def cost(found: tuple[Charge, ...]) -> Decimal:
    return sum((each.cost_usd for each in found), Decimal(0))


@given(intervals(), attempt_lists, ready_maps, moments, moments, st.lists(moments, max_size=5))
def test_the_charges_of_an_interval_sum_exactly_to_its_cost(
    interval: PriceInterval,
    runs: list[Attempt],
    ready_at: dict[str, datetime],
    start: datetime,
    end: datetime,
    cuts: list[datetime],
) -> None:
    now = ZERO + timedelta(hours=50)
    end = max(start, end)
    found = charges(
        [interval], runs, start=start, end=end, now=now, ready_at=ready_at, cuts=sorted(cuts)
    )
    assert cost(found) == interval_cost(interval, start, end)
    listed = replace(interval, price_usd_hour=interval.on_demand_usd_hour or Decimal(0))
    if interval.on_demand_usd_hour is not None:
        assert sum(each.on_demand_usd for each in found) == interval_cost(listed, start, end)
    else:
        assert all(each.saved_usd == 0 for each in found)


@given(interval_lists, attempt_lists, ready_maps, moments)
def test_no_charge_is_negative_and_none_leaves_the_window(
    paid: list[PriceInterval], runs: list[Attempt], ready_at: dict[str, datetime], now: datetime
) -> None:
    found = charges(paid, runs, start=ZERO, end=now, now=now, ready_at=ready_at)
    for each in found:
        assert each.cost_usd >= 0
        assert each.on_demand_usd >= 0
        assert each.machine_hours >= 0
        assert ZERO <= each.started_at < each.ended_at <= now
        assert (each.kind is ChargeKind.WORK) == bool(each.job_id)


@given(interval_lists, attempt_lists, ready_maps, moments, moments)
def test_splitting_the_window_anywhere_changes_no_total(
    paid: list[PriceInterval],
    runs: list[Attempt],
    ready_at: dict[str, datetime],
    middle: datetime,
    end: datetime,
) -> None:
    now = ZERO + timedelta(hours=50)
    middle, end = sorted((middle, end))

    def window(start: datetime, stop: datetime) -> tuple[Charge, ...]:
        return charges(paid, runs, start=start, end=stop, now=now, ready_at=ready_at)

    whole, parts = window(ZERO, end), (*window(ZERO, middle), *window(middle, end))
    assert cost(whole) == cost(parts)
    assert spend(paid, ZERO, end) == spend(paid, ZERO, middle) + spend(paid, middle, end)
    # Who gets the remainder of a division may move: by one billionth of a dollar for each cut.
    slack = Decimal(len(paid) + len(runs) + 2).scaleb(-9)
    of_whole, of_parts = by_use(whole), by_use(parts)
    for use in set(of_whole) | set(of_parts):
        assert abs(of_whole[use] - of_parts[use]) <= slack


def by_use(found: tuple[Charge, ...]) -> dict[tuple[str, str], Decimal]:
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for each in found:
        sums[each.kind, each.job_id] += each.cost_usd
    return sums


@given(interval_lists, attempt_lists, ready_maps, st.randoms(use_true_random=False))
def test_the_order_of_what_is_read_does_not_matter(
    paid: list[PriceInterval], runs: list[Attempt], ready_at: dict[str, datetime], random: object
) -> None:
    now = ZERO + timedelta(hours=50)
    before = charges(paid, runs, start=ZERO, end=now, now=now, ready_at=ready_at)
    random.shuffle(runs)  # type: ignore[attr-defined]
    random.shuffle(paid)  # type: ignore[attr-defined]
    after = charges(paid, runs, start=ZERO, end=now, now=now, ready_at=ready_at)
    assert by_use(before) == by_use(after)


@given(intervals(), attempt_lists, ready_maps, moments)
def test_machine_hours_are_conserved_too(
    interval: PriceInterval, runs: list[Attempt], ready_at: dict[str, datetime], end: datetime
) -> None:
    one_dollar = replace(interval, price_usd_hour=Decimal(1))
    found = charges([interval], runs, start=ZERO, end=end, now=end, ready_at=ready_at)
    assert sum(each.machine_hours for each in found) == interval_cost(one_dollar, ZERO, end)
