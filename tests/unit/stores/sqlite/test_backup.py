"""Copies of the store file: of one instant, whole, and never over another file."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest

from control_plane.core.model import JobState
from control_plane.errors import InvalidInput, NotFound, OrchctlError, Refused, Unavailable
from control_plane.stores.sqlite import SqliteStore
from control_plane.stores.sqlite.backup import backup, restore
from control_plane.stores.sqlite.schema import MIGRATIONS
from tests.conformance.builders import claim, end, enqueue, job, machine, queue

PAGE = 4096
DEADLINE_S = 20.0
Copy = Callable[[Path, Path], object]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "monday.db"


@pytest.fixture
def busy(store: SqliteStore) -> SqliteStore:
    """A store with jobs of every kind, most of it still in the log."""
    queue(store)
    machine(store)
    enqueue(store, *(f"j-{number:03}" for number in range(300)))
    end(store, claim(store)[0])
    claim(store)
    return store


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as file:
        return list(file.iterdump())


def test_a_backup_holds_what_the_store_holds_and_is_one_file(
    busy: SqliteStore, path: Path, target: Path
) -> None:
    report = backup(path, target)
    assert contents(target) == contents(path)
    assert (report.path, report.bytes) == (target, target.stat().st_size)
    assert (report.jobs, report.schema_version) == (300, len(MIGRATIONS))
    assert [each.name for each in target.parent.iterdir()] == [target.name]
    enqueue(busy, "after")
    assert contents(target) != contents(path)


def test_a_restored_store_goes_on(
    busy: SqliteStore, path: Path, target: Path, tmp_path: Path
) -> None:
    backup(path, target)
    enqueue(busy, "after")
    made = tmp_path / "restored" / "store.db"
    report = restore(target, made)
    assert report.jobs == 300
    restored = SqliteStore(made)
    assert [lease.job_id for lease in restored.job_leases()] == ["j-001"]
    assert restored.job_get("j-000").state is JobState.SUCCEEDED
    with pytest.raises(NotFound):
        restored.job_get("after")
    enqueue(restored, "on")
    restored.close()
    assert backup(target, tmp_path / "again.db").jobs == 300, "the backup itself is not touched"


def test_backups_while_others_write_hold_all_that_was_acknowledged(
    busy: SqliteStore, path: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    ended = threading.Event()

    def submit() -> None:
        for number in count():
            if ended.is_set():
                return
            job_id = f"k-{number:06}"
            busy.job_enqueue(job(job_id), idempotency_key=job_id)
            [held] = claim(busy)
            end(busy, held)
            said.append(job_id)

    writer = threading.Thread(target=submit)
    writer.start()
    try:
        copies = []
        for number in range(6):
            before = wait_for_more(said)
            report = backup(path, tmp_path / f"{number}.db")
            copies.append((report.path, before))
    finally:
        ended.set()
        writer.join()
    for copy, before in copies:
        check_whole(copy, said[:before])


def wait_for_more(said: list[str]) -> int:
    """How many writes were acknowledged, when some more have been."""
    more = len(said) + 5
    arrived = threading.Event()
    for _ in range(int(DEADLINE_S * 1000)):
        if len(said) >= more:
            return len(said)
        arrived.wait(0.001)
    raise AssertionError("nobody writes")


def check_whole(copy: Path, acknowledged: list[str]) -> None:
    """It has all of these, and every ended job with its attempt and none without."""
    with closing(sqlite3.connect(copy)) as file:
        assert file.execute("pragma integrity_check").fetchone() == ("ok",)
        stored = {job_id for (job_id,) in file.execute("select id from jobs")}
        ended = file.execute("select id, attempt from jobs where state = 'succeeded'").fetchall()
        attempts = file.execute("select job_id, number from attempts").fetchall()
    assert stored >= set(acknowledged)
    assert sorted(ended) == sorted(attempts)
    assert len(ended) >= len(acknowledged)


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("copy", [backup, restore])
@pytest.mark.usefixtures("busy")
def test_a_file_that_is_there_stays(copy: Copy, path: Path, target: Path) -> None:
    target.parent.mkdir()
    target.write_text("mine")
    with pytest.raises(Refused, match=r"monday\.db exists"):
        copy(path, target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("copy", [backup, restore])
def test_a_source_that_is_not_there_is_said_so(copy: Copy, path: Path, target: Path) -> None:
    with pytest.raises(NotFound, match=r"store\.db"):
        copy(path, target)
    assert not target.parent.exists()


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("create table recipes (name)")


def of_a_newer_program(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as file:
        file.execute("pragma user_version=99")


def damaged(path: Path) -> None:
    store = SqliteStore(path)
    queue(store)
    enqueue(store, *(f"j-{number:03}" for number in range(300)))
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        file.write(b"\xff" * PAGE)


def no_database(path: Path) -> None:
    path.write_bytes(b"a letter to my aunt\n" * 1000)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (other_database, InvalidInput, "is no store of orchctl"),
        (of_a_newer_program, Unavailable, "has schema version 99"),
        (damaged, Unavailable, "it is damaged"),
        (no_database, Unavailable, "it is no store"),
    ],
)
@pytest.mark.parametrize("copy", [backup, restore])
def test_what_is_no_good_store_is_not_copied(
    copy: Copy,
    make: Callable[[Path], None],
    error: type[OrchctlError],
    text: str,
    path: Path,
    target: Path,
) -> None:
    make(path)
    with pytest.raises(error, match=text) as refused:
        copy(path, target)
    assert str(path) in refused.value.message
    assert refused.value.fix
    assert list(target.parent.iterdir()) == []


# ------------------------------------------------------------------------------- where it goes


@pytest.mark.parametrize("copy", [backup, restore])
def test_a_folder_that_may_not_be_written_is_named(copy: Copy, home: Path) -> None:
    path, target = home / "store.db", home / "copies" / "monday.db"
    SqliteStore(path).close()
    target.parent.mkdir(mode=0o555)
    with pytest.raises(Unavailable, match=r"monday\.db cannot be written: Permission") as refused:
        copy(path, target)
    assert str(target.parent) in refused.value.fix
    assert list(target.parent.iterdir()) == []


@pytest.mark.usefixtures("busy")
def test_a_file_system_without_links_has_backups_too(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    assert backup(path, target).jobs == 300
    assert contents(target) == contents(path)
    assert [each.name for each in target.parent.iterdir()] == [target.name]


def no_links(source: Path, target: Path) -> NoReturn:
    """As Linux answers on exFAT."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.usefixtures("busy")
def test_a_file_that_comes_to_be_meanwhile_stays(
    path: Path, target: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, place: Path) -> None:
        target.write_text("mine")
        if links:
            link(source, place)
        else:
            no_links(source, place)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(Refused, match=r"monday\.db exists"):
        backup(path, target)
    assert target.read_text() == "mine"
    assert [each.name for each in target.parent.iterdir()] == [target.name]
