"""Rounds as two tables for people and one line of JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from bench.peers.figures import Figure, values
from bench.peers.rounds import Round
from bench.peers.work import Phase


def show(
    figures: Sequence[Figure],
    steady: Sequence[Round],
    skipped: Sequence[Round],
    missing: Mapping[str, str],
) -> None:
    """Print all of it; `missing` says which phases could not run and why."""
    floors = [each for made in steady for each in (made.floor_before, made.floor_after)]
    names = list(steady[0].phases)
    print(f"{len(steady)} rounds, {len(skipped)} skipped; fdatasync/s {spread(floors, 0)}\n")
    _show_phases({name: [made.phases[name] for made in steady] for name in names})
    for name, reason in missing.items():
        print(f"{name:24} not measured: {reason}")
    found = values(figures, steady)
    _show_figures(figures, steady, found)
    whole = {
        **{name: round(value, 3) for name, value in found.items()},
        "rounds": len(steady),
        "skipped": len(skipped),
        "missing": missing,
        "floor_per_s": [round(each) for each in floors],
        "phases": {name: _medians([made.phases[name] for made in steady]) for name in names},
    }
    print(json.dumps(whole))


def spread(numbers: Sequence[float], digits: int) -> str:
    """`min/median/max`."""
    three = (min(numbers), statistics.median(numbers), max(numbers))
    return "/".join(f"{each:,.{digits}f}" for each in three)


def _show_phases(phases: Mapping[str, Sequence[Phase]]) -> None:
    heads = ("claim p50 us", "p99 us", "max ms", "CPU us")
    print(f"{'phase':24} {'jobs/s':>20} " + " ".join(f"{head:>12}" for head in heads))
    for name, runs in phases.items():
        numbers = list(_medians(runs).values())[1:]
        rates = spread([each.rate for each in runs], 0)
        print(f"{name:24} {rates:>20} " + " ".join(f"{each:12}" for each in numbers))


def _medians(runs: Sequence[Phase]) -> Mapping[str, float]:
    return {
        name: round(statistics.median(getattr(each, name) for each in runs), 1)
        for name in ("rate", "claim_p50_us", "claim_p99_us", "slowest_ms", "cpu_us")
    }


def _show_figures(
    figures: Sequence[Figure], steady: Sequence[Round], found: Mapping[str, float]
) -> None:
    print(f"\n{'figure':24} {'min/median/max':>20} {'goal':>8}")
    for figure in figures:
        verdict = "" if figure.reached(found[figure.name]) else "NOT reached"
        numbers = spread(figure.per_round(steady), 2)
        print(f"{figure.name:24} {numbers:>20} {figure.goal:>8} {verdict}".rstrip())
    print()
