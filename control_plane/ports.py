"""The seams: what the loop and the API need from the world, as Protocols.

Each comment states the retry contract: what the caller may repeat, and what a repeat means. One
conformance suite per port (`tests/conformance`) is the definition of "done" for an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, runtime_checkable

from control_plane.core.access import ApiToken, Federation
from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Cooldown,
    Event,
    Job,
    JobState,
    Lease,
    Leftover,
    Machine,
    Need,
    Observation,
    Offer,
    PriceInterval,
    QueueRecord,
    QueueStats,
    Reason,
    Sighting,
    WaitingGroup,
)
from control_plane.core.pacing import Bucket, Pace
from control_plane.core.policy import AutoscalerRecord, CloudPolicy

Row = Mapping[str, object]
"""One stored record as JSON values, on its way from one store to another."""


class Clock(Protocol):
    """Time. Only the shell asks for it; the core is told."""

    def now(self) -> datetime:
        """Aware UTC, never going backwards within one process."""

    def sleep(self, seconds: float) -> None:
        """Wait; a virtual clock moves on instead."""


class Ids(Protocol):
    """Names for new things: unique, and sortable by time of making within one process."""

    def new(self, prefix: str) -> str:
        """`prefix` + `-` + lower-case letters and digits, at most 40 characters in all."""


# ------------------------------------------------------------------------------------ store


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The right to act as the one controller of an autoscaler."""

    name: str
    owner: str
    generation: int
    """Grows with each change of holder; a commit under an older one is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFence:
    """A controller lease as it stands; an owner of `""` means that nobody holds it."""

    fence: Fence
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What every look of a controller begins with: all small records, read together."""

    autoscalers: Sequence[AutoscalerRecord]
    """By name."""
    queues: Sequence[QueueRecord]
    """By name."""
    leases: Mapping[str, HeldFence]
    cooldowns: Sequence[Cooldown]
    """By key."""
    deliveries: Sequence[Delivery] = ()
    """Those that wait to be sent, by id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFigures:
    """What the calls of one store operation have come to in this process."""

    calls: int = 0
    seconds: float = 0.0
    conflicts: int = 0
    """Writes that somebody else was faster than: a claim that lost its race, a stale version."""
    throttles: int = 0
    """Answers of a remote store that asked for fewer calls."""
    retries: int = 0
    read_units: float = 0.0
    """Consumed read capacity; 0 where a store has no such thing."""
    write_units: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a queue: `top`, `bottom`, or `before` / `after` another job of the same queue."""

    where: str
    job_id: str = ""


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a listing and the cursor of the next one; an empty cursor means: that was all."""

    items: tuple[T, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended, as its agent or the controller reports it."""

    outcome: str
    """`succeeded`, `failed`, `cancelled`; for a requeue `interrupted`, `lost` or `returned`."""
    exit_code: int | None = None
    reason: Reason | None = None
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What an earlier request with the same idempotency key got; `status` 0 = still in flight."""

    fingerprint: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """One plan that did or refused something, with the snapshot it was decided from."""

    id: str
    autoscaler: str
    at: datetime
    plan: str
    """JSON of `core.plan.Plan`."""
    snapshot: str
    """JSON of `core.snapshot.Snapshot`."""


class AutoscalerStore(Protocol):
    """Declared documents, versioned."""

    def autoscaler_put(self, record: AutoscalerRecord, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet), and
        keep the old one as history. Raises `Conflict` when the stored version is another."""

    def autoscaler_get(self, name: str) -> AutoscalerRecord:
        """The current version. Raises `NotFound`."""

    def autoscaler_list(self) -> Sequence[AutoscalerRecord]:
        """All current versions, by name."""

    def autoscaler_history(self, name: str, *, limit: int = 50) -> Sequence[AutoscalerRecord]:
        """All versions, newest first; they stay when the autoscaler is removed."""

    def autoscaler_remove(self, name: str) -> None:
        """Forget the current version. Nothing happens when it is gone already."""


