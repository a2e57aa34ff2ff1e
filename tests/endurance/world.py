"""A deployment on three clouds at once: a control plane on SQLite, the real adapters over HTTP
against the three fakes, an agent on every machine, and one clock that moves when it is told to.

A `Plane` is what one process of the control plane holds. It can be dropped at any checkpoint, and
made anew over the same file.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from agent_bootstrap import wire
from control_plane.agents import Agents, AgentSettings
from control_plane.blobs.memory import MemoryBlobs
from control_plane.config.load import load_text
from control_plane.core.model import Event, Job, JobSpec, Need, Observation
from control_plane.core.snapshot import Timing
from control_plane.execute import Executor, LaunchSettings
from control_plane.fleet import Fleet
from control_plane.loop import Pace
from control_plane.observe import Eyes
from control_plane.ports import Store
from control_plane.reconcile import Reconciler, Tick
from control_plane.service import Service, Submission
from control_plane.spending import Spending
from control_plane.stores.sqlite import SqliteStore
from control_plane.sweep import Sweeper
from control_plane.system import LivePrices
from control_plane.throttle import Rests, resting
from control_plane.tokens import MachineTokens
from providers.catalog.loader import load_offers
from tests.clouds.world import VouchedWeb
from tests.endurance.clouds import CLOUDS, SERVER_URL, Cloud, Vm, WorldClock, startup, vouched
from tests.fakes.metadata import identity
from tests.simulation.guests import Guest, Line
from tests.simulation.world import CountingIds, Crash, InlinePool

NAME = "research"
INSTALLATION = "world"
TIMING = Timing()
PACE = Pace(unsettled_s=5.0, settle_s=1.0)
AGENTS = AgentSettings(wait_s=0.0, poll_s=10.0)
MACHINES_MAX = {"aws": 3, "gcp": 3, "azure": 3, "any": 6}
"""Of each pool."""
BUDGET_USD = 4
_RESTART_S = 20.0
"""From a crash to the successor."""


def document() -> str:
    """A pool with one GPU a machine at each cloud, and one without that buys at all three."""
    pools: dict[str, object] = {
        cloud.name: {
            "gpu": "T4:1",
            "clouds": {cloud.name: cloud.places[0]},
            **_habits(cloud.name),
        }
        for cloud in CLOUDS
    }
    everywhere = {cloud.name: cloud.places[1] for cloud in CLOUDS}
    pools["any"] = {"cpu": "4..8", "clouds": everywhere, **_habits("any")}
    return json.dumps(
        {
            "apiVersion": "orchctl/v1",
            "kind": "Autoscaler",
            "name": NAME,
            "queues": {name: {"pools": [name]} for name in pools},
            "pools": pools,
            "budget": {"hour": f"{BUDGET_USD} USD"},
        }
    )


def _habits(pool: str) -> Mapping[str, object]:
    return {
        "market": "spot-first",
        "machines": {"max": MACHINES_MAX[pool]},
        "idle_timeout": "1m",
        "boot_timeout": "3m",
        "max_lifetime": "20m",
    }


class CloudGuest(Guest):
    """An agent that proves by its cloud which machine it is on."""

    def __init__(self, vm: Vm, world: World) -> None:
        super().__init__(vm, vm.cloud, world.plane.agents, world.line, "")
        self._vm = vm
        self._vouching = world.vouching

    def _proof(self) -> Mapping[str, str]:
        hello = wire.Hello(machine_id=self.machine_id)
        nonce = self._line.ask(self.machine_id, lambda: self.agents.nonce(hello)).nonce
        made = self._vm.cloud.proof(self._vm, nonce, self._vouching)
        return {"kind": self._vm.cloud.name, "nonce": nonce, **made}


class Plane:
    """What one process of the control plane holds."""

    def __init__(self, world: World, number: int) -> None:
        self.owner = f"controller-{number}"
        self.due = world.clock.now()
        self.crash_at = ""
        """The next checkpoint of this name is its last."""
        self.stall_at = ""
        """At the next checkpoint of this name it stands still for `stall_s`."""
        self.stall_s = 0.0
        self.acting = False
        self._world = world
        self.store: Store = SqliteStore(world.folder / "orchctl.db")
        now = world.clock.now
        providers = {cloud.name: cloud.provider(startup, self._seen) for cloud in world.clouds}
        prices = LivePrices(providers, load_offers, now)
        self.service = Service(self.store, prices, world.clock, world.ids, world.wake)
        self.fleet = Fleet(self.service)
        tokens = MachineTokens(b"a secret of thirty-two bytes ...")
        web = VouchedWeb(world.vouching)
        verifiers = {cloud.name: cloud.verifier(web, world.folder) for cloud in world.clouds}
        self.agents = Agents(self.service, world.blobs, tokens, TIMING, AGENTS, verifiers)
        pool = InlinePool()
        eyes = Eyes(
            store=self.store,
            providers=providers,
            prices=prices,
            spending=Spending(self.store),
            ids=world.ids,
            timing=TIMING,
            pool=pool,
        )
        settings = LaunchSettings(
            server_url="http://127.0.0.1:1", public_url=SERVER_URL, agent_sha256="0" * 64
        )
        executor = Executor(
            self.service, providers, tokens, settings, TIMING, pool, self._checkpoint
        )
        self._reconciler = Reconciler(
            self.service,
            eyes,
            executor,
            owner=self.owner,
            installation=INSTALLATION,
            reachable_since=now(),
            checkpoint=self._checkpoint,
        )
        self._sweeper = Sweeper(self.service, providers, self._reconciler.fleet)

    def act(self) -> None:
        """Look at everything once, tidy up, and say when to look again."""
        world = self._world
        self.acting, self.due = True, datetime.max.replace(tzinfo=world.clock.now().tzinfo)
        try:
            ticks = self._reconciler.tick()
            self._sweeper.sweep()
        except Crash:
            world.bury(self)
            return
        finally:
            self.acting = False
        for tick in ticks:
            world.ticked(self, tick)
        unsettled = any(tick.unsettled for tick in ticks)
        pause_s = PACE.unsettled_s if unsettled else PACE.at_least_s
        # Whoever woke it while it looked has said so already.
        self.due = min(self.due, world.clock.now() + timedelta(seconds=pause_s))

    def wake(self) -> None:
        """Look soon."""
        soon = self._world.clock.now() + timedelta(seconds=PACE.settle_s)
        self.due = min(self.due, soon)

    def _seen(self, observation: Observation) -> None:
        """A listing that may be acted on: one whose place can also be called."""
        cooldowns = self.store.cooldown_list()
        rests = Rests(self.store, cooldowns)
        self._world.listed(
            observation, lambda region: resting(rests, observation.provider, region, observation.at)
        )

    def _checkpoint(self, name: str) -> None:
        world = self._world
        if name == self.crash_at:
            self.crash_at = ""
            world.note(f"{self.owner} crashes at {name}")
            raise Crash
        if name == self.stall_at:
            self.stall_at = ""
            world.note(f"{self.owner} stands still at {name} for {self.stall_s:.0f} s")
            world.run(self.stall_s)
            world.note(f"{self.owner} goes on")


class World:
    """All of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.folder = folder
        self.clock = WorldClock()
        self.vouching: identity.Clouds = vouched(self.clock, folder)
        self.clouds: list[Cloud] = [each(self.clock, seed) for each in CLOUDS]
        self.store: Store = SqliteStore(folder / "orchctl.db")
        """The file that all planes have open, for whoever looks from outside."""
        self.blobs = MemoryBlobs()
        self.ids = CountingIds()
        self.line = Line(random.Random(f"{seed}/line"), 0.01)
        self.guests: dict[str, CloudGuest] = {}
        self.planes: list[Plane] = []
        self.dead: list[Plane] = []
        self.looks: dict[str, list[tuple[datetime, Observation, Callable[[str], bool]]]] = {
            cloud.name: [] for cloud in self.clouds
        }
        """By cloud: when it was listed, what was seen, and whether a region's API rested then."""
        self.after_step: Callable[[], None] = lambda: None
        """Called after everything that happens."""
        self.ticked: Callable[[Plane, Tick], None] = lambda plane, tick: None
        self.deeds: list[tuple[datetime, Callable[[], None]]] = []
        """What is to happen, and when."""
        self._numbers = itertools.count(1)
        self.add_plane()
        text = document()
        policy = load_text(text, name=NAME)
        self.plane.fleet.apply(text, policy, expected_version=None)

    # ---------------------------------------------------------------------------- the planes

    @property
    def plane(self) -> Plane:
        """Any that lives; where people and agents turn to."""
        return self.planes[0]

    def add_plane(self) -> Plane:
        """One more process of the control plane, at once."""
        made = Plane(self, next(self._numbers))
        self.planes.append(made)
        self.line.cut.discard("*")
        self._reconnect()
        return made

    def bury(self, dead: Plane) -> None:
        """A process has died. Where it was the only one, another is started after a while."""
        self.planes.remove(dead)
        self.dead.append(dead)
        dead.store.close()
        if self.planes:
            self._reconnect()
            return
        self.line.cut.add("*")
        self.later(_RESTART_S, self._restart)

    def _restart(self) -> None:
        if not self.planes:
            self.add_plane()

    def _reconnect(self) -> None:
        for guest in self.guests.values():
            guest.agents = self.plane.agents

    def wake(self) -> None:
        for plane in self.planes:
            plane.wake()

    def listed(self, seen: Observation, rests: Callable[[str], bool]) -> None:
        self.looks[seen.provider].append((self.clock.now(), seen, rests))

    # ---------------------------------------------------------------------------------- time

    def later(self, seconds: float, deed: Callable[[], None]) -> None:
        """Let something happen when its time has come."""
        self.deeds.append((self.clock.now() + timedelta(seconds=seconds), deed))

    def run(self, seconds: float) -> None:
        """Let this much time go by; everybody does what is due."""
        end = self.clock.now() + timedelta(seconds=seconds)
        while (actor := self._next_actor(end)) is not None:
            due, act = actor
            self.clock.advance_to(due)
            self._settle()
            act()
            self._settle()
            self.after_step()
        self.clock.advance_to(end)
        self._settle()
        self.after_step()

    def run_until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Let time go by until a condition holds; False when it does not in time."""
        end = self.clock.now() + timedelta(seconds=within_s)
        while not condition():
            if self.clock.now() >= end:
                return False
            self.run(30)
        return True

    def _next_actor(self, end: datetime) -> tuple[datetime, Callable[[], None]] | None:
        best: tuple[datetime, Callable[[], None]] | None = None
        for due, act in self._actors():
            if best is None or due < best[0]:
                best = due, act
        return best if best is not None and best[0] <= end else None

    def _actors(self) -> Iterator[tuple[datetime, Callable[[], None]]]:
        if self.deeds:
            first = min(self.deeds, key=lambda each: each[0])
            yield first[0], lambda: self._do(first)
        for plane in self.planes:
            if not plane.acting:
                yield plane.due, plane.act
        for guest in self.guests.values():
            if guest.due is not None:
                yield guest.due, guest.act

    def _do(self, deed: tuple[datetime, Callable[[], None]]) -> None:
        self.deeds.remove(deed)
        deed[1]()

    def _settle(self) -> None:
        """Note what the clouds have done."""
        for cloud in self.clouds:
            for vm in cloud.look():
                guest = self.guests.get(vm.provider_id)
                if (guest is None or guest.vm is not vm) and self.planes:
                    self.guests[vm.provider_id] = CloudGuest(vm, self)
                self._wake_guest(vm)

    def _wake_guest(self, vm: Vm) -> None:
        """A notice is seen within seconds, and a machine that is switched on later begins then."""
        guest = self.guests.get(vm.provider_id)
        now = self.clock.now()
        if guest is None or guest.left or vm.booted_at is None:
            return
        if guest.due is None or vm.provider_id in vm.cloud.taken:
            soon = max(vm.booted_at, now + timedelta(seconds=5))
            guest.due = min(guest.due or soon, soon)

    # ---------------------------------------------------------------------------- the people

    def submit(self, queue: str, command: str, need: Need, attempts: int) -> Job | None:
        """Hand in a job; None while no control plane is there."""
        if not self.planes:
            return None
        spec = JobSpec(command=command, need=need, max_attempts=attempts)
        job, _ = self.plane.service.submit(Submission(spec=spec, queue=queue))
        return job

    def jobs(self) -> list[Job]:
        """All jobs."""
        found: list[Job] = []
        cursor = ""
        while True:
            page = self.store.job_list(cursor=cursor, limit=1000)
            found += page.items
            cursor = page.cursor
            if not cursor:
                return found

    # ----------------------------------------------------------------------------- the truth

    def alive(self) -> list[Vm]:
        """Every machine that exists at any cloud and has not been refused."""
        return [vm for vm in self.ever() if vm.gone_at is None]

    def ever(self) -> list[Vm]:
        """Every machine there ever was."""
        return [
            vm
            for cloud in self.clouds
            for vm in (*cloud.past, *cloud.vms.values())
            if not vm.refused
        ]

    def note(self, text: str) -> None:
        """Write a line of the outside world into the event log."""
        if self.planes:
            self.plane.service.note("world", "", text)

    def story(self) -> list[str]:
        """Everything that happened, first to last, one line each."""
        events: list[Event] = []
        cursor = ""
        while True:
            page = self.store.event_list(cursor=cursor, limit=1000)
            events += page.items
            cursor = page.cursor
            if not cursor:
                break
        return [f"{each.at:%H:%M:%S} {each.subject} {each.text}" for each in reversed(events)]

    def close(self) -> None:
        for plane in self.planes:
            plane.store.close()
        self.store.close()
        for cloud in self.clouds:
            cloud.close()
        self.vouching.close()
