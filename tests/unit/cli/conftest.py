"""A fake server, an own configuration directory, and no waiting between tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchctl import client, contexts, http
from orchctl.main import main
from tests.unit.cli.fake_server import FakeServer

VARIABLES = (
    contexts.SERVER_VARIABLE,
    contexts.TOKEN_VARIABLE,
    contexts.CONTEXT_VARIABLE,
    "ORCHCTL_JOB_ID",
    "NO_COLOR",
    "FORCE_COLOR",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(contexts.DIRECTORY_VARIABLE, str(tmp_path / "config"))
    monkeypatch.setattr(http, "PAUSE_FIRST_S", 0.0)
    monkeypatch.setattr(client, "FOLLOW_PAUSE_S", 0.0)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.close()


@pytest.fixture
def cli(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Runs one command line against the fake server, as the program would."""
    monkeypatch.setenv(contexts.SERVER_VARIABLE, server.url)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code=code, out=out, err=err)

    return run
