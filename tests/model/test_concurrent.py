"""Several clients at once: what they saw could have come from one call after another."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from control_plane.ports import CLAIM_WINDOW
from tests.model.clients import concurrent_history
from tests.model.conftest import Adapter
from tests.model.linear import Undecided, check
from tests.model.searching import announce, new_seed
from tests.model.unlocked import check_unlocked

MANY = (pytest.param(100, id="100"), pytest.param(2000, id="2000", marks=pytest.mark.long))
REMOTE_SHARE = 4
"""A remote store gets this many times fewer histories."""
UNDECIDED_SHARE = 20
"""For so many histories that are decided, one may stay undecided."""


@pytest.mark.parametrize("histories", MANY)
def test_concurrent_calls_are_linearizable(
    adapter: Adapter, histories: int, tmp_path: Path
) -> None:
    seed = new_seed()
    histories //= REMOTE_SHARE if adapter.remote else 1
    decided = undecided = 0
    announce(f"several clients, {adapter.name}, {histories} histories", seed)
    while decided < histories:
        number = decided + undecided
        folder = tmp_path / str(number)
        folder.mkdir()
        store = adapter.empty(folder)
        try:
            random = Random(f"{seed}/{number}")
            history = concurrent_history(store, random, remote=adapter.remote)
        finally:
            store.close()
        try:
            if adapter.remote:
                check_unlocked(history.calls, history.world, window=CLAIM_WINDOW)
            else:
                check(history.calls, history.world)
            decided += 1
        except Undecided:
            # Calls that all overlap, as on a machine with much else to do, have too many orders to
            # try. Such a history says nothing, so another one takes its place; if there are many of
            # them, something is wrong with the store or with the search.
            undecided += 1
            if undecided > histories // UNDECIDED_SHARE:
                raise
