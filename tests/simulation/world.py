"""A whole deployment on a virtual clock, in one thread, the same bit for bit from one seed: clouds,
store, control plane, controllers, and an agent on every virtual machine.

    world = World(seed=1)
    world.apply(DOCUMENT)
    world.submit("default", "work 600", Need(gpus=1))
    world.run(3600)

Everything but the agents' threads and the transport is the product itself.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.config.load import load_text
from control_plane.core.model import Event, Job, JobSpec, Machine, Need
from control_plane.core.plan import Plan
from control_plane.core.planner import plan as decide
from control_plane.core.policy import AutoscalerRecord
from control_plane.core.snapshot import Timing
from control_plane.execute import Executor, LaunchSettings
from control_plane.fleet import Fleet
from control_plane.loop import Pace
from control_plane.observe import Eyes, View
from control_plane.ports import Clock, Ids, Store
from control_plane.reconcile import Reconciler, Tick
from control_plane.service import Service, Submission
from control_plane.spending import Spending
from control_plane.stores.memory import MemoryStore
from control_plane.system import LivePrices
from control_plane.throttle import Rests
from control_plane.timeline import job_timeline
from control_plane.tokens import MachineTokens
from providers.simulated.clock import EPOCH, SimulatedClock
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.machines import Vm
from providers.simulated.provider import SimulatedProvider
from providers.simulated.spec import CloudSpec
from tests.simulation.guests import Guest, Line

T = TypeVar("T")

INSTALLATION = "world"
CHECKPOINTS = (
    "observed",
    "leased",
    "planned",
    "intent-written",
    "intents-committed",
    "before-launch",
    "launch-answered",
    "launch-recorded",
    "cordoned",
    "before-terminate",
    "terminate-called",
    "executed",
)
"""Where a controller can be made to crash or to stall, in the order of a tick."""


class Crash(BaseException):
    """The controller's process dies here. No `except Exception` survives a power cut."""


class InlinePool(Pool):
    """Runs what is handed in at once, in the caller's thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future carries whatever went wrong
            future.set_exception(error)
        return future


class CountingIds:
    """`m-0001`, `j-0001`: unique, and in the order they were made."""

    def __init__(self) -> None:
        self._counts: dict[str, Iterator[int]] = {}

    def new(self, prefix: str) -> str:
        counter = self._counts.setdefault(prefix, itertools.count(1))
        return f"{prefix}-{next(counter):04d}"


class SkewedClock:
    """The control plane's own clock: the world's, some way off, and never going back."""

    def __init__(self, world: Clock) -> None:
        self.ahead = timedelta(0)
        self._world = world
        self._latest = world.now()

    def now(self) -> datetime:
        self._latest = max(self._latest, self._world.now() + self.ahead)
        return self._latest

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the parts of a world behave."""

    timing: Timing = field(default_factory=Timing)
    agents: AgentSettings = field(default_factory=lambda: AgentSettings(wait_s=0.0, poll_s=5.0))
    pace: Pace = field(default_factory=lambda: Pace(unsettled_s=5.0, settle_s=1.0))
    message_loss_rate: float = 0.0
    """Of requests of agents, and again of the answers to them."""
    restart_s: float = 30.0
    """From a controller's crash to its successor."""


class Controller:
    """One process that runs the reconciler."""

    def __init__(self, world: World, number: int) -> None:
        self.owner = f"controller-{number}"
        self.due = world.clock.now()
        self.crash_at = ""
        """The next checkpoint of this name is its last."""
        self.stall_at = ""
        """At the next checkpoint of this name it stands still for `stall_s`, then goes on as if
        nothing had happened."""
        self.stall_s = 0.0
        self.last_ticks: list[Tick] = []
        self._world = world
        self._acting = False
        executor = Executor(
            world.service,
            world.providers,
            world.tokens,
            LaunchSettings(server_url="https://control.test", agent_sha256="0" * 64),
            world.habits.timing,
            world.pool,
            self._checkpoint,
        )
        self._reconciler = Reconciler(
            world.service,
            world.eyes,
            executor,
            owner=self.owner,
            installation=INSTALLATION,
            reachable_since=world.control_clock.now(),
            checkpoint=self._checkpoint,
        )

    @property
    def acting(self) -> bool:
        return self._acting

    def act(self) -> list[Tick]:
        """Look at everything once, and say when to look again."""
        self._acting, self.due = True, datetime.max.replace(tzinfo=UTC)
        try:
            self.last_ticks = self._reconciler.tick()
        except Crash:
            self._world.replace_controller(self)
            return []
        finally:
            self._acting = False
        pace = self._world.habits.pace
        unsettled = any(tick.unsettled for tick in self.last_ticks)
        pause_s = pace.unsettled_s if unsettled else pace.at_least_s
        # Whoever woke it while it looked has said so already.
        self.due = min(self.due, self._world.clock.now() + timedelta(seconds=pause_s))
        return self.last_ticks

    def wake(self) -> None:
        """Look soon."""
        self.due = min(
            self.due, self._world.clock.now() + timedelta(seconds=self._world.habits.pace.settle_s)
        )

    def _checkpoint(self, name: str) -> None:
        if name == self.crash_at:
            self.crash_at = ""
            self._world.note(f"{self.owner} crashes at {name}")
            raise Crash
        if name == self.stall_at:
            self.stall_at = ""
            self._world.note(f"{self.owner} stands still at {name} for {self.stall_s:.0f} s")
            self._world.run(self.stall_s)
            self._world.note(f"{self.owner} goes on")


