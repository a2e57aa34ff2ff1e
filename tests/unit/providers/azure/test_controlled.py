"""A whole control plane on the fake: what the loop makes of Azure's ways, tick by tick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control_plane.core.model import (
    ErrorClass,
    JobSpec,
    Machine,
    MachineState,
    Need,
)
from control_plane.core.policy import CloudPolicy, GpuRange
from control_plane.core.snapshot import Timing
from control_plane.execute import Executor, LaunchSettings
from control_plane.fleet import Fleet
from control_plane.observe import Eyes
from control_plane.reconcile import Reconciler, Tick
from control_plane.service import Service, Submission
from control_plane.spending import Spending
from control_plane.stores.memory import MemoryStore
from control_plane.system import LivePrices
from control_plane.tokens import MachineTokens
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from providers.simulated.clock import SimulatedClock
from tests.build import policy, pool
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect, startup
from tests.fakes.azure.server import AzureServer
from tests.simulation.world import CountingIds, InlinePool

AZURE = CloudPolicy(
    provider="azure",
    regions=("eastus", "westeurope"),
    options={"resource_group": "ml", "subscription": SUBSCRIPTION},
)


NO_ROOM = {"code": "ZonalAllocationFailed", "message": "Allocation failed."}


class Controlled:
    """One autoscaler with a pool of single T4 machines in two regions of Azure."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.cloud = AzureCloud(self.clock)
        self.cloud.add_group("ml")
        self.server = AzureServer(self.cloud)
        self.clients = connect(self.server)
        self.store = MemoryStore()
        self.ids = CountingIds()
        self.reconciler = self.controller()
        t4 = pool("t4", gpu=GpuRange(name="T4"), clouds=(AZURE,))
        Fleet(self.service).apply("text", policy(t4), expected_version=None)

    def controller(self) -> Reconciler:
        """A control plane that remembers nothing but its store."""
        providers = {
            "azure": AzureProvider(self.clients, render=startup, now=self.clock.now, listing_s=10)
        }
        prices = LivePrices(providers, load_offers, self.clock.now)
        self.service = Service(self.store, prices, self.clock, self.ids, lambda: None)
        timing, inline = Timing(), InlinePool()
        eyes = Eyes(
            store=self.store,
            providers=providers,
            prices=prices,
            spending=Spending(self.store),
            ids=self.service.ids,
            timing=timing,
            pool=inline,
        )
        executor = Executor(
            self.service,
            providers,
            MachineTokens(b"a secret of thirty-two bytes ..."),
            LaunchSettings(server_url="https://control.test", agent_sha256="0" * 64),
            timing,
            inline,
        )
        return Reconciler(
            self.service,
            eyes,
            executor,
            owner="one",
            installation="test",
            reachable_since=self.clock.now(),
        )

    def submit(self) -> None:
        job = Submission(spec=JobSpec(command="true", need=Need(gpus=1)), queue="default")
        self.service.submit(job)

    def tick(self, after_s: float = 0) -> Tick:
        self.clock.advance(after_s)
        (tick,) = self.reconciler.tick()
        return tick

    def machine(self) -> Machine:
        (machine,) = self.store.machine_list(open_only=False)
        return machine

    def refusals(self) -> list[tuple[str, ErrorClass]]:
        """What rests, by offer, and why."""
        return [(each.code, each.error_class) for each in self.store.cooldown_list()]

    def kinds(self) -> list[str]:
        self.cloud.settle()
        group = self.cloud.groups["ml"]
        return sorted([*("vm" for _ in group.machines), *(kind for kind, _ in group.parts)])


ONE_MACHINE = ["disks", "networkInterfaces", "publicIPAddresses", "vm"]


@pytest.fixture
def world() -> Iterator[Controlled]:
    made = Controlled()
    yield made
    made.clients.close()
    made.server.stop()
    assert made.cloud.invalid == []


