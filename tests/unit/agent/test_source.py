"""Proves that an archive is unpacked faithfully, and never writes or links outside its place."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from agent_bootstrap.source import Unprepared, unpack

Entry = tuple[str, bytes, str]
"""Name, tar type, and content or target."""


def pack(path: Path, *entries: Entry, mode: int = 0o644) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, text in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                tar.addfile(member)
    return path


def file(name: str, text: str = "x") -> Entry:
    return name, tarfile.REGTYPE, text


def link(name: str, target: str) -> Entry:
    return name, tarfile.SYMTYPE, target


def hard(name: str, target: str) -> Entry:
    return name, tarfile.LNKTYPE, target


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "job" / "work"
    work.mkdir(parents=True)
    (tmp_path / "secret").write_text("before")
    return work


def test_files_directories_and_links_inside_are_unpacked(work: Path) -> None:
    entries = (
        ("./d", tarfile.DIRTYPE, ""),
        file("./d/a", "one"),
        link("./d/b", "a"),
        link("c", "d/b"),
        hard("same", "d/a"),
    )
    unpack(pack(work.parent / "t", *entries), work)
    assert [(work / name).read_text() for name in ("d/a", "d/b", "c", "same")] == ["one"] * 4
    (work / "same").write_text("two")
    assert (work / "d" / "a").read_text() == "one"


@pytest.mark.parametrize(("mode", "expected"), [(0o4777, 0o755), (0o600, 0o644)])
def test_only_the_executable_bit_of_a_mode_is_kept(work: Path, mode: int, expected: int) -> None:
    unpack(pack(work.parent / "t", file("a"), mode=mode), work)
    assert (work / "a").stat().st_mode & 0o7777 == expected


def test_what_is_there_is_replaced_and_links_are_not_written_through(work: Path) -> None:
    (work / "a").write_text("old")
    (work / "b").symlink_to(work.parent.parent / "secret")
    unpack(pack(work.parent / "t", file("a", "new"), file("b", "new")), work)
    assert (work / "a").read_text() == (work / "b").read_text() == "new"
    assert (work.parent.parent / "secret").read_text() == "before"


@pytest.mark.parametrize(
    "entries",
    [
        [file("/tmp/x")],
        [file("../x")],
        [file("a/../../x")],
        [link("a", "/etc/passwd")],
        [link("a", "../../secret")],
        [link("a", "."), link("b", "a/..")],
        [link("b", "a/.."), link("a", ".")],
        [hard("a", "../../secret")],
        [("a", tarfile.FIFOTYPE, "")],
        [("a", tarfile.CHRTYPE, "")],
    ],
    ids=lambda entries: " ".join(f"{name}->{target}" for name, _, target in entries),
)
def test_what_leaves_the_directory_is_refused(work: Path, entries: list[Entry]) -> None:
    archive = pack(work.parent / "t", *entries)
    with pytest.raises(Unprepared, match="source archive"):
        unpack(archive, work)
    assert (work.parent.parent / "secret").read_text() == "before"
    assert sorted(each.name for each in work.parent.iterdir()) == ["t", "work"]


def test_a_checked_out_link_does_not_lead_an_archive_outside(work: Path) -> None:
    (work / "out").symlink_to(work.parent.parent)
    with pytest.raises(Unprepared):
        unpack(pack(work.parent / "t", file("out/secret", "after")), work)
    assert (work.parent.parent / "secret").read_text() == "before"


def test_a_damaged_archive_is_the_jobs_problem(work: Path) -> None:
    archive = pack(work.parent / "t", file("a", "x" * 100_000))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(Unprepared, match="cannot be unpacked"):
        unpack(archive, work)
