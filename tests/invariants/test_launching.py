"""Lines 1 to 9: what is bought, how often, and what is known of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from control_plane import throttle
from control_plane.core.model import ErrorClass, MachineState, Market, Need
from control_plane.core.policy import (
    Budget,
    CloudPolicy,
    GpuRange,
    MarketPolicy,
    PoolPolicy,
    Range,
)
from control_plane.ports import Launched, LaunchRequest
from control_plane.throttle import Rests
from providers.simulated.clock import EPOCH
from providers.simulated.errors import refusal
from providers.simulated.spec import CloudSpec
from tests.build import policy, pool, queue
from tests.invariants.world import ONE_ZONE, World, l4, ready_world, small_world
from tests.simulation.world import Crash

S = MachineState

BOUNDARIES = (
    "leased",
    "observed",
    "planned",
    "intent-written",
    "intents-committed",
    "before-launch",
    "launch-answered",
    "launch-recorded",
    "executed",
)
"""Every place on the way to a machine at which the process may die."""


# -------------------------------------------------------------------------- 1: intent first


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_01_a_crash_at_any_boundary_leaves_what_the_next_look_finishes(boundary: str) -> None:
    """The intent is durable before the cloud is called, so a crash anywhere leaves a row to finish.

    Karpenter and dstack crashed between launch and write and doubled or orphaned machines."""
    world = small_world()
    world.submit()

    def die(name: str) -> None:
        if name == boundary:
            raise Crash

    with pytest.raises(Crash):
        world.controller(checkpoint=die).tick()
    for _ in range(3):
        world.clock.advance(5)
        world.tick()
    assert len(world.cloud.vms) == 1
    (machine,) = world.store.machine_list()
    assert (machine.state, machine.provider_id) == (S.BOOTING, world.cloud.vms[0].provider_id)


def test_01_the_record_is_there_before_the_cloud_is_called() -> None:
    """Whoever looks at the moment of the call finds the machine in the books."""
    world = small_world()
    world.submit()
    seen: list[MachineState] = []

    def look(call: str) -> None:
        if call == "launch":
            seen.extend(world.states())

    world.provider.before = look
    world.tick()
    assert seen == [S.LAUNCHING]


@pytest.mark.parametrize("silent_s", [0, 60, 400])
def test_01_lost_answers_make_one_machine_on_a_cap_of_one(silent_s: int) -> None:
    """A launch that acted and whose answer was lost is never launched a second time.

    ClearML on a cap of 1: the API acted and answered with errors, 16 VMs were alive. Here every
    answer to every launch is lost, and the region does not show what it has for a while."""
    world = small_world(high=1, spec=CloudSpec())
    world.submit(3)
    world.cloud.drop_next_answer(1000, call="launch")
    for region in world.cloud.spec.regions:
        world.cloud.partial(region)
    most = 0
    for second in range(0, 900, 5):
        if second >= silent_s:
            for region in world.cloud.spec.regions:
                world.cloud.readable(region)
        world.clock.advance(5)
        world.tick()
        most = max(most, len(world.alive()))
    assert most == 1
    assert world.cloud.violations == ()


def test_01_sixteen_errors_before_the_fact_leave_nothing_behind() -> None:
    """An API that refuses for a while costs time, not machines."""
    world = small_world(high=1, spec=CloudSpec())
    world.submit()
    world.cloud.fail_next("InternalError", 16, call="launch")
    while not world.alive():
        world.clock.advance(5)
        world.tick()
    world.run(300)
    assert len(world.cloud.vms) == 1
    assert world.states() == [S.BOOTING]


# -------------------------------------------------------------------------- 2: one key


def test_02_an_unclear_answer_is_repeated_with_the_same_key() -> None:
    """One key for each intent, attempt and offer; unclear answers repeat it, never a fresh one."""
    world = small_world()
    world.submit()
    world.cloud.fail_next("InternalError", 3, call="launch")
    for _ in range(4):
        world.tick()
        world.clock.advance(5)
    keys = [request.key for request in world.provider.requests]
    assert keys == [f"{world.machine().id}.1"] * 4
    assert world.machine().state is S.BOOTING


def test_02_what_carries_our_label_is_adopted() -> None:
    """A launch whose answer was lost is found by its label once it runs; no second call."""
    world = small_world()
    world.submit()
    world.cloud.drop_next_answer(call="launch")
    world.tick()
    assert world.machine().state is S.LAUNCHING
    world.clock.advance(world.cloud.spec.start_s + 1)
    world.tick()
    assert world.machine().provider_id == world.cloud.vms[0].provider_id
    assert len(world.provider.requests) == 1
    (interval,) = world.store.prices_between(world.cloud.vms[0].created_at, world.clock.now())
    assert interval.started_at == world.cloud.vms[0].created_at


def test_02_a_changed_offer_gets_a_new_key() -> None:
    """EC2 refuses a token that comes with other parameters; so each offer has its own."""
    world = small_world()
    world.submit()
    world.cloud.set_capacity(0, market=Market.SPOT)
    world.tick()
    requests = world.provider.requests
    assert [request.offer.market for request in requests] == [Market.SPOT, Market.ON_DEMAND]
    assert len({request.key for request in requests}) == 2
    assert world.cloud.violations == ()


def test_02_a_launch_nobody_answers_holds_its_place_until_the_cloud_shows_it_came_to_nothing() -> (
    None
):
    """Given up, it still counts: nothing else is bought in its place before the place has said
    positively that it does not exist."""
    world = small_world(high=1, spec=CloudSpec())
    world.submit()
    world.cloud.fail_next("InternalError", 5, call="launch")
    world.tick()
    for region in world.cloud.spec.regions:
        world.cloud.partial(region)
    world.run(1800, step_s=10)
    assert world.states() == [S.TERMINATING]
    for region in world.cloud.spec.regions:
        world.cloud.readable(region)
    world.run(30)
    assert world.states() == [S.BOOTING]
    assert len(world.cloud.vms) == 1


# -------------------------------------------------------------------------- 3: supply


def test_03_in_flight_machines_count_as_supply() -> None:
    """What is planned, launching or booting is supply: the same jobs buy nothing twice.

    KEDA's scaler counted only what ran and made 84 jobs of 42."""
    world = small_world(high=100)
    world.submit(42)
    world.cloud.fail_next("InternalError", 10, call="launch")
    for _ in range(10):
        world.tick()
        world.clock.advance(3)
    assert len(world.store.machine_list()) == 42
    assert len(world.cloud.vms) == 42


