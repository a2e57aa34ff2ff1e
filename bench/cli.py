"""How long help takes, as a user waits for it: whole processes, against a bare typer program.

    python bench/cli.py [runs]

Runs are interleaved, so a machine that gets slower meanwhile slows all of them alike. The last line
is JSON; the promise is `help_ratio` <= 1.5.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 21
BARE = """
import typer

app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    "Say hello."


@app.command()
def goodbye(name: str, formal: bool = False) -> None:
    "Say goodbye."


app()
"""
OURS = "from orchctl.main import run; run()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        programs = {
            "bare typer --help": [sys.executable, str(bare), "--help"],
            "orchctl --help": [sys.executable, "-c", OURS, "--help"],
            "orchctl job list --help": [sys.executable, "-c", OURS, "job", "list", "--help"],
        }
        times = measure(programs, options.runs)
        report({name: medians_ms(each) for name, each in times.items()})


def measure(programs: dict[str, list[str]], runs: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(runs + 1):
        for name, arguments in programs.items():
            start = time.perf_counter()
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first round fills the file cache
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def medians_ms(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), min(times)


def report(results: dict[str, tuple[float, float]]) -> None:
    (bare, _), (help_, _), (job_list, _) = results.values()
    print(f"{'program':26} {'median ms':>9} {'best ms':>9} {'ratio':>6}")
    for name, (median, best) in results.items():
        print(f"{name:26} {median:9.1f} {best:9.1f} {median / bare:6.2f}")
    figures = {
        "help_ratio": round(help_ / bare, 3),
        "job_list_help_ratio": round(job_list / bare, 3),
        "help_ms": round(help_, 1),
        "bare_ms": round(bare, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
