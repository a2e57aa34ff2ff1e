"""The tests of this folder find bugs: a store with one on purpose does not pass them."""

from __future__ import annotations

from random import Random

import pytest

from tests.model.clients import concurrent_history
from tests.model.conftest import Adapter
from tests.model.linear import NotLinearizable, check
from tests.model.mutants import ALWAYS_WRONG, WRONG_TOGETHER, Mutant
from tests.model.searching import search
from tests.model.sequential import Sequential

HISTORIES = 1000
"""At most: the search stops at the first history that shows the bug."""


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
            check(history.calls, history.world)

    with pytest.raises(NotLinearizable):
        search_together()