def test_03_ten_jobs_make_ten_machines_however_they_boot() -> None:
    """Jobs move to machines one by one while the rest still boot; nothing is bought for them again.

    ClearML made 19 VMs for 10 jobs: it did not count those that had not yet taken a job."""
    world = small_world(high=50, spec=ONE_ZONE.but(boot_s=(20, 300)))
    world.submit(10)
    for _ in range(80):
        world.tick()
        world.clock.advance(5)
        for vm in world.cloud.guests():
            if vm.machine_id not in world.guests:
                assert len(world.guest(vm.machine_id).claim()) == 1
        world.beat()
    assert len(world.guests) == 10
    assert len(world.cloud.vms) == 10


@pytest.mark.parametrize("how", ["drain", "terminate"])
def test_03_what_ends_serves_nothing(how: str) -> None:
    """A machine that drains or ends is no supply, whatever room it has: another one is bought."""
    world, (guest,), _ = ready_world()
    getattr(world.fleet, how)(guest.vm.machine_id)
    world.tick()
    assert len([vm for vm in world.cloud.vms if vm.machine_id != guest.vm.machine_id]) == 1


# -------------------------------------------------------------------------- 4: two buyers


def test_04_two_pools_of_one_queue_never_both_buy_for_a_job() -> None:
    """Both see the same waiting job: the preferred one buys, the other counts that as supply."""
    world = World("aws", "gcp", spec=ONE_ZONE)
    world.apply(policy(l4("first"), l4("second", "gcp"), queue("default", "first", "second")))
    world.submit()
    for _ in range(5):
        world.tick()
        world.clock.advance(5)
    assert len(world.alive()) == 1


