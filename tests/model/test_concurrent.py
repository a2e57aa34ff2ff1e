"""Several clients at once: what they saw could have come from one call after another."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from control_plane.ports import CLAIM_WINDOW
from tests.model.clients import concurrent_history
from tests.model.conftest import Adapter
from tests.model.linear import check
from tests.model.searching import announce, new_seed
from tests.model.unlocked import check_unlocked

MANY = (pytest.param(25, id="25"), pytest.param(1000, id="1000", marks=pytest.mark.long))
REMOTE_SHARE = 4
"""A remote store gets this many times fewer histories."""


@pytest.mark.parametrize("histories", MANY)
def test_concurrent_calls_are_linearizable(
    adapter: Adapter, histories: int, tmp_path: Path
) -> None:
    seed = new_seed()
    histories //= REMOTE_SHARE if adapter.remote else 1
    announce(f"several clients, {adapter.name}, {histories} histories", seed)
    for number in range(histories):
        folder = tmp_path / str(number)
        folder.mkdir()
        store = adapter.empty(folder)
        try:
            random = Random(f"{seed}/{number}")
            history = concurrent_history(store, random, remote=adapter.remote)
        finally:
            store.close()
        if adapter.remote:
            check_unlocked(history.calls, history.world, window=CLAIM_WINDOW)
        else:
            check(history.calls, history.world)
