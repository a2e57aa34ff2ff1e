"""Alerts that go out: one message to one receiver, and how far it has come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from control_plane.core.policy import Alert


class AlertKind(StrEnum):
    """What may be told."""

    BUDGET = "budget"
    NO_CAPACITY = "no-capacity"
    INTERRUPTION_STORM = "interruption-storm"
    JOB_FAILED = "job-failed"


class DeliveryState(StrEnum):
    """How far a message has come."""

    WAITING = "waiting"
    """To be sent, or sent again, from `due_at` on."""
    SENT = "sent"
    """Its receiver has taken it."""
    GIVEN_UP = "given-up"
    """Nobody took it; `problem` says what came back last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one receiver."""

    id: str
    """Also what its receiver knows a repeat by."""
    autoscaler: str
    kind: str
    subject: str
    """What it is about: the id of a job, or the name of a queue or pool."""
    text: str
    fix: str = ""
    """A command that shows more, or ends it."""
    channel: str
    """`slack` or `webhook`."""
    target: str
    """The secret reference that stands for the receiver's address."""
    created_at: datetime
    due_at: datetime
    attempts: int = 0
    """Begun so far."""
    state: DeliveryState = DeliveryState.WAITING
    status: int = 0
    """What the receiver answered last; 0 = nothing."""
    problem: str = ""
    ended_at: datetime | None = None
    version: int = 1


def delivery_id(autoscaler: str, kind: str, subject: str, alert: Alert, now: datetime) -> str:
    """The same for all that is one message: one thing, one receiver, one day (UTC). Days first, so
    that ids sort by them."""
    receiver = hashlib.sha256(f"{alert.channel} {alert.target}".encode()).hexdigest()[:8]
    return f"{day_of(now)}{kind}.{autoscaler}.{subject}.{receiver}"


def day_of(now: datetime) -> str:
    """What ids of this day begin with."""
    return f"{now:%Y%m%d}."
