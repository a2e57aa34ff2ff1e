"""What is reported is a ratio inside each round, then the median; goals hold at their very edge."""

from __future__ import annotations

import json

import pytest

from bench.peers import report
from bench.peers.figures import Figure, chosen, claim_p50, cpu, promised, rate, slowest_ms, values
from bench.peers.phases import OTHERS, OURS_1_FULL, OURS_1_NORMAL, RAW_1_FULL, RAW_1_NORMAL
from bench.peers.rounds import Round
from bench.peers.work import Phase


def phase(rate: float, *, call_s: float = 0.001, cpu_s: float = 1.0) -> Phase:
    return Phase(claims_s=[call_s], finishes_s=[call_s], wall_s=1 / rate, cpu_s=cpu_s)


def made(**rates: float) -> Round:
    phases = {name: phase(rate) for name, rate in rates.items()}
    return Round(phases=phases, floor_before=1000, floor_after=1500)


def figure(**changes: object) -> Figure:
    given = {"name": "f", "part": "p", "phases": ("a", "b"), "of": rate("a", "b"), "at_least": 2.0}
    return Figure(**{**given, **changes})  # type: ignore[arg-type]


def test_the_median_is_of_ratios_not_the_ratio_of_medians() -> None:
    rounds = [made(a=30, b=10), made(a=10, b=10), made(a=20, b=5)]
    assert values([figure()], rounds) == {"f": pytest.approx(3)}


def test_the_worst_is_reported_where_that_is_promised() -> None:
    rounds = [made(a=rate) for rate in (1, 3, 2)]
    worst = figure(of=lambda phases: phases["a"].rate, over=max)
    assert values([worst], rounds) == {"f": pytest.approx(3)}


def test_what_is_compared() -> None:
    phases = {"a": phase(8, call_s=0.004, cpu_s=6), "b": phase(2, call_s=0.002, cpu_s=3)}
    assert rate("a", "b")(phases) == pytest.approx(4)
    assert cpu("a", "b")(phases) == pytest.approx(2)
    assert claim_p50("a", "b")(phases) == pytest.approx(2)
    assert slowest_ms("a")(phases) == pytest.approx(4)


def test_a_goal_is_reached_at_its_edge_and_not_beyond() -> None:
    least, most = figure(), figure(at_least=None, at_most=2.0)
    assert (least.reached(2.0), least.reached(1.99)) == (True, False)
    assert (most.reached(2.0), most.reached(2.01)) == (True, False)
    assert (least.goal, most.goal) == (">= 2.0", "<= 2.0")


def test_the_rate_of_one_caller_is_the_worse_of_the_two_durabilities() -> None:
    figures = chosen(promised("1m"), ["rate_vs_raw_1"])
    rates = {OURS_1_NORMAL: 9, RAW_1_NORMAL: 10, OURS_1_FULL: 6, RAW_1_FULL: 10}
    found = values(figures, [made(**rates)])
    assert found["rate_vs_raw_1_normal"] == pytest.approx(0.9)
    assert found["rate_vs_raw_1"] == found["rate_vs_raw_1_full"] == pytest.approx(0.6)


def test_figures_are_chosen_by_name_by_part_or_all() -> None:
    figures = promised("1m")
    assert [each.name for each in chosen(figures, ["max_ms_8"])] == ["max_ms_8"]
    assert [each.name for each in chosen(figures, ["group_gain_8"])] == ["group_gain_8", "max_ms_8"]
    assert len(chosen(figures, ["peers"])) == len(OTHERS)
    assert chosen(figures, []) == list(figures)
    with pytest.raises(ValueError, match="nonsense"):
        chosen(figures, ["cpu_vs_raw", "nonsense"])


def test_the_last_line_is_json_with_what_was_not_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.show([figure()], [made(a=10, b=10)], [made(a=1, b=1)], {"c": "no program c"})
    printed = capsys.readouterr().out
    assert "NOT reached" in printed
    last = json.loads(printed.splitlines()[-1])
    assert last["f"] == 1
    assert (last["rounds"], last["skipped"]) == (1, 1)
    assert last["missing"] == {"c": "no program c"}
    assert last["floor_per_s"] == [1000, 1500]
    assert last["phases"]["a"]["rate"] == 10
