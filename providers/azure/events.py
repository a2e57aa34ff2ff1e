"""What Event Grid delivers of virtual machines: lists of events in its own schema, not that of
CloudEvents.

Sources: Azure Event Grid, "Azure Resource Notifications - Health Resources events", "Azure resource
group as an Event Grid source", "Endpoint validation with Event Grid event schema"; Azure Service
Health, "Resource Health virtual machine Health Annotations".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from control_plane.errors import InvalidInput
from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.deliveries import json_of, moment, part, text

SECONDS = 30.0
"""From an eviction's notice to its end, at least."""

_VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_ANNOTATED = "Microsoft.ResourceNotifications.HealthResources.ResourceAnnotated"
_DELETED = "Microsoft.Resources.ResourceDeleteSuccess"
_PREEMPTED = "VirtualMachinePreempted"
"""The one annotation that says that Azure takes the machine; the others say why it stops, starts or
may fail."""

_VM = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.Compute/virtualMachines/[^/]+",
    re.IGNORECASE,
)


def read(body: bytes) -> Told:
    """A list of events, or the question whether this address wants any; of what is not about a
    virtual machine nothing is told. Raises `InvalidInput` for what is no such list."""
    events = json_of(body)
    if not isinstance(events, list):
        raise InvalidInput(
            "this is no list of events in the schema of Event Grid",
            fix="create the subscription with `--event-delivery-schema eventgridschema`",
        )
    found = [(text(event, "eventType"), part(event)) for event in events]
    for name, event in found:
        if name == _VALIDATION:
            return Told(answer={"validationResponse": text(event, "data", "validationCode")})
    notices = [_notice(name, event) for name, event in found]
    return Told(notices=tuple(each for each in notices if each))


def _notice(name: str, event: Mapping[str, Any]) -> CloudNotice | None:
    if name == _DELETED:
        return _about(text(event, "subject"), NoticeKind.ENDING, event)
    if name != _ANNOTATED:
        return None
    facts = part(event, "data", "resourceInfo", "properties")
    taken = text(facts, "annotationName") == _PREEMPTED
    kind = NoticeKind.TAKEN if taken else NoticeKind.ENDING
    return _about(text(facts, "targetResourceId"), kind, event)


def _about(resource: str, kind: NoticeKind, event: Mapping[str, Any]) -> CloudNotice | None:
    """None for what is no virtual machine, such as its disk."""
    if not _VM.fullmatch(resource):
        return None
    return CloudNotice(
        provider_id=resource, kind=kind, said_at=moment(event, "eventTime"), seconds=SECONDS
    )