def test_04_two_queues_never_both_buy_for_the_room_one_machine_has() -> None:
    """Two jobs of half a machine each, from two queues: one machine, not two."""
    world = World(spec=ONE_ZONE)
    half = {"jobs_per_machine": 2}
    world.apply(policy(l4(), queue("one", "l4", **half), queue("two", "l4", **half)))
    for name in ("one", "two"):
        world.submit(need=Need(), queue=name)
    for _ in range(5):
        world.tick()
        world.clock.advance(5)
    assert len(world.alive()) == 1


def test_04_a_second_pool_takes_over_only_what_the_first_cannot() -> None:
    """The first pool's cloud is full: the job is bought for once, in the second."""
    world = World("aws", "gcp", spec=ONE_ZONE)
    world.apply(policy(l4("first"), l4("second", "gcp"), queue("default", "first", "second")))
    world.providers["aws"].cloud.set_capacity(0)
    world.submit()
    for _ in range(5):
        world.tick()
        world.clock.advance(5)
    assert [vm.offer.provider for vm in world.alive()] == ["gcp"]


# -------------------------------------------------------------------------- 5: caps


@pytest.mark.parametrize("seed_faults", range(4))
def test_05_caps_hold_at_every_moment_through_every_fallback(seed_faults: int) -> None:
    """Machines, GPUs and USD per hour stay below their caps at the moment of every call, with
    capacity running out, answers lost and dearer offers taken in the same tick."""
    declared = policy(
        pool(machines=Range(high=5), gpus_max=9, gpu=GpuRange(count=Range(low=1, high=8))),
        budget={"hour_usd": "6"},
    )
    world = World(spec=CloudSpec(depth=2, scarcity=0.4, price_swing=0.0))
    world.apply(declared)
    faults = ["InternalError", "RequestLimitExceeded", "InsufficientInstanceCapacity", ""]
    limits = declared.pools["l4"]

    def within(call: str = "") -> None:
        alive = world.alive()
        assert len(alive) <= 5
        assert sum(vm.offer.capacity.gpus for vm in alive) <= limits.gpus_max
        assert sum(vm.offer.price_usd_hour for vm in alive) <= declared.budget.hour_usd

    world.provider.before = within
    world.submit(30)
    world.submit(5, Need(gpus=4))
    for step in range(60):
        code = faults[(step + seed_faults) % 4]
        if code:
            world.cloud.fail_next(code, 1 + step % 3, call="launch")
        else:
            world.cloud.drop_next_answer(2, call="launch")
        world.tick()
        within()
        world.clock.advance(20)
        if step % 20 == 19:
            for vm in world.alive()[:2]:
                world.cloud.interrupt(vm.provider_id, notice_s=0)
    assert len(world.cloud.vms) >= 3


def test_05_day_and_month_stop_buying_before_they_are_passed() -> None:
    """What runs could run on for an hour within the day's money, or nothing more is bought."""
    world = World(spec=ONE_ZONE)
    world.apply(
        policy(l4(market=MarketPolicy.ON_DEMAND), budget={"day_usd": "1.7"})
    )  # 0.8048 USD/hour each
    world.submit(4)
    world.tick()
    assert len(world.alive()) == 2
    (refusal,) = world.refusals()
    assert refusal.reason.code == "cap-day"
    assert refusal.wanted == 2


def test_05_every_cap_has_a_finite_default() -> None:
    """A forgotten line costs a known amount at most."""
    bare = PoolPolicy(name="p", clouds=(CloudPolicy(provider="aws"),))
    assert 0 < bare.machines_max < 100
    assert 0 < bare.gpus_max < 1000
    assert 0 < bare.max_lifetime_s <= 86_400
    assert 0 < Budget().hour_usd < Budget().day_usd < Budget().month_usd < Decimal(10_000)


