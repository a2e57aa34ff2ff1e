"""The tables of `docs/store.md`: units per operation as measured, and what they come to in money.

`store-units.json` beside this file holds the units. A test runs every operation against DynamoDB's
emulator, counts, and compares (`tests/unit/stores/dynamodb/test_documented_units.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from docs import list_prices

PAGE = Path(__file__).parent / "store.md"
UNITS = Path(__file__).parent / "store-units.json"

TICKS_A_MONTH = 30 * 24 * 60
BEAT_S = 30

Units = Mapping[str, Mapping[str, float]]


def tables() -> Mapping[str, str]:
    """The generated parts of the page, by name."""
    units: Units = json.loads(UNITS.read_text(encoding="utf-8"))
    return {
        "store-units": "\n".join(_units_table(units)),
        "store-costs": "\n".join(_costs_table(units)),
    }


def _units_table(units: Units) -> Iterator[str]:
    yield "| operation | write units | read units |"
    yield "| --- | ---: | ---: |"
    for name, each in units.items():
        yield f"| {name} | {each['writes']:g} | {each['reads']:g} |"


def _costs_table(units: Units) -> Iterator[str]:
    life = "a job's life, one at a time, mean of 100"
    million = 1_000_000 * usd(units, life)
    beat = 1_000_000 * usd(units, "beat of a machine")
    look = TICKS_A_MONTH * usd(units, "tick with nothing to do")
    stored = list_prices.STORED_GB_MONTH * 50 / 1024
    yield "| what | USD |"
    yield "| --- | ---: |"
    yield f"| a million jobs, without beats | {million:.2f} |"
    for minutes in (10, 60):
        beats = minutes * 60 // BEAT_S
        yield (
            f"| a million jobs of {minutes} minutes, one on a machine at a time "
            f"({beats} beats each) | {million + beats * beat:.2f} |"
        )
        yield (
            f"| a million jobs of {minutes} minutes, eight on a machine at a time | "
            f"{million + beats * beat / 8:.2f} |"
        )
    yield f"| a month with nothing to do, a tick a minute | {look:.3f} |"
    yield f"| 50 MB kept for a month | {stored:.3f} |"


def usd(units: Units, name: str) -> Decimal:
    """What one operation costs."""
    each = units[name]
    writes, reads = (Decimal(str(each[name])) for name in ("writes", "reads"))
    return writes * list_prices.WRITE + reads * list_prices.READ