class QueueStore(Protocol):
    """Queues: named, ordered by (priority descending, position ascending)."""

    def queue_put(self, record: QueueRecord, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet).
        Raises `Conflict`."""

    def queue_get(self, name: str) -> QueueRecord:
        """Raises `NotFound`."""

    def queue_list(self) -> Sequence[QueueRecord]:
        """All queues, by name."""

    def queue_remove(self, name: str) -> None:
        """Remove an empty queue. Raises `Refused` while a job in it has not ended; nothing happens
        when it is gone already."""

    def queue_stats(self) -> Mapping[str, QueueStats]:
        """Depth, running and oldest waiter of every queue. What is beyond a store's counting limit
        is left out and said so (`exact`)."""

    def queue_heads(self, names: Sequence[str]) -> Mapping[str, datetime]:
        """Since when the longest waiter of each queue waits that has one that may start: what a
        claim ranks queues by. A store may answer from the head of the line alone."""

    def queue_line(self, name: str, *, before: Job, limit: int = 1000) -> Sequence[str]:
        """Ids of the jobs that stand in the line of a queue before the place of one, in claim
        order, `limit` at most; delayed ones stand beside it. Told without reading the jobs: a store
        may answer from a copy that lags a moment behind."""

    def queue_waits(self, name: str, *, limit: int = 1000) -> Sequence[float]:
        """How long the jobs waited that were claimed last, in seconds, newest claim first: the
        source of wait quantiles. Only first attempts count; one whose machine has not been heard of
        since may be missing."""

    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        """Cancel every waiting job of a queue, delayed and blocked ones too, and return their ids
        in claim order, then the delayed and the blocked ones: the receipt. Leased and running ones
        are not touched; a job submitted meanwhile may stay. Repeating it after a lost answer
        cancels the rest. Raises `NotFound`."""

    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        """Ageing: raise by one the priority of every waiting job that has waited since before
        `waiting_since` and was not promoted since then; a delayed job waits from its `not_before`
        on. Inside its new priority it stands by its position. Returns how many. A job is promoted
        at most once per call and once per `now - waiting_since`."""

    def waiting_groups(
        self,
        queues: Sequence[str],
        *,
        ripe_before: Mapping[str, datetime],
        now: datetime,
        limit: int = 100_000,
    ) -> Sequence[WaitingGroup]:
        """Waiting jobs that may start now (`not_before` passed), grouped by queue, priority and
        need, in the order they would be claimed. `ripe` counts those whose `queued_at` is at or
        before `ripe_before[queue]`. Paused queues are included: the caller knows them.

        What a queue's limits keep back (`max_running`, `max_running_per_owner`) is left out: no
        machine is to be bought for it. Of one need in one queue a store may stop counting at
        `limit` jobs, which the group then says (`exact`)."""


CLAIM_WINDOW = 200
"""How many places within one priority a job may be claimed ahead of its turn, at most."""


class JobStore(Protocol):
    """Jobs, their leases and their attempts. Every write is one atomic step."""

    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        """Store a new job, at the bottom of its priority (the store gives `position`; the one in
        `job` is ignored), and say whether it was new. With a key that was used before, the first
        job is returned and nothing is written, whatever its state; a new job may bear the id that a
        refused or broken-off call with its key came with before. A job with `depends_on` is
        stored as `blocked` until all of them have succeeded, and is queued from then on
        (`queued_at`); which state is given is ignored. Raises `NotFound` for an unknown queue or
        dependency, `Refused` for a dependency that has ended without success, `Conflict` for an id
        that exists, `InvalidInput` for a dependency named twice or on itself, and for a job larger
        than the store can keep (at least 256 KiB of JSON fit)."""

    def job_get(self, job_id: str) -> Job:
        """Raises `NotFound`."""

    def job_list(
        self,
        *,
        queue: str = "",
        states: frozenset[JobState] = frozenset(),
        machine_id: str = "",
        cursor: str = "",
        limit: int = 100,
    ) -> Page[Job]:
        """Jobs, newest first (by id: ids are made in order of time); with exactly one queue and the
        one state `queued`, in claim order, delayed ones last by their `not_before`. A queued job is
        *delayed* while its `not_before` lay ahead at the last claim or `job_release` that saw its
        queue. A page may be shorter than `limit` with more to come: only an empty cursor is the
        end. The cursor is the store's own text; an invalid one raises `InvalidInput`."""

    def job_claim(
        self,
        machine_id: str,
        queues: Sequence[str],
        free: Capacity,
        *,
        limit: int,
        now: datetime,
    ) -> Sequence[Job]:
        """Lease up to `limit` waiting jobs to a machine, walking `queues` in the given order and
        each queue in its own, skipping what does not fit into what is left of `free`, paused
        queues, jobs whose `not_before` lies ahead, and what the queue's limits keep back
        (`max_running`, `max_running_per_owner`; never exceeded; jobs of no owner count as one
        owner's). Each claimed job is `leased` with `epoch`, `attempt` counted up and an open
        attempt; the machine's `idle_since` is cleared. A machine that is not `ready` at that
        instant gets nothing; a store may take the claim for a beat. Raises `NotFound` for an
        unknown machine.

        Among many simultaneous callers a job may go to one of them a little ahead of its turn,
        within one priority, and by no more places than `CLAIM_WINDOW`; a single caller sees the
        exact order.

        Two callers never get the same job. A caller that lost the answer asks `job_leases` of its
        machine."""

    def job_release(self, *, now: datetime, limit: int = 1000) -> int:
        """Let go what was held back: delayed jobs whose `not_before` has come, and blocked ones
        whose dependencies have all succeeded meanwhile or will never (those end as `cancelled`).
        Most of it happens by itself at claims and endings; called at each look, this repairs what a
        crash left undone. Returns how many jobs moved, `limit` at most."""

    def job_start(self, job_id: str, epoch: int, *, now: datetime, machine_id: str = "") -> None:
        """leased -> running; repeating it changes nothing. Raises `StaleEpoch`, also when a machine
        is named and another one has the job; `NotFound`."""

    def job_finish(
        self,
        job_id: str,
        epoch: int,
        ending: Ending,
        *,
        state: JobState,
        now: datetime,
        machine_id: str = "",
    ) -> None:
        """End the attempt and the job in a final `state`. Repeating it with the same epoch changes
        nothing, whatever the state. When the machine holds no other lease its `idle_since` becomes
        `now`. Jobs that depend on it are let go when it succeeded, else they end as `cancelled`,
        and so on down the line. Raises `StaleEpoch` when another attempt has begun, it was given
        back, or a machine is named and another one has it; `NotFound`."""

    def job_requeue(
        self,
        job_id: str,
        epoch: int,
        ending: Ending,
        *,
        need: Need,
        now: datetime,
    ) -> Job:
        """End the attempt and put the job back in its place (same priority, position, queued_at)
        with the given need. `interrupted` and `lost` count as a machine loss, `failed` as a
        failure, `returned` as neither. Repeating it with the same epoch returns the stored job. A
        wish to cancel it stays with it: whoever gives back looks, and cancels. The machine's
        `idle_since` as in `job_finish`. Raises `StaleEpoch` when another attempt has begun or it
        has ended, `NotFound`."""

    def job_cancel(self, job_id: str, *, reason: Reason, now: datetime) -> Job:
        """A waiting job ends as `cancelled` at once; a leased or running one gets
        `cancel_requested`, which its agent sees at its next beat; an ended one is returned as it
        is. Raises `NotFound`."""

    def job_move(
        self, job_id: str, *, queue: str, place: Place, expected_version: int | None, now: datetime
    ) -> Job:
        """Put a waiting job elsewhere, atomically. `top` and `bottom` keep its priority only if
        that is where such a job can stand: at the top it takes the highest priority present, at
        the bottom the lowest; `before` and `after` take the neighbour's priority. Present is what
        is queued, the job itself and delayed ones included. Raises `Conflict` on another version,
        `Refused` when it is not queued or is its own neighbour, `NotFound` for job, queue or
        neighbour."""

    def job_leases(self, *, machine_id: str = "") -> Sequence[Lease]:
        """Open leases, of one machine or of all."""

    def job_attempts(self, job_id: str) -> Sequence[Attempt]:
        """Its attempts, first to last."""

    def job_artifacts(self, job_id: str) -> Sequence[Artifact]:
        """What its last ended attempt left."""

    def attempts_between(self, start: datetime, end: datetime) -> Sequence[Attempt]:
        """Attempts that overlap a span of time, open ones included."""


