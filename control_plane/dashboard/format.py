"""Figures as people read them. Text only: no colour, no markup, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_FLOOR, Decimal

from control_plane.core.model import Capacity, Need

NOTHING = "—"
_CENT = Decimal("0.01")


def money(usd: Decimal) -> str:
    """Short: whole dollars from 100 on, else cents; a small amount never reads as nothing."""
    if usd < 0:
        return f"-{money(-usd)}"
    if 0 < usd < _CENT:
        return "<$0.01"
    return f"${usd:,.0f}" if usd >= 100 else f"${usd:,.2f}"


def cents(usd: Decimal) -> str:
    """To the cent, for columns that have to add up."""
    return f"-${-usd:,.2f}" if usd < 0 else f"${usd:,.2f}"


def cents_that_add_up(
    amounts: Sequence[Decimal], total: Decimal | None = None
) -> tuple[Decimal, ...]:
    """The amounts rounded to cents so that they sum to their rounded total (or to `total`, their
    sum rounded either way): the cents that rounding down leaves go to the largest remainders."""
    exact = sum(amounts, Decimal(0))
    wanted = exact.quantize(_CENT) if total is None else total
    floors = [amount.quantize(_CENT, rounding=ROUND_FLOOR) for amount in amounts]
    missing = int((wanted - sum(floors, Decimal(0))) / _CENT)
    by_remainder = sorted(range(len(amounts)), key=lambda i: (floors[i] - amounts[i], i))
    for i in by_remainder[:missing]:
        floors[i] += _CENT
    return tuple(floors)


def percent(part: Decimal, whole: Decimal) -> str:
    """One decimal; nothing of nothing is none."""
    return f"{part / whole * 100:.1f}%" if whole else "0%"


def duration(seconds: float) -> str:
    """Two units at most: `8 s`, `42 min`, `6 h 52`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d}"
    return f"{hours // 24} d {hours % 24} h"


def since(moment: datetime | None, now: datetime) -> str:
    """How long ago, or a dash."""
    return NOTHING if moment is None else duration((now - moment).total_seconds())


def moment(at: datetime | None) -> str:
    """Day and minute, UTC."""
    return NOTHING if at is None else at.strftime("%Y-%m-%d %H:%M")


def clock(at: datetime) -> str:
    """Day and second, UTC, for logs of events."""
    return at.strftime("%m-%d %H:%M:%S")


def gpus(capacity: Capacity | Need) -> str:
    """`A100 ×8`, or a dash for a machine without."""
    return f"{capacity.gpu_name or 'any GPU'} ×{capacity.gpus}" if capacity.gpus else NOTHING


def capacity(of: Capacity) -> str:
    """All of a machine in one line."""
    parts = [gpus(of)] if of.gpus else []
    parts += [f"{of.cpus} CPU"] if of.cpus else []
    parts += [f"{of.memory_mib / 1024:g} GiB"] if of.memory_mib else []
    return ", ".join(parts) or NOTHING


def need(of: Need) -> str:
    """What a job takes, short; `whole machine` when it states nothing."""
    parts = [gpus(of)] if of.gpus else []
    parts += [f"{of.cpus} CPU"] if of.cpus else []
    parts += [f"{of.memory_mib / 1024:g} GiB"] if of.memory_mib else []
    if parts:
        return ", ".join(parts)
    return "whole machine" if of.share_ppm in (0, 1_000_000) else f"{of.share_ppm / 10_000:g}%"


def size(count: int) -> str:
    """Bytes in the unit that fits."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def plural(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