# -------------------------------------------------------------------------- 6: capacity


def test_06_a_capacity_error_moves_on_in_the_same_tick() -> None:
    """Type, zone, region, market and cloud are tried one after the other within one look."""
    world = World("aws", "gcp", spec=CloudSpec(regions={"us-east-1": ("1a", "1b"), "eu": ("1c",)}))
    world.apply(policy(l4("l4", "aws", "gcp")))
    world.providers["aws"].cloud.set_capacity(0)
    world.providers["gcp"].cloud.set_capacity(0, market=Market.SPOT)
    world.submit()
    world.tick()
    (vm,) = world.alive()
    assert (vm.offer.provider, vm.offer.market) == ("gcp", Market.ON_DEMAND)


def test_06_a_code_that_nobody_knows_counts_as_lack_of_capacity_after_three_tries() -> None:
    """Nothing was made, so the next offer is tried, and this one rests."""
    world = small_world()
    world.submit()
    world.cloud.fail_next("NobodyHasSeenThis", 3, call="launch")
    for _ in range(3):
        world.tick()
        world.clock.advance(5)
    keys = [request.key for request in world.provider.requests]
    assert keys == [f"{world.machine().id}.{attempt}" for attempt in (1, 1, 1, 2)]
    assert world.machine().state is S.BOOTING
    rests = {each.key: each for each in world.store.cooldown_list()}
    refused = rests[world.provider.requests[0].offer.key]
    assert (refused.code, refused.error_class) == ("NobodyHasSeenThis", ErrorClass.CAPACITY_ZONE)


def test_06_a_code_that_nobody_knows_is_no_proof_that_nothing_was_made() -> None:
    """Where the cloud cannot be asked, or shows a machine, the key is kept."""
    world = small_world()
    world.submit()
    world.cloud.fail_next("NobodyHasSeenThis", 4, call="launch")
    world.provider.refuses["sighting"] = "ServiceUnavailable"
    for _ in range(4):
        world.tick()
        world.clock.advance(5)
    assert {request.key for request in world.provider.requests} == {f"{world.machine().id}.1"}


def test_06_one_refusal_is_enough_for_all_launches_of_a_look() -> None:
    """Sixteen machines want what is sold out: one of them finds out, the others go elsewhere."""
    world = small_world(high=16)
    world.cloud.set_capacity(0, market=Market.SPOT)
    world.submit(16)
    world.tick()
    asked = Counter(request.offer.market for request in world.provider.requests)
    assert asked == {Market.SPOT: 1, Market.ON_DEMAND: 16}
    assert len(world.alive()) == 16


def test_06_a_type_sold_out_for_two_hours_is_asked_for_seldom() -> None:
    """ClearML tried one type 25 times in two hours and the second one never."""
    world = World(spec=ONE_ZONE)
    world.apply(policy(pool(gpu=GpuRange(name=""), market=MarketPolicy.SPOT, high=4)))
    world.cloud.set_capacity(0, instance_type="g4dn.xlarge")
    world.submit()
    world.tick()
    assert [vm.offer.instance_type for vm in world.alive()] == ["g6.xlarge"]
    for _ in range(120):
        world.clock.advance(60)
        world.submit()
        world.tick()
    asked = Counter(request.offer.instance_type for request in world.provider.requests)
    assert asked["g4dn.xlarge"] <= 7


def test_06_the_cool_down_is_shared_and_outlives_a_restart() -> None:
    """It lies in the store: another controller does not ask again."""
    world = small_world()
    world.cloud.set_capacity(0)
    world.submit()
    world.tick()
    asked = len(world.provider.requests)
    world.clock.advance(130)
    (tick,) = world.controller("two").tick()
    assert tick.plan
    assert not tick.plan.launches
    assert len(world.provider.requests) == asked
    assert tick.plan.refusals[0].reason.code == "no-capacity"


