"""What is read from deliveries of Event Grid, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.errors import InvalidInput
from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.azure import events
from tests.fakes import notices

AT = datetime(2026, 3, 10, 12, 0, 0, 250_000, tzinfo=UTC)
GROUP = "/subscriptions/0000-11/resourceGroups/ml/providers/Microsoft.Compute"
ID = f"{GROUP}/virtualMachines/orchctl-m1-1"


def read(delivery: Any) -> Told:
    return events.read(json.dumps(delivery).encode())


def notice(kind: NoticeKind, provider_id: str = ID) -> CloudNotice:
    return CloudNotice(provider_id=provider_id, kind=kind, said_at=AT, seconds=30.0)


def test_a_preemption_gives_half_a_minute() -> None:
    assert read(notices.azure_preempted(ID, AT)).notices == (notice(NoticeKind.TAKEN),)


def test_every_other_annotation_is_a_reason_to_look() -> None:
    told = read([notices.azure_annotated(ID, "VirtualMachineDeallocationInitiated", AT)])
    assert told.notices == (notice(NoticeKind.ENDING),)


def test_a_deleted_machine_ends_and_its_disk_is_none() -> None:
    lower = ID.replace("resourceGroups", "resourcegroups")
    both = notices.azure_deleted(lower, AT) + notices.azure_deleted(f"{GROUP}/disks/d", AT)
    assert read(both).notices == (notice(NoticeKind.ENDING, lower),)


def test_several_events_in_one_delivery_keep_their_order() -> None:
    told = read(notices.azure_preempted(ID, AT) + notices.azure_deleted(ID, AT))
    assert told.notices == (notice(NoticeKind.TAKEN), notice(NoticeKind.ENDING))


def test_the_question_whether_events_are_wanted_is_answered() -> None:
    told = read(notices.azure_validation("512d38b6-c7b8-40c8-89fe-f46f9e9622b6", AT))
    assert told == Told(answer={"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"})


def test_events_of_other_kinds_are_nothing_to_tell() -> None:
    changed = notices.azure("Microsoft.ResourceNotifications.HealthResources.X", ID, AT, {})
    assert read([changed]) == Told()
    assert read([]) == Told()


def test_an_event_of_cloudevents_says_what_to_do() -> None:
    with pytest.raises(InvalidInput) as caught:
        read({"specversion": "1.0", "type": "x"})
    assert "eventgridschema" in caught.value.fix


@pytest.mark.parametrize(
    "delivery",
    [
        [7],
        [{}],
        [{"eventType": ["x"]}],
        [{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}],
        [notices.azure_annotated(ID, "", AT)],
        [notices.azure_annotated(ID, "VirtualMachinePreempted", AT) | {"data": None}],
        [notices.azure_annotated(ID, "VirtualMachinePreempted", AT) | {"eventTime": "soon"}],
    ],
)
def test_what_is_no_delivery(delivery: Any) -> None:
    with pytest.raises(InvalidInput):
        read(delivery)
