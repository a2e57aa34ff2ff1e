"""An export holds everything, whole or not at all; an import puts all of it there, or says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import transfer
from control_plane.errors import Conflict, InvalidInput, NotFound, Refused
from control_plane.ports import Page, Row, Store, TransferKind
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from control_plane.transfer import Tally
from tests.conformance.builders import queue
from tests.conformance.busy import make_busy
from tests.docs.pages import ROOT
from tests.transfer.conftest import crash_at, files_of, sums, tries_needed


@pytest.fixture
def export(busy: Store, tmp_path: Path) -> Path:
    """A finished export."""
    folder = tmp_path / "export"
    transfer.write(busy, folder)
    return folder


# ------------------------------------------------------------------------------- round trips


def test_everything_comes_to_another_store(busy: Store, export: Path) -> None:
    other = MemoryStore()
    tallies = transfer.read(export, other, target="other")
    assert all(tally.count for tally in tallies.values()), "a kind that was not tried"
    assert sums(other) == sums(busy) == tallies
    left = {"manifest.json", "records"}
    assert {path.name for path in export.iterdir()} == left, "notes of progress are gone"


def test_what_was_imported_exports_the_same(busy: Store, export: Path, tmp_path: Path) -> None:
    other = MemoryStore()
    transfer.read(export, other, target="other")
    transfer.write(other, tmp_path / "again")
    assert transfer.verify(tmp_path / "again") == transfer.verify(export)


def test_an_empty_store_can_be_moved(tmp_path: Path) -> None:
    transfer.write(MemoryStore(), tmp_path / "export")
    tallies = transfer.read(tmp_path / "export", MemoryStore(), target="other")
    assert tallies == dict.fromkeys(TransferKind, Tally())


@given(st.permutations([b"a", b"b", b"b", b"c"]))
def test_the_order_of_records_does_not_matter(lines: list[bytes]) -> None:
    assert transfer._summed(lines) == transfer._summed([b"a", b"b", b"b", b"c"])


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4))
def test_other_records_have_another_sum(lines: list[bytes]) -> None:
    same = sorted(lines) == [b"a", b"b", b"b"]
    assert (transfer._summed(lines) == transfer._summed([b"a", b"b", b"b"])) == same


# ---------------------------------------------------------------------------------- crashes


def test_an_export_goes_on_after_a_crash_at_any_step(
    busy: Store, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 1000):
        folder = tmp_path / f"export-{step}"
        with crash_at(step, monkeypatch) as crashed:
            transfer.write(busy, folder)
        if not crashed():
            assert step > 20, "it was to be a matter of many steps"
            return
        assert not transfer.is_finished(folder)
        with pytest.raises(NotFound, match="no finished export"):
            transfer.verify(folder)
        transfer.write(busy, folder)
        assert transfer.verify(folder) == transfer.verify(export)
        assert files_of(folder) == files_of(export)


def test_an_import_goes_on_after_a_crash_at_any_step(
    busy: Store, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sums(busy)
    for step in range(1, 1000):
        store = MemoryStore()
        with crash_at(step, monkeypatch) as crashed:
            transfer.read(export, store, target="other")
        if not crashed():
            assert step > 30, "it was to be a matter of many steps"
            return
        transfer.read(export, store, target="other")
        assert sums(store) == expected


def test_an_import_that_crashes_again_and_again_comes_to_an_end(
    busy: Store, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    tries = tries_needed(5, monkeypatch, lambda: transfer.read(export, store, target="other"))
    assert tries > 5
    assert sums(store) == sums(busy)


class Failing(MemoryStore):
    """A store that fails at its n-th page, before or after it was written."""

    def __init__(self, number: int, *, after: bool) -> None:
        super().__init__()
        self.left = number
        self.after = after

    def transfer_write(self, kind: TransferKind, rows: Any) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise ConnectionError("the cable was pulled")
        super().transfer_write(kind, rows)
        if self.left == 0:
            raise ConnectionError("the cable was pulled")


@pytest.mark.parametrize("after", [False, True])
def test_a_page_whose_answer_was_lost_is_written_again(
    busy: Store, export: Path, *, after: bool
) -> None:
    for number in range(1, 1000):
        store = Failing(number, after=after)
        try:
            transfer.read(export, store, target="other")
        except ConnectionError:
            transfer.read(export, store, target="other")
            assert sums(store) == sums(busy)
        else:
            assert number > 15
            return


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_an_export_and_an_import_survive_kill_9(
    busy: Store, export: Path, tmp_path: Path, nth: int
) -> None:
    source = SqliteStore(tmp_path / "source.db")
    make_busy(source)
    expected = sums(source)
    source.close()
    folder = tmp_path / "killed"
    killed(nth, "write", tmp_path / "source.db", folder)
    assert not transfer.is_finished(folder)
    source = SqliteStore(tmp_path / "source.db")
    assert transfer.write(source, folder) == expected
    source.close()
    target = tmp_path / "target.db"
    killed(nth, "read", target, folder)
    store = SqliteStore(target)
    transfer.read(folder, store, target=str(target))
    assert sums(store) == expected
    store.close()


def killed(nth: int, what: str, database: Path, folder: Path) -> None:
    """Run one way in a process of its own that kills itself at its n-th flush of our notes."""
    words: list[str | Path] = [
        sys.executable,
        "-m",
        "tests.transfer.killed",
        str(nth),
        what,
        database,
        folder,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


# ------------------------------------------------------------------------- what is not right


def test_a_folder_with_an_export_is_left_alone(busy: Store, export: Path) -> None:
    before = files_of(export)
    with pytest.raises(Refused, match="holds a finished export"):
        transfer.write(busy, export)
    assert files_of(export) == before


def records(export: Path, kind: str = "job") -> Path:
    return export / "records" / f"{kind}.jsonl"


def change_a_letter(path: Path) -> None:
    text = path.read_text()
    assert "vision" in text
    path.write_text(text.replace("vision", "Vision", 1))


def repeat_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])


def drop_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def cut_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


@pytest.mark.parametrize(
    "damage", [change_a_letter, repeat_a_line, drop_a_line, cut_the_end, Path.unlink]
)
def test_an_export_that_was_changed_is_not_imported(export: Path, damage: Any) -> None:
    damage(records(export))
    store = MemoryStore()
    with pytest.raises(InvalidInput, match=r"job\.jsonl is not what its manifest says"):
        transfer.read(export, store, target="other")
    assert all(tally.count == 0 for tally in sums(store).values())


def test_a_file_that_no_manifest_speaks_of_is_noticed(busy: Store, tmp_path: Path) -> None:
    empty = tmp_path / "export"
    transfer.write(MemoryStore(), empty)
    records(empty).write_bytes(b'{"job": {}}\n')
    with pytest.raises(InvalidInput):
        transfer.verify(empty)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "id": 5}'])
def test_a_manifest_that_cannot_be_read_is_said_so(export: Path, text: str) -> None:
    (export / transfer.MANIFEST).write_text(text)
    with pytest.raises(InvalidInput, match="cannot be read"):
        transfer.verify(export)


def test_an_export_of_another_format_is_left_to_who_knows_it(export: Path) -> None:
    manifest = export / transfer.MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    with pytest.raises(InvalidInput, match="has format 2; this orchctl knows 1") as caught:
        transfer.verify(export)
    assert "newer" in caught.value.fix


def test_without_an_export_there_is_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no finished export") as caught:
        transfer.read(tmp_path, MemoryStore(), target="other")
    assert "orchctl server export" in caught.value.fix


def test_only_an_empty_store_is_imported_into(export: Path) -> None:
    store = MemoryStore()
    queue(store, "there before")
    before = sums(store)
    with pytest.raises(Refused, match="other is not empty: it holds records of kind queue"):
        transfer.read(export, store, target="other")
    assert sums(store) == before


def test_an_import_that_was_cut_off_goes_on_in_its_own_store_only(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    with crash_at(20, monkeypatch):
        transfer.read(export, store, target="one")
    with pytest.raises(Refused, match="not empty"):
        transfer.read(export, store, target="another")
    transfer.read(export, store, target="one")


class Forgetful(MemoryStore):
    """A store that loses a record, or changes one, when it is read back."""

    def __init__(self, *, change: bool) -> None:
        super().__init__()
        self.change = change

    def transfer_read(self, kind: TransferKind, **query: Any) -> Page[Row]:
        page = super().transfer_read(kind, **query)
        if kind is not TransferKind.QUEUE or not page.items:
            return page
        first = [{**page.items[0], "paused": "maybe"}] if self.change else []
        return Page(items=(*first, *page.items[1:]), cursor=page.cursor)


@pytest.mark.parametrize(
    ("change", "said"),
    [(False, r"1 of 2 records of kind queue"), (True, r"2 of 2 .*some of them different")],
)
def test_what_does_not_come_back_as_it_went_is_a_conflict(
    export: Path, *, change: bool, said: str
) -> None:
    with pytest.raises(Conflict, match=said):
        transfer.read(export, Forgetful(change=change), target="other")
    transfer.read(export, MemoryStore(), target="other")


def test_what_else_belongs_there_comes_before_the_records_and_after_the_check(
    export: Path,
) -> None:
    seen: list[int] = []
    store = MemoryStore()
    transfer.read(
        export, store, target="other", beforehand=lambda: seen.append(len(store.queue_list()))
    )
    assert seen == [0]
    with pytest.raises(Refused):
        transfer.read(export, store, target="other", beforehand=lambda: seen.append(1))
    assert seen == [0]
