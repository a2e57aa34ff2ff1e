"""Whatever is delivered, it is read or refused: nothing else happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidInput
from control_plane.ports import Told
from providers.aws import events as aws
from providers.azure import events as azure
from providers.gcp import events as gcp
from tests.fakes import notices

AT = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
INSTANCE = "projects/acme-ml/zones/us-central1-a/instances/orchctl-m1-1"
VM = "/subscriptions/0/resourceGroups/ml/providers/Microsoft.Compute/virtualMachines/m1"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def paths(data: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, the whole of it first."""
    yield above
    if isinstance(data, dict):
        keys = list(data)
    else:
        keys = list(range(len(data))) if isinstance(data, list) else []
    for key in keys:
        yield from paths(data[key], (*above, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = changed(data[path[0]], path[1:], value)
    return copy


def check(read: Callable[[bytes], Told], delivery: Any) -> None:
    try:
        told = read(json.dumps(delivery).encode())
    except InvalidInput:
        return
    assert all(each.said_at.tzinfo and each.provider_id for each in told.notices)


EXAMPLES = [
    (aws.read, notices.aws_warning("i-1", AT)),
    (aws.read, notices.aws_state("i-1", "terminated", AT)),
    (azure.read, notices.azure_preempted(VM, AT) + notices.azure_deleted(VM, AT)),
    (azure.read, notices.azure_validation("code", AT)),
]


@pytest.mark.parametrize(("read", "example"), EXAMPLES)
@given(data=st.data())
def test_a_delivery_with_one_thing_changed(
    read: Callable[[bytes], Told], example: Any, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(list(paths(example))))
    check(read, changed(example, path, data.draw(JSON)))


@given(data=st.data())
def test_an_entry_of_the_log_with_one_thing_changed(data: st.DataObject) -> None:
    entry = notices.gcp_entry(INSTANCE, gcp.PREEMPTED, AT)
    path = data.draw(st.sampled_from(list(paths(entry))))
    check(gcp.read, notices.gcp_push(changed(entry, path, data.draw(JSON))))
    pushed = notices.gcp_push(entry)
    path = data.draw(st.sampled_from(list(paths(pushed))))
    check(gcp.read, changed(pushed, path, data.draw(JSON)))


@pytest.mark.parametrize("read", [aws.read, azure.read, gcp.read])
@given(body=st.binary(max_size=50))
def test_any_bytes(read: Callable[[bytes], Told], body: bytes) -> None:
    try:
        read(body)
    except InvalidInput:
        return
