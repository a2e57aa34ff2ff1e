"""The API under load, durably: our hot endpoints against bare FastAPI and Starlette, and the way
from submit to a running process against the least that does it.

    python -m bench.http [--only http,pickup] [--rounds 5] [--seconds 1] [--json]

Everything runs in interleaved rounds on this machine, what is compared right after each other;
every figure is the median of the ratios inside a round. `starlette` is a POST that does nothing;
`durable` is that POST with the fewest SQLite statements that do what the endpoint does, committed
together as ours are, for machines that it believes (`http_peers/durable.py`). The last line is
JSON; the promises are `http_vs_fastapi` >= 0.8, `hot_cpu_vs_starlette` <= 1.5, `hot_cpu_vs_durable`
<= 1.5 and `submit_to_run_vs_floor` <= 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.http_peers.hot import DURABLE, HOT, OURS, Round, measure_http
from bench.http_peers.pickup import measure_pickup
from bench.peers.report import spread
from bench.peers.servers import NotInstalled

PARTS = ("http", "pickup")
DISK = Path("/var/tmp")
"""Unlike /tmp it is a disk everywhere."""


def main() -> None:
    options = _options()
    found: dict[str, object] = {}
    made = tempfile.TemporaryDirectory(prefix="bench-http-", dir=options.dir)
    with made, ExitStack() as stack:
        folder = Path(made.name)
        if "http" in options.only:
            rounds = measure_http(folder, options.rounds, options.seconds, stack)
            found |= _show_http(rounds)
        if "pickup" in options.only:
            found |= _show_pickup(*measure_pickup(folder, options.rounds, stack))
    print(json.dumps(found))


def _show_http(rounds: Sequence[Round]) -> Mapping[str, object]:
    print(
        f"{'endpoint':12} {'server':10} {'answers/s':>22} {'p50 us':>8} {'p99 us':>8} {'CPU us':>8}"
    )
    for endpoint, name in rounds[0]:
        runs = [each[endpoint, name] for each in rounds]
        numbers = [median(getattr(run, key) for run in runs) for key in ("p50_us", "p99_us")]
        cells = " ".join(f"{number:8,.0f}" for number in numbers)
        rate, cpu = spread([run.rate for run in runs], 0), median(run.cpu_us for run in runs)
        print(f"{endpoint:12} {name:10} {rate:>22} {cells} {cpu:8.1f}")
    rate = [each["claim", OURS].rate / each["claim", "fastapi"].rate for each in rounds]
    _say("http_vs_fastapi", rate, ">= 0.8")
    return {
        "http_vs_fastapi": round(median(rate), 3),
        **_show_cpu(rounds, "starlette"),
        **_show_cpu(rounds, DURABLE),
        "answers_per_s": {
            endpoint: round(median(each[endpoint, OURS].rate for each in rounds))
            for endpoint in HOT
        },
        "rounds": len(rounds),
    }


def _show_cpu(rounds: Sequence[Round], other: str) -> Mapping[str, object]:
    """What our endpoints cost over what another server's do; the worst one is the figure."""
    ratios = {
        endpoint: [each[endpoint, OURS].cpu_us / each[endpoint, other].cpu_us for each in rounds]
        for endpoint in HOT
    }
    for endpoint in HOT:
        _say(f"hot_cpu_vs_{other}, {endpoint}", ratios[endpoint], "<= 1.5")
    medians = {endpoint: round(median(ratios[endpoint]), 3) for endpoint in HOT}
    return {f"hot_cpu_vs_{other}": max(medians.values()), f"hot_cpu_vs_{other}_by": medians}


def _show_pickup(
    runs: Mapping[str, Sequence[Sequence[float]]], missing: Mapping[str, str]
) -> Mapping[str, object]:
    """`runs` has the delays in ms of each round, by who was measured."""
    print(f"\n{'submit to running':16} {'p50 ms':>20} {'p90 ms':>20}")
    for name, rounds in runs.items():
        p90s = [sorted(each)[len(each) * 9 // 10] for each in rounds]
        print(f"{name:16} {spread(_p50s(rounds), 1):>20} {spread(p90s, 1):>20}")
    for name, why in missing.items():
        print(f"{name:16} not measured: {why}")
    pairs = zip(_p50s(runs["orchctl"]), _p50s(runs["floor"]), strict=True)
    ratios = [ours / floor for ours, floor in pairs]
    _say("submit_to_run_vs_floor", ratios, "<= 2")
    return {
        "submit_to_run_vs_floor": round(median(ratios), 3),
        "submit_to_run_p50_ms": {
            name: round(median(_p50s(rounds)), 2) for name, rounds in runs.items()
        },
        "missing": missing,
    }


def _p50s(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [median(each) for each in rounds]


def _say(name: str, ratios: Sequence[float], goal: str) -> None:
    reached = median(ratios) >= 0.8 if goal == ">= 0.8" else median(ratios) <= float(goal[3:])
    print(f"{name:36} {spread(ratios, 2):>20} {goal:>8} {'' if reached else 'NOT reached'}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=PARTS, help="http, pickup"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of load in each phase")
    parser.add_argument("--dir", type=Path, default=DISK, help="on the disk to measure")
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except NotInstalled as error:
        sys.exit(str(error))
