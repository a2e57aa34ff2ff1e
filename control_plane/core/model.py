"""The nouns of orchctl as frozen values: what is needed, what can be bought, what runs, what it
did.

Nothing here reads a clock, a file or the environment. Every datetime is aware UTC; money is Decimal
US dollars and says so in its name; memory is in MiB, disks and GPU memory in GiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

WHOLE_MACHINE_PPM = 1_000_000
"""A machine's capacity for jobs that state no resources, in parts per million of one machine."""


class Market(StrEnum):
    """How capacity is bought."""

    SPOT = "spot"
    """Cheaper; the cloud may take it back with little notice."""
    ON_DEMAND = "on-demand"
    """List price; kept until we end it."""


class MachineState(StrEnum):
    """Where a machine stands; `lifecycle.MACHINE_EDGES` holds the allowed moves."""

    PLANNED = "planned"
    """The intent is durable; no cloud call was made yet."""
    LAUNCHING = "launching"
    """A launch call was made or is about to be; its answer is not recorded yet."""
    BOOTING = "booting"
    """The cloud has accepted it; its agent has not registered yet."""
    READY = "ready"
    """Its agent is registered. It is *busy* while it holds a lease, which is derived, not
    stored."""
    DRAINING = "draining"
    """Takes no new job; is terminated when its leases end."""
    TERMINATING = "terminating"
    """Terminate is repeated until the cloud says that it is gone."""
    TERMINATED = "terminated"
    """Proven gone."""
    LAUNCH_FAILED = "launch_failed"
    """Never became a machine; `reason` says why, with the last code."""
    BOOT_FAILED = "boot_failed"
    """Started but its agent never registered in time; is to be terminated."""
    INTERRUPTED = "interrupted"
    """The cloud took it back."""
    LOST = "lost"
    """Silent for longer than the lease; its jobs were given back."""


class JobState(StrEnum):
    """Where a job stands; `lifecycle.JOB_EDGES` holds the allowed moves."""

    DRAFT = "draft"
    """Recorded, not yet handed in."""
    BLOCKED = "blocked"
    """Waits for other jobs to succeed (`depends_on`)."""
    QUEUED = "queued"
    """Waits for a machine."""
    LEASED = "leased"
    """Given to one agent, which has not started it yet."""
    RUNNING = "running"
    """Its command runs."""
    SUCCEEDED = "succeeded"
    """Ended with exit code 0."""
    FAILED = "failed"
    """Ended by itself with another exit code, or could not be started."""
    CANCELLED = "cancelled"
    """Ended because somebody asked for it."""
    EXHAUSTED = "exhausted"
    """Lost its machine as many times as it may."""


