"""A backup is taken while the server runs and holds together; a restore takes only what is one."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from control_plane import archive
from control_plane.archive import backup, blobs_of, restore
from control_plane.blobs.local import LocalBlobs
from control_plane.errors import InvalidInput, NotFound, Refused, Unavailable
from control_plane.lock import alone
from control_plane.stores.memory import MemoryStore
from tests.conformance.builders import enqueue, ids, listed, queue
from tests.transfer.conftest import BLOBS, SECRETS, Crash, opened, sums, tree


@pytest.fixture
def made(state: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    backup(state, tmp_path / "monday.tar")
    return tmp_path / "monday.tar"


def check_restored(folder: Path, busy: MemoryStore) -> None:
    """It is the directory that was backed up."""
    with opened(folder) as store:
        assert sums(store) == sums(busy)
    assert {name: (folder / name).read_text() for name in SECRETS} == SECRETS
    blobs = LocalBlobs(folder / "blobs")
    assert {key: blobs.get(key) for key in BLOBS} == BLOBS


# ------------------------------------------------------------------------------- round trips


def test_a_backup_makes_the_same_directory_again(
    state: Path, made: Path, tmp_path: Path, busy: MemoryStore
) -> None:
    report = restore(made, tmp_path / "restored")
    jobs = len(listed(busy, limit=100))
    assert (report.path, report.jobs, report.blobs) == (tmp_path / "restored", jobs, len(BLOBS))
    assert report.bytes == made.stat().st_size
    check_restored(tmp_path / "restored", busy)
    check_restored(state, busy)


def test_a_backup_says_what_is_in_it(state: Path, tmp_path: Path, busy: MemoryStore) -> None:
    report = backup(state, tmp_path / "a.tar")
    jobs, size = len(listed(busy, limit=100)), (tmp_path / "a.tar").stat().st_size
    assert (report.path, report.jobs, report.blobs) == (tmp_path / "a.tar", jobs, len(BLOBS))
    assert report.bytes == size
    without = backup(state, tmp_path / "b.tar", blobs=False)
    assert (without.jobs, without.blobs) == (jobs, 0)
    assert without.bytes < size


def test_nobody_else_may_read_a_backup_or_what_is_restored(made: Path, tmp_path: Path) -> None:
    restore(made, tmp_path / "restored")
    files = [path for path in (tmp_path / "restored").rglob("*") if path.is_file()]
    for path in (made, tmp_path / "restored", *files):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_only_the_backup_is_left(state: Path, made: Path, tmp_path: Path) -> None:
    assert {each.name for each in tmp_path.iterdir()} == {"state", "monday.tar"}
    restore(made, tmp_path / "restored")
    assert {each.name for each in tmp_path.iterdir()} == {"state", "monday.tar", "restored"}


def test_unfinished_writes_are_left_out(state: Path, tmp_path: Path) -> None:
    (state / "blobs" / ".unfinished" / "tmp123").write_bytes(b"half")
    assert backup(state, tmp_path / "a.tar").blobs == len(BLOBS)
    assert restore(tmp_path / "a.tar", tmp_path / "restored").blobs == len(BLOBS)


def test_a_backup_never_goes_over_a_file(state: Path, made: Path) -> None:
    before = made.read_bytes()
    with pytest.raises(Refused, match="exists"):
        backup(state, made)
    assert made.read_bytes() == before


def test_a_file_that_comes_to_be_meanwhile_stays(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "late.tar"
    flush = archive._flush

    def somebody_is_faster(path: Path) -> None:
        flush(path)
        target.write_text("mine")

    monkeypatch.setattr(archive, "_flush", somebody_is_faster)
    with pytest.raises(Refused, match="exists"):
        backup(state, target)
    assert target.read_text() == "mine"


def test_only_a_servers_directory_is_backed_up(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no orchctl\.db"):
        backup(tmp_path, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_into_a_folder_that_is_not_there_is_refused(state: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        backup(state, tmp_path / "nowhere" / "a.tar")


def test_a_damaged_database_is_not_backed_up(state: Path, tmp_path: Path) -> None:
    with (state / "orchctl.db").open("r+b") as file:
        file.seek(100)
        file.write(random.Random(1).randbytes(20_000))
    with pytest.raises(Unavailable):
        backup(state, tmp_path / "a.tar")
    assert {each.name for each in tmp_path.iterdir()} == {"state"}


# ------------------------------------------------------------------------- while others write


def test_backups_hold_together_while_writers_go_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    blobs = LocalBlobs(state / "blobs")
    with opened(state) as store:
        queue(store)
        ended = threading.Event()
        writers = [
            threading.Thread(target=writer, args=(store, blobs, name, ended)) for name in "ab"
        ]
        for each in writers:
            each.start()
        try:
            with alone(state):  # as a server does
                backups = [backup(state, tmp_path / f"{number}.tar") for number in range(8)]
        finally:
            ended.set()
            for each in writers:
                each.join()
    assert backups[-1].jobs > backups[0].jobs, "they wrote all the time"
    for report in backups:
        restore(report.path, tmp_path / f"{report.path.stem}-restored")
        check_prefix(tmp_path / f"{report.path.stem}-restored", report.jobs)


def writer(store: Any, blobs: LocalBlobs, name: str, ended: threading.Event) -> None:
    """Submit jobs, each behind a blob it names; write other blobs again and remove some."""
    number = 0
    while not ended.is_set():
        number += 1
        blobs.put(f"sources/{name}-{number:05}", b"source" * number)
        enqueue(store, f"{name}-{number:05}")
        blobs.append(f"logs/{name}", (number - 1) * 10, b"ten bytes\n")
        blobs.put(f"again/{name}", b"x" * (number * 7919 % 5000))
        blobs.put(f"going/{name}/{number}", b"x" * 100_000)
        blobs.remove(f"going/{name}/")


def check_prefix(folder: Path, jobs: int) -> None:
    """All jobs up to some, none twice, and all that they name is there."""
    blobs = LocalBlobs(folder / "blobs")
    with opened(folder) as store:
        found = sorted(ids(listed(store, limit=1000)))
    assert len(found) == jobs
    for name in "ab":
        mine = [each for each in found if each.startswith(name)]
        assert mine == [f"{name}-{number:05}" for number in range(1, len(mine) + 1)]
        assert all(blobs.size(f"sources/{each}") for each in mine)


# ------------------------------------------------------------------------- over what is there


def test_a_directory_in_use_is_left_alone(state: Path, made: Path) -> None:
    before = tree(state)
    for replace in (False, True):
        with alone(state), pytest.raises(Unavailable, match="another control plane uses"):
            restore(made, state, replace=replace)
    assert tree(state) == before


def test_a_directory_that_is_not_empty_is_put_aside_only_when_asked_to(
    state: Path, made: Path, busy: MemoryStore
) -> None:
    (state / "mark").write_text("the old one")
    before = tree(state)
    with pytest.raises(Refused, match="is not empty") as caught:
        restore(made, state)
    assert "--yes" in caught.value.fix
    assert tree(state) == before
    for number in (1, 2):
        restore(made, state, replace=True)
        check_restored(state, busy)
        aside = state.with_name(f"state.replaced-{number}")
        assert (aside / "orchctl.db").exists()
        assert (aside / "mark").exists() == (number == 1)
    assert not (state / "mark").exists()


@pytest.mark.parametrize("names", [[], ["lock"]])
def test_an_empty_directory_is_filled(
    made: Path, tmp_path: Path, names: list[str], busy: MemoryStore
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    restore(made, folder)
    check_restored(folder, busy)
    assert not folder.with_name("empty.replaced-1").exists()


def test_a_crash_while_it_is_put_in_place_loses_nothing(
    state: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tree(state)
    rename = Path.rename
    for step in range(1, 20):
        left = step

        def rename_or_die(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash
            return rename(self, target)

        with monkeypatch.context() as patched, suppress(Crash):
            patched.setattr(Path, "rename", rename_or_die)
            restore(made, state, replace=True)
        aside = state.with_name("state.replaced-1")
        assert tree(aside if aside.exists() else state) == old
        if left > 0:
            assert step > 4
            return
        if aside.exists():
            aside.rename(state)


# ---------------------------------------------------------------------------- hostile archives


def with_member(made: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    """A backup with one more member, before its note."""
    hostile = made.with_name("hostile.tar")
    with tarfile.open(made) as source, tarfile.open(hostile, "w") as target:
        for each in source:
            if each.name == "backup.json":
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
            target.addfile(each, source.extractfile(each))
    return hostile


def of_type(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


HOSTILE = {
    "an absolute name": of_type("/outside", tarfile.REGTYPE),
    "a name that climbs": of_type("../outside", tarfile.REGTYPE),
    "a name that climbs later": of_type("blobs/../../outside", tarfile.REGTYPE),
    "a name with a dot": of_type("blobs/./x", tarfile.REGTYPE),
    "a hidden name": of_type("blobs/.hidden", tarfile.REGTYPE),
    "a strange letter": of_type("blobs/a\nb", tarfile.REGTYPE),
    "a backslash": of_type("blobs\\x", tarfile.REGTYPE),
    "an unknown name": of_type("authorized_keys", tarfile.REGTYPE),
    "below the database": of_type("orchctl.db/x", tarfile.REGTYPE),
    "below a secret": of_type("secret/x", tarfile.REGTYPE),
    "blobs as a file": of_type("blobs", tarfile.REGTYPE),
    "below a blob": of_type("blobs/jobs/j-1/1/log/x", tarfile.REGTYPE),
    "over a folder": of_type("blobs/jobs", tarfile.REGTYPE),
    "a log of the database": of_type("orchctl.db-wal", tarfile.REGTYPE),
    "a folder": of_type("blobs/folder", tarfile.DIRTYPE),
    "a symbolic link": of_type("blobs/link", tarfile.SYMTYPE, "../../outside"),
    "a secret that is a link": of_type("secret", tarfile.SYMTYPE, "/etc/hostname"),
    "a hard link": of_type("blobs/link", tarfile.LNKTYPE, "secret"),
    "a hard link to outside": of_type("blobs/link", tarfile.LNKTYPE, "/etc/hostname"),
    "a device": of_type("blobs/null", tarfile.CHRTYPE),
    "a block device": of_type("blobs/disk", tarfile.BLKTYPE),
    "a pipe": of_type("blobs/pipe", tarfile.FIFOTYPE),
    "a sparse file": of_type("blobs/sparse", tarfile.GNUTYPE_SPARSE),
    "one blob too many": of_type("blobs/more", tarfile.REGTYPE),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_is_taken_that_no_backup_holds(
    state: Path, made: Path, tmp_path: Path, what: str
) -> None:
    hostile = with_member(made, HOSTILE[what])
    before = tree(tmp_path)
    with pytest.raises(InvalidInput):
        restore(hostile, tmp_path / "restored")
    with pytest.raises(InvalidInput):
        restore(hostile, state, replace=True)
    assert tree(tmp_path) == before


def test_the_archives_of_these_tests_are_good_but_for_what_is_hostile(
    made: Path, tmp_path: Path
) -> None:
    again = with_member(made, of_type("secret", tarfile.REGTYPE), b"00ff")
    assert restore(again, tmp_path / "restored").blobs == len(BLOBS)


def test_an_archive_that_was_cut_off_anywhere_is_refused(made: Path, tmp_path: Path) -> None:
    whole, cut = made.read_bytes(), tmp_path / "cut.tar"
    with tarfile.open(made) as tar:
        note = tar.getmember("backup.json")
        starts = [each.offset for each in tar] + [each.offset_data for each in tar]
    middle = random.Random(1).sample(range(note.offset_data), 20)
    for size in sorted({0, 1, 511, 512, *starts, *middle}):
        cut.write_bytes(whole[:size])
        with pytest.raises(InvalidInput, match=r"cut\.tar"):
            restore(cut, tmp_path / "restored")
        assert not (tmp_path / "restored").exists()


def without(made: Path, *names: str, **instead: bytes) -> Path:
    """A backup without some of its files, or with others instead."""
    changed = made.with_name("changed.tar")
    with tarfile.open(made) as source, tarfile.open(changed, "w") as target:
        for each in source:
            stem = each.name.partition(".")[0]
            content = source.extractfile(each)
            assert content is not None
            data = instead.get(stem, content.read())
            if each.name not in names:
                each.size = len(data)
                target.addfile(each, io.BytesIO(data))
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: without(made, "orchctl.db"), r"it holds no orchctl\.db"),
        (lambda made: without(made, "backup.json"), "its end is missing"),
        (lambda made: without(made, "blobs/jobs/j-1/1/log"), "it holds 2 of 3 blobs"),
        (lambda made: without(made, orchctl=b"no database" * 999), r"orchctl\.db"),
        (lambda made: without(made, orchctl=b""), "no store of orchctl"),
        (lambda made: without(made, backup=b"{"), r"backup\.json cannot be read"),
        (lambda made: without(made, backup=b"[]"), r"backup\.json cannot be read"),
        (lambda made: without(made, backup=b'{"format": 2, "blobs": 3}'), "it has format 2"),
        (lambda made: zipped(made), "cannot be restored"),
    ],
)
def test_what_is_no_backup_is_refused(
    made: Path, tmp_path: Path, change: Callable[[Path], Path], said: str
) -> None:
    changed = change(made)
    before = tree(tmp_path)
    with pytest.raises(InvalidInput, match=said) as caught:
        restore(changed, tmp_path / "restored")
    assert str(changed) in caught.value.message
    assert ".orchctl-" not in caught.value.message, "a scratch file nobody knows"
    assert tree(tmp_path) == before


def zipped(made: Path) -> Path:
    other = made.with_name("changed.tar.gz")
    other.write_bytes(gzip.compress(made.read_bytes()))
    return other


def test_a_database_with_a_damaged_page_is_refused(made: Path, tmp_path: Path) -> None:
    with tarfile.open(made) as tar:
        content = tar.extractfile("orchctl.db")
        assert content is not None
        data = bytearray(content.read())
    data[8192:12288] = os.urandom(4096)
    with pytest.raises(InvalidInput, match=r"orchctl\.db"):
        restore(without(made, orchctl=bytes(data)), tmp_path / "restored")


@pytest.mark.parametrize("name", ["nowhere.tar", "state"])
def test_a_backup_that_is_not_there_is_said_so(state: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound, match=f"there is no file .*{name}"):
        restore(tmp_path / name, tmp_path / "restored")
    assert {each.name for each in tmp_path.iterdir()} == {state.name}


def test_a_place_that_cannot_be_written_is_said_so(made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"file/state cannot be made: .* \(.*/file\)") as refused:
        restore(made, tmp_path / "file" / "state")
    assert "name another place" in refused.value.fix


def test_a_folder_that_goes_while_blobs_are_listed_is_no_trouble(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for name in ("a/1", "b/c/1", "d/1"):
        blobs.put(name, b"x")
    found = blobs_of(tmp_path)
    first = next(found)
    blobs.remove("b/")
    shutil.rmtree(tmp_path / "blobs" / "b", ignore_errors=True)
    assert [path.parent.name for path in (first, *found)] == ["a", "d"]
