"""Whatever happens, in whatever order: the promises of the product hold in the clouds' own truth.

Each seed is one random history of a whole deployment. Run one again with
`pytest tests/simulation/test_seeds.py -k seed-7`. `ORCHCTL_LONG=1` plays over a thousand, each
twice as long, so a seed that failed there needs it again.
"""

from __future__ import annotations

import pytest

from tests.conftest import LONG
from tests.simulation.histories import History

SEEDS = range(1500 if LONG else 25)
STEPS = 60 if LONG else 30


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
def test_every_promise_holds_through_a_random_history(seed: int) -> None:
    history = History(seed, steps=STEPS)
    try:
        history.play()
    except AssertionError as error:
        story = "\n".join(history.world.story())
        pytest.fail(f"{error}\n\n{history.document()}\n{story}", pytrace=False)