class MachineStore(Protocol):
    """Machine records: the durable intents and everything that followed."""

    def machine_put(
        self, machine: Machine, *, expected_version: int, fence: Fence | None
    ) -> Machine:
        """Write a record and return it with its new version, `expected_version + 1` (0 = must not
        exist yet). The stored state's edge to the new one must be allowed (`IllegalTransition`).
        With a fence the same step checks that it is still the current one. Raises `Conflict`,
        `FencedOut`."""

    def machine_get(self, machine_id: str) -> Machine:
        """Raises `NotFound`."""

    def machine_list(
        self, *, autoscaler: str = "", open_only: bool = True, limit: int = 10_000
    ) -> Sequence[Machine]:
        """Records, oldest first; `open_only` leaves out terminated and launch-failed ones."""

    def fleet_read(self, *, sure: bool = True) -> tuple[Sequence[Machine], Sequence[Lease]]:
        """All open machines, oldest first, and all open leases, read together: what a controller
        looks at. Unless it is to be `sure`, a store may answer from a copy that lags a moment
        behind, at half the cost: good enough to see whether there is anything to do."""

    def machine_beat(self, machine_id: str, *, now: datetime) -> None:
        """The agent's one beat for all it runs: sets `last_beat_at` (never back) without counting
        the version up. Raises `NotFound`."""


