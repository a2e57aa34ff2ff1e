"""A control plane over simulated clouds in one thread, small enough to break on purpose.

Nothing moves by itself: a test moves the clock, looks (`tick`), and speaks for the agents. Each
fault is injected where the system it comes from suffered it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from agent_bootstrap import wire
from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.alerts import Delivery
from control_plane.core.model import (
    Event,
    Job,
    JobSpec,
    Machine,
    MachineState,
    Need,
    Observation,
    Offer,
    Sighting,
)
from control_plane.core.plan import Refusal
from control_plane.core.policy import Autoscaler, CloudPolicy, GpuRange, PoolPolicy
from control_plane.core.snapshot import Timing
from control_plane.execute import Executor, LaunchSettings, no_checkpoint
from control_plane.fleet import Fleet
from control_plane.observe import Eyes
from control_plane.ports import Launched, LaunchRequest, MachineRef, Store
from control_plane.reconcile import Reconciler, Tick
from control_plane.service import Service, Submission
from control_plane.spending import Spending
from control_plane.stores.memory import MemoryStore
from control_plane.system import LivePrices
from control_plane.tokens import MachineTokens
from providers.simulated.clock import SimulatedClock
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.errors import refusal
from providers.simulated.machines import Vm
from providers.simulated.provider import SimulatedProvider
from providers.simulated.spec import CloudSpec
from tests.build import policy, pool
from tests.simulation.world import InlinePool

T = TypeVar("T")

GPU = Need(gpus=1)
ONE_ZONE = CloudSpec(regions={"us-east-1": ("us-east-1a",)})
"""A cloud with a single place, so that each type is two offers: spot and on demand."""
BOOTED_S = 70
"""By then every machine of a calm cloud is up."""


class Counting:
    """`m-0001`, `j-0001` and so on."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers):04}"


class Watched(SimulatedProvider):
    """A provider that remembers what it was asked for, and can be made to break."""

    def __init__(self, cloud: SimulatedCloud, name: str) -> None:
        super().__init__(cloud, name)
        self.cloud = cloud
        self.calls: Counter[str] = Counter()
        self.requests: list[LaunchRequest] = []
        self.looked: list[Sequence[CloudPolicy]] = []
        """Where each listing looked."""
        self.before: Callable[[str], None] = lambda call: None
        """Told the name of each call before it is made."""
        self.refuses: dict[str, str] = {}
        """Calls that are answered with a code for as long as it stands here."""
        self.broken = ""
        """A call of this name raises what no provider is expected to raise."""

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        self._enter("offers")
        return super().offers(clouds)

    def launch(self, request: LaunchRequest) -> Launched:
        self.requests.append(request)
        self._enter("launch")
        return super().launch(request)

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        self._enter("observe")
        self.looked.append(clouds)
        return super().observe(fleet, clouds)

    def sighting(self, ref: MachineRef) -> Sighting | None:
        self._enter("sighting")
        return super().sighting(ref)

    def terminate(self, ref: MachineRef) -> None:
        self._enter("terminate")
        super().terminate(ref)

    def _enter(self, call: str) -> None:
        self.calls[call] += 1
        self.before(call)
        if self.broken == call:
            raise ValueError(f"{call}: not what it should be")
        if call in self.refuses:
            raise refusal(self.refuses[call], f"no {call} now")


class Guest:
    """The agent of one VM, moved by the test."""

    def __init__(self, agents: Agents, vm: Vm) -> None:
        self.vm = vm
        self.running: list[str] = []
        found = {
            name: getattr(vm.offer.capacity, name)
            for name in ("gpus", "gpu_name", "gpu_memory_gib", "cpus", "memory_mib", "disk_gib")
        }
        self._agents = agents
        self.session = agents.register(
            wire.Register(
                machine_id=vm.machine_id,
                instance=vm.provider_id,
                proof={"kind": "one-time", "token": vm.boot.one_time_token},
                found=wire.Found(**found),
            )
        )

    @property
    def machine(self) -> Machine:
        """Its record, as the API would see it. Raises `Gone` when it is closed."""
        return self._agents.authenticate(self.session.token)

    def beat(self) -> wire.Beaten:
        """Say that it is there, and forget what is no longer its own."""
        beaten = self._agents.beat(self.machine, wire.Beat(list(self.running)))
        self.running = [key for key in self.running if key not in beaten.lost]
        return beaten

    def claim(self) -> list[wire.Work]:
        """Take work and begin it."""
        claimed = self._agents.claim(self.machine, wire.Claim(list(self.running), 32))
        for work in claimed.jobs:
            self._agents.start(self.machine, work.job_id, wire.Started(work.epoch))
            self.running.append(f"{work.job_id}:{work.epoch}")
        return claimed.jobs

    def finish(self, work: wire.Work, outcome: str = "succeeded", code: int = 0) -> None:
        """Report how a job ended."""
        message = wire.Finished(work.epoch, outcome, code)
        self._agents.finish(self.machine, work.job_id, message)
        self.running = [key for key in self.running if key != f"{work.job_id}:{work.epoch}"]

    def leave(self, why: str = "idle") -> wire.Left:
        """Ask to end."""
        return self._agents.leave(self.machine, wire.Leave(why))


