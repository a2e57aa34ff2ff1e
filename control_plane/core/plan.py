"""A plan: the immutable, ordered list of actions one reconcile decided on, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from control_plane.core.model import Machine, MachineState, Offer, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Buy a machine: the ranked offers are the whole choice, nothing is left to the executor."""

    machine_id: str
    pool: str
    offers: tuple[Offer, ...]
    reason: Reason

    @property
    def price_usd_hour(self) -> Decimal:
        """What this launch may cost at worst: the dearest offer it may fall back to."""
        return max(offer.price_usd_hour for offer in self.offers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Finish a launch that a crash, an unclear answer or a slow cloud left open."""

    machine_id: str
    provider: str
    region: str
    pending: bool
    """Whether the cloud has it already and is only asked what became of it."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Record what the cloud shows: a launched machine whose answer was lost."""

    machine_id: str
    provider_id: str
    created_at: datetime
    offer: Offer
    """Which of its offers was bought, as far as the cloud says."""
    identity: Mapping[str, str] = field(default_factory=dict)
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """Give a job back, in its place, because its machine is gone."""

    job_id: str
    epoch: int
    outcome: str
    """`interrupted`, `lost` or `returned`."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Move a machine's record to another state; no cloud call."""

    machine_id: str
    state: MachineState
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Keep a machine until a time although it may be idle."""

    machine_id: str
    until: datetime | None
    """None takes the hold away."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """End a machine of ours: cordon first, then the cloud call, repeated until proven gone."""

    machine_id: str
    reason: Reason
    hard: bool = False
    """End it even if it holds a lease by then: lost, past its limit, or asked for by a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reap:
    """End a machine that carries our label and has no open record."""

    provider: str
    provider_id: str
    region: str
    zone: str
    machine_id: str
    reason: Reason


Action = Launch | Resume | Adopt | Requeue | Mark | Hold | Terminate | Reap


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something wanted that was not done, and why: `explain` and the dashboard print these."""

    subject: str
    """A queue or a pool."""
    wanted: int
    """How many machines were wanted and not bought; 0 when it is not about a number."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a plan found about one queue or pool, also when there was nothing to do."""

    subject: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one decision came to."""

    autoscaler: str
    at: datetime
    generation: int
    launches: tuple[Launch, ...] = ()
    resumes: tuple[Resume, ...] = ()
    adoptions: tuple[Adopt, ...] = ()
    requeues: tuple[Requeue, ...] = ()
    marks: tuple[Mark, ...] = ()
    holds: tuple[Hold, ...] = ()
    terminations: tuple[Terminate, ...] = ()
    reaps: tuple[Reap, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    reports: tuple[Report, ...] = ()

    def actions(self) -> Iterator[Action]:
        """All actions in the order they are carried out: repair the books, give work back, end
        what is not wanted, then buy."""
        yield from self.adoptions
        yield from self.marks
        yield from self.requeues
        yield from self.holds
        yield from self.terminations
        yield from self.reaps
        yield from self.resumes
        yield from self.launches

    @property
    def empty(self) -> bool:
        """Whether carrying it out would change nothing."""
        return next(self.actions(), None) is None


def planned_machine(launch: Launch, autoscaler: str, at: datetime) -> Machine:
    """The durable intent of a launch."""
    return Machine(
        id=launch.machine_id,
        autoscaler=autoscaler,
        pool=launch.pool,
        state=MachineState.PLANNED,
        offers=launch.offers,
        planned_at=at,
        launch_reason=launch.reason,
    )
