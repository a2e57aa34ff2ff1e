"""What the API answers, as frozen values: the nouns of `control_plane.core` and what it adds.

Unknown fields of a newer server are ignored, missing ones take their default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Job, JobState, Machine, Offer
from control_plane.core.plan import Plan
from control_plane.core.policy import Autoscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the server works, and which one it is."""

    status: str
    version: str = ""
    installation: str = ""
    """What the labels of its machines begin with: `INSTALLATION-AUTOSCALER`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoView:
    """Somebody, and what they may do."""

    actor: str
    role: str
    queues: tuple[str, ...]
    """`*` = all."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """What the token of a CI system was exchanged for."""

    token: str = field(repr=False)
    who: WhoView


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token without what would let anybody use it."""

    id: str
    name: str
    prefix: str
    """What the token begins with."""
    role: str
    queues: tuple[str, ...]
    created_at: datetime
    created_by: str = ""
    expires_at: datetime | None = None
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokenView:
    """A token that was made just now."""

    token: str = field(repr=False)
    """Shown this once."""
    record: TokenView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(Job):
    """A job and its prospects."""

    position_in_queue: int | None = None
    """1 = next; None when it does not wait."""
    estimated_start_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self.state in JOB_ENDED

    @property
    def process_exit_code(self) -> int:
        """What a program that stands for this job exits with: the job's own exit code where it has
        one, else 1 for everything but success."""
        if self.state is JobState.SUCCEEDED:
            return 0
        return self.exit_code if self.exit_code and 0 < self.exit_code < 256 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineView(Machine):
    """A machine and what it does."""

    busy: bool = False
    jobs: tuple[str, ...] = ()
    price_usd_hour: Decimal | None = None
    cost_usd: Decimal | None = None
    """What it has cost so far."""
    age_s: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferView(Offer):
    """Something that can be bought, and whether it was refused lately."""

    resting_until: datetime | None = None
    """It is not tried before then."""
    last_refusal: str = ""
    """The cloud's own code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """A queue in figures."""

    name: str
    autoscaler: str = ""
    paused: bool = False
    version: int = 1
    created_at: datetime | None = None
    priority: int = 0
    pools: tuple[str, ...] = ()
    waiting: int = 0
    running: int = 0
    oldest_at: datetime | None = None
    oldest_wait_s: float | None = None
    delayed: int = 0
    """Waiting for a time."""
    blocked: int = 0
    """Waiting for other jobs."""
    exact: bool = True
    """False: `waiting`, `delayed` and `blocked` are at least these."""
    max_running: int | None = None
    """None = no limit."""
    max_running_per_owner: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitsView:
    """How long the jobs waited that were taken last, in seconds."""

    queue: str
    count: int = 0
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerView:
    """One version of an applied document."""

    name: str
    version: int
    document: str
    """The YAML text as it was applied."""
    policy: Autoscaler | None = None
    applied_at: datetime | None = None
    applied_by: str = ""
    paused: bool = False
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between the applied document and a new one."""

    path: str
    kind: str
    """`+`, `~` or `-`."""
    old: str = ""
    """As people write it; empty when new."""
    new: str = ""
    """As people write it; empty when gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """What everything at its maximum would cost per hour, before and after."""

    old: Decimal | None = None
    new: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something worth knowing about a document."""

    severity: str
    """`error` or `warning`."""
    code: str
    path: str = ""
    """Where in the document."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What applying a document would change, in settings, in money and right now."""

    changes: tuple[Change, ...] = ()
    worst_case_usd_hour: WorstCase = field(default_factory=WorstCase)
    budget_usd_hour: Decimal | None = None
    within_budget: bool = True
    right_now: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a queue has the machines it has, and why not more."""

    queue: str
    text: str = ""
    lines: tuple[str, ...] = ()
    plan_id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """One plan that did or refused something."""

    id: str
    autoscaler: str
    at: datetime
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """What one group cost. Amounts are US dollars."""

    group: Mapping[str, str] = field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)
    work_usd: Decimal = Decimal(0)
    idle_usd: Decimal = Decimal(0)
    boot_usd: Decimal = Decimal(0)
    on_demand_usd: Decimal = Decimal(0)
    """What the same machines would have cost on demand."""
    saved_usd: Decimal = Decimal(0)
    machine_hours: Decimal = Decimal(0)
    job_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPoint:
    """What one group cost in one step of time."""

    at: datetime
    group: Mapping[str, str] = field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)
    on_demand_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """Cost by group, in all, and over time."""

    by: tuple[str, ...] = ()
    step: str = ""
    rows: tuple[CostRow, ...] = ()
    totals: CostRow = field(default_factory=CostRow)
    series: tuple[CostPoint, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a job's log."""

    data: bytes
    size: int
    """Bytes the log has now."""
    epoch: str
    """Changes when another attempt has begun to write; its log starts at 0."""
    state: JobState
