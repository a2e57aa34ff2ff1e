"""What is read from entries of the audit log that Pub/Sub pushes, and what is not."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.errors import InvalidInput
from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.gcp import events
from tests.fakes import notices

AT = datetime(2026, 3, 10, 12, 0, 0, 250_000, tzinfo=UTC)
ID = "projects/acme-ml/zones/us-central1-a/instances/orchctl-m1-1"


def read(message: Any) -> Told:
    return events.read(json.dumps(message).encode())


def notice(kind: NoticeKind) -> Told:
    told = CloudNotice(provider_id=ID, kind=kind, said_at=AT, seconds=30.0, region="us-central1")
    return Told(notices=(told,))


def test_a_preemption_gives_half_a_minute() -> None:
    assert read(notices.gcp_preempted(ID, AT)) == notice(NoticeKind.TAKEN)


@pytest.mark.parametrize(
    "method",
    [
        "compute.instances.hostError",
        "compute.instances.terminateOnHostMaintenance",
        "compute.instances.guestTerminate",
    ],
)
def test_an_instance_that_ends(method: str) -> None:
    pushed = notices.gcp_push(notices.gcp_entry(ID, method, AT))
    assert read(pushed) == notice(NoticeKind.ENDING)


def test_a_name_written_as_a_link_is_the_same_instance() -> None:
    entry = notices.gcp_entry(ID, events.PREEMPTED, AT)
    entry["protoPayload"]["resourceName"] = f"//compute.googleapis.com/{ID}"
    assert read(notices.gcp_push(entry)) == notice(NoticeKind.TAKEN)


@pytest.mark.parametrize("method", ["v1.compute.instances.insert", "", ["compute"], None])
def test_other_entries_are_nothing_to_tell(method: Any) -> None:
    entry = notices.gcp_entry(ID, "", AT)
    entry["protoPayload"]["methodName"] = method
    assert read(notices.gcp_push(entry)) == Told()
    assert read(notices.gcp_push({"textPayload": "hello"})) == Told()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("not base64", "not base64"),
        ("\u00fc", "not base64"),
        (7, "no text `message.data`"),
        (base64.b64encode(b"{").decode(), "not JSON"),
        (base64.b64encode(b"[]").decode(), "no object at its top"),
        (base64.b64encode(b'{"protoPayload": 7}').decode(), "no object at its top"),
    ],
)
def test_what_is_no_message_of_the_log(data: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read({"message": {"data": data}})


def test_an_entry_that_names_no_instance_or_time() -> None:
    for part, value in (("resourceName", "projects/acme-ml"), ("resourceName", None)):
        entry = notices.gcp_entry(ID, events.PREEMPTED, AT)
        entry["protoPayload"][part] = value
        with pytest.raises(InvalidInput):
            read(notices.gcp_push(entry))
    entry = notices.gcp_entry(ID, events.PREEMPTED, AT) | {"timestamp": "soon"}
    with pytest.raises(InvalidInput, match="`timestamp` is no time"):
        read(notices.gcp_push(entry))
