"""What is true of the SQLite file alone: it survives kills, refuses what it cannot read, and
answers a claim without reading the whole queue."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from control_plane.core.model import JobState, Need
from control_plane.errors import Unavailable
from control_plane.ports import Store
from control_plane.stores.sqlite import Durability, SqliteStore, opening
from control_plane.stores.sqlite.database import Database
from control_plane.stores.sqlite.schema import MIGRATIONS
from tests.conformance.builders import (
    BOX,
    DONE,
    LOST,
    NOW,
    at,
    autoscaler,
    claim,
    enqueue,
    event,
    interval,
    job,
    machine,
    move,
    queue,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, durability="normal")
    yield store
    store.close()


# ---------------------------------------------------------------------------- opening the file


def test_a_reopened_file_has_everything(path: Path) -> None:
    def contents(store: Store) -> list[object]:
        return [
            store.autoscaler_history("a"),
            store.queue_list(),
            store.queue_stats(),
            store.job_list(),
            store.job_leases(),
            [store.job_attempts(each) for each in ("j-1", "j-2", "j-3")],
            store.machine_list(open_only=False),
            store.prices_between(at(-9), at(9)),
            store.event_list(),
        ]

    store = SqliteStore(path)
    store.autoscaler_put(autoscaler(1), expected_version=0)
    queue(store)
    machine(store)
    store.job_enqueue(job("j-1"), idempotency_key="k")
    enqueue(store, "j-2", "j-3")
    move(store, "j-3", "top")
    claim(store)
    store.machine_beat("m-1", now=at(3))
    store.price_open(interval())
    store.event_append(event("e"))
    fence = store.lease_take("a", "one", ttl_s=30, now=NOW)
    before = contents(store)
    store.close()

    again = SqliteStore(path)
    assert contents(again) == before
    assert again.job_enqueue(job("other"), idempotency_key="k") == (again.job_get("j-1"), False)
    assert again.lease_take("a", "one", ttl_s=30, now=at(1)) == fence
    enqueue(again, "j-4")
    assert [each.id for each in claim(again, limit=1)] == ["j-1"]
    again.close()


def test_a_newer_file_is_refused_by_both_versions(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("pragma user_version=99")
    raw.close()
    with pytest.raises(Unavailable, match=rf"schema version 99.*knows {len(MIGRATIONS)}"):
        SqliteStore(path)


def test_a_file_that_is_no_store_is_refused_by_its_name(path: Path) -> None:
    path.write_bytes(b"not a database at all, " * 200)
    with pytest.raises(Unavailable, match=r"store\.db"):
        SqliteStore(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    store = SqliteStore(path)
    queue(store)
    enqueue(store, *(f"j-{number}" for number in range(200)))
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 40] = b"\xff" * (4096 * 37)
    path.write_bytes(data)
    with pytest.raises(Unavailable):
        SqliteStore(path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        SqliteStore(tmp_path / "nowhere" / "store.db")


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(Unavailable):
        store.queue_list()
    with pytest.raises(Unavailable):
        queue(store)


@pytest.mark.parametrize(("durability", "syncs"), [("full", 1), ("normal", 0)])
def test_a_commit_is_on_the_disk_before_it_is_answered_if_asked_for(
    path: Path, durability: Durability, syncs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = opening._sync
    monkeypatch.setattr(opening, "_sync", lambda handle: (synced.append(handle), fdatasync(handle)))
    store = SqliteStore(path, durability=durability)
    synced.clear()
    queue(store)
    assert len(synced) == syncs
    store.close()


# -------------------------------------------------------------------------------- transactions


def test_a_write_that_raises_is_undone_whole(path: Path) -> None:
    database = Database(path)

    def half(tx: sqlite3.Connection) -> None:
        tx.execute("insert into cooldowns values ('k', '{}')")
        raise Unavailable("in the middle")

    with pytest.raises(Unavailable, match="in the middle"):
        database.write(half)
    rows = database.read(lambda tx: tx.execute("select count(*) from cooldowns").fetchone())
    database.close()
    assert rows == (0,)


def test_callers_that_wait_share_a_commit_and_fail_alone(path: Path) -> None:
    database = Database(path)
    entered, go_on = threading.Event(), threading.Event()

    def slow(tx: sqlite3.Connection) -> None:
        entered.set()
        assert go_on.wait(10)

    def put(tx: sqlite3.Connection, key: str) -> int:
        if key == "bad":
            raise Unavailable("only this one")
        tx.execute("insert into cooldowns values (?, '{}')", (key,))
        return tx.total_changes

    writer = database._writer
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(database.write, slow)
        assert entered.wait(10)
        others = {
            key: pool.submit(database.write, lambda tx, key=key: put(tx, key))
            for key in ("one", "bad", "two")
        }
        deadline = time.monotonic() + 10
        while len(writer._line) < 3:
            assert time.monotonic() < deadline
        commits: list[str] = []
        writer._tx.set_trace_callback(commits.append)
        go_on.set()
        first.result()
        assert isinstance(others["bad"].exception(), Unavailable)
        assert others["two"].result() > 0
        assert others["one"].result() > 0
    writer._tx.set_trace_callback(None)
    keys = database.read(lambda tx: tx.execute("select key from cooldowns").fetchall())
    database.close()
    assert sorted(keys) == [("one",), ("two",)]
    assert commits.count("commit") == 2, "the slow one's, and one for the three that waited"


def test_a_file_locked_by_another_process_is_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.stores.sqlite.opening.BUSY_S", 0.05)
    store = SqliteStore(path)
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("begin immediate")
    with pytest.raises(Unavailable, match="locked"):
        queue(store)
    assert store.queue_list() == (), "readers do not wait"
    foreign.execute("rollback")
    queue(store)
    assert [each.name for each in store.queue_list()] == ["q"]
    foreign.close()
    store.close()


def test_two_stores_on_one_file_never_lease_a_job_twice(path: Path) -> None:
    stores = [SqliteStore(path, durability="normal") for _ in range(2)]
    queue(stores[0])
    for name in ("m-0", "m-1"):
        machine(stores[0], name)
    ids = [f"j-{number:03}" for number in range(60)]
    enqueue(stores[1], *ids, need=Need())

    def drain(number: int) -> list[str]:
        mine: list[str] = []
        while got := claim(stores[number], machine_id=f"m-{number}", limit=2):
            mine += [each.id for each in got]
        return mine

    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(drain, range(2)))
    assert sorted(each for mine in taken for each in mine) == ids
    for store in stores:
        store.close()


# ------------------------------------------------------------------------------- the hot queries


def test_what_is_asked_often_reads_by_index_and_sorts_nothing(
    sqlite: SqliteStore, path: Path
) -> None:
    """Every statement of a job's life is explained by SQLite itself."""
    queue(sqlite)
    machine(sqlite)
    enqueue(sqlite, *(f"j-{number}" for number in range(5)))
    enqueue(sqlite, "later", not_before=at(900))
    asked: set[str] = set()
    tx = sqlite._database._writer._tx
    tx.set_trace_callback(asked.add)
    enqueue(sqlite, "new")
    first, second = claim(sqlite, free=replace(BOX, gpus=2), limit=2)
    sqlite.machine_beat("m-1", now=at(1))
    sqlite.job_start(first.id, 1, now=at(1))
    sqlite.job_finish(first.id, 1, DONE, state=JobState.SUCCEEDED, now=at(2))
    sqlite.job_requeue(second.id, 1, LOST, need=second.spec.need, now=at(2))
    sqlite.job_release(now=at(3))
    tx.set_trace_callback(None)

    raw = sqlite3.connect(path)
    words = ("select", "insert", "update", "delete", "with")
    statements = [each for each in asked if each.lstrip().split()[0].lower() in words]
    assert len(statements) >= 8
    for statement in statements:
        plan = [step[3] for step in raw.execute(f"explain query plan {statement}")]
        walks = [step for step in plan if step.startswith("SCAN") and "CONSTANT" not in step]
        assert not walks, (statement, plan)
        assert "TEMP B-TREE" not in "; ".join(plan), (statement, plan)
    raw.close()


