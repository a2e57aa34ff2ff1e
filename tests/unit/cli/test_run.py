"""`orchctl run` from capture to exit code, and `execute_remotely` in a real script."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.model import JobState, Reason
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer

ROOT = Path(__file__).parents[3]
QUEUED = "job j-7k2m9 queued in default, position 3; estimated start 1m40s\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    (path / "train.py").write_text("print('hello')\n")
    monkeypatch.chdir(path)
    return path


def _accept(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any source archive, as the real route does: by its hash."""
    plain = server.answer

    def answer(asked: Any) -> Any:
        if asked.path.startswith("/v1/blobs/sources/"):
            sha256 = asked.path.rpartition("/")[2]
            assert hashlib.sha256(asked.content).hexdigest() == sha256
            server.on("PUT", asked.path, {"blob": f"sources/{sha256}"}, status=201)
        return plain(asked)

    monkeypatch.setattr(server, "answer", answer)


def test_it_sends_the_files_and_then_the_job(
    cli: Cli, server: FakeServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _accept(server, monkeypatch)
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    (project / "requirements.txt").write_text("numpy==2.3\n")

    words = ("--gpu", "L4:1", "-e", "A=1", "--artifact", "*.pt", "--timeout", "2h")
    done = cli("run", *words, "--", "python", "train.py", "--lr", "3e-4", "a b")

    assert (done.code, done.out) == (0, QUEUED)
    assert done.err.startswith("captured project: 2 files, ")
    upload, submit = server.asked
    body = submit.body
    assert body["command"] == "python train.py --lr 3e-4 'a b'"
    assert (body["gpu"], body["env"], body["artifacts"]) == ("L4:1", {"A": "1"}, ["*.pt"])
    assert (body["timeout"], body["requirements"], body["python"]) == ("2h", ["numpy==2.3"], "")
    assert body["source"]["kind"] == "archive"
    assert body["source"]["blob"] == upload.path.removeprefix("/v1/blobs/")


def test_a_single_word_is_a_shell_line_and_options_after_it_are_its_own(
    cli: Cli, server: FakeServer
) -> None:
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    cli("run", "--no-capture", "--", "make a && make b")
    cli("run", "--no-capture", "pytest", "-x", "--timeout", "3")
    commands = [asked.body["command"] for asked in server.asked]
    assert commands == ["make a && make b", "pytest -x --timeout 3"]
    assert [asked.body["source"] for asked in server.asked] == [None, None]


def test_from_a_subdirectory_command_and_artifacts_are_relative_to_it(
    cli: Cli, server: FakeServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _accept(server, monkeypatch)
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    (project / "exp").mkdir()
    (project / "exp/x.py").write_text("x")
    monkeypatch.chdir(project / "exp")

    assert cli("run", "--artifact", "out/*", "--", "python", "x.py").code == 0

    body = server.asked[-1].body
    assert body["command"] == "cd exp && python x.py"
    assert body["artifacts"] == ["exp/out/*"]


def test_a_lock_sets_the_python_it_was_made_with(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    cli("run", "--no-capture", "--packages", "lock", "--", "true")
    cli("run", "--no-capture", "--packages", "none", "--python", "3.12", "--", "true")
    locked, bare = (asked.body for asked in server.asked)
    assert locked["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert any(line.startswith("typer==") for line in locked["requirements"])
    assert (bare["python"], bare["requirements"]) == ("3.12", [])


def test_it_may_wait_for_jobs_and_for_a_time(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    began = datetime.now(UTC)
    words = ("run", "--no-capture", "--after", "j-1", "--after", "j-2")
    cli(*words, "--not-before", "2026-03-01T22:00+01:00", "--", "true")
    cli("run", "--no-capture", "--not-before", "90m", "--", "true")
    cli("run", "--no-capture", "--", "true")
    dated, later, plain = (asked.body for asked in server.asked)
    assert dated["depends_on"] == ["j-1", "j-2"]
    assert datetime.fromisoformat(dated["not_before"]) == datetime(2026, 3, 1, 21, tzinfo=UTC)
    waits = datetime.fromisoformat(later["not_before"]) - began
    assert timedelta(minutes=90) <= waits <= timedelta(minutes=91)
    assert (plain["depends_on"], plain["not_before"]) == ([], None)
    assert cli("run", "--no-capture", "--not-before", "soon", "--", "true").code == 2


def test_the_idempotency_key_is_the_users_where_there_is_one(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    cli("run", "--no-capture", "--idempotency-key", "build-7", "--", "true")
    assert server.asked[0].headers["idempotency-key"] == "build-7"


@pytest.mark.parametrize(
    ("state", "exit_code", "expected"),
    [(JobState.SUCCEEDED, 0, 0), (JobState.FAILED, 42, 42), (JobState.EXHAUSTED, None, 1)],
)
def test_waiting_exits_as_the_job_did(
    cli: Cli, server: FakeServer, state: JobState, exit_code: int | None, expected: int
) -> None:
    reason = Reason(code="x", sentence="it lost 5 machines")
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    server.on("GET", "/v1/jobs/j-7k2m9/wait", samples.ended(exit_code, state, reason=reason))

    done = cli("run", "--no-capture", "--wait", "--", "true")

    assert done.code == expected
    assert done.out == ""
    assert done.err.startswith(QUEUED)
    assert f"job j-7k2m9 {state}" in done.err
    assert "it lost 5 machines" in done.err


def test_following_prints_the_log_and_nothing_else_on_stdout(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/jobs", samples.job(), status=201)
    headers = {"X-Log-Size": "6", "X-Job-State": "failed"}
    server.on("GET", "/v1/jobs/j-7k2m9/logs", content=b"hello\n", headers=headers)
    server.on("GET", "/v1/jobs/j-7k2m9/wait", samples.ended(3))

    for_people = cli("run", "--no-capture", "--wait", "--follow", "--", "pytest", "-x")
    assert (for_people.code, for_people.out) == (3, "hello\n")

    for_programs = cli("run", "--no-capture", "--follow", "-o", "json", "--", "pytest", "-x")
    assert for_programs.code == 3
    assert json.loads(for_programs.out)["exit_code"] == 3
    assert "hello\n" in for_programs.err


def test_an_interrupt_while_waiting_leaves_the_job_running(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    server.on("POST", "/v1/jobs", samples.job(), status=201)
    monkeypatch.setattr("orchctl.client.Jobs.wait", interrupted)
    done = cli("run", "--no-capture", "--wait", "--", "true")
    assert done.code == 130
    assert "orchctl job cancel j-7k2m9" in done.err


@pytest.mark.parametrize("assignment", ["A", "=1", ""])
def test_an_environment_value_needs_a_name_and_a_value(cli: Cli, assignment: str) -> None:
    refused = cli("run", "--no-capture", "-e", assignment, "--", "true")
    assert refused.code == 2
    assert "NAME=VALUE" in refused.err


SCRIPT = """
import sys
import orchctl

orchctl.execute_remotely(queue="urgent", gpu="L4:1")
print("working", *sys.argv[1:])
"""


def _script(project: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (project / "sweep.py").write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, "sweep.py", "--lr", "1e-3"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_script_submits_itself_and_ends(
    server: FakeServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _accept(server, monkeypatch)
    server.on("POST", "/v1/jobs", samples.job(), status=201)

    done = _script(project, {"ORCHCTL_SERVER": server.url})

    assert (done.returncode, done.stdout, done.stderr) == (0, "j-7k2m9\n", "")
    body = server.asked[-1].body
    assert body["command"] == "python sweep.py --lr 1e-3"
    assert (body["queue"], body["gpu"], body["name"]) == ("urgent", "L4:1", "sweep")
    assert body["source"]["kind"] == "archive"


def test_on_the_worker_the_script_just_runs(server: FakeServer, project: Path) -> None:
    done = _script(project, {"ORCHCTL_SERVER": server.url, "ORCHCTL_JOB_ID": "j-7k2m9"})
    assert (done.returncode, done.stdout) == (0, "working --lr 1e-3\n")
    assert server.asked == []
