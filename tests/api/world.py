"""A whole control plane in one process for the tests of the API: real services on a real store."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx2
from starlette.testclient import TestClient

from agent_bootstrap import wire
from control_plane.access.entrance import Access
from control_plane.access.oidc import Issuers
from control_plane.agents import Agents, AgentSettings
from control_plane.api.app import ApiDeps, ApiSettings, App, create_app
from control_plane.api.changes import Changes
from control_plane.api.together import Together
from control_plane.blobs.memory import MemoryBlobs
from control_plane.config.load import load_text
from control_plane.core.model import (
    Capacity,
    JobSpec,
    Machine,
    MachineState,
    Market,
    Offer,
    PriceInterval,
)
from control_plane.core.policy import Autoscaler, CloudPolicy
from control_plane.core.snapshot import Timing
from control_plane.direct import THROUGH_THE_API, Direct
from control_plane.fleet import Fleet
from control_plane.identity.web import Web
from control_plane.interruptions import Interruptions
from control_plane.ports import Store
from control_plane.service import Service, Submission
from control_plane.stores.sqlite import SqliteStore
from control_plane.tokens import MachineTokens

TOKEN = "a-token-of-the-admin"
NOTICES_TOKEN = "a-token-of-the-clouds"
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
SECRET = b"s" * 32

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {pools: [small], priority: 3}
pools:
  small:
    cpu: 2..
    clouds: {simulated: {}}
    machines: {max: 2}
"""


def offer(price: str = "0.50", *, market: Market = Market.ON_DEMAND, cpus: int = 4) -> Offer:
    """A small machine without GPU."""
    return Offer(
        provider="simulated",
        region="north",
        zone="north-a",
        instance_type=f"c{cpus}",
        capacity=Capacity(cpus=cpus, memory_mib=16_384, disk_gib=100, market=market),
        price_usd_hour=Decimal(price),
        on_demand_usd_hour=Decimal("0.50"),
    )


@dataclass
class ManualClock:
    """A clock that moves when told."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class CountingIds:
    """`j-1`, `j-2` and so on."""

    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self.numbers):04}"


@dataclass
class Shelf:
    """A price book with fixed offers."""

    sold: tuple[Offer, ...] = (offer(), offer("0.20", market=Market.SPOT))

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        return [each for each in self.sold if each.provider in {cloud.provider for cloud in clouds}]

    def refresh(self, clouds: Sequence[CloudPolicy]) -> None:
        """They never change."""


class World:
    """The control plane, and shortcuts to put something into it."""

    def __init__(
        self,
        store: Store,
        *,
        wait_s: float = 0.0,
        changes: Changes | None = None,
        transport: httpx2.BaseTransport | None = None,
        direct: Direct = THROUGH_THE_API,
    ) -> None:
        """`transport` stands for the network of issuers."""
        self.direct = direct
        self.store = store
        self.blobs = MemoryBlobs()
        self.clock = ManualClock()
        self.prices = Shelf()
        self.changes = changes
        self.together = Together(store if isinstance(store, SqliteStore) else None)
        self.wakes = 0
        self.tokens = MachineTokens(SECRET)
        self.service = Service(store, self.prices, self.clock, CountingIds(), self._changed)
        self.agents = Agents(
            self.service,
            self.blobs,
            self.tokens,
            Timing(),
            AgentSettings(wait_s=wait_s),
            direct=direct,
        )
        self.fleet = Fleet(self.service)
        self.access = Access(
            store,
            self.clock,
            self.service.ids,
            Issuers(Web(transport), self.clock.now),
            secret=SECRET,
        )
        self.interruptions = Interruptions(self.service, {})

    def _changed(self) -> None:
        self.wakes += 1
        if self.changes is not None:
            self.together.afterwards(self.changes.notify)

    def deps(
        self, *, allowed_hosts: tuple[str, ...] = (), log_piece_bytes: int = 8 * 2**20
    ) -> ApiDeps:
        return ApiDeps(
            store=self.store,
            blobs=self.blobs,
            clock=self.clock,
            service=self.service,
            agents=self.agents,
            fleet=self.fleet,
            access=self.access,
            interruptions=self.interruptions,
            prices=self.prices,
            settings=ApiSettings(
                server_id="test",
                admin_token_hash=hashlib.sha256(TOKEN.encode()).hexdigest(),
                notices_token_hash=hashlib.sha256(NOTICES_TOKEN.encode()).hexdigest(),
                cursor_secret=SECRET,
                version="0.1.0",
                allowed_hosts=allowed_hosts,
                log_piece_bytes=log_piece_bytes,
            ),
            bundle=lambda: b"one file",
            preview=_preview,
            together=self.together,
            changes=self.changes,
            direct=self.direct,
        )

    def app(self) -> App:
        return create_app(self.deps())

    def client(self, app: App | None = None) -> TestClient:
        """A client with the admin's token."""
        return TestClient(app or self.app(), headers={"Authorization": f"Bearer {TOKEN}"})

    # ------------------------------------------------------------------- shortcuts

    def machine(
        self,
        machine_id: str = "m-1",
        state: MachineState = MachineState.BOOTING,
        *,
        launched_at: datetime = NOW,
    ) -> Machine:
        """A machine of pool `small` that was launched and costs money."""
        machine = Machine(
            id=machine_id,
            autoscaler="research",
            pool="small",
            state=MachineState.PLANNED,
            offers=(offer(),),
            planned_at=NOW,
        )
        machine = self.store.machine_put(machine, expected_version=0, fence=None)
        for step in (MachineState.LAUNCHING, MachineState.BOOTING, MachineState.READY):
            if machine.state is state:
                break
            machine = self.store.machine_put(
                replace(machine, state=step, launched_at=launched_at),
                expected_version=machine.version,
                fence=None,
            )
        self.store.price_open(_interval(machine))
        return machine

    def submit(self) -> str:
        """A waiting job in queue `default`."""
        job, _ = self.service.submit(Submission(spec=JobSpec(command="true")))
        return job.id

    def registered(self, machine_id: str = "m-1") -> str:
        """A machine whose agent has registered; returns the agent's session token."""
        machine = self.machine(machine_id)
        return self.agents.register(
            wire.Register(
                machine_id=machine_id,
                instance="one",
                proof={"kind": "one-time", "token": self.one_time_token(machine)},
                found=wire.Found(cpus=4, memory_mib=16_384),
            )
        ).token

    def one_time_token(self, machine: Machine) -> str:
        """What the machine was given at its launch."""
        return self.tokens.one_time(machine)


def policy() -> Autoscaler:
    """What `DOCUMENT` declares."""
    return load_text(DOCUMENT, name="research.yaml")


def _preview(policy: Autoscaler) -> str:
    return f"would launch nothing for {policy.name}"


def _interval(machine: Machine) -> PriceInterval:
    bought = machine.offer
    return PriceInterval(
        machine_id=machine.id,
        autoscaler=machine.autoscaler,
        pool=machine.pool,
        provider=bought.provider,
        region=bought.region,
        zone=bought.zone,
        instance_type=bought.instance_type,
        market=bought.market,
        total=bought.capacity,
        price_usd_hour=bought.price_usd_hour,
        on_demand_usd_hour=bought.on_demand_usd_hour,
        started_at=machine.launched_at or NOW,
    )
