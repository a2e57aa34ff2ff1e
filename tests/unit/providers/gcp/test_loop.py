"""The control loop on Compute Engine: what this cloud's operations and listings make of it."""

from __future__ import annotations

from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.model import Machine, MachineState
from control_plane.core.policy import CloudPolicy, GpuRange
from control_plane.fleet import Fleet
from control_plane.service import Service
from control_plane.system import LivePrices
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

    def __init__(self, world: World) -> None:
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
        self.prices.refresh([WHERE])
        self.apply(policy(pool("l4", gpu=GpuRange(name="L4"), clouds=(WHERE,))))

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
