"""A real disk without room: what was acknowledged stays, and with room again it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import requires

DEADLINE_S = 120.0
ON_A_SMALL_DISK = (
    *("unshare", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"',
)
"""Runs a program with a file system of its own, of 2 MiB, on a folder: the first argument."""


def on_a_small_disk(folder: Path, *program: str) -> subprocess.CompletedProcess[str]:
    command = [*ON_A_SMALL_DISK, str(folder), *program]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@pytest.fixture
def told(tmp_path: Path) -> dict[str, Any]:
    """What `small_disk` says."""
    try:
        allowed = on_a_small_disk(tmp_path, "true").returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        requires.missing(
            "this user may not make a file system of their own; install it with: "
            "sudo apt-get install --yes util-linux, or run as root"
        )
    done = on_a_small_disk(
        tmp_path, sys.executable, "-m", "tests.unit.stores.sqlite.small_disk", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_full_disk_is_told_and_nothing_is_lost(told: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    message, fix = told["refused"]
    assert message.startswith(f"the store file {path} cannot be used: there is no room left (")
    assert fix == f"Make room on the disk of {tmp_path}, then repeat: nothing was half written."
    assert len(told["said"]) > 20
    assert told["full"] == told["said"], "all that was acknowledged, and nothing else"
    assert told["again"] == [*told["said"], "j-last"], "it goes on, and is so when opened again"

    message, fix = told["no_copy"]
    assert str(tmp_path / "copy.db") in message, "not the store is to blame"
    assert str(tmp_path) in fix
    assert told["names"] == ["ballast", "store.db", "store.db-shm", "store.db-wal"]
