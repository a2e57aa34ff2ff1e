"""Raw SQLite does the same work: after a claim and a finish its rows are those of our store."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bench.peers import files
from bench.peers.orchctl import OrchctlWorker
from bench.peers.raw_sqlite import RawWorker
from bench.peers.work import Worker
from control_plane.stores.sqlite import SqliteStore

TABLES = ("jobs", "attempts", "machines")
JOBS = 5


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.db"
    files.make(path, JOBS)
    return path


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything in the tables; of times only whether there is one."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {
        table: [plain(row) for row in connection.execute(f"select * from {table} order by 1")]
        for table in TABLES
    }
    connection.close()
    return found


def plain(row: sqlite3.Row) -> dict[str, Any]:
    return {
        name: row[name] is not None if name.endswith(("_at", "_since")) else row[name]
        for name in row.keys()  # noqa: SIM118 - a row iterates over its values
    }


@pytest.mark.parametrize("finished", [False, True])
def test_raw_sqlite_leaves_the_rows_that_our_store_leaves(
    template: Path, tmp_path: Path, finished: bool
) -> None:
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    files.copy(template, ours)
    files.copy(template, theirs)
    store = SqliteStore(ours)
    workers: tuple[Worker, ...] = (OrchctlWorker(store, 1), RawWorker(theirs, "full", 1))
    for worker in workers:
        job = worker.claim()
        assert job is not None
        if finished:
            worker.finish(job)
        worker.close()
    store.close()
    assert rows(theirs) == rows(ours) != rows(template)
    assert files.ended(ours) == files.ended(theirs) == int(finished)


def test_bulk_rows_are_claimed_in_order_and_no_two_payloads_are_alike(template: Path) -> None:
    store = SqliteStore(template)
    worker = OrchctlWorker(store, 0)
    claimed = [worker.claim() for _ in range(JOBS)]
    assert worker.claim() is None
    store.close()
    assert [job.id for job in claimed if job] == [f"job-{n:09}" for n in range(1, JOBS + 1)]
    assert len({job.spec.command for job in claimed if job}) == JOBS
