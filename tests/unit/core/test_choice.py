"""What is left of a ranked choice under a cap."""

from __future__ import annotations

from decimal import Decimal

import pytest

from control_plane.core.choice import FALLBACKS_MAX, Choice
from tests.build import offer

CHEAP, LARGE, DEAR = offer("0.30"), offer("0.20", gpus=4), offer("2.00", gpus=2)
THREE = Choice([CHEAP, LARGE, DEAR])


def test_a_choice_is_as_large_and_as_dear_as_its_worst_offer() -> None:
    """The cards of one and the price of another."""
    assert (THREE.gpus, THREE.usd_hour) == (4, Decimal("2.00"))
    assert (Choice([]).gpus, Choice([]).usd_hour) == (0, Decimal(0))


@pytest.mark.parametrize(
    ("gpus", "usd_hour", "left"),
    [
        (4, "2.00", [CHEAP, LARGE, DEAR]),  # reaching a cap is allowed
        (9, "9.00", [CHEAP, LARGE, DEAR]),
        (3, "9.00", [CHEAP, DEAR]),
        (9, "1.99", [CHEAP, LARGE]),
        (1, "0.30", [CHEAP]),
        (4, "0.29", [LARGE]),
        (0, "9.00", []),
        (9, "-1", []),
    ],
)
def test_what_a_cap_leaves_of_a_choice(gpus: int, usd_hour: str, left: list[object]) -> None:
    """In the order of the choice."""
    assert list(THREE.within(gpus, Decimal(usd_hour)).offers) == left


def test_an_answer_is_kept() -> None:
    """Thousands of machines may ask the same; room beyond the worst offer makes no difference."""
    assert THREE.within(4, Decimal(2)) is THREE
    assert THREE.within(9, Decimal(1)) is THREE.within(4, Decimal(1))
    assert THREE.within(2, Decimal(9)) is THREE.within(2, Decimal(2))
    assert THREE.within(2, Decimal(1)) is not THREE.within(2, Decimal(2))


def test_only_so_many_are_tried_for_one_machine() -> None:
    """The first of them; what comes later does not count."""
    many = Choice([CHEAP] * FALLBACKS_MAX + [DEAR])
    assert many.head().offers == (CHEAP,) * FALLBACKS_MAX
    assert many.head().usd_hour == Decimal("0.30")
    assert many.head() is many.head()
    assert THREE.head() is THREE
