"""A fleet with a month of history, built through the store's own methods: what the dashboard's
tests look at. The same seed makes the same month.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from control_plane.access.entrance import Access
from control_plane.access.oidc import Issuers
from control_plane.agents import Agents, AgentSettings, artifact_key, log_key
from control_plane.api.app import ApiDeps, ApiSettings, App, create_app
from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.codec import to_json
from control_plane.core.model import (
    Artifact,
    Capacity,
    Cooldown,
    ErrorClass,
    Event,
    Job,
    JobSpec,
    JobState,
    Machine,
    MachineState,
    Market,
    Need,
    Offer,
    PriceInterval,
    QueueRecord,
    Reason,
)
from control_plane.core.plan import Launch, Plan, Refusal
from control_plane.core.policy import (
    Autoscaler,
    AutoscalerRecord,
    Budget,
    CloudPolicy,
    GpuRange,
    PoolPolicy,
    QueuePolicy,
    Range,
)
from control_plane.core.snapshot import Timing
from control_plane.dashboard import mount
from control_plane.fleet import Fleet
from control_plane.identity.web import Web
from control_plane.interruptions import Interruptions
from control_plane.ports import Ending, PlanRecord
from control_plane.service import Service
from control_plane.stores.memory import MemoryStore
from control_plane.tokens import MachineTokens

NOW = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)
TOKEN = "test-token"
QUEUES = ("train-large", "train-small", "finetune", "eval", "etl")
PEOPLE = ("mia", "raj", "lena", "tom", "ana")
NAMES = ("llama-ft", "vit-sweep", "resnet-ablate", "eval-mmlu", "clip-pretrain", "sd-lora")
DOCUMENT = """\
# yaml-language-server: $schema=./orchctl.schema.json
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  train-large: {priority: 10, pools: [a100, a10g]}
  train-small: {pools: [l4, a10g]}
pools:
  a100:
    gpu: A100:1..8
    clouds: {aws: {regions: [us-east-1]}, gcp: {regions: [us-central1]}}
    market: spot-first
    machines: {max: 8}
