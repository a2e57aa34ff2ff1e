"""What things cost that machines leave behind, from `leftover_prices.csv`; `README.md` beside it
says where the figures come from.

They are list prices, where the table names no region those of an American one: others are somewhat
dearer. They tell people whether a leftover matters, and nothing is bought by them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("leftover_prices.csv")
_HOURS: Mapping[str, int] = {"hour": 1, "month": 730, "gib-month": 730}


def usd_hour(
    provider: str, kind: str, sort: str = "", gib: int | None = None, *, region: str = ""
) -> Decimal | None:
    """US dollars an hour of a leftover of one sort, as the cloud calls it, and size; None = not in
    the table. The region counts where prices are known by region."""
    for row in _rows().get((provider, kind, sort), ()):
        if row["region"] not in ("", region):
            continue
        price = Decimal(row["usd"]) / _HOURS[row["per"]]
        if row["per"] == "gib-month":
            return None if gib is None else _exact(price * gib)
        if not row["gib"] or (gib is not None and gib <= int(row["gib"])):
            return _exact(price)
    return None


def _exact(price: Decimal) -> Decimal:
    return round(price, 6)


@cache
def _rows() -> Mapping[tuple[str, str, str], Sequence[Mapping[str, str]]]:
    """Rows of the same thing together, the smallest first."""
    found: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    with _TABLE.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault((row["provider"], row["kind"], row["type"]), []).append(row)
    return found
