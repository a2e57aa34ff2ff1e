"""Proves that the one-file agent is the same bytes everywhere, complete, and needs nothing else."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agent_bootstrap import bundle as module
from agent_bootstrap.bundle import bundle, bundle_sha256

ROOT = Path(module.__file__).parent
SOURCES = sorted(ROOT.glob("*.py"))


def names() -> list[str]:
    return zipfile.ZipFile(io.BytesIO(bundle())).namelist()


def test_the_bytes_do_not_depend_on_place_mask_time_or_file_dates(tmp_path: Path) -> None:
    copy = tmp_path / "agent_bootstrap"
    copy.mkdir()
    for source in reversed(SOURCES):
        (copy / source.name).write_bytes(source.read_bytes())
        os.utime(copy / source.name, (1, 1))
        (copy / source.name).chmod(0o600)
    show = "from agent_bootstrap.bundle import bundle_sha256 as b; print(b())"
    command = f"umask 077; cd {tmp_path}; exec {sys.executable} -B -c '{show}'"
    environment = {"PYTHONPATH": str(tmp_path), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    other = subprocess.check_output(["/bin/sh", "-c", command], env=environment, text=True)
    assert other.strip() == bundle_sha256() == hashlib.sha256(bundle()).hexdigest()


def test_it_holds_what_the_agent_imports_and_nothing_of_the_control_plane() -> None:
    assert "__main__.py" in names()
    assert "agent_bootstrap/worker.py" in names()
    assert not {"agent_bootstrap/bundle.py", "agent_bootstrap/user_data.py"} & set(names())
    assert names() == sorted(names())


def test_it_runs_alone(tmp_path: Path) -> None:
    agent = tmp_path / "agent.pyz"
    agent.write_bytes(bundle())
    command = [sys.executable, "-I", "-S", str(agent), "--help"]
    assert b"--token-file" in subprocess.check_output(command, cwd=tmp_path, env={})


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_module_is_python_3_8_and_imports_only_the_standard_library(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= set(sys.stdlib_module_names) | {"agent_bootstrap"}
