"""All that one decision may look at. Gathered by the shell, kept with the plan, replayable.

`Snapshot` goes to JSON and back without loss (`to_json`, `from_json` of `core.codec`): planned from
again, a kept one gives, bit for bit, what was decided then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from control_plane.core.model import (
    Cooldown,
    Lease,
    Machine,
    Observation,
    Offer,
    QueueStats,
    WaitingGroup,
)
from control_plane.core.policy import Autoscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The control plane's own time limits, in seconds."""

    lease_s: int = 90
    """A machine silent for this long has lost its leases. Three missed beats at the default."""
    unknown_grace_s: int = 120
    """A machine with our label and no record is left alone for this long: its record may be on
    its way (a listing and the store are never read at the same instant)."""
    breaker_failures: int = 3
    """Boot failures of one pool and offer that open the breaker."""
    breaker_window_s: int = 3600
    """How long a boot failure is remembered, and so how long the breaker stays open."""
    idle_grace_s: int = 30
    """An agent ends its machine on idleness by itself; this much later the controller does."""
    lifetime_grace_s: int = 300
    """After `max_lifetime` a machine may finish what it runs for this long, then it is ended."""
    terminate_repeat_s: int = 15
    """Between two terminate calls for a machine that is not proven gone."""
    idle_look_s: int = 0
    """While nothing runs and nothing waits, clouds are listed no more often than this: only a stray
    could be there. 0 = at every look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Money already spent, in US dollars, from the ledger."""

    day_usd: Decimal = Decimal(0)
    """Since midnight UTC."""
    month_usd: Decimal = Decimal(0)
    """Since the first of the month, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Inputs of one plan for one autoscaler."""

    now: datetime
    policy: Autoscaler
    paused: bool = False
    deleting: bool = False
    generation: int = 0
    """Fencing generation of the controller lease under which this was gathered."""
    queues: Mapping[str, QueueStats] = field(default_factory=dict)
    queues_paused: frozenset[str] = frozenset()
    waiting: tuple[WaitingGroup, ...] = ()
    machines: tuple[Machine, ...] = ()
    """Records not ended, of this autoscaler."""
    leases: tuple[Lease, ...] = ()
    observations: tuple[Observation, ...] = ()
    """One for each provider of this autoscaler that was asked."""
    offers: tuple[Offer, ...] = ()
    """What the providers of this autoscaler sell, available or not."""
    cooldowns: tuple[Cooldown, ...] = ()
    """Resting offers, and under `breaker_key` the boot failures counted."""
    reachable_since: datetime | None = None
    """Since when agents could reach the control plane: after its own outage nobody is silent."""
    spend: Spend = field(default_factory=Spend)
    timing: Timing = field(default_factory=Timing)
    new_machine_ids: tuple[str, ...] = ()
    """Fresh ids the plan may give to machines it buys, from the Ids port: the planner itself has
    no randomness. There are as many as the document still allows machines."""
