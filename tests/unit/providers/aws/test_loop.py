"""The control loop on EC2: what regions that refuse and fleets that choose make of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.model import Cooldown, ErrorClass, Machine, MachineState, Market
from control_plane.core.policy import CloudPolicy, GpuRange
from control_plane.fleet import Fleet
from control_plane.service import Service
from control_plane.system import LivePrices
from tests.build import policy, pool
from tests.fakes.ec2.account import Account
from tests.invariants import world as simulated
from tests.unit.providers.aws.world import REGION, World

HOME, AWAY = REGION, "us-west-2"


class AccountClock:
    """The time of the account, for the control plane too."""

    def __init__(self, account: Account) -> None:
        self.now = account.now
        self.advance = account.advance
        self.sleep = account.advance


class Loop(simulated.World):
    """A control plane whose only cloud is the fake; it wants a machine with one T4 on spot."""

    def __init__(self, world: World, *regions: str, market: Market | None = Market.SPOT) -> None:
        super().__init__()
        self.clock = AccountClock(world.account)  # type: ignore[assignment]
        self.providers = {"aws": world.provider}  # type: ignore[dict-item]
        self.prices = LivePrices(self.providers, lambda names: (), self.clock.now)
        self.service = Service(
            self.store, self.prices, self.clock, simulated.Counting(), self._changed
        )
        self.fleet = Fleet(self.service)
        settings = AgentSettings(wait_s=0)
        self.agents = Agents(self.service, MemoryBlobs(), self.tokens, self.timing, settings)
        self.reconciler = self.controller()
        where = CloudPolicy(provider="aws", regions=regions or (HOME,), options={})
        self.apply(policy(pool("t4", gpu=GpuRange(name="T4"), clouds=(where,), market=market)))

    def restart(self, world: World) -> None:
        """Another program, which knows what is in the store."""
        self.providers = {"aws": world.open()}  # type: ignore[dict-item]
        self.reconciler = self.controller()

    def after(self, seconds: float) -> Machine:
        """The only machine, some time later."""
        self.clock.advance(seconds)
        self.tick()
        (machine,) = self.store.machine_list()
        return machine


def test_region_that_is_not_enabled_leaves_the_other_to_buy_in(world: World) -> None:
    """It refuses listings too, so nothing is known of it, and nothing bought there."""
    world.account.fail_next("OptInRequired", region=HOME, times=100_000)
    loop = Loop(world, HOME, AWAY)
    loop.submit()
    machine = loop.after(0)
    assert (machine.state, machine.offer.region) == (MachineState.BOOTING, AWAY)
    assert [vm.region for vm in world.account.living()] == [AWAY]


@pytest.mark.parametrize("code", ["OptInRequired", "AuthFailure"])
def test_region_that_refuses_to_launch_rests_and_no_other(world: World, code: str) -> None:
    for operation in ("CreateFleet", "RunInstances"):
        world.account.fail_next(code, operation=operation, region=HOME, times=100_000)
    loop = Loop(world, HOME, AWAY)
    loop.submit()
    machine = loop.after(0)
    assert (machine.state, machine.offer.region) == (MachineState.BOOTING, AWAY)
    assert {offer.region for offer in machine.offers} == {HOME, AWAY}
    (rest,) = [each for each in loop.store.cooldown_list() if each.code == code]
    assert (rest.key, rest.error_class) == (f"aws/{HOME}/*", ErrorClass.AUTH)
    assert [vm.region for vm in world.account.living()] == [AWAY]


def test_region_that_refuses_is_asked_to_launch_once_in_fifteen_minutes(world: World) -> None:
    world.account.fail_next("AuthFailure", operation="RunInstances", times=100_000)
    loop = Loop(world, market=Market.ON_DEMAND)
    loop.submit()
    for _ in range(14):
        loop.clock.advance(60)
        loop.tick()
    assert world.account.called()["RunInstances"] == 1
    loop.clock.advance(120)
    loop.tick()
    assert world.account.called()["RunInstances"] == 2


def test_machine_of_a_fleet_is_recorded_as_what_it_is(world: World) -> None:
    world.account.set_lag(30)
    loop = Loop(world)
    loop.submit()
    planned = loop.after(0)
    assert (planned.state, bool(planned.operation)) == (MachineState.LAUNCHING, True)
    loop.restart(world)
    loop.after(20)
    booting = loop.after(20)
    assert (booting.state, booting.operation) == (MachineState.BOOTING, "")
    (vm,) = world.account.living()
    assert (booting.offer.instance_type, booting.offer.zone) == (vm.instance_type, vm.zone)
    assert world.account.called()["CreateFleet"] == 1


def test_sold_out_fleet_costs_a_call_for_each_type_at_most(world: World) -> None:
    world.account.set_capacity(0, market="spot")
    loop = Loop(world)
    loop.submit()
    loop.tick()
    (machine,) = loop.store.machine_list(open_only=False)
    assert machine.state is MachineState.LAUNCH_FAILED
    types = {offer.instance_type for offer in machine.offers}
    calls = world.account.called()
    assert calls["CreateFleet"] + calls.get("RunInstances", 0) <= len(types)


@pytest.mark.parametrize("before", [True, False], ids=["call-lost", "answer-lost"])
def test_alternatives_that_rest_meanwhile_buy_no_second_machine(world: World, before: bool) -> None:
    """The repeat of a call whose answer was lost says the same: else its token would not count."""
    world.account.set_lag(60)
    world.account.drop_next("CreateFleet", before=before)
    loop = Loop(world)
    loop.submit()
    machine = loop.after(0)
    assert (machine.state, machine.operation) == (MachineState.LAUNCHING, "")
    for offer in machine.offers[1:]:
        loop.store.cooldown_put(
            Cooldown(
                key=offer.key,
                error_class=ErrorClass.CAPACITY_ZONE,
                code="InsufficientInstanceCapacity",
                until=loop.clock.now() + timedelta(hours=1),
            )
        )
    loop.restart(world)
    for _ in range(5):
        loop.after(20)
        assert len(list(world.account.living())) == 1
    assert loop.after(0).state is MachineState.BOOTING
