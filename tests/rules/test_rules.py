"""The rules for all tests hold: each is run by a pytest of its own, in which it is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requires import ROOT

TWO_OF_ONE_NAME = """
import pytest

class Twice(pytest.Item):
    def runtest(self): ...

def pytest_collect_file(parent, file_path):
    if file_path.name == "test_it.py":
        return Both.from_parent(parent, path=file_path)

class Both(pytest.File):
    def collect(self):
        return [Twice.from_parent(self, name="it") for _ in range(2)]
"""
FAILING = """
import pytest

@pytest.fixture
def broken():
    raise ValueError("not ready")

@pytest.fixture
def leaking():
    yield
    raise ValueError("left behind")

def test_before(broken): ...
def test_itself(): raise ValueError("wrong")
def test_after(leaking): ...
"""
GROUPED = """
import os
import pytest

@pytest.mark.xdist_group("together")
@pytest.mark.parametrize("number", range(8))
def test_it(number):
    with open(os.path.dirname(__file__) + "/workers", "a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + " ")

@pytest.mark.parametrize("number", range(8))
def test_alone(number): ...
"""
LONG_VALUES = """
import pytest

@pytest.mark.parametrize("text", ["x" * 1_000_000, "y" * 1_000_000, "z"])
def test_it(text): raise ValueError
"""
SKIPPING = """
import pytest

def test_it(): pytest.skip("no such program")
"""


def run(folder: Path, text: str, conftest: str = "", *, workers: int = 0) -> str:
    """What pytest says of these tests under the rules of all."""
    (folder / "test_it.py").write_text(text)
    (folder / "conftest.py").write_text(conftest)
    plugins = ["-p", "tests.conftest", "-p", "xdist"]
    words = [*plugins, "-n", str(workers), "--dist=loadgroup", "-q"]
    apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", str(folder), str(folder)],
        env={**apart, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    """Of which workers would run one."""
    assert "several tests of one name: test_it.py::it" in run(tmp_path, "", TWO_OF_ONE_NAME)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_is_named_at_once(tmp_path: Path, workers: int) -> None:
    at_once = run(tmp_path, FAILING, workers=workers).partition("= ERRORS =")[0]
    assert "\nFAILED test_it.py::test_before (setup): ValueError: not ready\n" in at_once
    assert "\nFAILED test_it.py::test_itself (call): ValueError: wrong\n" in at_once
    assert "\nFAILED test_it.py::test_after (teardown): ValueError: left behind\n" in at_once


def test_a_group_stays_together(tmp_path: Path) -> None:
    """In one worker, where its tests share what takes long to make and get in nobody's way."""
    run(tmp_path, GROUPED, workers=2)
    seen = (tmp_path / "workers").read_text().split()
    assert (len(seen), len(set(seen))) == (8, 1)


def test_a_long_value_is_not_in_the_name(tmp_path: Path) -> None:
    said = run(tmp_path, LONG_VALUES)
    assert all(f"test_it[{name}]" in said for name in ("text0", "text1", "z"))
    assert len(said) < 10_000


def test_a_skip_fails_where_everything_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHCTL_REQUIRE_ALL", raising=False)
    assert "1 skipped" in run(tmp_path, SKIPPING)
    monkeypatch.setenv("ORCHCTL_REQUIRE_ALL", "1")
    assert "skipped, but everything is required here" in run(tmp_path, SKIPPING)