budget: {hour: 80 USD, day: 600 USD, month: 12000 USD}
"""


def _offer(
    provider: str, region: str, kind: str, gpu: str, count: int, spot: str, listed: str
) -> Offer:
    return Offer(
        provider=provider,
        region=region,
        zone=f"{region}-b",
        instance_type=kind,
        capacity=Capacity(
            gpus=count,
            gpu_name=gpu,
            gpu_memory_gib=24,
            cpus=12 * count,
            memory_mib=65_536 * count,
            market=Market.SPOT,
        ),
        price_usd_hour=Decimal(spot),
        on_demand_usd_hour=Decimal(listed),
    )


OFFERS = (
    _offer("aws", "us-east-1", "g5.12xlarge", "A10G", 4, "1.98", "5.67"),
    _offer("aws", "us-east-1", "p4d.24xlarge", "A100", 8, "11.90", "32.77"),
    _offer("gcp", "us-central1", "a2-highgpu-1g", "A100", 1, "1.10", "3.67"),
    _offer("gcp", "us-central1", "g2-standard-24", "L4", 2, "0.74", "2.00"),
    _offer("azure", "eastus", "NC24ads_A100_v4", "A100", 1, "1.47", "3.67"),
    _offer("aws", "us-east-1", "g6.xlarge", "L4", 1, "0.31", "0.80"),
)
_POOLS = {"A10G": "a10g", "A100": "a100", "L4": "l4"}


class StillClock:
    """A clock that stands until a test moves it."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class CountedIds:
    """Names in order."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._count):05d}"


class FixedPrices:
    """The offers of this world."""

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        return [each for each in OFFERS if each.provider in {cloud.provider for cloud in clouds}]

    def refresh(self, clouds: Sequence[CloudPolicy]) -> None:
        """They never change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An app over a store, and what a test needs to change things behind its back."""

    app: App
    store: MemoryStore
    blobs: MemoryBlobs
    clock: StillClock
    service: Service


def empty_world() -> World:
    """A control plane nobody has used yet."""
    clock, store, blobs = StillClock(), MemoryStore(), MemoryBlobs()
    service = Service(store, FixedPrices(), clock, CountedIds(), changed=lambda: None)
    tokens = MachineTokens(b"s" * 32)
    deps = ApiDeps(
        store=store,
        blobs=blobs,
        clock=clock,
        service=service,
        agents=Agents(service, blobs, tokens, Timing(), AgentSettings()),
        fleet=Fleet(service),
        access=Access(store, clock, service.ids, Issuers(Web(), clock.now), secret=b"s" * 32),
        interruptions=Interruptions(service, {}),
        prices=FixedPrices(),
        settings=ApiSettings(
            server_id="test",
            admin_token_hash=hashlib.sha256(TOKEN.encode()).hexdigest(),
            cursor_secret=b"c" * 32,
            version="0.1.0",
        ),
        bundle=lambda: b"",
        preview=lambda _policy: "",
        mount_dashboard=mount,
    )
    app = create_app(deps)
    return World(app=app, store=store, blobs=blobs, clock=clock, service=service)


def full_world(*, days: int = 30) -> World:
    """A fleet of 14 machines with `days` of history behind it."""
    world = empty_world()
    _Builder(world, random.Random(7)).build(days)
    return world


class _Builder:
    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._store = world.store
        self._dice = dice
        self._ids = world.service.ids

    def build(self, days: int) -> None:
        self._declare(NOW - timedelta(days=days))
        for day in range(days, 0, -1):
            at = NOW - timedelta(days=day)
            weekend = at.weekday() >= 5
            for i in range(7 if weekend else 14):
                self._past_machine(OFFERS[(day + i) % len(OFFERS)], at)
        for i in range(14):
            self._live_machine(OFFERS[i % len(OFFERS)], busy=i % 4 != 1, spot=i % 7 != 5)
        self._booting_machine()
        self._waiting()
        self._plans()

    # ------------------------------------------------------------------------ declared

    def _declare(self, at: datetime) -> None:
        clouds = tuple(CloudPolicy(provider=each) for each in ("aws", "gcp", "azure"))
        pools = {
            name: PoolPolicy(
                name=name,
                gpu=GpuRange(name=gpu, count=Range(low=1, high=8)),
                clouds=clouds,
                machines=Range(low=0, high=8),
            )
            for gpu, name in _POOLS.items()
        }
        policy = Autoscaler(
            name="research",
            queues={name: QueuePolicy(name=name, pools=tuple(pools)) for name in QUEUES},
            pools=pools,
            budget=Budget(hour_usd=Decimal(80), day_usd=Decimal(600), month_usd=Decimal(12000)),
        )
        self._store.autoscaler_put(
            AutoscalerRecord(
                name="research",
                version=1,
                document=DOCUMENT,
                policy=policy,
                applied_at=at,
                applied_by="mia",
            ),
            expected_version=0,
        )
        for name in QUEUES:
            record = QueueRecord(name=name, autoscaler="research", created_at=at)
            self._store.queue_put(record, expected_version=0)

    def _plans(self) -> None:
        launch = Launch(
            machine_id="m-00999",
            pool="a100",
            offers=(OFFERS[2], OFFERS[4]),
            reason=Reason(
                code="demand",
                sentence="6 jobs wait in train-large for an A100, the oldest for 42 min",
            ),
        )
        refusal = Refusal(
            subject="train-large",
            wanted=2,
            reason=Reason(
                code="budget-hour",
                sentence="2 more machines of a100 would cost 90.12 USD/hour, budget 80 USD/hour",
            ),
        )
        for i in range(5):
            at = NOW - timedelta(minutes=10 * i, seconds=20)
            plan = Plan(
                autoscaler="research",
                at=at,
                generation=1,
                launches=(launch,) if i == 0 else (),
                refusals=(refusal,),
            )
            self._store.plan_put(
                PlanRecord(
                    id=f"p-{i}",
                    autoscaler="research",
                    at=at,
                    plan=json.dumps(to_json(plan)),
                    snapshot="{}",
                )
            )
        self._store.cooldown_put(
            Cooldown(
                key=OFFERS[1].key,
                error_class=ErrorClass.CAPACITY_ZONE,
                code="InsufficientInstanceCapacity",
                until=NOW + timedelta(minutes=7),
            )
        )

    # ------------------------------------------------------------------------ machines

    def _past_machine(self, offer: Offer, day: datetime) -> None:
        start = day + timedelta(minutes=self._dice.randrange(600))
        machine = self._launched(offer, start)
        at = self._ready(machine, start + timedelta(minutes=2))
        for _ in range(self._dice.randrange(1, 4)):
            at += timedelta(minutes=self._dice.randrange(1, 12))
            interrupted = self._dice.random() < 0.04
            at = self._run_job(machine.id, offer, at, interrupted=interrupted)
            if interrupted:
                break
        else:
            at += timedelta(minutes=5)
        self._gone(machine.id, at, interrupted=interrupted)

    def _live_machine(self, offer: Offer, *, busy: bool, spot: bool) -> None:
        if not spot:
            capacity = replace(offer.capacity, market=Market.ON_DEMAND)
            listed = offer.on_demand_usd_hour or offer.price_usd_hour
            offer = replace(offer, capacity=capacity, price_usd_hour=listed)
        start = NOW - timedelta(minutes=self._dice.randrange(40, 640))
        machine = self._launched(offer, start)
        at = self._ready(machine, start + timedelta(minutes=2)) + timedelta(minutes=1)
        middle = at + (NOW - at) / 2
        self._run_job(machine.id, offer, at, until=middle)
        if busy:
            self._start_job(machine.id, offer, middle + timedelta(minutes=3))

    def _booting_machine(self) -> None:
        self._launched(OFFERS[2], NOW - timedelta(minutes=1))

    def _launched(self, offer: Offer, at: datetime) -> Machine:
        machine = Machine(
            id=f"{offer.provider}-{self._dice.randrange(16**8):08x}",
            autoscaler="research",
            pool=_POOLS[offer.capacity.gpu_name],
            state=MachineState.PLANNED,
            offers=(offer,),
            planned_at=at - timedelta(seconds=20),
            launch_reason=Reason(code="demand", sentence="3 jobs waited for a machine"),
        )
        machine = self._put(machine)
        machine = self._put(replace(machine, state=MachineState.LAUNCHING))
        machine = self._put(
            replace(
                machine,
                state=MachineState.BOOTING,
                launched_at=at,
                provider_id=f"i-{self._dice.randrange(16**12):012x}",
            )
        )
        self._store.price_open(_interval(machine, at))
        self._note("machine", machine.id, f"launched {offer.instance_type} in {offer.zone}", at)
        return machine

    def _ready(self, machine: Machine, at: datetime) -> datetime:
        self._put(
            replace(
                machine,
                state=MachineState.READY,
                registered_at=at,
                last_beat_at=at,
                idle_since=at,
                instance="agent",
            )
        )
        return at

    def _gone(self, machine_id: str, at: datetime, *, interrupted: bool) -> None:
        machine = self._store.machine_get(machine_id)
        if interrupted:
            reason = Reason(code="interrupted", sentence="the cloud took it back")
            machine = self._put(replace(machine, state=MachineState.INTERRUPTED, reason=reason))
            self._note("machine", machine_id, "spot interruption, 110 s left", at)
        else:
            reason = Reason(code="idle", sentence="left: idle for 5 min")
        machine = self._put(
            replace(machine, state=MachineState.TERMINATING, terminating_at=at, reason=reason)
        )
        end = at + timedelta(minutes=1)
        self._put(replace(machine, state=MachineState.TERMINATED, ended_at=end))
        self._store.price_close(machine_id, at=end)
        self._note("machine", machine_id, "gone", end)

    def _put(self, machine: Machine) -> Machine:
        known = machine.version if machine.state is not MachineState.PLANNED else 0
        return self._store.machine_put(machine, expected_version=known, fence=None)

    # ------------------------------------------------------------------------ jobs

    def _run_job(
        self,
        machine_id: str,
        offer: Offer,
        at: datetime,
        *,
        until: datetime | None = None,
        interrupted: bool = False,
    ) -> datetime:
        job = self._start_job(machine_id, offer, at)
        end = until or at + timedelta(minutes=self._dice.randrange(60, 300))
        if interrupted:
            reason = Reason(code="interrupted", sentence=f"machine {machine_id} was interrupted")
            ending = Ending(outcome="interrupted", reason=reason)
            self._store.job_requeue(job.id, job.epoch, ending, need=job.spec.need, now=end)
            self._store.job_cancel(
                job.id, reason=Reason(code="cancelled", sentence="cancelled by mia"), now=end
            )
            return end
        failed = self._dice.random() < 0.08
        outcome = "failed" if failed else "succeeded"
        blob = artifact_key(job.id, job.epoch, "model.pt")
        self._world.blobs.put(blob, b"weights")
        self._store.job_finish(
            job.id,
            job.epoch,
            Ending(
                outcome=outcome,
                exit_code=int(failed),
                reason=Reason(code=outcome, sentence=f"exit code {int(failed)}"),
                artifacts=(Artifact(name="model.pt", size_bytes=7, sha256="a" * 64, blob=blob),),
            ),
            state=JobState(outcome),
            now=end,
        )
        self._note("job", job.id, outcome, end)
        return end

    def _start_job(self, machine_id: str, offer: Offer, at: datetime) -> Job:
        waited = timedelta(seconds=self._dice.randrange(20, 1800))
        gpus = max(1, offer.capacity.gpus // self._dice.choice((1, 1, 2)))
        queue = self._dice.choice(QUEUES)
        job = self._enqueue(queue, Need(gpus=gpus), at - waited)
        (claimed,) = self._store.job_claim(machine_id, [queue], offer.capacity, limit=1, now=at)
        assert claimed.id == job.id
        self._log(claimed)
        self._store.job_start(job.id, claimed.epoch, now=at + timedelta(seconds=8))
        return self._store.job_get(job.id)

    def _waiting(self) -> None:
        for i, name in enumerate(NAMES):
            at = NOW - timedelta(minutes=42 - 6 * i)
            self._enqueue("train-large", Need(gpus=8, gpu_name="A100"), at, name=name)
        for i in range(3):
            at = NOW - timedelta(minutes=9 - i)
            self._enqueue("eval", Need(gpus=1), at, name=f"eval-{i}")

    def _enqueue(self, queue: str, need: Need, at: datetime, *, name: str = "") -> Job:
        job_id = self._ids.new("j")
        job, _ = self._store.job_enqueue(
            Job(
                id=job_id,
                queue=queue,
                spec=JobSpec(command="python train.py --lr 3e-4", need=need, env={"SEED": "7"}),
                name=name or f"{queue}-{job_id[2:]}",
                owner=self._dice.choice(PEOPLE),
                submitted_at=at,
                queued_at=at,
            )
        )
        self._note("job", job.id, f"queued in {queue}", at, actor=job.owner)
        return job

    def _log(self, job: Job) -> None:
        lines = "".join(f"epoch {i} loss {1 / (i + 1):.4f}\n" for i in range(12))
        self._world.blobs.append(log_key(job.id, job.epoch), 0, lines.encode())

    def _note(self, kind: str, subject: str, text: str, at: datetime, actor: str = "") -> None:
        self._store.event_append(Event(at=at, kind=kind, subject=subject, text=text, actor=actor))


def _interval(machine: Machine, at: datetime) -> PriceInterval:
    offer = machine.offer
    return PriceInterval(
        machine_id=machine.id,
        autoscaler=machine.autoscaler,
        pool=machine.pool,
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        instance_type=offer.instance_type,
        market=offer.market,
        total=offer.capacity,
        price_usd_hour=offer.price_usd_hour,
        on_demand_usd_hour=offer.on_demand_usd_hour,
        started_at=at,
    )
