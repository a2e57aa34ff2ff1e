"""What leftovers cost: by size, by tier, or not known."""

from __future__ import annotations

import csv
from decimal import Decimal

import pytest

from providers.catalog import leftovers
from providers.catalog.leftovers import usd_hour

E = "StandardSSD_LRS"


@pytest.mark.parametrize(
    ("gib", "month"),
    [(1, "0.30"), (4, "0.30"), (5, "0.60"), (100, "9.60"), (128, "9.60"), (129, "19.20")],
)
def test_disk_of_a_tier_costs_as_much_as_the_whole_tier(gib: int, month: str) -> None:
    assert usd_hour("azure", "disk", E, gib) == round(Decimal(month) / 730, 6)


def test_disk_by_the_gib() -> None:
    assert usd_hour("gcp", "disk", "pd-balanced", 730) == Decimal("0.1")
    assert usd_hour("gcp", "disk", "pd-balanced", 0) == 0


def test_price_by_the_hour_needs_no_size() -> None:
    assert usd_hour("gcp", "address", "EXTERNAL") == Decimal("0.010")
    assert usd_hour("azure", "network-interface") == 0


@pytest.mark.parametrize(
    ("provider", "kind", "sort", "gib"),
    [
        ("azure", "disk", E, 4097),
        ("azure", "disk", E, None),
        ("azure", "disk", "UltraSSD_LRS", 100),
        ("gcp", "disk", "pd-balanced", None),
        ("gcp", "disk", "", 100),
        ("nowhere", "disk", E, 100),
    ],
)
def test_what_is_not_in_the_table_is_not_known(
    provider: str, kind: str, sort: str, gib: int | None
) -> None:
    assert usd_hour(provider, kind, sort, gib) is None


def test_table_is_in_order_and_every_source_is_attributed() -> None:
    """Tiers are looked through from the smallest on."""
    readme = leftovers._TABLE.with_name("README.md").read_text(encoding="utf-8")
    with leftovers._TABLE.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    tiers = [int(row["gib"]) for row in rows if row["gib"]]
    assert tiers == sorted(set(tiers))
    assert all(f"| `{row['source']}` |" in readme for row in rows)
    assert {row["per"] for row in rows} == {*leftovers._HOURS}
