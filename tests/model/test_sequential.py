"""One client, any history: each store answers as the spec does, call by call.

Answers get lost and the same call is made again, clocks jump both ways, the store is closed and
opened again, or copied in the middle as a crash would leave it.
"""

from __future__ import annotations

import pytest

from tests.model.conftest import Adapter
from tests.model.searching import HISTORIES, STEPS, STEPS_REMOTE, search
from tests.model.sequential import Sequential


@pytest.mark.parametrize("histories", HISTORIES)
def test_a_store_answers_as_the_spec_does(adapter: Adapter, histories: int) -> None:
    machine = type("Machine", (Sequential,), {"adapter": adapter})
    steps = STEPS_REMOTE if adapter.remote else STEPS
    search(machine, f"one client, {adapter.name}", histories, steps=steps)