class World:
    """Clouds, a store, and one control plane or several."""

    def __init__(
        self,
        *clouds: str,
        spec: CloudSpec | None = None,
        store: Store | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Clouds by name; `aws` alone when none is named."""
        self.clock = SimulatedClock()
        self.timing = timing or Timing()
        self.store = store or MemoryStore()
        self.providers = {
            name: Watched(SimulatedCloud(number, self.clock, spec), name)
            for number, name in enumerate(clouds or ("aws",))
        }
        self.wakes = 0
        self.tokens = MachineTokens(b"a secret of thirty-two bytes ...")
        self.prices = LivePrices(self.providers, lambda names: (), self.clock.now)
        self.service = Service(self.store, self.prices, self.clock, Counting(), self._changed)
        self.fleet = Fleet(self.service)
        self.agents = Agents(
            self.service, MemoryBlobs(), self.tokens, self.timing, AgentSettings(wait_s=0)
        )
        self.guests: dict[str, Guest] = {}
        """By machine."""
        self.reconciler = self.controller()

    def _changed(self) -> None:
        self.wakes += 1

    def controller(
        self,
        owner: str = "one",
        checkpoint: Callable[[str], None] = no_checkpoint,
        send: Callable[[Sequence[Delivery]], None] = lambda _waiting: None,
    ) -> Reconciler:
        """A control plane's loop over this store and these clouds."""
        inline = InlinePool()
        return Reconciler(
            self.service,
            Eyes(
                store=self.store,
                providers=self.providers,
                prices=self.prices,
                spending=Spending(self.store),
                ids=self.service.ids,
                timing=self.timing,
                pool=inline,
            ),
            Executor(
                self.service,
                self.providers,
                self.tokens,
                LaunchSettings(server_url="https://control.test", agent_sha256="0" * 64),
                self.timing,
                inline,
                checkpoint,
            ),
            owner=owner,
            installation="test",
            reachable_since=self.clock.now(),
            send=send,
            checkpoint=checkpoint,
        )

    # ------------------------------------------------------------------------ what people do

    def apply(self, declared: Autoscaler) -> None:
        """Declare a document."""
        text = f"{declared}"
        self.fleet.apply(text, declared, expected_version=None)

    def submit(
        self, count: int = 1, need: Need = GPU, *, queue: str = "default", **spec: Any
    ) -> list[Job]:
        """Hand in jobs of one kind."""
        job = Submission(spec=JobSpec(command="true", need=need, **spec), queue=queue)
        return [self.service.submit(job)[0] for _ in range(count)]

    # ------------------------------------------------------------------------ what happens

    def tick(self) -> Tick:
        """Look once, for a world with one autoscaler."""
        (tick,) = self.reconciler.tick()
        return tick

    def run(self, seconds: float, *, step_s: float = 5, beats: bool = True) -> None:
        """Let time pass, looking every `step_s`; agents that are there beat."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < until:
            self.clock.advance(step_s)
            if beats:
                self.beat()
            self.tick()

    def beat(self) -> None:
        """Every agent that still runs says so."""
        up = {
            vm.machine_id for provider in self.providers.values() for vm in provider.cloud.alive()
        }
        for machine_id, guest in self.guests.items():
            state = self.store.machine_get(machine_id).state
            if machine_id in up and state in (MachineState.READY, MachineState.DRAINING):
                guest.beat()

    def guest(self, machine_id: str) -> Guest:
        """Let the agent of a machine that is up register."""
        (vm,) = [vm for vm in self.alive() if vm.machine_id == machine_id]
        self.guests[machine_id] = Guest(self.agents, vm)
        return self.guests[machine_id]

    def boot(self) -> list[Guest]:
        """Wait until machines are up, and let their agents register."""
        self.clock.advance(BOOTED_S)
        self.tick()
        self.beat()
        fresh = [
            vm
            for provider in self.providers.values()
            for vm in provider.cloud.guests()
            if vm.machine_id not in self.guests
            and self.store.machine_get(vm.machine_id).state is MachineState.BOOTING
        ]
        return [self.guest(vm.machine_id) for vm in fresh]

    # ------------------------------------------------------------------------ what is

    @property
    def cloud(self) -> SimulatedCloud:
        """The first cloud."""
        return next(iter(self.providers.values())).cloud

    @property
    def provider(self) -> Watched:
        """The way to the first cloud."""
        return next(iter(self.providers.values()))

    def alive(self) -> list[Vm]:
        """Everything that costs money, in all clouds."""
        return [vm for provider in self.providers.values() for vm in provider.cloud.alive()]

    def machine(self, machine_id: str = "") -> Machine:
        """One record, closed or not; the only one when no id is given."""
        if machine_id:
            return self.store.machine_get(machine_id)
        (machine,) = self.store.machine_list(open_only=False)
        return machine

    def states(self) -> list[MachineState]:
        """The states of the open records."""
        return [machine.state for machine in self.store.machine_list()]

    def job(self, job: Job | str) -> Job:
        return self.store.job_get(job if isinstance(job, str) else job.id)

    def events(self, code: str) -> Sequence[Event]:
        """What the log says under a code, newest first."""
        items = self.store.event_list(limit=1000).items
        return [event for event in items if event.code == code]

    def refusals(self) -> list[Refusal]:
        """What the next look would refuse."""
        plan = self.tick().plan
        return list(plan.refusals) if plan else []


def l4(name: str = "l4", *clouds: str, **changes: Any) -> PoolPolicy:
    """A pool of single L4 machines, in `aws` unless other clouds are named."""
    where = tuple(CloudPolicy(provider=cloud) for cloud in clouds or ("aws",))
    return pool(name, gpu=GpuRange(name="L4"), clouds=where, **changes)


def small_world(
    *, high: int = 4, spec: CloudSpec = ONE_ZONE, store: Store | None = None, **changes: Any
) -> World:
    """One cloud, one queue, one pool of L4 machines."""
    world = World(spec=spec, store=store)
    world.apply(policy(l4(high=high, **changes)))
    return world


def ready_world(count: int = 1, **changes: Any) -> tuple[World, list[Guest], list[Job]]:
    """A world whose machines are up, each with a job that waits for it."""
    world = small_world(**changes)
    jobs = world.submit(count)
    world.tick()
    return world, world.boot(), jobs