class ErrorClass(StrEnum):
    """What a provider's refusal means for the next step."""

    CAPACITY_ZONE = "capacity-zone"
    CAPACITY_REGION = "capacity-region"
    QUOTA = "quota"
    AUTH = "auth"
    INVALID = "invalid"
    THROTTLE = "throttle"
    TRANSIENT = "transient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something was done or refused; every face of the product prints the same sentence."""

    code: str
    """Stable word for programs, such as `cap-machines`."""
    sentence: str
    """For people: complete, with its figures."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """The figures of the sentence by name, as text."""


# ------------------------------------------------------------------ what is needed, what is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one job takes of a machine while it runs. Zero means: not stated."""

    gpus: int = 0
    gpu_name: str = ""
    """Catalogue name such as `L4`; empty = any NVIDIA GPU."""
    gpu_memory_gib: int = 0
    """At least this much memory on each GPU."""
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    share_ppm: int = 0
    """Share of a machine for a job that states no resources, in parts per million."""
    on_demand_only: bool = False
    """Never on spot capacity: asked for by the user, or after too many interruptions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a machine has, or has left."""

    gpus: int = 0
    gpu_name: str = ""
    gpu_memory_gib: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    share_ppm: int = WHOLE_MACHINE_PPM
    market: Market = Market.ON_DEMAND

    def fits(self, need: Need) -> bool:
        """Whether one job of this need can run in what is here."""
        return (
            need.gpus <= self.gpus
            and need.share_ppm <= self.share_ppm
            and need.cpus <= self.cpus
            and need.memory_mib <= self.memory_mib
            and need.disk_gib <= self.disk_gib
            and (need.gpus == 0 or need.gpu_name in ("", self.gpu_name))
            # A card reports a little less than its nominal memory (L4: 22.35 of 24 GiB), so a
            # tenth of tolerance keeps "24 GiB" meaning what the data sheet means.
            and need.gpu_memory_gib * 9 <= self.gpu_memory_gib * 10
            and not (need.on_demand_only and self.market is Market.SPOT)
        )

    def count(self, need: Need) -> int:
        """How many jobs of this need fit side by side; 0 if none does."""
        if not self.fits(need):
            return 0
        rooms = [
            have // want
            for have, want in (
                (self.gpus, need.gpus),
                (self.cpus, need.cpus),
                (self.memory_mib, need.memory_mib),
                (self.disk_gib, need.disk_gib),
                (self.share_ppm, need.share_ppm),
            )
            if want > 0
        ]
        return min(rooms, default=0)

    def less(self, need: Need, count: int = 1) -> Capacity:
        """What is left when `count` jobs of this need run here; never below zero."""
        return replace(
            self,
            gpus=max(0, self.gpus - need.gpus * count),
            cpus=max(0, self.cpus - need.cpus * count),
            memory_mib=max(0, self.memory_mib - need.memory_mib * count),
            disk_gib=max(0, self.disk_gib - need.disk_gib * count),
            share_ppm=max(0, self.share_ppm - need.share_ppm * count),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that can be bought: one instance type in one zone on one market at one price."""

    provider: str
    region: str
    zone: str
    """Empty when the price holds for the whole region and the provider picks the zone."""
    instance_type: str
    """The cloud's word for it. What the cloud adds to a type of many uses follows a `+`, as in
    `n1-standard-8+V100:1`, so that no two things of a zone and market share a key."""
    capacity: Capacity
    price_usd_hour: Decimal
    on_demand_usd_hour: Decimal | None = None
    """What the same machine costs on demand; None where it is not sold on demand."""

    @property
    def market(self) -> Market:
        return self.capacity.market

    @property
    def key(self) -> str:
        """The cool-down key: provider/region/zone/type/market, with `*` for any zone."""
        return "/".join(
            (self.provider, self.region, self.zone or "*", self.instance_type, self.market)
        )


# ---------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a job's files come from."""

    kind: str
    """`archive` (a tar.gz blob), `git` (clone, check out, unpack the archive over it) or `none`."""
    blob: str = ""
    """Blob key of the archive: the directory, or for git the changed and the untracked files."""
    sha256: str = ""
    remote: str = ""
    commit: str = ""
    summary: str = ""
    """For people: `acme/vision @ 4f2c1d9 + 38 changed lines, 2 new files`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What to run and how: fixed when the job is submitted."""

    command: str
    """One shell command line, run by `/bin/sh -c` in the job's directory."""
    need: Need = field(default_factory=Need)
    env: Mapping[str, str] = field(default_factory=dict)
    source: Source | None = None
    python: str = ""
    """Python version wanted for the job environment; empty = the machine's own."""
    requirements: tuple[str, ...] = ()
    """Requirement lines; empty = no job environment is built."""
    artifacts: tuple[str, ...] = ()
    """Glob patterns below the job's directory, collected when the command has ended."""
    timeout_s: int = 0
    """The command is cancelled after this long; 0 = no limit of its own."""
    grace_s: int = 10
    """Between SIGTERM and SIGKILL when the job is cancelled."""
    max_attempts: int = 1
    """How often the command may be tried when it fails by itself."""
    max_machine_losses: int = 5
    """How often it may lose its machine before it ends as `exhausted`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command to run, with its place in a queue and its history in figures."""

    id: str
    queue: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    version: int = 1
    """Grows with every write; the ETag of the API."""
    name: str = ""
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    """Higher first, inside its queue."""
    position: float = 0.0
    """Order inside one priority: lower first. A reorder takes a value between two neighbours."""
    epoch: int = 0
    """Grows with each claim; only the holder of the current one may write results."""
    attempt: int = 0
    """Attempts begun so far."""
    failures: int = 0
    """Attempts that ended by the command's own fault."""
    machine_losses: int = 0
    """Attempts that ended because the machine went away."""
    machine_id: str = ""
    submitted_at: datetime
    queued_at: datetime
    """Since when it waits, for ageing and for wait times; kept when it is given back."""
    not_before: datetime | None = None
    """It waits at least until then."""
    depends_on: tuple[str, ...] = ()
    """Ids of jobs that have to succeed first; while one has not, it is `blocked`."""
    leased_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    """Why it is in its state, where the state alone does not say."""
    cancel_requested: bool = False
    cloned_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job on one machine; what the ledger attributes machine time by."""

    job_id: str
    number: int
    epoch: int
    queue: str
    owner: str
    machine_id: str
    need: Need
    queued_at: datetime | None = None
    """Since when its job had waited, or might have started (`not_before`)."""
    leased_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str = ""
    """`succeeded`, `failed`, `cancelled`, `interrupted`, `lost` or `returned`; empty while it
    runs."""
    exit_code: int | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one machine to run one attempt of one job."""

    job_id: str
    epoch: int
    machine_id: str
    queue: str
    need: Need
    leased_at: datetime
    cancel_requested: bool = False
    """Somebody wants the job ended: its agent is told at its next beat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file a job left behind."""

    name: str
    size_bytes: int
    sha256: str
    blob: str


# ------------------------------------------------------------------------------ machines


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One VM, local process or own box, from the intent to launch it to proof that it is gone."""

    id: str
    autoscaler: str
    pool: str
    state: MachineState
    offers: tuple[Offer, ...]
    """The ranked choice the plan made; a refusal moves to the next one in the same tick."""
    attempt: int = 1
    """Launch attempt, from 1; attempt n buys `offers[n - 1]` with an idempotency key of its own."""
    version: int = 1
    provider_id: str = ""
    """The cloud's own id, once known."""
    operation: str = ""
    """A launch that the cloud has not finished answering: looked at next tick."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The cloud's settings of the current attempt, such as `project`, as the document had them when
    it began: where to look for the machine, whatever the document says by then."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """What the cloud said of it when it was launched or found, and its proof must show: `account`,
    `vm_id` and the like."""
    instance: str = ""
    """Chosen by the agent when it registers: the second caller of one identity is refused."""
    capacity: Capacity | None = None
    """What the agent found on the machine; before that the offer's figures count."""
    planned_at: datetime
    launched_at: datetime | None = None
    """When the cloud accepted it: it costs money from here."""
    registered_at: datetime | None = None
    last_beat_at: datetime | None = None
    idle_since: datetime | None = None
    """Since when it has run nothing; kept by the store at every finish, so jobs shorter than a
    tick count. None while it is busy or not registered."""
    hold_until: datetime | None = None
    """A warm window or a minimum keeps it until then, idle or not."""
    interruption_at: datetime | None = None
    """When the cloud will take it, from a notice."""
    terminating_at: datetime | None = None
    ended_at: datetime | None = None
    """When it was proven gone: it costs money until here."""
    protected: bool = False
    """An operator forbids ending it for idleness."""
    reason: Reason | None = None
    """Why it is ending, ended or failed."""
    launch_reason: Reason | None = None
    """Why it was bought."""

    @property
    def offer(self) -> Offer:
        """The offer of the current attempt."""
        offers, attempt = self.offers, self.attempt
        return offers[attempt - 1] if attempt < len(offers) else offers[-1]

    @property
    def total(self) -> Capacity:
        """What the machine has, as found by its agent, else as offered."""
        return self.capacity or self.offer.capacity

    def buying(self, offer: Offer) -> Machine:
        """The same attempt with another of its offers, which changes places with the current one:
        the key stays, and what was not bought is still to be tried."""
        if offer == self.offer or offer not in self.offers:
            return self
        current, other = self.offers.index(self.offer), self.offers.index(offer)
        offers = list(self.offers)
        offers[current], offers[other] = offer, self.offer
        return replace(self, offers=tuple(offers))

    @property
    def launch_key(self) -> str:
        """The idempotency key of the current launch attempt."""
        return f"{self.id}.{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One machine as a provider's listing shows it."""

    machine_id: str
    """From our label; empty when the label is unreadable."""
    provider_id: str
    provider: str
    region: str
    zone: str
    state: str
    """`pending`, `running`, `stopping` or `gone`."""
    fleet: str
    created_at: datetime
    end_reason: str = ""
    """What the cloud says of its end: `interrupted`, `self`, `user`, or empty."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """As `Machine.identity`."""
    instance_type: str = ""
    market: Market | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One provider's listing. What could not be read is *unknown*, never empty."""

    provider: str
    at: datetime
    sightings: tuple[Sighting, ...] = ()
    unknown: tuple[str, ...] = ()
    """Regions or zones that did not answer; `*` = none did."""
    problem: str = ""
    """Why they did not, for people; empty where the provider does not say."""

    def knows(self, region: str, zone: str) -> bool:
        """Whether absence from this listing says something about a machine of that place."""
        return not {"*", region, zone} & set(self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something of ours at a provider that costs money and serves no machine."""

    provider: str
    region: str
    zone: str
    kind: str
    """`disk`, `network-interface`, `address` or `launch-template`."""
    id: str
    """Enough for the provider to remove it."""
    fleet: str
    machine_id: str
    """Whose it was; empty when it does not say."""
    created_at: datetime | None = None
    size: str = ""
    """For people: `100 GiB`."""
    usd_hour: Decimal | None = None
    """What it costs at list price; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """A refused key rests until a time; shared by all controllers through the store."""

    key: str
    """An offer key, or a prefix of one ending in `/*` for a region or a whole provider."""
    error_class: ErrorClass
    code: str
    """The cloud's own code, raw."""
    until: datetime
    count: int = 1
    """Refusals in a row: each doubles the rest, up to the class's cap."""


def breaker_key(pool: str, offer: Offer) -> str:
    """The key under which boot failures of a pool and offer are counted as a `Cooldown`."""
    return f"boot/{pool}/{offer.key}"


# ------------------------------------------------------------------------------- the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceInterval:
    """One machine at one price for a while: the source of every cost figure."""

    machine_id: str
    autoscaler: str
    pool: str
    provider: str
    region: str
    zone: str
    instance_type: str
    market: Market
    total: Capacity
    price_usd_hour: Decimal
    on_demand_usd_hour: Decimal | None
    started_at: datetime
    ended_at: datetime | None = None


AUDIT = "audit"
"""The kind of events that say who sent which change. They stand beside what the change did, so they
are shown only where they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, in a sentence; the Activity page and `history` are made of these."""

    at: datetime
    kind: str
    """`job`, `machine`, `queue`, `autoscaler`, `plan`, `access`, `audit` or `error`."""
    subject: str
    """The id of what it is about."""
    text: str
    actor: str = ""
    """Who did it; empty = the control plane itself."""
    code: str = ""
    role: str = ""
    """Of whoever did it, in kind `audit`."""
    request_id: str = ""
    """The request it was done by, in kind `audit`: its answer says the same in `X-Request-Id`."""
    seq: int = 0
    """Given by the store, growing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecord:
    """One queue as the store keeps it; its policy is in the autoscaler's document."""

    name: str
    autoscaler: str = ""
    """The document that declares it; empty = made by hand, served by own workers only."""
    paused: bool = False
    max_running: int | None = None
    """Jobs of this queue that machines may have at a time; None = as many as there is room for."""
    max_running_per_owner: int | None = None
    """The same for the jobs of any one owner."""
    version: int = 1
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """One queue in figures, without reading every job."""

    name: str
    waiting: int
    """In state `queued`, the delayed ones among them."""
    running: int
    """Leased or running."""
    oldest_at: datetime | None = None
    """Since when its longest waiter waits."""
    delayed: int = 0
    """Those of the waiting whose `not_before` lay ahead at the last look."""
    blocked: int = 0
    """Waiting for other jobs."""
    exact: bool = True
    """False: `waiting`, `delayed` and `blocked` are at least these; counting stopped there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingGroup:
    """Waiting jobs of one queue, priority and need, counted: what demand is computed from."""

    queue: str
    priority: int
    need: Need
    count: int
    ripe: int
    """How many of them have waited at least the queue's `launch_after`."""
    oldest_at: datetime
    aged_at: datetime | None = None
    """Since when the longest of them waits at this priority: the earliest of its being queued or
    last promoted."""
    exact: bool = True
    """False: there are at least `count`; counting stopped there."""
