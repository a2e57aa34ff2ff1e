"""The seams: what the loop and the API need from the world, as Protocols.

Each comment states the retry contract: what the caller may repeat, and what a repeat means. One
conformance suite per port (`tests/conformance`) is the definition of "done" for an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    Cooldown,
    Event,
    Job,
    JobState,
    Lease,
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
from control_plane.core.policy import AutoscalerRecord, CloudPolicy


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
        """Depth, running and oldest waiter of every queue."""

    def queue_clear(self, name: str, *, now: datetime, reason: Reason) -> Sequence[str]:
        """Cancel every waiting job of a queue at once and return their ids; leased and running ones
        are not touched. Raises `NotFound`."""

    def queue_promote(self, name: str, *, waiting_since: datetime, now: datetime) -> int:
        """Ageing: raise by one the priority of every waiting job that has waited since before
        `waiting_since` and was not promoted since then; returns how many. A job is promoted at most
        once per call and once per `now - waiting_since`."""

    def waiting_groups(
        self, queues: Sequence[str], *, ripe_before: Mapping[str, datetime], now: datetime
    ) -> Sequence[WaitingGroup]:
        """Waiting jobs that may start now (`not_before` passed), grouped by queue, priority and
        need, in the order they would be claimed. `ripe` counts those whose `queued_at` is at or
        before `ripe_before[queue]`. Paused queues are included: the caller knows them."""


class JobStore(Protocol):
    """Jobs, their leases and their attempts. Every write is one atomic step."""

    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        """Store a new job, at the bottom of its priority (the store gives `position`; the one in
        `job` is ignored), and say whether it was new. With a key that was used before, the first
        job is returned and nothing is written, whatever its state. Raises `NotFound` for an unknown
        queue, `Conflict` for an id that exists."""

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
        """Jobs, newest first; with exactly one queue and the one state `queued`, in claim order.
        The cursor is the store's own text; an invalid one raises `InvalidInput`."""

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
        queues, and jobs whose `not_before` lies ahead. Each claimed job is `leased` with `epoch`,
        `attempt` counted up and an open attempt; the machine's `idle_since` is cleared. One atomic
        step with the check that the machine is `ready` and not drained: otherwise nothing is
        claimed and the answer is empty. Raises `NotFound` for an unknown machine.

        Two callers never get the same job. A caller that lost the answer asks `job_leases` of its
        machine."""

    def job_start(self, job_id: str, epoch: int, *, now: datetime) -> Job:
        """leased -> running; repeating it changes nothing. Raises `StaleEpoch`, `NotFound`."""

    def job_finish(
        self, job_id: str, epoch: int, ending: Ending, *, state: JobState, now: datetime
    ) -> Job:
        """End the attempt and the job in a final `state`. Repeating it with the same epoch returns
        the stored job. When the machine holds no other lease its `idle_since` becomes `now`.
        Raises `StaleEpoch` when another attempt has begun or it was given back, `NotFound`."""

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
        failure, `returned` as neither. Repeating it with the same epoch returns the stored job.
        The machine's `idle_since` as in `job_finish`. Raises `StaleEpoch`, `NotFound`."""

    def job_cancel(self, job_id: str, *, reason: Reason, now: datetime) -> Job:
        """A waiting job ends as `cancelled` at once; a leased or running one gets
        `cancel_requested`, which its agent sees at its next beat; an ended one is returned as it
        is. Raises `NotFound`."""

    def job_move(
        self, job_id: str, *, queue: str, place: Place, expected_version: int | None, now: datetime
    ) -> Job:
        """Put a waiting job elsewhere, atomically. `top` and `bottom` keep its priority only if
        that is where such a job can stand: at the top it takes the highest priority present, at
        the bottom the lowest; `before` and `after` take the neighbour's priority. Raises
        `Conflict` on another version, `Refused` when it does not wait, `NotFound` for job, queue
        or neighbour."""

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

    def machine_beat(self, machine_id: str, *, now: datetime) -> Machine:
        """The agent's one beat for all it runs: sets `last_beat_at` (never back) without counting
        the version up. Raises `NotFound`."""


class LedgerStore(Protocol):
    """What was paid for, and when."""

    def price_open(self, interval: PriceInterval) -> None:
        """A machine costs this much from `started_at`; an open interval of the same machine is
        closed then. Repeating the same interval changes nothing."""

    def price_close(self, machine_id: str, *, at: datetime) -> None:
        """The machine costs nothing from `at`; nothing happens when no interval is open."""

    def prices_between(self, start: datetime, end: datetime) -> Sequence[PriceInterval]:
        """Intervals that overlap a span of time, open ones included, by start."""


class ControlStore(Protocol):
    """What controllers share: the lease, cool-downs, plans, events, answers given."""

    def lease_take(self, name: str, owner: str, *, ttl_s: float, now: datetime) -> Fence | None:
        """Take or renew the controller lease; None while somebody else holds it. Renewing by the
        same owner keeps the generation, any other taking counts it up."""

    def lease_release(self, fence: Fence) -> None:
        """Give it back early; nothing happens when it is no longer ours."""

    def cooldown_put(self, cooldown: Cooldown) -> None:
        """Write or replace the cool-down of a key."""

    def cooldown_list(self) -> Sequence[Cooldown]:
        """All that were written and not replaced, over or not."""

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
        was answering them is dead."""


class Store(
    AutoscalerStore, QueueStore, JobStore, MachineStore, LedgerStore, ControlStore, Protocol
):
    """Everything durable but blobs."""

    def close(self) -> None:
        """Let go of files and connections."""


class Blobs(Protocol):
    """Named bytes: logs, sources, artifacts. Keys are `/`-separated safe names."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A launch as far as the provider has it."""

    provider_id: str
    """Empty while only an operation is known."""
    at: datetime
    operation: str = ""
    """Not empty = still going on: ask `launch_result` with it at the next tick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRef:
    """Enough to find one machine at its provider."""

    machine_id: str
    provider_id: str
    region: str
    zone: str


class Provider(Protocol):
    """One cloud (or this machine). Refusals raise `ProviderError` with a class; nothing else is
    expected, and whatever else is raised counts as `transient`."""

    name: str
    needs_token: bool
    """Whether its machines register by a one-time token instead of proving themselves."""

    def offers(self) -> Sequence[Offer]:
        """All that can be bought here, sold out or not, with today's prices."""

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a machine. Repeating it with the same key never makes a second one: it returns
        the first. After an unclear failure repeat with the same key, or look for `machine_id` in
        `observe`. A key whose machine has ended meanwhile raises `ProviderError(TRANSIENT)` with
        raw code `Ended`, never starts anew."""

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """How a launch that answered with an operation goes on; raises as `launch` would."""

    def observe(self, fleet: str) -> Observation:
        """Every machine that carries this fleet's label. Places that did not answer are named in
        `unknown`; raises only when nothing could be read."""

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One machine by id; None = the provider positively says that it does not exist."""

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a machine; nothing happens when it is gone. Call again until `sighting`
        says so."""


class PriceBook(Protocol):
    """Offers of all configured providers, cached."""

    def offers(self, providers: Sequence[str]) -> Sequence[Offer]:
        """What these providers sell; a provider that does not answer keeps its last known
        offers."""


class Secrets(Protocol):
    """Resolves `secret://` references at the moment of use."""

    def resolve(self, reference: str) -> str:
        """The secret. Raises `NotFound`; its text is never logged."""


class Notifier(Protocol):
    """Tells people. Best effort: never raises, never blocks the loop for long."""

    def tell(self, channel: str, target: str, subject: str, text: str) -> None:
        """Send one message."""
