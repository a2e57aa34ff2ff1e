"""The simulated cloud: the same seed gives the same cloud, each kind of trouble can be caused on
purpose, and what it says of its own truth (money, lives, violations) adds up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import BootSettings, Launched, LaunchRequest, MachineRef
from providers.simulated.clock import EPOCH, SimulatedClock
from providers.simulated.cloud import OVERDUE_S, SimulatedCloud
from providers.simulated.errors import ERROR_CLASSES, error_class
from providers.simulated.market import hours
from providers.simulated.provider import SimulatedProvider
from providers.simulated.spec import CloudSpec

FLEET = "fleet"


class Bench:
    """A cloud, its clock and a provider, with short words for what tests do."""

    def __init__(self, spec: CloudSpec | None = None, seed: int = 1) -> None:
        self.clock = SimulatedClock()
        self.cloud = SimulatedCloud(seed, self.clock, spec)
        self.provider = SimulatedProvider(self.cloud)

    def offer(self, kind: str = "g6.xlarge", market: Market = Market.SPOT, zone: str = "") -> Offer:
        return next(
            offer
            for offer in self.cloud.offers("simulated")
            if offer.instance_type == kind and offer.market is market and zone in offer.zone
        )

    def request(
        self, machine_id: str = "m-1", attempt: int = 1, offer: Offer | None = None
    ) -> LaunchRequest:
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.{attempt}",
            offer=offer or self.offer(),
            disk_gib=50,
            deadline=self.clock.now() + timedelta(hours=24),
            boot=BootSettings(
                server_url="http://127.0.0.1:9",
                machine_id=machine_id,
                fleet=FLEET,
                pool="p",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=86_400,
            ),
            cloud=CloudPolicy(provider="simulated"),
        )

    def launch(self, machine_id: str = "m-1", offer: Offer | None = None) -> Launched:
        return self.provider.launch(self.request(machine_id, offer=offer))

    def ref(self, launched: Launched, machine_id: str = "m-1") -> MachineRef:
        return MachineRef(
            machine_id=machine_id, provider_id=launched.provider_id, region="us-east-1", zone=""
        )

    def state(self, launched: Launched) -> str:
        sighting = self.provider.sighting(self.ref(launched))
        return sighting.state if sighting else "none"


def refused(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


# -------------------------------------------------------------------------------------- clock


def test_clock_stands_still_until_it_is_moved() -> None:
    clock = SimulatedClock()
    assert clock.now() == clock.now() == EPOCH
    clock.sleep(90)
    assert clock.now() == EPOCH + timedelta(seconds=90)


def test_clock_calls_back_in_order_and_at_the_right_time() -> None:
    clock, seen = SimulatedClock(), list[tuple[str, float]]()

    def note(name: str) -> Callable[[], None]:
        return lambda: seen.append((name, (clock.now() - EPOCH).total_seconds()))

    clock.after(20, note("late"))
    clock.after(10, note("early"))
    clock.after(10, note("early too"))
    clock.after(99, note("never"))
    clock.advance(30)
    assert seen == [("early", 10), ("early too", 10), ("late", 20)]


def test_clock_callback_may_schedule_and_sleep() -> None:
    clock, seen = SimulatedClock(), list[float]()

    def tick() -> None:
        seen.append((clock.now() - EPOCH).total_seconds())
        clock.sleep(5)
        if len(seen) < 3:
            clock.after(10, tick)

    clock.after(0, tick)
    clock.advance(31)
    assert seen == [0, 15, 30]
    assert clock.now() == EPOCH + timedelta(seconds=35)


def test_clock_never_goes_back() -> None:
    clock = SimulatedClock()
    clock.advance_to(EPOCH - timedelta(days=1))
    assert clock.now() == EPOCH
    seen = list[datetime]()
    clock.at(EPOCH - timedelta(days=1), lambda: seen.append(clock.now()))
    clock.advance(1)
    assert seen == [EPOCH]


# ---------------------------------------------------------------------------------- determinism


def history(seed: int) -> list[str]:
    """A random walk over the whole API of a stormy cloud, as text."""
    bench, choose, lines = Bench(CloudSpec.stormy(), seed), random.Random(99), list[str]()
    for number in range(120):
        bench.clock.advance(choose.randint(1, 60))
        try:
            offer = choose.choice(bench.provider.offers())
            lines.append(str(bench.provider.launch(bench.request(f"m-{number}", offer=offer))))
            lines.append(str(bench.provider.observe(FLEET)))
        except ProviderError as error:
            lines.append(f"{error.raw_code}: {error.message}")
    return [*lines, *map(str, bench.cloud.bill())]


def test_same_seed_is_the_same_cloud() -> None:
    assert history(5) == history(5)


def test_other_seed_is_another_cloud() -> None:
    assert history(5) != history(6)


def test_storm_has_every_kind_of_trouble() -> None:
    text = "\n".join(line for seed in range(4) for line in history(seed))
    for sign in (
        "InsufficientInstanceCapacity",
        "InternalError",
        "AnswerLost",
        "operation-",
        "unknown=('us-east-1',)",
        "interrupted",
    ):
        assert sign in text, sign


def test_market_path_does_not_depend_on_who_looks() -> None:
    spec = CloudSpec(scarcity=0.3, price_swing=0.3)
    often, once = Bench(spec), Bench(spec)
    for _ in range(50):
        often.clock.advance(600)
        often.cloud.offers("x")
    once.clock.advance(50 * 600)
    assert often.cloud.offers("x") == once.cloud.offers("x")


def test_calm_cloud_fails_nothing() -> None:
    bench = Bench()
    for number in range(50):
        bench.launch(f"m-{number}")
    bench.clock.advance(3600)
    assert len(bench.cloud.guests()) == 50
    assert bench.cloud.violations == ()


# ------------------------------------------------------------------------------ prices, capacity


def test_spot_prices_move_within_bounds_and_list_prices_do_not() -> None:
    bench = Bench(CloudSpec(price_swing=0.4))
    spot, listed = set[Decimal](), set[Decimal]()
    for _ in range(100):
        bench.clock.advance(600)
        spot.add(bench.offer().price_usd_hour)
        listed.add(bench.offer(market=Market.ON_DEMAND).price_usd_hour)
    usual = Decimal("0.8048") * Decimal("0.4")
    assert len(spot) > 50
    assert usual * Decimal("0.599") < min(spot) < max(spot) < usual * Decimal("1.401")
    assert listed == {Decimal("0.8048")}


def test_scarce_spot_market_is_empty_about_as_often_as_said() -> None:
    bench = Bench(CloudSpec(scarcity=0.3, depth=5))
    codes = list[str]()
    for number in range(300):
        bench.clock.advance(600)
        try:
            launched = bench.launch(f"m-{number}")
            bench.provider.terminate(bench.ref(launched, f"m-{number}"))
        except ProviderError as error:
            codes.append(error.raw_code)
    assert set(codes) == {"InsufficientInstanceCapacity"}
    assert 60 < len(codes) < 120


def test_capacity_counts_what_runs_and_comes_back() -> None:
    bench = Bench()
    bench.cloud.set_capacity(1, instance_type="g6.xlarge")
    first = bench.launch("m-1")
    assert refused(lambda: bench.launch("m-2")).raw_code == "InsufficientInstanceCapacity"
    bench.provider.terminate(bench.ref(first))
    assert refused(lambda: bench.launch("m-2")).raw_code == "InsufficientInstanceCapacity"
    bench.clock.advance(30)
    assert bench.launch("m-2").provider_id


def test_capacity_is_of_one_zone_type_and_market() -> None:
    bench = Bench()
    bench.cloud.set_capacity(0, instance_type="g6.xlarge", zone="us-east-1a", market=Market.SPOT)
    refused(lambda: bench.launch("m-1"))
    assert bench.launch("m-2", bench.offer(zone="us-east-1b")).provider_id
    assert bench.launch("m-3", bench.offer(market=Market.ON_DEMAND)).provider_id
    assert bench.launch("m-4", bench.offer("g5.xlarge")).provider_id


def test_held_capacity_and_price_are_given_back() -> None:
    bench = Bench()
    own = bench.offer().price_usd_hour
    bench.cloud.set_capacity(0)
    bench.cloud.set_price(Decimal("0.99"), instance_type="g6.xlarge")
    assert bench.offer().price_usd_hour == Decimal("0.99")
    refused(bench.launch)
    bench.cloud.set_capacity(None)
    bench.cloud.set_price(None)
    assert bench.offer().price_usd_hour == own
    assert bench.launch().provider_id


def test_held_price_survives_the_market_moving() -> None:
    bench = Bench(CloudSpec(price_swing=0.4))
    bench.cloud.set_price(Decimal("0.5"))
    bench.clock.advance(6000)
    assert bench.offer().price_usd_hour == Decimal("0.5")


def test_control_of_a_market_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        Bench().cloud.set_capacity(0, instance_type="g7.xlarge")


def test_cloud_charges_its_own_price_not_the_callers() -> None:
    bench = Bench()
    stale = replace(bench.offer(), price_usd_hour=Decimal("0.01"))
    bench.launch(offer=stale)
    assert bench.cloud.vms[0].offer.price_usd_hour == bench.offer().price_usd_hour


def test_quota_is_counted_for_each_region_and_market() -> None:
    bench = Bench(CloudSpec(quota_machines=1))
    bench.launch("m-1")
    spot = refused(lambda: bench.launch("m-2", bench.offer("g5.xlarge")))
    assert (spot.error_class, spot.raw_code) == (ErrorClass.QUOTA, "MaxSpotInstanceCountExceeded")
    bench.launch("m-3", bench.offer(market=Market.ON_DEMAND))
    bench.launch("m-4", bench.offer(zone="eu-west-1a"))


# ----------------------------------------------------------------------------------- a VM's life


def test_life_of_a_machine_from_pending_to_forgotten() -> None:
    bench = Bench()
    launched = bench.launch()
    assert bench.state(launched) == "pending"
    bench.clock.advance(20)
    assert (bench.state(launched), len(bench.cloud.guests())) == ("running", 0)
    bench.clock.advance(60)
    assert [vm.machine_id for vm in bench.cloud.guests()] == ["m-1"]
    bench.provider.terminate(bench.ref(launched))
    assert (bench.state(launched), len(bench.cloud.guests())) == ("stopping", 0)
    assert len(bench.cloud.alive()) == 1
    bench.clock.advance(20)
    assert bench.state(launched) == "gone"
    assert bench.cloud.alive() == ()
    bench.clock.advance(3600)
    assert bench.state(launched) == "none"
    assert bench.provider.observe(FLEET).sightings == ()


def test_terminate_again_does_not_put_the_end_off() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.provider.terminate(bench.ref(launched))
    bench.clock.advance(15)
    bench.provider.terminate(bench.ref(launched))
    bench.clock.advance(5)
    assert bench.state(launched) == "gone"


def test_boots_take_as_long_as_said_and_some_five_times_that() -> None:
    bench = Bench(CloudSpec(slow_boot_rate=0.2, boot_s=(30, 60)))
    for number in range(200):
        bench.launch(f"m-{number}")
    waits = [
        (vm.booted_at - vm.created_at).total_seconds() for vm in bench.cloud.vms if vm.booted_at
    ]
    slow = [wait for wait in waits if wait > 60]
    assert 20 < len(slow) < 60
    assert min(waits) >= 30
    assert min(slow) >= 150
    assert max(slow) <= 300


def test_never_boot_runs_and_costs_and_never_comes_up() -> None:
    bench = Bench()
    bench.cloud.never_boot()
    launched = bench.launch("m-1")
    bench.launch("m-2")
    bench.clock.advance(7200)
    assert bench.state(launched) == "running"
    assert [vm.machine_id for vm in bench.cloud.guests()] == ["m-2"]
    assert bench.cloud.bill()[0].cost_usd > 0


def test_interruption_is_announced_then_comes() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.clock.advance(100)
    notice = bench.cloud.interrupt("m-1", notice_s=120)
    assert bench.cloud.notices() == (notice,)
    assert notice.taken_at == bench.clock.now() + timedelta(seconds=120)
    bench.clock.advance(119)
    assert bench.state(launched) == "running"
    bench.clock.advance(1)
    assert bench.state(launched) == "gone"
    assert bench.cloud.notices() == ()
    assert bench.provider.observe(FLEET).sightings[0].end_reason == "interrupted"


def test_interruption_without_notice_is_sudden() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.cloud.interrupt(launched.provider_id, notice_s=0)
    assert bench.state(launched) == "gone"


def test_interruption_of_nothing_is_an_error() -> None:
    with pytest.raises(KeyError):
        Bench().cloud.interrupt("m-1")


def test_only_spot_machines_are_interrupted_by_chance_and_always_with_notice() -> None:
    bench = Bench(CloudSpec(interruptions_per_hour=1.0))
    for number in range(40):
        bench.launch(f"s-{number}")
        bench.launch(f"d-{number}", bench.offer(market=Market.ON_DEMAND))
    announced = set[str]()
    for _ in range(240):
        bench.clock.advance(60)
        announced |= {notice.machine_id for notice in bench.cloud.notices()}
    taken = {vm.machine_id for vm in bench.cloud.vms if not vm.alive(bench.clock.now())}
    assert 30 < len(taken) <= 40
    assert all(name.startswith("s-") for name in taken)
    assert taken <= announced


def test_shut_down_from_within_ends_it() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.cloud.shut_down(launched.provider_id)
    bench.clock.advance(60)
    sighting = bench.provider.sighting(bench.ref(launched))
    assert sighting is not None
    assert (sighting.state, sighting.end_reason) == ("gone", "self")


def test_life_limit_of_the_cloud_ends_machines_at_their_deadline() -> None:
    bench = Bench(CloudSpec(life_limit=True))
    launched = bench.launch()
    bench.clock.advance(86_399)
    assert bench.state(launched) == "running"
    bench.clock.advance(1)
    assert bench.state(launched) == "gone"
    bench.clock.advance(OVERDUE_S + 1)
    assert bench.cloud.violations == ()


# ------------------------------------------------------------------------------ broken answers


@pytest.mark.parametrize("code", sorted(ERROR_CLASSES))
def test_every_code_can_be_caused_and_has_its_class(code: str) -> None:
    bench = Bench()
    bench.cloud.fail_next(code, times=2)
    for _ in range(2):
        error = refused(bench.launch)
        assert (error.raw_code, error.error_class) == (code, ERROR_CLASSES[code])
    assert bench.launch().provider_id


def test_unknown_code_is_transient() -> None:
    assert error_class("NeverHeardOf") is ErrorClass.TRANSIENT


def test_failure_can_be_aimed_at_one_call() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.cloud.fail_next("InternalError", call="terminate")
    bench.provider.observe(FLEET)
    refused(lambda: bench.provider.terminate(bench.ref(launched)))
    assert bench.state(launched) == "pending"


def test_lost_answer_of_terminate_has_ended_it_all_the_same() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.cloud.drop_next_answer(call="terminate")
    refused(lambda: bench.provider.terminate(bench.ref(launched)))
    assert bench.state(launched) == "stopping"


def test_throttling_says_how_long_to_wait_and_keeps_its_word() -> None:
    bench = Bench(CloudSpec(calls_per_minute=6))
    for _ in range(6):
        bench.provider.observe(FLEET)
    error = refused(lambda: bench.provider.observe(FLEET))
    assert error.error_class is ErrorClass.THROTTLE
    assert error.retry_after_s == pytest.approx(10)
    assert bench.cloud.throttled == 1
    bench.clock.advance(error.retry_after_s or 0)
    bench.provider.observe(FLEET)
    assert bench.cloud.calls["observe"] == 8


def test_listing_lags_and_absence_is_no_proof_meanwhile() -> None:
    bench = Bench(CloudSpec(listing_lag_s=30))
    launched = bench.launch()
    assert bench.provider.observe(FLEET).sightings == ()
    assert refused(lambda: bench.state(launched)).raw_code == "InvalidInstanceID.NotFound"
    bench.clock.advance(30)
    assert len(bench.provider.observe(FLEET).sightings) == 1


def test_silent_region_answers_again() -> None:
    bench = Bench()
    bench.launch()
    bench.cloud.partial("us-east-1")
    assert bench.provider.observe(FLEET).unknown == ("us-east-1",)
    bench.cloud.readable("us-east-1")
    assert len(bench.provider.observe(FLEET).sightings) == 1


def test_slow_launch_is_alive_and_visible_while_it_goes_on() -> None:
    bench = Bench(CloudSpec(slow_launch_s=90))
    bench.cloud.slow_next_launch()
    begun = bench.launch()
    assert (begun.provider_id, bool(begun.operation)) == ("", True)
    assert [each.state for each in bench.provider.observe(FLEET).sightings] == ["pending"]
    bench.clock.advance(90)
    done = bench.provider.launch_result(bench.request(), begun.operation)
    assert done.provider_id == bench.cloud.alive()[0].provider_id
    assert done.at == EPOCH


def test_slow_launch_ended_meanwhile_says_so() -> None:
    bench = Bench()
    bench.cloud.slow_next_launch()
    begun = bench.launch()
    bench.provider.terminate(
        MachineRef(machine_id="m-1", provider_id="", region="us-east-1", zone="")
    )
    bench.clock.advance(120)
    error = refused(lambda: bench.provider.launch_result(bench.request(), begun.operation))
    assert error.raw_code == "Ended"


def test_slow_refusal_comes_with_its_code_for_operation_and_key_alike() -> None:
    bench = Bench()
    bench.cloud.slow_next_launch(refused_code="QuotaExceeded")
    begun = bench.launch()
    bench.clock.advance(120)
    asked = refused(lambda: bench.provider.launch_result(bench.request(), begun.operation))
    repeated = refused(bench.launch)
    assert asked.raw_code == repeated.raw_code == "QuotaExceeded"
    assert bench.cloud.vms == ()


def test_operation_of_another_launch_is_refused() -> None:
    bench = Bench()
    bench.launch()
    error = refused(lambda: bench.provider.launch_result(bench.request(), "operation-x"))
    assert error.error_class is ErrorClass.INVALID


# ----------------------------------------------------------------------------------- the truth


def test_bill_is_price_times_time_until_it_is_gone() -> None:
    bench = Bench()
    launched = bench.launch(offer=bench.offer(market=Market.ON_DEMAND))
    bench.clock.advance(3600 - 20)
    bench.provider.terminate(bench.ref(launched))
    bench.clock.advance(7200)
    (line,) = bench.cloud.bill()
    assert line.cost_usd == Decimal("0.8048")
    assert (line.started_at, line.until) == (EPOCH, EPOCH + timedelta(hours=1))


def test_bill_of_the_past_leaves_out_what_came_later() -> None:
    bench = Bench()
    bench.launch(offer=bench.offer(market=Market.ON_DEMAND))
    bench.clock.advance(7200)
    (line,) = bench.cloud.bill(EPOCH + timedelta(minutes=30))
    assert line.cost_usd == Decimal("0.4024")


def test_locked_price_stays_and_a_moving_one_is_followed() -> None:
    for locked, expected in ((True, "0.2"), (False, "0.4")):
        bench = Bench(CloudSpec(price_locked=locked))
        bench.cloud.set_price(Decimal("0.1"))
        bench.launch()
        bench.clock.advance(3600)
        bench.cloud.set_price(Decimal("0.3"))
        bench.clock.advance(3600)
        assert bench.cloud.bill()[0].cost_usd == Decimal(expected)


def test_hours_are_exact() -> None:
    assert hours(EPOCH, EPOCH + timedelta(seconds=9)) == Decimal("0.0025")
    assert hours(EPOCH, EPOCH - timedelta(seconds=9)) == 0


def test_two_machines_for_one_id_are_a_violation() -> None:
    bench = Bench()
    bench.launch()
    bench.provider.launch(bench.request(attempt=2))
    (violation,) = bench.cloud.violations
    assert "m-1 has two VMs" in violation


def test_second_attempt_after_the_first_is_gone_is_none() -> None:
    bench = Bench()
    launched = bench.launch()
    bench.provider.terminate(bench.ref(launched))
    bench.clock.advance(60)
    bench.provider.launch(bench.request(attempt=2))
    assert bench.cloud.violations == ()


def test_key_used_for_another_offer_is_a_violation() -> None:
    bench = Bench()
    bench.launch()
    error = refused(lambda: bench.launch(offer=bench.offer("g5.xlarge")))
    assert error.raw_code == "IdempotentParameterMismatch"
    assert bench.cloud.violations == ("key m-1.1 was used for two things",)


def test_machine_that_outlives_its_deadline_is_a_violation() -> None:
    bench = Bench()
    bench.launch()
    bench.clock.advance(86_400 + OVERDUE_S)
    assert not bench.cloud.violations
    bench.clock.advance(1)
    assert "outlived its deadline" in bench.cloud.violations[0]


def test_repeating_a_key_through_a_storm_makes_one_machine_at_most() -> None:
    for seed in range(5):
        spec = CloudSpec.stormy().but(depth=1000)
        bench, made, offer = Bench(spec, seed), 0, Bench().offer()
        for number in range(40):
            request = bench.request(f"m-{number}", offer=offer)
            for _ in range(8):
                bench.clock.advance(7)
                try:
                    made += bool(bench.provider.launch(request).provider_id)
                except ProviderError:
                    continue
        assert made > 100
        assert len({vm.key for vm in bench.cloud.vms}) == len(bench.cloud.vms)
        assert not bench.cloud.violations


def test_several_clouds_stand_side_by_side() -> None:
    clock = SimulatedClock()
    aws, gcp = (
        SimulatedProvider(SimulatedCloud(seed, clock), name)
        for seed, name in ((1, "aws"), (2, "gcp"))
    )
    bench = Bench()
    aws.launch(bench.request(offer=aws.offers()[0]))
    assert len(aws.observe(FLEET).sightings) == 1
    assert gcp.observe(FLEET).sightings == ()
    assert aws.observe(FLEET).sightings[0].provider == "aws"


def test_works_on_any_clock() -> None:
    class WallClock:
        def now(self) -> datetime:
            return datetime.now(UTC)

        def sleep(self, seconds: float) -> None:
            raise AssertionError("the cloud never waits")

    cloud = SimulatedCloud(1, WallClock())
    assert SimulatedProvider(cloud).launch(Bench().request()).provider_id


@pytest.mark.parametrize("changes", [{"regions": {}}, {"types": ()}, {"regions": {"r": ()}}])
def test_cloud_that_sells_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        CloudSpec().but(**changes)