PriceKey = tuple[str, datetime]
"""The machine of an interval of the ledger, and when it began."""


class LedgerStore(Protocol):
    """What was paid for, and when."""

    def price_open(self, interval: PriceInterval) -> None:
        """A machine costs this much from `started_at`; an open interval of the same machine is
        closed then. Repeating the same interval changes nothing."""

    def price_close(self, machine_id: str, *, at: datetime) -> None:
        """The machine costs nothing from `at`; nothing happens when no interval is open."""

    def prices_between(self, start: datetime, end: datetime) -> Sequence[PriceInterval]:
        """Intervals that overlap a span of time, open ones included, by start."""

    def prices_begun(self, since: datetime) -> Sequence[PriceInterval]:
        """Intervals that are open, and those that began at a time or after it: what is new to who
        has read all of them then, apart from what has been closed."""

    def prices_get(self, keys: Sequence[PriceKey]) -> Sequence[PriceInterval]:
        """These intervals, without those that are not there."""


class ControlStore(Protocol):
    """What controllers share: the lease, cool-downs, plans, events, answers given."""

    def shared_read(self) -> Shared:
        """Autoscalers, queues, controller leases and cool-downs in one look."""

    def lease_take(
        self,
        name: str,
        owner: str,
        *,
        ttl_s: float,
        now: datetime,
        expected_generation: int | None = None,
    ) -> Fence | None:
        """Take or renew the controller lease; None while somebody else holds it. Renewing by the
        same owner keeps the generation, any other taking counts it up. With an expected generation
        also None when the stored one is another: somebody has held it since that was read (0 = it
        was never held)."""

    def lease_release(self, fence: Fence) -> None:
        """Give it back early; nothing happens when it is no longer ours."""

    def cooldown_put(self, cooldown: Cooldown) -> None:
        """Write or replace the cool-down of a key."""

    def cooldown_list(self) -> Sequence[Cooldown]:
        """All that were written and not replaced, over or not."""

    def bucket_get(self, key: str) -> Bucket | None:
        """What is left for one kind of call; None while nobody has called. It may be forgotten a
        day after its last use: it is full again by then."""

    def bucket_put(self, bucket: Bucket) -> None:
        """Write one whose version is one more than the stored one's (1 = there is none). Raises
        `Conflict` when somebody was faster."""

    def plan_put(self, record: PlanRecord, *, keep: int = 200) -> None:
        """Keep a plan; of each autoscaler only the last `keep` stay."""

    def plan_list(self, autoscaler: str, *, limit: int = 20) -> Sequence[PlanRecord]:
        """Newest first."""

    def event_append(self, event: Event) -> None:
        """Add to the log; the store gives `seq`."""

    def event_list(
        self, *, kind: str = "", subject: str = "", cursor: str = "", limit: int = 100
    ) -> Page[Event]:
        """Newest first."""

    def answer_begin(
        self, key: str, fingerprint: str, *, now: datetime, keep_s: float
    ) -> StoredAnswer | None:
        """Reserve an idempotency key: None = it is yours, go on; else what is stored for it.
        Entries older than `keep_s` are as if never written, and so is one in flight for over a
        minute: its process died."""

    def answer_finish(self, key: str, answer: StoredAnswer) -> None:
        """Store the answer of a reserved key."""

    def answer_abandon(self, key: str) -> None:
        """Free a reserved key: the request failed and may be repeated."""

    def answer_abandon_all(self) -> None:
        """Free every reserved key. For a server that has just started and is the only one: whoever
        was answering them is dead. A store that servers share leaves them reserved for their
        minute: another one may be answering."""


