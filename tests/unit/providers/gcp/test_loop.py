"""The control loop on Compute Engine: what this cloud's operations and listings make of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.model import Machine, MachineState, Need
from control_plane.core.policy import CloudPolicy, GpuRange, PoolPolicy, Range
from control_plane.fleet import Fleet
from control_plane.service import Service
from control_plane.system import LivePrices
from providers.catalog.loader import load_offers
from tests.build import policy, pool
from tests.invariants import world as simulated
from tests.unit.providers.gcp.conftest import ACCOUNT, PROJECT, World

WHERE = CloudPolicy(
    provider="gcp",
    regions=("us-east4",),
    options={"project": PROJECT, "service_account": ACCOUNT},
)
STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED"


class Loop(simulated.World):
    """A control plane whose only cloud is the fake; it wants machines with one L4."""

    def __init__(self, world: World, wanted: PoolPolicy | None = None) -> None:
        super().__init__()
        self.clock = world.clock
        self.providers = {"gcp": world.provider()}  # type: ignore[dict-item]
        self.prices = LivePrices(self.providers, lambda names: (), self.clock.now)
        self.service = Service(
            self.store, self.prices, self.clock, simulated.Counting(), self._changed
        )
        self.fleet = Fleet(self.service)
        settings = AgentSettings(wait_s=0)
        self.agents = Agents(self.service, MemoryBlobs(), self.tokens, self.timing, settings)
        self.reconciler = self.controller()
        self.apply(policy(wanted or pool("l4", gpu=GpuRange(name="L4"), clouds=(WHERE,))))

    def after(self, seconds: float) -> Machine:
        """The only machine, some time later."""
        self.clock.advance(seconds)
        self.tick()
        (machine,) = self.store.machine_list()
        return machine


def test_launch_goes_on_over_several_looks(world: World) -> None:
    world.cloud.slow_next_insert(30)
    loop = Loop(world)
    loop.submit()
    assert loop.after(0).operation
    assert loop.after(20).state is MachineState.LAUNCHING
    booting = loop.after(20)
    assert (booting.state, booting.operation) == (MachineState.BOOTING, "")
    assert world.cloud.resources()["machines"] == [booting.provider_id]
    assert world.cloud.calls["instances.insert"] == 1


def test_stockout_that_comes_late_moves_on_to_the_next_zone(world: World) -> None:
    world.cloud.slow_next_insert(30, STOCKOUT)
    loop = Loop(world)
    loop.prices.refresh([WHERE])
    loop.submit()
    first = loop.after(0)
    assert loop.after(20).state is MachineState.LAUNCHING
    second = loop.after(20)
    assert (second.state, second.attempt) == (MachineState.BOOTING, 2)
    assert second.offer.zone != first.offer.zone
    assert [rest.code for rest in loop.store.cooldown_list()] == [STOCKOUT]
    assert world.cloud.resources()["machines"] == [second.provider_id]


def test_insert_whose_answer_was_lost_is_taken_up(world: World) -> None:
    world.cloud.slow_next_insert(30)
    world.cloud.drop_next_answer("instances.insert")
    loop = Loop(world)
    loop.submit()
    assert loop.after(0).state is MachineState.LAUNCHING
    assert loop.after(40).state is MachineState.BOOTING
    assert world.cloud.calls["instances.insert"] == 1


def test_preempted_machine_is_replaced_and_recorded_as_interrupted(world: World) -> None:
    loop = Loop(world)
    loop.submit()
    taken = loop.after(0)
    loop.after(60)
    world.cloud.preempt(taken.provider_id)
    fresh = loop.after(40)
    assert fresh.id != taken.id
    record = loop.machine(taken.id)
    assert record.state is MachineState.TERMINATED
    assert record.reason is not None
    assert record.reason.code == "interrupted"
    assert world.names() == [fresh.id]


def test_guest_that_powers_off_is_deleted_and_replaced(world: World) -> None:
    loop = Loop(world)
    loop.submit()
    stopped = loop.after(0)
    loop.after(60)
    world.cloud.guest_shutdown(stopped.provider_id)
    for _ in range(30):
        loop.clock.advance(30)
        loop.tick()
    assert stopped.id not in world.names()
    assert world.cloud.resources()["stopped"] == []


def test_what_the_table_has_without_a_zone_is_bought_though_nobody_says_where(
    world: World,
) -> None:
    for call in ("regions.get", "machineTypes.list", "acceleratorTypes.list"):
        world.cloud.fail_next("forbidden", times=1000, call=call)
    plain = pool("cpu", gpu=None, clouds=(WHERE,))
    loop = Loop(world, plain)
    loop.submit(need=Need(cpus=4))
    bought = loop.after(0)
    assert bought.state is MachineState.BOOTING
    assert replace(bought.offer, zone="").key in {offer.key for offer in load_offers(["gcp"])}
    assert world.cloud.resources()["machines"] == [bought.provider_id]


def test_stockout_of_one_gpu_leaves_the_same_type_with_another(world: World) -> None:
    """T4 and V100 are both added to `n1-standard-8`, in the same zones."""
    where = replace(WHERE, regions=("us-west1",))
    card = GpuRange(count=Range(low=1, high=1), memory_gib=Range(low=16, high=16))
    wanted = pool("n1", gpu=card, clouds=(where,), cpus=Range(low=8, high=8))
    loop = Loop(world, wanted)
    sold = wanted.matching(loop.prices.offers([where]))
    t4s = [offer for offer in sold if offer.capacity.gpu_name == "T4"]
    both = {offer.zone for offer in t4s} & {o.zone for o in sold if o.capacity.gpu_name == "V100"}
    assert both
    world.cloud.fail_next(STOCKOUT, times=len(t4s), call="instances.insert")
    loop.submit()
    for _ in range(10):
        loop.clock.advance(5)
        loop.tick()
    bought = next(m for m in loop.store.machine_list() if m.state is MachineState.BOOTING)
    assert bought.offer.instance_type == "n1-standard-8+V100:1"
    assert bought.offer.zone in both


@pytest.mark.parametrize("code", ["forbidden", "accessNotConfigured", "authError"])
def test_what_may_not_be_launched_is_tried_once_a_region_and_quarter_of_an_hour(
    world: World, code: str
) -> None:
    """Rights of a project are missing in all of its regions. Each is tried by itself, since words
    do not tell; but a fleet that waits does not knock at every look."""
    where = replace(WHERE, regions=("us-east4", "us-west1"))
    world.cloud.fail_next(code, times=1000, call="instances.insert")
    loop = Loop(world, pool("l4", gpu=GpuRange(name="L4"), clouds=(where,)))
    loop.submit(4)
    tried = []
    for _ in range(2):
        before = world.cloud.calls["instances.insert"]
        for _ in range(60):
            loop.tick()
            loop.clock.advance(15)
        tried.append(world.cloud.calls["instances.insert"] - before)
    assert tried == [2, 2]
