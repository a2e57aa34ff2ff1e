"""Huey's task and its consumer's queue, in SQLite that syncs before it answers."""

from __future__ import annotations

import os
import subprocess

from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["BENCH_HUEY"], fsync=True, results=False)


@huey.task()
def run(command: str) -> None:
    """Start a process."""
    subprocess.run(["/bin/sh", "-c", command], check=True)
