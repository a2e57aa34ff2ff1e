"""A table of its own in ministack for each test that asks for one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from control_plane.stores.dynamodb.calls import Client
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.table import create_table, ready_index

STEADY = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""The same examples in every run, all on one table: each takes a key of its own or starts over."""
READY = ready_index(["nd", "sz"])


@pytest.fixture
def table(dynamodb: Client, table_name: str) -> TableClient:
    """An empty table with the index `READY`."""
    create_table(dynamodb, table_name, [READY])
    return TableClient(dynamodb, table_name, indexes=[READY])