class AccessStore(Protocol):
    """Who may come in: tokens of people, and the issuers whose word is taken for CI systems. Reads
    see the last write: what was revoked opens nothing any more."""

    def token_put(self, record: ApiToken, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet). Raises
        `Conflict`."""

    def token_get(self, token_id: str) -> ApiToken:
        """Raises `NotFound`."""

    def token_list(self) -> Sequence[ApiToken]:
        """All of them, by id."""

    def token_remove(self, token_id: str) -> None:
        """Forget it. Nothing happens when it is gone already."""

    def federation_put(self, record: Federation, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet). Raises
        `Conflict`."""

    def federation_get(self, name: str) -> Federation:
        """Raises `NotFound`."""

    def federation_list(self) -> Sequence[Federation]:
        """All of them, by name."""

    def federation_remove(self, name: str) -> None:
        """Forget it. Nothing happens when it is gone already."""


class HookStore(Protocol):
    """Webhooks: which jobs others may start, and what we tell others."""

    def hook_put(self, record: Hook, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet). Raises
        `Conflict`."""

    def hook_get(self, name: str) -> Hook:
        """Raises `NotFound`."""

    def hook_list(self) -> Sequence[Hook]:
        """All of them, by name."""

    def hook_remove(self, name: str) -> None:
        """Forget it. Nothing happens when it is gone already."""

    def delivery_put(self, record: Delivery, *, expected_version: int) -> None:
        """Write `record`, whose version is `expected_version + 1` (0 = must not exist yet). Raises
        `Conflict`."""

    def delivery_list(self, *, limit: int = 100) -> Sequence[Delivery]:
        """The log, by id, the last first: newest day first. It may be forgotten like events."""


class TransferKind(StrEnum):
    """What is moved from one store to another, in this order: what is referred to comes first."""

    AUTOSCALER_VERSION = "autoscaler-version"
    AUTOSCALER = "autoscaler"
    QUEUE = "queue"
    LEASE = "lease"
    COOLDOWN = "cooldown"
    MACHINE = "machine"
    JOB = "job"
    ATTEMPT = "attempt"
    PRICE = "price"
    PLAN = "plan"
    EVENT = "event"
    TOKEN = "token"
    FEDERATION = "federation"
    HOOK = "hook"
    DELIVERY = "delivery"


class TransferStore(Protocol):
    """Moving between stores, and forgetting."""

    def transfer_read(self, kind: TransferKind, *, cursor: str = "", limit: int = 500) -> Page[Row]:
        """Records of one kind in a stable order, as `stores.transfer` writes them. Nothing else may
        write to the store meanwhile."""

    def transfer_write(self, kind: TransferKind, rows: Sequence[Row]) -> None:
        """Store records as they are; what is there under the same key is replaced, so repeating it
        changes nothing. Raises `InvalidInput` for a row that is none of this kind."""

    def history_old(self, *, before: datetime, limit: int = 1000) -> Sequence[str]:
        """Ids of jobs that ended before a time, `limit` at most: their blobs go first, since nobody
        finds them without the jobs. A store that lets records expire by itself names none."""

    def history_prune(self, job_ids: Sequence[str], *, before: datetime) -> None:
        """Forget those of these jobs that ended before a time, and older plans and events. Attempts
        and prices stay: they are the ledger."""


class Store(
    AutoscalerStore,
    QueueStore,
    JobStore,
    MachineStore,
    LedgerStore,
    ControlStore,
    AccessStore,
    HookStore,
    TransferStore,
    Protocol,
):
    """Everything durable but blobs."""

    def figures(self) -> Mapping[str, OperationFigures]:
        """What each operation has come to since this process opened the store, by name."""

    def close(self) -> None:
        """Let go of files and connections."""


class Blobs(Protocol):
    """Named bytes: logs, sources, artifacts. Keys are `/`-separated safe names. One is either put
    or appended to, never both."""

    def put(self, key: str, data: bytes) -> None:
        """Write the whole; a reader sees the old bytes or the new, never a mix."""

    def get(self, key: str) -> bytes:
        """Raises `NotFound`."""

    def append(self, key: str, offset: int, data: bytes) -> int:
        """Add at `offset` and return the new size. What lies before the current size is known
        already and skipped, so a repeat changes nothing; an offset beyond it raises `Conflict`."""

    def read(self, key: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; empty at the end and when there is no such key."""

    def size(self, key: str) -> int:
        """In bytes; 0 when there is no such key."""

    def remove(self, prefix: str) -> None:
        """Forget every blob whose key begins with `prefix`, which ends in `/`; nothing happens when
        there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Where certain bytes, and no others, may be put."""

    url: str
    headers: Mapping[str, str]
    """To be sent along as they are."""


