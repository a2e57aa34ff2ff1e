"""How fast jobs are claimed and finished, durably: our store against raw SQLite and other queues.

    python -m bench.store [--only cpu_vs_raw,rate_vs_raw_1] [--rounds 5] [--quick] [--json]

Everything runs on one disk in interleaved rounds, and every figure is a ratio inside a round. A
round in which the disk's own fdatasync rate changed twofold is skipped. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.peers import report, rounds
from bench.peers.figures import chosen, promised
from bench.peers.phases import prepare

ROUNDS, QUICK_ROUNDS = 5, 3
DEEP, QUICK_DEEP = (1_000_000, "1m"), (200_000, "200k")
DISK = Path("/var/tmp")
"""Unlike /tmp it is a disk everywhere, and every user may look into it."""


def main() -> None:
    options = _options()
    depth, word = QUICK_DEEP if options.quick else DEEP
    try:
        figures = chosen(promised(word), options.only)
    except ValueError as error:
        sys.exit(str(error))
    names = {name for figure in figures for name in figure.phases}
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=options.dir) as made:
        folder = Path(made)
        with ExitStack() as stack:
            phases, missing = prepare(folder, names, depth, stack)
            measurable = [each for each in figures if not set(each.phases) & set(missing)]
            steady, skipped = rounds.run(phases, options.rounds, partial(rounds.floor, folder))
    if not steady:
        sys.exit(f"The disk changed more than twofold in each of {len(skipped)} rounds.")
    report.show(measurable, steady, skipped, missing)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        help="names of figures or parts, with commas between",
    )
    parser.add_argument("--rounds", type=int, default=0, help=f"steady ones (default {ROUNDS})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds; deep is {QUICK_DEEP[0]:,}"
    )
    parser.add_argument("--dir", type=Path, default=DISK, help="on the disk to measure")
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return options


if __name__ == "__main__":
    main()
