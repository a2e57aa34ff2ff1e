"""Store files for these tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.stores.sqlite import SqliteStore
from tests import requires

NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty store in the file `path`."""
    opened = SqliteStore(path, durability="normal")
    yield opened
    opened.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of an ordinary user, as whom the test goes on: permissions do not hold for root."""
    # Not in pytest's own folder, which is closed to others.
    folder = Path(tempfile.mkdtemp(prefix="orchctl-test-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        if not os.access(folder, os.W_OK):
            requires.missing(
                f"an ordinary user cannot reach {folder}; set TMPDIR to a folder that all may enter"
            )
        yield folder
    finally:
        if root:
            os.setresuid(0, 0, 0)
        folder.chmod(0o700)
        shutil.rmtree(folder)