@pytest.mark.parametrize("gpus", [1, 0], ids=["it finds one", "nothing fits"])
def test_a_claim_costs_the_same_in_a_deep_queue(sqlite: SqliteStore, gpus: int) -> None:
    queue(sqlite)
    machine(sqlite)
    tx = sqlite._database._writer._tx

    def steps() -> int:
        counted: list[None] = []
        tx.set_progress_handler(lambda: counted.append(None), 1)
        claimed = claim(sqlite, free=replace(BOX, gpus=gpus))
        tx.set_progress_handler(None, 0)
        assert len(claimed) == gpus
        return len(counted)

    enqueue(sqlite, *(f"j-{number:04}" for number in range(20)))
    steps()
    shallow = steps()
    enqueue(sqlite, *(f"k-{number:04}" for number in range(500)))
    assert 0 < steps() <= shallow * 1.05


# ---------------------------------------------------------------------------------------- kills


def test_a_killed_writer_loses_nothing_it_acknowledged(path: Path) -> None:
    store = SqliteStore(path)
    queue(store)
    machine(store)
    store.close()
    said: list[list[str]] = []
    for number in range(8):
        said += kill_after(path, f"round{number}", lines=30 + 13 * number)
    words = [line[0] for line in said]
    assert {"enqueued", "claimed", "finished"} == set(words)

    store = SqliteStore(path)
    claims = [line[1] for line in said if line[0] == "claimed"]
    assert len(claims) == len(set(claims)), "a job leased twice"
    for word, job_id, *epoch in said:
        stored = store.job_get(job_id)
        if word == "claimed":
            assert (stored.epoch, stored.machine_id) == (int(epoch[0]), "m-1")
        if word == "finished":
            assert stored.state is JobState.SUCCEEDED
    check_consistent(store)
    again, new = store.job_enqueue(job("other"), idempotency_key=f"key-{claims[0]}")
    assert (again.id, new) == (claims[0], False)
    store.close()


def kill_after(path: Path, prefix: str, *, lines: int) -> list[list[str]]:
    """Run the writer, kill it after so many lines, and return all that it said."""
    command = [sys.executable, "-m", "tests.conformance.crashing_writer", str(path), prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = list(islice(writer.stdout, lines))
        writer.kill()
        said += list(writer.stdout)
    assert len(said) >= lines
    return [line.split() for line in said]


def check_consistent(store: Store) -> None:
    """Attempts, leases, counts and states tell the same story about every job."""
    leases = {lease.job_id: lease.epoch for lease in store.job_leases()}
    states: Counter[JobState] = Counter()
    for stored in store.job_list(limit=100_000).items:
        attempts = store.job_attempts(stored.id)
        assert len(attempts) == stored.attempt == stored.epoch <= 1
        held = stored.state in (JobState.LEASED, JobState.RUNNING)
        assert [each.ended_at is None for each in attempts] in ([], [held])
        assert leases.get(stored.id) == (stored.epoch if held else None)
        states[stored.state] += 1
    stats = store.queue_stats()["q"]
    assert stats.waiting == states[JobState.QUEUED]
    assert stats.running == len(leases)
