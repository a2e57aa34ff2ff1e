"""A round in which the disk changed is not counted, and a disk that never settles ends the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench.peers import rounds
from bench.peers.rounds import PATIENCE, Round
from bench.peers.work import Phase

PHASE = Phase(claims_s=[0.001], finishes_s=[0.001], wall_s=1.0, cpu_s=0.1)


def looks(floors: Sequence[float]) -> Callable[[], float]:
    return iter(floors).__next__


@pytest.mark.parametrize(
    ("before", "after", "steady"),
    [(1000, 2000, True), (2000, 1000, True), (1000, 2001, False), (2001, 1000, False)],
)
def test_a_round_is_steady_up_to_a_twofold_change(before: int, after: int, steady: bool) -> None:
    assert Round(phases={}, floor_before=before, floor_after=after).steady is steady


def test_an_unsteady_round_is_run_again() -> None:
    steady, skipped = rounds.run(
        {"a": lambda: PHASE}, 2, looks([1000, 1100, 1000, 5000, 1000, 900])
    )
    assert [(each.floor_before, each.floor_after) for each in steady] == [(1000, 1100), (1000, 900)]
    assert [(each.floor_before, each.floor_after) for each in skipped] == [(1000, 5000)]


def test_patience_ends() -> None:
    steady, skipped = rounds.run({"a": lambda: PHASE}, 2, looks([1000, 9000] * 100))
    assert (len(steady), len(skipped)) == (0, 2 * PATIENCE)


def test_each_round_runs_every_phase_and_every_second_one_backwards() -> None:
    order: list[str] = []

    def phase(name: str) -> Callable[[], Phase]:
        def run() -> Phase:
            order.append(name)
            return PHASE

        return run

    steady, _ = rounds.run({name: phase(name) for name in "abc"}, 2, lambda: 1000)
    assert order == ["a", "b", "c", "c", "b", "a"]
    assert [set(each.phases) for each in steady] == [{"a", "b", "c"}] * 2


def test_the_floor_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "FLOOR_S", 0.01)
    assert rounds.floor(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
