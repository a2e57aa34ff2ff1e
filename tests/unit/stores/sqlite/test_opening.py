"""A file that cannot be used is refused at the start, in words that say what to do about it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from control_plane.errors import Unavailable
from control_plane.stores.sqlite import SqliteStore, opening
from control_plane.stores.sqlite.schema import MIGRATIONS
from tests.conformance.builders import enqueue, ids, queue

PAGE = 4096
JOBS = [f"j-{number:03}" for number in range(300)]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return filled_in(tmp_path)


def filled_in(folder: Path) -> Path:
    """A closed store with jobs in it."""
    store = SqliteStore(folder / "store.db")
    queue(store)
    enqueue(store, *JOBS)
    store.close()
    return folder / "store.db"


def jobs(path: Path) -> list[str]:
    store = SqliteStore(path)
    found = sorted(ids(store.job_list(limit=1000).items))
    store.close()
    return found


def beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


# ----------------------------------------------------------------------------- may it be written


def test_a_file_that_may_only_be_read_is_refused_and_nothing_is_put_beside_it(home: Path) -> None:
    path = filled_in(home)
    path.chmod(0o444)
    with pytest.raises(Unavailable, match=r"this user may only read .*store\.db$") as refused:
        SqliteStore(path)
    fix = f"Let this user write {path}, {path}-wal, {path}-shm and their folder."
    assert refused.value.fix == fix
    assert beside(path) == ["store.db"]
    path.chmod(0o600)
    assert jobs(path) == JOBS


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_what_another_user_has_left_beside_it_is_named(home: Path, ending: str) -> None:
    path = filled_in(home)
    left = Path(f"{path}{ending}")
    left.touch(mode=0o444)
    with pytest.raises(Unavailable, match=rf"may only read .*store\.db{ending}$"):
        SqliteStore(path)
    left.chmod(0o600)
    assert jobs(path) == JOBS


@pytest.mark.parametrize("there", [True, False], ids=["a file", "no file yet"])
def test_a_folder_that_may_only_be_read_is_refused(home: Path, there: bool) -> None:
    path = filled_in(home) if there else home / "store.db"
    home.chmod(0o555)
    with pytest.raises(Unavailable, match=r"it may only be read|it cannot be opened") as refused:
        SqliteStore(path)
    assert refused.value.fix.startswith(f"Let this user write {path}")
    assert refused.value.fix.endswith("folder.")
    home.chmod(0o755)
    assert beside(path) == ["store.db"] * there
    if there:
        assert jobs(path) == JOBS


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Unavailable, match="cannot be opened"):
        SqliteStore(path)


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"there is no folder .*nowhere") as refused:
        SqliteStore(tmp_path / "nowhere" / "store.db")
    assert refused.value.fix == "Make it, or give another one."


# -------------------------------------------------------------------------------- is it damaged


def flip(path: Path, *, pages: int) -> None:
    """Turn every bit of so many pages in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // PAGE // 2 * PAGE)
        flipped = bytes(byte ^ 0xFF for byte in file.read(PAGE * pages))
        file.seek(-len(flipped), os.SEEK_CUR)
        file.write(flipped)


def one_page(path: Path) -> None:
    flip(path, pages=1)


def half_of_it(path: Path) -> None:
    flip(path, pages=path.stat().st_size // PAGE)


def cut_off(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [one_page, half_of_it, cut_off])
def test_a_damaged_file_is_refused_before_anything_is_written(
    filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled)
    before = filled.read_bytes()
    with pytest.raises(Unavailable, match=r"store\.db cannot be used: it is damaged") as refused:
        SqliteStore(filled)
    assert refused.value.fix == "Restore a backup: `orchctl server restore BACKUP`."
    assert filled.read_bytes() == before


def test_damage_that_shows_later_is_told_alike(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_of_it(filled)
    monkeypatch.setattr(opening, "CHECK_BYTES", 0)  # as if it were too large to read through
    store = SqliteStore(filled)
    with pytest.raises(Unavailable, match="it is damaged") as told:
        store.job_list(limit=1000)
    assert told.value.fix == opening.RESTORE
    store.close()


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a letter to my aunt\n" * 1000)
    with pytest.raises(Unavailable, match="it is no store") as refused:
        SqliteStore(path)
    assert refused.value.fix.startswith("Move it away")
    assert path.read_text() == "a letter to my aunt\n" * 1000


# ----------------------------------------------------------------------------------- is it full


def test_a_store_without_room_says_so_loses_nothing_and_goes_on(store: SqliteStore) -> None:
    queue(store)
    enqueue(store, *JOBS)
    allow(store, pages_more=1)
    said = list(JOBS)
    refused = fill(store, said)
    assert "there is no room left" in refused.message
    assert refused.fix.endswith("then repeat: nothing was half written.")
    assert sorted(ids(store.job_list(limit=5000).items)) == sorted(said)
    assert store.queue_stats()["q"].waiting == len(said)
    allow(store, pages_more=1000)
    enqueue(store, "again")


def fill(store: SqliteStore, said: list[str]) -> Unavailable:
    """Submit until that is refused; `said` gets what was not."""
    for number in range(1000):
        try:
            said += ids(enqueue(store, f"k-{number:03}", name="x" * 1000))
        except Unavailable as error:
            return error
    raise AssertionError("there is room for ever")


def allow(store: SqliteStore, *, pages_more: int) -> None:
    """Let the file grow by so much and no more."""
    connection = store._database._writer._tx
    (pages,) = connection.execute("pragma page_count").fetchone()
    connection.execute(f"pragma max_page_count={pages + pages_more}")


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as file:
        assert opening.schema_version(file) == len(MIGRATIONS)