def test_06_a_hiccup_does_not_cut_a_long_rest_short() -> None:
    """A region that gave no clear answer rests for ten minutes; a throttled terminate a second
    later does not make that two seconds."""
    world, (guest,), _ = ready_world(high=2)
    world.submit()
    world.cloud.fail_next("InternalError", 5, call="launch")
    for _ in range(5):
        world.tick()
    (rest,) = [each for each in world.store.cooldown_list() if each.key == "aws/us-east-1/*"]
    world.fleet.terminate(guest.vm.machine_id)
    world.cloud.fail_next("RequestLimitExceeded", 1, call="terminate")
    world.tick()
    assert world.provider.calls["terminate"] == 1
    assert rest in world.store.cooldown_list()


# -------------------------------------------------------------------------- 7: throttling


def _look_often(world: World, seconds: int, step_s: int) -> None:
    for _ in range(0, seconds, step_s):
        world.tick()
        world.clock.advance(step_s)


def test_07_throttled_launches_make_no_retry_storm() -> None:
    """All launches of an API slow down together, to one call a minute, and none is lost.

    GitHub's runner scale-up answered throttling with retries: 6,833 invocations for 122 messages,
    and no machine."""
    world = small_world(high=122, gpus_max=122)
    world.submit(122)
    world.provider.refuses["launch"] = "RequestLimitExceeded"
    _look_often(world, 300, 5)
    assert world.provider.calls["launch"] <= 12
    assert len(world.store.machine_list(open_only=False)) == 122
    world.provider.refuses.clear()
    world.clock.advance(60)
    world.tick()
    assert len(world.alive()) == 122


def test_07_a_cloud_that_takes_few_calls_gets_few() -> None:
    """With every call throttled, listings, look-ups and terminates slow down like launches."""
    world, guests, _ = ready_world(8, high=8)
    for guest in guests:
        world.fleet.terminate(guest.vm.machine_id)
    world.submit(8)
    world.provider.calls.clear()
    for call in ("offers", "launch", "observe", "sighting", "terminate"):
        world.provider.refuses[call] = "RequestLimitExceeded"
    _look_often(world, 300, 1)
    assert sum(world.provider.calls.values()) <= 30
    world.provider.refuses.clear()
    world.run(120)
    assert not [vm for vm in world.alive() if vm.machine_id in world.guests]


def test_07_the_brake_lies_in_the_store() -> None:
    """A second controller and a restarted one do not have to learn it again."""
    world = small_world()
    world.submit()
    world.tick()
    world.provider.refuses["observe"] = "RequestLimitExceeded"
    world.tick()
    calls = dict(world.provider.calls)
    world.controller().tick()
    assert dict(world.provider.calls) == calls
    world.clock.advance(1)
    world.controller().tick()
    assert world.provider.calls["observe"] == calls["observe"] + 1


def test_07_what_the_cloud_asks_for_is_obeyed() -> None:
    """A cloud that says when it will listen again is not called before, and the others go on."""
    world = World("aws", "gcp", spec=ONE_ZONE)
    both = queue("default", "l4", "other")
    world.apply(policy(l4("l4", "aws"), l4("other", "gcp", high=1), both))
    world.submit(2)
    error = refusal("RequestLimitExceeded", "slowly", retry_after_s=45)
    throttle.heed(Rests(world.store, ()), error, "aws", "us-east-1", world.clock.now())
    while not world.providers["aws"].requests:
        world.tick()
        world.clock.advance(5)
    assert 45 <= (world.clock.now() - EPOCH).total_seconds() <= 55
    assert sorted(vm.offer.provider for vm in world.alive()) == ["aws", "gcp"]


# -------------------------------------------------------------------------- 8: breaker


