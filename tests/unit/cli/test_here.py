"""`doctor`, `up` and `demo`, and how results are printed."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import orchctl
from control_plane.errors import Unavailable
from orchctl import contexts, output
from orchctl.output import ColorChoice, Column
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer


def _healthy(server: FakeServer, **headers: str) -> None:
    server.on("GET", "/v1/health", {"status": "ok", "version": "9.9"}, headers=headers)


def _states(cli: Cli) -> tuple[int, dict[str, str], str]:
    ran = cli("doctor", "-o", "json")
    return ran.code, {row["check"]: row["state"] for row in json.loads(ran.out)}, ran.err


@pytest.fixture
def _version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchctl.version.installed", lambda: "9.9")


@pytest.mark.usefixtures("_version")
def test_a_sound_setup_is_all_ok(cli: Cli, server: FakeServer) -> None:
    _healthy(server)
    server.on("GET", "/v1/queues", samples.page())
    code, states, err = _states(cli)
    assert (code, set(states.values()), err) == (0, {"ok"}, "")
    assert "server 9.9, here 9.9" in cli("doctor").out


@pytest.mark.usefixtures("_version")
def test_each_failure_prints_its_fix(
    cli: Cli, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = format_datetime(datetime.now(UTC) - timedelta(minutes=5), usegmt=True)
    monkeypatch.setattr(
        "tests.unit.cli.fake_server.BaseHTTPRequestHandler.date_time_string", lambda *_: late
    )
    _healthy(server)
    server.problem("GET", "/v1/queues", 401, "denied", detail="unknown token")
    contexts.add("prod", server="https://prod.example.com")
    contexts.path().chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("orchctl.version.installed", lambda: "0.1")

    code, states, err = _states(cli)

    assert code == 1
    failed = {check for check, state in states.items() if state == "failed"}
    assert failed == {"git", "installer", "contexts file", "version", "clock", "token"}
    assert err.count("fix: ") == len(failed)
    assert f"chmod 600 {contexts.path()}" in err
    assert "pip install orchctl==9.9" in err


def test_without_a_server_the_rest_is_skipped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCHCTL_SERVER")
    code, states, err = _states(cli)
    assert code == 1
    assert states["server"] == "failed"
    assert {states[check] for check in ("version", "clock", "token")} == {"skipped"}
    assert "orchctl up" in err


def test_up_and_demo_pass_their_options_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def up(*words: Any) -> int:
        calls.append(words)
        return 0

    def demo(**words: Any) -> int:
        calls.append(words)
        return 5

    _pretend(monkeypatch, orchctl, "up", up=up)
    _pretend(monkeypatch, orchctl, "demo", demo=demo)

    assert cli("up", "--port", "0", "--config", "c.yaml", "--state-dir", "s").code == 0
    assert cli("demo", "--json", "--keep").code == 5
    assert calls == [
        (Path("s"), 0, Path("c.yaml"), False, ""),
        {"json_line": True, "keep": True},
    ]


def test_what_stops_the_server_is_a_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def up(*_: Any) -> int:
        raise Unavailable("port 80 cannot be used", fix="choose another --port")

    _pretend(monkeypatch, orchctl, "up", up=up)
    failed = cli("up", "--port", "80")
    assert failed.code == 7
    assert failed.err == "error: port 80 cannot be used\n  fix: choose another --port\n"


def _pretend(
    monkeypatch: pytest.MonkeyPatch, package: ModuleType, name: str, **content: Any
) -> None:
    module = SimpleNamespace(**content)
    monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", module)
    monkeypatch.setattr(package, name, module, raising=False)


def test_the_version_is_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchctl.version.installed", lambda: "1.2.3")
    assert cli("--version").out == "1.2.3\n"


# ------------------------------------------------------------------------------------- output


COLUMNS = (
    Column(heading="STATE", cell=lambda row: row["state"]),
    Column(heading="N", cell=lambda row: row["n"], right=True),
)
ROWS = [{"state": "ready", "n": "1"}, {"state": "odd", "n": "100"}]


def test_tables_are_aligned_with_and_without_colour() -> None:
    plain = output.as_table(ROWS, COLUMNS)
    assert plain.splitlines() == ["STATE    N", "ready    1", "odd    100"]
    colored = output.as_table(ROWS, COLUMNS, color=True)
    assert colored != plain
    assert colored.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain


@pytest.mark.parametrize(
    ("variables", "choice", "terminal", "expected"),
    [
        ({}, ColorChoice.AUTO, True, True),
        ({}, ColorChoice.AUTO, False, False),
        ({"NO_COLOR": "1"}, ColorChoice.AUTO, True, False),
        ({"FORCE_COLOR": "1"}, ColorChoice.AUTO, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, ColorChoice.AUTO, True, False),
        ({"NO_COLOR": "1"}, ColorChoice.ALWAYS, False, True),
        ({"FORCE_COLOR": "1"}, ColorChoice.NEVER, True, False),
    ],
)
def test_when_there_is_colour(
    variables: dict[str, str],
    choice: ColorChoice,
    terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream: Any = SimpleNamespace(isatty=lambda: terminal)
    assert output.color_wanted(stream, choice) is expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (59.9, "59s"),
        (100, "1m40s"),
        (3600, "1h"),
        (90_061, "1d1h"),
        (-5, "0s"),
    ],
)
def test_spans(seconds: float | None, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("12.345", "12.35"), ("0", "0.00"), ("0.00007", "0.0001"), ("-0.5", "-0.50")],
)
def test_amounts(value: str | None, text: str) -> None:
    assert output.usd(value) == text


def test_commands_colour_states_when_told_to(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/machines", samples.page(samples.machine()))
    assert "\x1b[32mready\x1b[0m" in cli("machine", "list", "--color", "always").out
    assert "\x1b" not in cli("machine", "list").out


def test_watching_asks_again_until_interrupted(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter([None])

    def pause(_: float) -> None:
        if next(rounds, "over") == "over":
            raise KeyboardInterrupt

    server.on("GET", "/v1/machines", samples.page(samples.machine()))
    monkeypatch.setattr("orchctl.commands.machine.time.sleep", pause)
    watched = cli("machine", "list", "--watch", "--all")
    assert watched.code == 130
    assert [asked.query for asked in server.asked] == [{"all": "true"}] * 2
    assert watched.out.count("m-4d1xq") == 2
