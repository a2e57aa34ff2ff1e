"""What EventBridge delivers of EC2 instances, one event at a time.

Sources: Amazon EC2 User Guide, "Spot Instance interruption notices", "EC2 instance rebalance
recommendations", "State change events for your instances"; EventBridge User Guide, "AWS service
event metadata".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.deliveries import json_of, moment, part, text

SECONDS = 120.0
"""From the warning to the end. It is best effort: an instance that hibernates has none."""

_WARNING = "EC2 Spot Instance Interruption Warning"
_HINT = "EC2 Instance Rebalance Recommendation"
_STATE = "EC2 Instance State-change Notification"
_ENDING = frozenset({"shutting-down", "terminated", "stopping", "stopped"})


def read(body: bytes) -> Told:
    """One event; of what is no event of an instance that ends nothing is told. Raises
    `InvalidInput` for what is no event."""
    event = part(json_of(body))
    source, kind = text(event, "source"), _kind(event)
    if source != "aws.ec2" or kind is None:
        return Told()
    notice = CloudNotice(
        provider_id=text(event, "detail", "instance-id"),
        kind=kind,
        said_at=moment(event, "time"),
        seconds=SECONDS,
        region=text(event, "region"),
    )
    return Told(notices=(notice,))


def _kind(event: Mapping[str, Any]) -> NoticeKind | None:
    name = text(event, "detail-type")
    if name == _WARNING:
        return NoticeKind.TAKEN
    if name == _HINT:
        return NoticeKind.HINT
    if name == _STATE and text(event, "detail", "state") in _ENDING:
        return NoticeKind.ENDING
    return None