class Presigned(Protocol):
    """What a blob storage may be able to do beside `Blobs`: name addresses at which others store
    and fetch one blob by themselves. Whoever has the address needs nothing else. It is good for
    `expires_s`; what has begun by then may go on. Asking again changes nothing."""

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_s: int) -> Upload:
        """Where to PUT a whole blob of that many bytes with that SHA-256, in lower-case hex; the
        storage refuses any others. Raises `InvalidInput` for more bytes than it takes at once."""

    def sign_download(self, key: str, *, name: str, expires_s: int) -> str:
        """Where to GET a blob that was put, not appended to, as a file of this name. It is not
        asked whether there is one."""


# --------------------------------------------------------------------------------- providers


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSettings:
    """What the start-up text of a machine needs to know. No long-lived secret is in it."""

    server_url: str
    machine_id: str
    fleet: str
    pool: str
    agent_sha256: str
    """Of the one-file agent that the server hands out; the start-up text checks it."""
    boot_timeout_s: int
    """The machine ends itself when its agent has not registered by then."""
    max_lifetime_s: int
    """The machine ends itself after this long, come what may."""
    one_time_token: str = ""
    """Exchanged once for a session; only for machines that cannot prove themselves otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One attempt to launch one machine."""

    machine_id: str
    key: str
    """Idempotency key of this attempt and offer."""
    offer: Offer
    disk_gib: int
    deadline: datetime
    """When the machine must be gone at the latest; a label, and the provider's own limit."""
    boot: BootSettings
    cloud: CloudPolicy
    """The pool's settings for this provider."""
    alternatives: tuple[Offer, ...] = ()
    """Offers of the same provider, region and market that would do as well: one call may buy
    whichever of all these the cloud has most of, and says so in `Launched.offer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A launch as far as the provider has it."""

    provider_id: str
    """Empty while only an operation is known."""
    at: datetime
    operation: str = ""
    """Not empty = still going on: ask `launch_result` with it at the next tick."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """As `Machine.identity`."""
    offer: Offer | None = None
    """The alternative that was bought instead of the request's own offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRef:
    """Enough to find one machine at its provider."""

    machine_id: str
    provider_id: str
    region: str
    zone: str
    options: Mapping[str, str] = field(default_factory=dict)
    """The cloud's settings it was launched with, such as `project`."""
    launched_at: datetime | None = None
    """When the cloud made it, where that is known: listings lag behind."""