def test_08_machines_that_never_boot_open_a_breaker_with_a_reason() -> None:
    """After three boot failures of a pool and offer it is left alone for an hour, and says why.

    Without one, a broken image buys machines for ever that never do anything."""
    world = small_world(market=MarketPolicy.SPOT, high=1, boot_timeout_s=120)
    world.cloud.never_boot(1000)
    world.submit()
    world.run(3000, step_s=10)
    assert len(world.cloud.vms) == 3
    (refusal,) = world.refusals()
    assert refusal.reason.code == "breaker-open"
    assert "3 machines failed to boot" in refusal.reason.sentence
    assert world.alive() == []


def test_08_machines_that_die_while_they_boot_count_too() -> None:
    """A machine that the cloud shows as gone before its agent spoke is a boot failure as well."""
    world = small_world(market=MarketPolicy.SPOT, high=1)
    world.submit()
    for _ in range(30):
        world.tick()
        for vm in world.alive():
            world.cloud.shut_down(vm.provider_id)
        world.clock.advance(30)
    assert len(world.cloud.vms) == 3
    assert world.refusals()[0].reason.code == "breaker-open"


# -------------------------------------------------------------------------- 9: readable ends


def test_09_a_launch_that_no_offer_took_says_so_with_the_last_code() -> None:
    """Every launch that ends without a machine has a final state, a sentence and the cloud's own
    code, so that nobody has to guess from silence."""
    world = small_world()
    world.cloud.set_capacity(0)
    world.submit()
    world.tick()
    machine = world.machine()
    assert machine.state is S.LAUNCH_FAILED
    assert machine.reason
    assert machine.reason.numbers["last_code"] == "InsufficientInstanceCapacity"
    assert "InsufficientInstanceCapacity" in machine.reason.sentence


def test_09_a_launch_that_was_never_answered_says_so_with_the_last_code() -> None:
    """Also when it was unclear for as long as anybody asked."""
    world = small_world()
    world.submit()
    world.cloud.fail_next("ServiceUnavailable", 5, call="launch")
    world.run(200)
    closed = [m for m in world.store.machine_list(open_only=False) if m.state is S.TERMINATED]
    assert closed
    assert closed[0].reason
    assert closed[0].reason.numbers["last_code"] == "ServiceUnavailable"
    assert "ServiceUnavailable" in closed[0].reason.sentence


def test_09_a_late_refusal_is_read_like_an_early_one() -> None:
    """GCP answers with an operation that ends in a stock-out: the next offer, then the reason."""
    world = small_world()
    world.submit()
    world.cloud.slow_next_launch(refused_code="ZONE_RESOURCE_POOL_EXHAUSTED")
    world.tick()
    world.cloud.set_capacity(0)
    world.run(120)
    machine = next(m for m in world.store.machine_list(open_only=False) if m.reason)
    assert machine.state is S.LAUNCH_FAILED
    assert machine.reason
    assert machine.reason.numbers["last_code"] == "InsufficientInstanceCapacity"


def test_06_one_call_may_buy_whichever_of_several_the_cloud_has_most_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was bought is what is recorded, paid and, when it fails, not what is tried next."""
    world = small_world(spec=CloudSpec(regions={"us-east-1": ("us-east-1a", "us-east-1b")}))
    launch = world.provider.launch

    def whichever(request: LaunchRequest) -> Launched:
        assert request.offer not in request.alternatives
        assert {each.market for each in request.alternatives} == {request.offer.market}
        other = request.alternatives[0]
        return replace(launch(replace(request, offer=other)), offer=other)

    monkeypatch.setattr(world.provider, "launch", whichever)
    world.submit()
    world.tick()
    machine, (vm,) = world.machine(), world.alive()
    assert machine.offer == vm.offer == machine.offers[0]
    assert (machine.attempt, vm.key) == (1, machine.launch_key)
    (price,) = world.store.prices_between(EPOCH, world.clock.now() + timedelta(hours=1))
    assert (price.zone, price.price_usd_hour) == (vm.offer.zone, vm.offer.price_usd_hour)
    assert len(set(machine.offers)) == len(machine.offers)
