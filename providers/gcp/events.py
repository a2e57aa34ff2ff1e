"""What Pub/Sub pushes of Compute Engine instances: entries of the audit log, one a message.

Sources: Compute Engine, "Audit logging" (system events) and "Spot VMs" (the notice); Cloud Logging,
`LogEntry` and `AuditLog`; Pub/Sub, "Push subscriptions" (the envelope).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from control_plane.errors import InvalidInput
from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.deliveries import json_of, moment, part, text
from providers.gcp.ending import BY_CLOUD, BY_ITSELF
from providers.gcp.names import Place, region_of

SECONDS = 30.0
"""From the preemption to the end."""

PREEMPTED = "compute.instances.preempted"


def read(body: bytes) -> Told:
    """One message; of what is not about the end of an instance nothing is told. Raises
    `InvalidInput` for what is no message, or holds no entry."""
    entry = _entry(text(json_of(body), "message", "data"))
    method = part(entry).get("protoPayload", {})
    name = part(method).get("methodName")
    if not isinstance(name, str) or name not in BY_CLOUD | BY_ITSELF:
        return Told()
    place = _place(entry)
    notice = CloudNotice(
        provider_id=place.provider_id,
        kind=NoticeKind.TAKEN if name == PREEMPTED else NoticeKind.ENDING,
        said_at=moment(entry, "timestamp"),
        seconds=SECONDS,
        region=region_of(place.zone),
    )
    return Told(notices=(notice,))


def _entry(data: str) -> Mapping[str, Any]:
    try:
        written = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InvalidInput("the data of the message is not base64") from error
    return part(json_of(written))


def _place(entry: Mapping[str, Any]) -> Place:
    place = Place.parse(text(entry, "protoPayload", "resourceName"))
    if place is None:
        raise InvalidInput("the entry names no instance")
    return place
