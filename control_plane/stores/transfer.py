"""Records on their way from one store to another: more than the nouns, since a store knows things
of them that nobody else asks for. Every store writes and reads these same shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

from control_plane.core.access import ApiToken, Federation
from control_plane.core.alerts import Delivery
from control_plane.core.codec import from_json, to_json
from control_plane.core.hooks import Hook
from control_plane.core.model import (
    Artifact,
    Attempt,
    Cooldown,
    Event,
    Job,
    Machine,
    PriceInterval,
    QueueRecord,
)
from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import InvalidInput
from control_plane.ports import HeldFence, PlanRecord, Row, TransferKind

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job with what only its store knows of it."""

    job: Job
    idempotency_key: str = ""
    promoted_at: datetime | None = None
    """When ageing last raised its priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt with what it left."""

    attempt: Attempt
    artifacts: tuple[Artifact, ...] = ()


SHAPES: Mapping[TransferKind, type[Any]] = {
    TransferKind.AUTOSCALER_VERSION: AutoscalerRecord,
    TransferKind.AUTOSCALER: AutoscalerRecord,
    TransferKind.QUEUE: QueueRecord,
    TransferKind.LEASE: HeldFence,
    TransferKind.COOLDOWN: Cooldown,
    TransferKind.MACHINE: Machine,
    TransferKind.JOB: JobRow,
    TransferKind.ATTEMPT: AttemptRow,
    TransferKind.PRICE: PriceInterval,
    TransferKind.PLAN: PlanRecord,
    TransferKind.EVENT: Event,
    TransferKind.TOKEN: ApiToken,
    TransferKind.FEDERATION: Federation,
    TransferKind.HOOK: Hook,
    TransferKind.DELIVERY: Delivery,
}
"""What a row of each kind holds."""


def row(value: object) -> Row:
    """A record as a row."""
    return cast("Row", to_json(value))


def record(kind: TransferKind, row: Row, shape: type[T]) -> T:
    """The record in a row of this kind. Raises `InvalidInput`."""
    try:
        return from_json(shape, row)
    except ValueError as error:
        raise InvalidInput(f"this is no record of kind {kind}: {error}") from error
