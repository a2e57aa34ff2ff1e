"""What the functions of a deployment share: one secret, and a bell that is heard once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from control_plane.serverless.shared import RUNG, Bell, kept_secret
from control_plane.stores.dynamodb import INDEXES
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.table import create_table
from providers.simulated.clock import SimulatedClock


@pytest.fixture
def table(dynamodb: Any, table_name: str) -> TableClient:
    name = f"shared-{table_name}"
    create_table(dynamodb, name, INDEXES)
    return TableClient(dynamodb, name, indexes=INDEXES)


class Ear:
    """A bell with its clock and how often it was heard."""

    def __init__(self, table: TableClient) -> None:
        self.clock = SimulatedClock()
        self.heard = 0
        self.bell = Bell(table, self.clock.now, self._hear)

    def _hear(self) -> None:
        self.heard += 1


def test_all_functions_have_one_secret(table: TableClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: kept_secret(table), range(8)))
    (secret,) = secrets
    assert len(secret) == 32
    assert kept_secret(table) == secret


def test_two_deployments_have_two(dynamodb: Any, table: TableClient, table_name: str) -> None:
    other = f"other-{table_name}"
    create_table(dynamodb, other, INDEXES)
    assert kept_secret(TableClient(dynamodb, other, indexes=INDEXES)) != kept_secret(table)


def test_a_bell_wakes_once_until_it_is_answered(table: TableClient) -> None:
    ear = Ear(table)
    for _ in range(5):
        ear.bell.ring()
    assert ear.heard == 1
    ear.bell.answer()
    assert ear.heard == 1
    ear.bell.ring()
    ear.bell.ring()
    assert ear.heard == 2


def test_a_bell_that_nobody_answers_is_rung_again(table: TableClient) -> None:
    """Whoever was woken has died."""
    ear = Ear(table)
    ear.bell.ring()
    ear.clock.advance(RUNG / timedelta(seconds=1))
    ear.bell.ring()
    assert ear.heard == 1
    ear.clock.advance(1)
    ear.bell.ring()
    assert ear.heard == 2


def test_an_answer_to_a_bell_that_was_never_rung_changes_nothing(table: TableClient) -> None:
    ear = Ear(table)
    ear.bell.answer()
    ear.bell.ring()
    assert ear.heard == 1


def test_of_many_that_ring_at_once_one_is_heard(table: TableClient) -> None:
    ears = [Ear(table) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda ear: ear.bell.ring(), ears))
    assert sum(ear.heard for ear in ears) == 1
