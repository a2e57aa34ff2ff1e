"""What is read from the events of EventBridge, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.errors import InvalidInput
from control_plane.ports import CloudNotice, NoticeKind, Told
from providers.aws import events
from tests.fakes import notices

AT = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
ID = "i-0123456789abcdef0"


def read(event: Any) -> Told:
    return events.read(json.dumps(event).encode())


def notice(kind: NoticeKind) -> Told:
    told = CloudNotice(provider_id=ID, kind=kind, said_at=AT, seconds=120.0, region="us-east-1")
    return Told(notices=(told,))


def test_a_warning_gives_two_minutes() -> None:
    assert read(notices.aws_warning(ID, AT)) == notice(NoticeKind.TAKEN)


def test_a_recommendation_to_rebalance_is_a_hint() -> None:
    assert read(notices.aws_rebalance(ID, AT)) == notice(NoticeKind.HINT)


@pytest.mark.parametrize("state", ["shutting-down", "terminated", "stopping", "stopped"])
def test_an_instance_that_ends(state: str) -> None:
    assert read(notices.aws_state(ID, state, AT)) == notice(NoticeKind.ENDING)


@pytest.mark.parametrize("state", ["pending", "running"])
def test_an_instance_that_begins_is_nothing_to_tell(state: str) -> None:
    assert read(notices.aws_state(ID, state, AT)) == Told()


def test_events_of_others_are_nothing_to_tell() -> None:
    assert read(notices.aws("EC2 Fleet Instance Change", AT)) == Told()
    stranger = notices.aws_warning(ID, AT) | {"source": "my.test"}
    assert read(stranger) == Told()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detail-type": 7}, "no text `detail-type`"),
        ({"source": None}, "no text `source`"),
        ({"detail": []}, "no object `detail`"),
        ({"detail": {}}, "no text `detail.instance-id`"),
        ({"time": "noon"}, "`time` is no time"),
        ({"time": "0001-01-01T00:00:00+14:00"}, "`time` is no time"),
        ({"time": "2026-03-10T12:00:00"}, "`time` names no time zone"),
        ({"region": ""}, "no text `region`"),
    ],
)
def test_what_is_no_event(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read(notices.aws_warning(ID, AT) | change)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"7"])
def test_what_is_not_even_an_object(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        events.read(body)
