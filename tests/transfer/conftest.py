"""A store with something of everything, and ways to stop what moves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from control_plane import transfer
from control_plane.blobs.local import LocalBlobs
from control_plane.ports import Store, TransferKind
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from control_plane.transfer import Tally
from tests.conformance.busy import make_busy

PAGE = 4
"""Small enough for several pages of most kinds."""
SECRETS = {"secret": "00ff", "installation": "abc", "admin-token": "orchctl_token"}
BLOBS = {
    "jobs/j-1/1/log": b"a line\n" * 1000,
    "jobs/j-1/1/artifacts/" + "ab" * 32: b"\x00" * 3000,
    "sources/" + "cd" * 32: b"",
}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAGE", PAGE)


@pytest.fixture
def busy() -> MemoryStore:
    store = MemoryStore()
    make_busy(store)
    return store


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A server's directory with the same in it, as it is while no server runs."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    with opened(folder) as store:
        make_busy(store)
    for name, text in SECRETS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    blobs = LocalBlobs(folder / "blobs")
    for key, data in BLOBS.items():
        blobs.put(key, data)
    (folder / "lock").touch()
    (folder / "machines").mkdir()
    return folder


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store of a server's directory."""
    store = SqliteStore(folder / "orchctl.db", durability="normal")
    try:
        yield store
    finally:
        store.close()


def sums(store: Store) -> dict[TransferKind, Tally]:
    """What an export of a store would say of it."""
    return {
        kind: transfer._summed(map(transfer.canonical, transfer._rows(store, kind)))
        for kind in TransferKind
    }


def tree(folder: Path) -> dict[str, bytes]:
    """Every file in a folder and below."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"(folder)"
        for path in sorted(folder.rglob("*"))
    }


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """End the block at its `number`-th step that outlives a crash: a flush, or a file that takes
    its name. What it gives says whether it came to that."""
    left = number

    def before(step: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash
            return step(*args)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", before(os.fsync))
        patched.setattr(Path, "replace", before(Path.replace))
        with suppress(Crash):
            yield lambda: left <= 0


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in an export but what differs from one to the next: its id."""
    return {name: data for name, data in tree(folder).items() if name != transfer.MANIFEST}


def tries_needed(step: int, monkeypatch: pytest.MonkeyPatch, move: Callable[[], object]) -> int:
    """How often something is tried that crashes at this step each time, until it comes to an end
    before."""
    for tries in range(1, 100):
        with crash_at(step, monkeypatch) as crashed:
            move()
        if not crashed():
            return tries
    raise AssertionError("it gets no further")
