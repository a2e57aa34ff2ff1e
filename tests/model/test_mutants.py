"""The tests of this folder find bugs: a store with one on purpose does not pass them."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest

from control_plane.ports import CLAIM_WINDOW
from tests.model.clients import concurrent_history
from tests.model.conftest import Adapter
from tests.model.linear import NotLinearizable, Undecided, check
from tests.model.mutants import (
    ALWAYS_WRONG,
    WRONG_TOGETHER,
    WRONG_WITHOUT_A_LOCK_TOO,
    Mutant,
)
from tests.model.searching import search
from tests.model.sequential import Sequential
from tests.model.unlocked import check_unlocked

HISTORIES = 1000
"""At most: the search stops at the first history that shows the bug."""

BUDGET = 10_000
"""Steps per history: one that stays undecided is no proof, and the next may be."""


@pytest.mark.parametrize("mutant", ALWAYS_WRONG)
def test_one_client_finds_what_is_always_wrong(mutant: type[Mutant]) -> None:
    adapter = Adapter(name=mutant.__name__, empty=lambda folder: mutant())
    machine = type("Machine", (Sequential,), {"adapter": adapter})
    with pytest.raises(AssertionError, match="should say"):
        search(machine, f"one client, {adapter.name}", HISTORIES, shrink=False)


@pytest.mark.parametrize("mutant", WRONG_TOGETHER)
def test_several_clients_find_what_is_wrong_in_between(mutant: type[Mutant]) -> None:
    def search_together() -> None:
        for number in range(HISTORIES):
            history = concurrent_history(mutant(), Random(number))
            with suppress(Undecided):
                check(history.calls, history.world, budget=BUDGET)

    with pytest.raises(NotLinearizable):
        search_together()


@pytest.mark.parametrize("mutant", WRONG_WITHOUT_A_LOCK_TOO)
def test_they_do_by_the_rules_for_a_store_without_a_lock(mutant: type[Mutant]) -> None:
    def search_together() -> None:
        for number in range(HISTORIES):
            history = concurrent_history(mutant(), Random(number), remote=True)
            with suppress(Undecided):
                check_unlocked(history.calls, history.world, window=CLAIM_WINDOW, budget=BUDGET)

    with pytest.raises(NotLinearizable):
        search_together()
