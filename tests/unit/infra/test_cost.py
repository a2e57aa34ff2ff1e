"""What the control plane itself costs: the documented figures are the measured ones, and what they
come to keeps its promises.

`ORCHCTL_WRITE_UNITS=1` writes down what was measured instead of comparing; `make docs` then writes
the page. Times and lengths of lines vary, so they are written down and not compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from docs import generate_serverless as cost
from docs.generate import with_tables
from tests.emulators.ministack import Ministack
from tests.unit.infra.measured import EXACT, Figure, measure

pytestmark = pytest.mark.xdist_group("permissions")


def _exact(figures: Mapping[str, Figure]) -> Mapping[str, Figure]:
    return {name: {key: each[key] for key in EXACT} for name, each in figures.items()}


def test_the_documented_figures_are_the_consumed_ones(ministack: Ministack) -> None:
    measured = measure(ministack)
    if os.environ.get("ORCHCTL_WRITE_UNITS"):
        cost.FIGURES.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        cost.figures.cache_clear()
    assert _exact(cost.figures()) == _exact(measured)


def test_a_month_with_nothing_to_do_costs_at_most_fifteen_cents() -> None:
    assert cost.deployment().looks_a_month == 30 * 24 * 60
    assert sum(cost.idle_usd().values()) <= Decimal("0.15")


def test_an_idle_agent_costs_less_than_half_a_percent_of_the_cheapest_gpu_hour() -> None:
    assert cost.idle_agent_usd_hour() < cost.cheapest_gpu_usd_hour() * Decimal("0.005")


def test_an_idle_agent_asks_less_and_less_often() -> None:
    shortest, longest = cost.poll_s()
    assert cost.HOUR_S / longest < cost.idle_polls() < cost.HOUR_S / shortest / 3


@pytest.mark.parametrize("page", cost.PAGES, ids=lambda page: page.stem)
def test_the_tables_of_the_page_are_the_generated_ones(page: Path) -> None:
    text, tables = page.read_text(encoding="utf-8"), cost.PAGES[page]()
    assert text == with_tables(text, tables), "run: make docs"
    for name in tables:
        assert f"<!-- generated: {name} -->" in text
