"""What an hour of a machine costs and whose cost it is, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from control_plane.core.cost import (
    ChargeKind,
    charges,
    hour_rate,
    interval_cost,
    part_of,
    spend,
)
from control_plane.core.model import (
    Attempt,
    Capacity,
    Machine,
    MachineState,
    Market,
    Need,
    Offer,
    PriceInterval,
)

ZERO = datetime(2026, 11, 1, tzinfo=UTC)
BOX = Capacity(gpus=4, cpus=48, memory_mib=196_608)
INTERVAL = PriceInterval(
    machine_id="m-1",
    autoscaler="research",
    pool="l4",
    provider="aws",
    region="us-east-1",
    zone="us-east-1a",
    instance_type="g6.12xlarge",
    market=Market.SPOT,
    total=BOX,
    price_usd_hour=Decimal("1.20"),
    on_demand_usd_hour=Decimal("4.80"),
    started_at=ZERO,
    ended_at=ZERO + timedelta(hours=2),
)


def minute(count: float) -> datetime:
    return ZERO + timedelta(minutes=count)


def attempt(job: str, start: float, end: float | None, need: Need) -> Attempt:
    return Attempt(
        job_id=job,
        number=1,
        epoch=1,
        queue="default",
        owner="mia",
        machine_id="m-1",
        need=need,
        leased_at=minute(start),
        ended_at=None if end is None else minute(end),
    )


def charged(
    *attempts: Attempt, now: datetime = ZERO + timedelta(hours=10)
) -> list[tuple[str, str, str]]:
    found = charges(
        [INTERVAL],
        attempts,
        start=ZERO,
        end=minute(600),
        now=now,
        ready_at={"m-1": minute(5)},
    )
    return [(each.kind.value, each.job_id, f"{each.cost_usd:.3f}") for each in found]


def test_an_interval_costs_its_price_times_its_hours() -> None:
    assert interval_cost(INTERVAL, ZERO, minute(600)) == Decimal("2.4")
    assert interval_cost(INTERVAL, minute(30), minute(45)) == Decimal("0.3")
    assert interval_cost(INTERVAL, minute(130), minute(140)) == 0


def test_an_open_interval_lasts_until_the_end_that_is_asked_for() -> None:
    still_on = replace(INTERVAL, ended_at=None)
    assert interval_cost(still_on, ZERO, minute(600)) == Decimal(12)
    assert spend([still_on, INTERVAL], minute(60), minute(120)) == Decimal("2.4")


def test_time_is_boot_until_ready_then_idle_then_work() -> None:
    one_gpu_busy = attempt("j-1", 65, 125, Need(gpus=4))
    # 5 min at 1.20 = 0.10; 60 min idle = 1.20; 55 min of work until the machine went = 1.10
    assert charged(one_gpu_busy) == [
        ("boot", "", "0.100"),
        ("idle", "", "1.200"),
        ("work", "j-1", "1.100"),
    ]


def test_a_machine_that_never_was_ready_only_booted() -> None:
    found = charges([INTERVAL], [], start=ZERO, end=minute(600), now=minute(600), ready_at={})
    assert [(each.kind, each.cost_usd) for each in found] == [(ChargeKind.BOOT, Decimal("2.4"))]


def test_jobs_side_by_side_pay_for_their_parts_and_the_rest_is_idle() -> None:
    jobs = (attempt("j-1", 5, 120, Need(gpus=1)), attempt("j-2", 5, 120, Need(cpus=24)))
    # 115 min at 1.20 = 2.30: a quarter, a half, and a quarter that nobody took
    assert charged(*jobs) == [
        ("boot", "", "0.100"),
        ("work", "j-1", "0.575"),
        ("work", "j-2", "1.150"),
        ("idle", "", "0.575"),
    ]


def test_parts_that_exceed_the_machine_are_scaled_down_to_it() -> None:
    jobs = (attempt("j-1", 5, 120, Need(gpus=4)), attempt("j-2", 5, 120, Need(cpus=48)))
    assert charged(*jobs) == [
        ("boot", "", "0.100"),
        ("work", "j-1", "1.150"),
        ("work", "j-2", "1.150"),
    ]


def test_what_still_runs_is_charged_until_now() -> None:
    assert charged(attempt("j-1", 5, None, Need(gpus=4)), now=minute(35)) == [
        ("boot", "", "0.100"),
        ("work", "j-1", "0.600"),
    ]


def test_the_scarcest_resource_says_how_much_of_a_machine_a_job_takes() -> None:
    assert part_of(Need(gpus=1, cpus=36), BOX) == Fraction(3, 4)
    assert part_of(Need(share_ppm=125_000), BOX) == Fraction(1, 8)
    assert part_of(Need(), BOX) == 0
    assert part_of(Need(gpus=1), replace(BOX, gpus=0)) == 1
    assert part_of(Need(cpus=480), BOX) == 1


def test_saving_is_against_the_on_demand_price_and_zero_when_there_is_none() -> None:
    def saved(interval: PriceInterval) -> Decimal:
        found = charges([interval], [], start=ZERO, end=minute(60), now=minute(60), ready_at={})
        return sum((each.saved_usd for each in found), Decimal(0))

    assert saved(INTERVAL) == Decimal("3.6")
    assert saved(replace(INTERVAL, on_demand_usd_hour=None)) == 0


def test_no_charge_spans_a_cut() -> None:
    found = charges(
        [INTERVAL],
        [attempt("j-1", 5, 120, Need(gpus=4))],
        start=ZERO,
        end=minute(120),
        now=minute(120),
        ready_at={"m-1": minute(5)},
        cuts=(ZERO, minute(60), minute(120)),
    )
    assert [(each.started_at, each.ended_at) for each in found] == [
        (ZERO, minute(5)),
        (minute(5), minute(60)),
        (minute(60), minute(120)),
    ]
    assert found[1].machine_hours == Decimal("0.916666667")


def test_the_hour_rate_counts_what_may_exist() -> None:
    offer = Offer(
        provider="aws",
        region="us-east-1",
        zone="a",
        instance_type="g6.xlarge",
        capacity=BOX,
        price_usd_hour=Decimal("0.31"),
    )
    machine = Machine(
        id="m-1",
        autoscaler="research",
        pool="l4",
        state=MachineState.PLANNED,
        offers=(offer,),
        planned_at=ZERO,
    )
    gone = replace(machine, state=MachineState.TERMINATED)
    assert hour_rate([machine, replace(machine, state=MachineState.READY), gone]) == Decimal("0.62")