class Provider(Protocol):
    """One cloud (or this machine). Refusals raise `ProviderError` with a class; nothing else is
    expected, and whatever else is raised counts as `transient`."""

    name: str
    needs_token: bool
    """Whether its machines register by a one-time token instead of proving themselves."""

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        """All that can be bought under these settings, sold out or not, with today's prices.
        Without any: what is known without asking anybody."""

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a machine. Repeating it with the same key never makes a second one: it returns
        the first. After an unclear failure repeat with the same key, or look for `machine_id` in
        `observe`. A key whose machine has ended meanwhile raises `ProviderError(TRANSIENT)` with
        raw code `Ended`, never starts anew."""

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """How a launch that answered with an operation goes on; raises as `launch` would."""

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Observation:
        """Every machine that carries this fleet's label in the places these settings name. Places
        that did not answer are named in `unknown`; raises only when nothing could be read."""

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One machine by id; None = the provider positively says that it does not exist."""

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a machine; nothing happens when it is gone. Call again until `sighting`
        says so."""


class NoticeKind(StrEnum):
    """What a cloud tells of a machine from outside."""

    TAKEN = "taken"
    """It takes the machine, after the time it gives."""
    HINT = "hint"
    """It may take it soon."""
    ENDING = "ending"
    """The machine ends or has ended, by whomever: a reason to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudNotice:
    """What a cloud tells of one machine, whosever machine that is."""

    provider_id: str
    """As `Machine.provider_id`, in any case of letters."""
    kind: NoticeKind
    said_at: datetime
    seconds: float = 0.0
    """What it gives a machine that it takes, from when it said so."""
    region: str = ""
    """Empty where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One delivery of a cloud, read."""

    notices: tuple[CloudNotice, ...] = ()
    answer: Mapping[str, str] = field(default_factory=dict)
    """What the sender wants to read in the answer before it delivers anything."""


@runtime_checkable
class Cleaner(Protocol):
    """A provider whose machines may leave something behind."""

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        """Disks, network interfaces and addresses with this fleet's label that serve no machine, in
        the places these settings name. Raises when a place does not answer."""

    def remove(self, leftover: Leftover) -> None:
        """Begin to remove one; nothing happens when it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must be so before machines can be launched, and whether it is."""

    name: str
    """`credentials`, `permission ec2:RunInstances`, `quota us-east-1 L-3819A6DF` and the like."""
    ok: bool
    detail: str
    """What was found, for people."""
    fix: str = ""
    """The command, or the statement of a policy, that makes it so; empty when it is."""


@runtime_checkable
class Examiner(Protocol):
    """A provider that can say whether it is set up."""

    def examine(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """Look at credentials, permissions (by dry run), quotas for these offers, image, network
        and clock, under these settings. Launches nothing, never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How fast a cloud lets one account work in one region, as it documents it."""

    launches: Pace
    """Machines."""
    requests: Pace
    """Each other kind of calls about single machines: what became of a launch, and ends."""


@runtime_checkable
class Paced(Protocol):
    """A provider whose cloud refuses calls that come too fast."""

    limits: Limits


class PriceBook(Protocol):
    """Offers of all configured providers, cached."""

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        """What can be bought under these settings, as far as it is known: asks no cloud."""

    def refresh(self, clouds: Sequence[CloudPolicy]) -> None:
        """Ask the providers for what has become old; one that does not answer keeps its last known
        offers."""


class Secrets(Protocol):
    """Resolves `secret://` references at the moment of use."""

    def resolve(self, reference: str) -> str:
        """The secret. Raises `NotFound`; its text is never logged."""