@pytest.mark.parametrize("restarted", [False, True])
def test_launch_goes_on_over_ticks_and_becomes_a_machine(
    world: Controlled, restarted: bool
) -> None:
    world.submit()
    world.tick()
    assert (world.machine().state, world.kinds()) == (MachineState.LAUNCHING, ONE_MACHINE)
    assert world.machine().operation
    world.tick(5)
    assert world.machine().state is MachineState.LAUNCHING
    if restarted:
        world.reconciler = world.controller()
    world.tick(20)
    machine = world.machine()
    assert (machine.state, machine.operation) == (MachineState.BOOTING, "")
    assert (
        machine.identity["vm_id"]
        == world.cloud.machine(machine.provider_id).shown(world.clock.now())["properties"]["vmId"]
    )
    assert world.kinds() == ONE_MACHINE


def test_late_refusal_moves_to_the_next_offer_in_the_same_tick(world: Controlled) -> None:
    """Azure takes the launch up, and says twenty seconds later that it has no room."""
    world.cloud.next_launch(takes_s=20, error=NO_ROOM)
    world.submit()
    world.tick()
    first = world.machine().provider_id
    world.tick(20)
    machine = world.machine()
    assert (machine.state, machine.attempt) == (MachineState.LAUNCHING, 2)
    assert machine.provider_id != first
    assert world.refusals() == [("ZonalAllocationFailed", ErrorClass.CAPACITY_ZONE)]
    assert world.kinds() == ONE_MACHINE, "what failed is gone, with all it had"
    world.tick(20)
    assert world.machine().state is MachineState.BOOTING


def test_region_that_is_sold_out_is_left_for_another_at_once(world: Controlled) -> None:
    world.cloud.set_capacity(0, region="eastus")
    world.submit()
    world.tick()
    machine = world.machine()
    assert (machine.state, machine.offer.region) == (MachineState.LAUNCHING, "westeurope")
    # What is sold out is one size on one market; the others of the region are asked for too.
    assert set(world.refusals()) == {("SkuNotAvailable", ErrorClass.CAPACITY_REGION)}
    assert world.kinds() == ONE_MACHINE


@pytest.mark.parametrize("lost", ["call", "answer"])
@pytest.mark.parametrize("call", ["virtual_machines_create_or_update", "ssh_public_keys_get"])
@pytest.mark.parametrize("restarted", [False, True])
def test_lost_launch_becomes_one_machine(
    world: Controlled, lost: str, call: str, restarted: bool
) -> None:
    trouble = world.cloud.lose_next_call if lost == "call" else world.cloud.drop_next_answer
    trouble(call)
    world.submit()
    world.tick()
    if restarted:
        world.reconciler = world.controller()
    for _ in range(3):
        world.tick(20)
    assert world.machine().state is MachineState.BOOTING
    assert world.machine().attempt == 1
    assert world.kinds() == ONE_MACHINE


def test_machine_whose_agent_never_came_is_ended_with_all_it_had(world: Controlled) -> None:
    world.submit()
    for _ in range(3):
        world.tick(20)
    first = world.machine().id
    world.tick(600)
    for _ in range(20):
        world.tick(15)
    assert world.store.machine_get(first).state is MachineState.TERMINATED
    assert not [vm for vm in world.cloud.machines() if vm.tags["orchctl-machine"] == first]


def test_group_that_is_silent_holds_everything(world: Controlled) -> None:
    world.submit()
    for _ in range(3):
        world.tick(20)
    world.cloud.silence("ml")
    for _ in range(4):
        world.tick(60)
    assert world.machine().state is MachineState.BOOTING
    world.cloud.speak("ml")
    world.tick(5)
    assert world.kinds() == ONE_MACHINE


@pytest.mark.parametrize("code", ["AuthorizationFailed", "RequestDisallowedByPolicy"])
def test_what_may_not_be_launched_is_tried_once_a_region_and_quarter_of_an_hour(
    world: Controlled, code: str
) -> None:
    """A policy may forbid one region alone, so each is tried by itself; but a fleet that waits does
    not knock at every look."""
    call = "virtual_machines_create_or_update"
    world.cloud.fail_next(code, status=403, call=call, times=1000)
    for _ in range(4):
        world.submit()
    tried = []
    for _ in range(2):
        before = world.cloud.calls.count(call)
        for _ in range(60):
            world.tick()
            world.clock.advance(15)
        tried.append(world.cloud.calls.count(call) - before)
    assert tried == [2, 2]