class World:
    """One deployment and everything around it."""

    def __init__(
        self,
        seed: int = 0,
        *,
        clouds: Mapping[str, CloudSpec] | None = None,
        store: Store | None = None,
        habits: Habits | None = None,
        start: datetime = EPOCH,
        ids: Ids | None = None,
    ) -> None:
        """Each cloud stands under its own name, `simulated` alone when none is given."""
        self.habits = habits or Habits()
        self.clock = SimulatedClock(start)
        self.control_clock = SkewedClock(self.clock)
        self.clouds = {
            name: SimulatedCloud(seed * 101 + number, self.clock, spec)
            for number, (name, spec) in enumerate((clouds or {"simulated": CloudSpec()}).items())
        }
        self.providers = {n: SimulatedProvider(cloud, n) for n, cloud in self.clouds.items()}
        self.store: Store = store or MemoryStore()
        self.blobs = MemoryBlobs()
        self.pool = InlinePool()
        self.tokens = MachineTokens(b"a secret of thirty-two bytes ...")
        self.prices = LivePrices(self.providers, lambda names: (), self.control_clock.now)
        self.ids = ids or CountingIds()
        self.service = Service(self.store, self.prices, self.control_clock, self.ids, self._changed)
        self.fleet = Fleet(self.service)
        self.agents = Agents(
            self.service, self.blobs, self.tokens, self.habits.timing, self.habits.agents
        )
        self.eyes = Eyes(
            store=self.store,
            providers=self.providers,
            prices=self.prices,
            spending=Spending(self.store),
            ids=self.ids,
            timing=self.habits.timing,
            pool=self.pool,
        )
        self.line = Line(random.Random(f"{seed}/line"), self.habits.message_loss_rate)
        self.guests: dict[str, Guest] = {}
        """By the cloud's name and its id for the VM."""
        self.after_step: Callable[[], None] = lambda: None
        """Called after everything that happens: where invariants are checked."""
        self.ticked: Callable[[Controller, Tick], None] = lambda controller, tick: None
        """Called after every look of a controller at an autoscaler."""
        self._numbers = itertools.count(1)
        self.controllers = [Controller(self, next(self._numbers))]

    # ------------------------------------------------------------------------ what people do

    def apply(self, document: str, *, actor: str = "") -> AutoscalerRecord:
        """Apply a document. Raises `ConfigError`."""
        return self.fleet.apply(document, load_text(document), expected_version=None, actor=actor)

    def submit(
        self, queue: str, command: str = "work 60", need: Need | None = None, **more: Any
    ) -> Job:
        """Hand in a job; `more` are fields of `JobSpec` or of `Submission`."""
        of_spec = {k: more.pop(k) for k in list(more) if k in JobSpec.__dataclass_fields__}
        spec = JobSpec(command=command, need=need or Need(), **of_spec)
        job, _ = self.service.submit(Submission(spec=spec, queue=queue, **more))
        return job

    def jobs(self) -> list[Job]:
        """All jobs, in the order they were handed in."""
        found: list[Job] = []
        cursor = ""
        while True:
            page = self.store.job_list(cursor=cursor, limit=1000)
            found += page.items
            cursor = page.cursor
            if not cursor:
                return found[::-1]

    def machines(self, *, open_only: bool = True) -> Sequence[Machine]:
        """Machine records, oldest first."""
        return self.store.machine_list(open_only=open_only)

    # ------------------------------------------------------------------------ time

    def run(self, seconds: float) -> None:
        """Let this much time go by; everybody does what is due."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while (actor := self._next_actor(end)) is not None:
            due, act = actor
            self.clock.advance_to(max(due, self.clock.now()))
            act()
            self.after_step()
        self.clock.advance_to(end)

    def run_until(
        self, condition: Callable[[], bool], *, at_most_s: float = 86_400, step_s: float = 30
    ) -> bool:
        """Let time go by until a condition holds; False when it does not within `at_most_s`."""
        end = self.clock.now() + timedelta(seconds=at_most_s)
        while not condition():
            if self.clock.now() >= end:
                return False
            self.run(step_s)
        return True

    def tick(self) -> list[Tick]:
        """One look of the first controller, right now."""
        return self._control(self.controllers[0])

    def preview(self, autoscaler: str) -> Plan:
        """What would be decided now, without doing it."""
        now = self.control_clock.now()
        shared = self.store.shared_read()
        view = View(
            record=self.store.autoscaler_get(autoscaler),
            fleet=f"{INSTALLATION}-{autoscaler}",
            queues=shared.queues,
            rests=Rests(self.store, shared.cooldowns),
            reachable_since=now,
        )
        return decide(self.eyes.gather(view, now, look=False))

    def _control(self, controller: Controller) -> list[Tick]:
        ticks = controller.act()
        for tick in ticks:
            self.ticked(controller, tick)
        return ticks

    def _next_actor(self, end: datetime) -> tuple[datetime, Callable[[], object]] | None:
        """Who is next, if anybody is before `end`: the controllers first, then by machine."""
        self._meet_new_guests()
        best: tuple[datetime, Callable[[], object]] | None = None
        for controller in self.controllers:
            if not controller.acting and (best is None or controller.due < best[0]):
                best = (controller.due, partial(self._control, controller))
        for guest in self.guests.values():
            if guest.due is not None and (best is None or guest.due < best[0]):
                best = (guest.due, guest.act)
        return best if best is not None and best[0] <= end else None

    def _meet_new_guests(self) -> None:
        for name, cloud in self.clouds.items():
            for vm in cloud.alive():
                key = f"{name}/{vm.provider_id}"
                if key not in self.guests:
                    self.guests[key] = Guest(
                        vm, cloud, self.agents, self.line, vm.boot.one_time_token
                    )

    def _changed(self) -> None:
        for controller in self.controllers:
            controller.wake()

    # ------------------------------------------------------------------------ trouble

    def guest(self, machine_id: str) -> Guest:
        """The agent on a machine's newest VM. Raises `KeyError`."""
        self._meet_new_guests()
        mine = [guest for guest in self.guests.values() if guest.machine_id == machine_id]
        if not mine:
            raise KeyError(machine_id)
        return mine[-1]

    def crash_controller(self, checkpoint: str, *, which: int = 0) -> None:
        """The controller dies when it next comes to this checkpoint; another one follows."""
        self.controllers[which].crash_at = checkpoint

    def stall_controller(self, checkpoint: str, seconds: float, *, which: int = 0) -> None:
        """The controller stands still at this checkpoint while the world goes on without it."""
        self.controllers[which].stall_at = checkpoint
        self.controllers[which].stall_s = seconds

    def add_controller(self) -> Controller:
        """A second controller of the same installation, at once."""
        self.controllers.append(Controller(self, next(self._numbers)))
        return self.controllers[-1]

    def replace_controller(self, dead: Controller) -> None:
        """A process that died is started again, as another owner."""
        self.controllers.remove(dead)
        successor = self.add_controller()
        successor.due = self.clock.now() + timedelta(seconds=self.habits.restart_s)

    def freeze(self, machine_id: str, seconds: float) -> None:
        """Nothing moves on a machine for a while: no beat, no job, no timer."""
        until = self.clock.now() + timedelta(seconds=seconds)
        self.guest(machine_id).frozen_until = until

    @contextmanager
    def cut_off(self, *machine_ids: str) -> Iterator[None]:
        """While this lasts these machines cannot reach the control plane; none = no machine can."""
        cut = set(machine_ids) or {"*"}
        self.line.cut |= cut
        try:
            yield
        finally:
            self.line.cut -= cut

    def set_ahead(self, seconds: float) -> None:
        """The control plane's clock is this far ahead of the world's, or behind it."""
        self.control_clock.ahead = timedelta(seconds=seconds)

    # ------------------------------------------------------------------------ the truth

    def alive(self) -> list[Vm]:
        """Every VM that costs money now, in every cloud."""
        return [vm for cloud in self.clouds.values() for vm in cloud.alive()]

    def note(self, text: str) -> None:
        """Write a line of the outside world into the event log, so that a story has its causes."""
        self.service.note("world", "", text)

    def events(self) -> list[Event]:
        """All that happened, first to last: the log, and the lives of the jobs."""
        stored: dict[str, list[Event]] = defaultdict(list)
        cursor = ""
        while True:
            page = self.store.event_list(cursor=cursor, limit=1000)
            for event in page.items:
                stored[event.subject if event.kind == "job" else ""].append(event)
            cursor = page.cursor
            if not cursor:
                break
        lives = [
            event
            for job in self.jobs()
            for event in job_timeline(job, self.store.job_attempts(job.id), stored[job.id])
        ]
        return sorted([*stored[""], *lives], key=lambda each: (each.at, each.seq, each.text))

    def story(self) -> Iterator[str]:
        """Everything that happened, first to last, one line each."""
        for event in self.events():
            subject = f"{event.subject} " if event.subject else ""
            yield f"{event.at:%d %H:%M:%S} {subject}{event.text}"
