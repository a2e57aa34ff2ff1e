"""Tokens, federations, who you are, and who did what: the requests these commands make."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.access import Federation, Grant, Role, Rule
from control_plane.core.codec import to_json
from control_plane.core.model import Event, JobState
from orchctl import contexts
from orchctl.views import CostRow
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer
from tests.unit.cli.samples import AT

TOKEN: dict[str, Any] = {
    "id": "t-1",
    "name": "alice",
    "prefix": "orchctl_t-1_",
    "role": "submitter",
    "queues": ["a", "b"],
    "created_at": AT.isoformat(),
    "created_by": "admin",
    "expires_at": None,
    "expired": False,
}
WHO = {"actor": "alice", "role": "submitter", "queues": ["a"], "expires_at": None}


def record(**changes: Any) -> Any:
    grant = Grant(role=Role.SUBMITTER, queues=("default",))
    values: dict[str, Any] = {
        "name": "github",
        "issuer": "https://issuer.example",
        "audience": "https://orchctl.example",
        "rules": (Rule(claims={"repository": ("acme/a", "acme/b"), "ref": ("x",)}, grant=grant),),
        "applied_at": AT,
        "applied_by": "admin",
    }
    return to_json(Federation(**(values | changes)))


# -------------------------------------------------------------------------------------- tokens


def test_a_new_token_goes_to_standard_output_alone(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/tokens", {"token": "orchctl_t-1_ff", "record": TOKEN}, status=201)
    ran = cli(
        *("token", "create", "alice", "--role", "submitter"),
        *("--queue", "a", "--queue", "b", "--expires", "90d"),
    )
    assert (ran.code, ran.out) == (0, "orchctl_t-1_ff\n")
    assert "not shown again" in ran.err
    assert "orchctl_t-1_ff" not in ran.err
    asked = server.asked[0].body
    assert (asked["name"], asked["role"], asked["queues"]) == ("alice", "submitter", ["a", "b"])
    expires = datetime.fromisoformat(asked["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)
    as_json = cli("token", "create", "x", "--role", "viewer", "--all-queues", "-o", "json")
    assert json.loads(as_json.out)["token"] == "orchctl_t-1_ff"


def test_a_token_for_ever_and_for_everything_is_asked_for(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/v1/tokens", {"token": "x", "record": TOKEN}, status=201)
    cli("token", "create", "a", "--role", "viewer", "--all-queues", "--expires", "never")
    assert server.asked[0].body["queues"] == ["*"]
    assert server.asked[0].body["expires_at"] is None
    for wrong in ((), ("--all-queues", "--queue", "a"), ("--queue", "a", "--expires", "soon")):
        assert cli("token", "create", "a", "--role", "viewer", *wrong).code == 2
    assert len(server.asked) == 1


def test_tokens_are_listed_and_revoked(cli: Cli, server: FakeServer) -> None:
    old = {**TOKEN, "id": "t-0", "queues": ["*"], "expires_at": AT.isoformat(), "expired": True}
    server.on("GET", "/v1/tokens", samples.page(TOKEN, old))
    table = cli("token", "list").out
    assert "a, b" in table
    assert "never" in table
    assert "expired" in table
    assert "all" in table
    assert "orchctl_t-1_" in cli("token", "list", "-o", "wide").out
    server.on("DELETE", "/v1/tokens/t-1", status=204, content=b"")
    assert cli("token", "revoke", "t-1").out == "token t-1 is revoked\n"


def test_a_token_of_ci_is_read_from_standard_input(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("POST", "/v1/sessions", {"token": "orchctl_ci.x", "who": WHO}, status=201)
    monkeypatch.setattr("sys.stdin", io.StringIO("a.b.c\n"))
    ran = cli("token", "exchange")
    assert (ran.code, ran.out) == (0, "orchctl_ci.x\n")
    (asked,) = server.asked
    assert asked.body == {"token": "a.b.c"}
    assert len(asked.headers["idempotency-key"]) == 36, "a secret of this try"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli("token", "exchange").code == 2


def test_a_role_that_is_too_low_ends_with_denied(cli: Cli, server: FakeServer) -> None:
    fix = "ask an admin for a token with that role"
    server.problem("GET", "/v1/tokens", 403, "role-needed", detail="takes admin", fix=fix)
    ran = cli("token", "list")
    assert ran.code == 5
    assert "takes admin" in ran.err
    assert fix in ran.err


def test_too_many_requests_are_waited_for(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/tokens", {}, status=429, headers={"Retry-After": "0"})
    server.on("GET", "/v1/tokens", samples.page(TOKEN))
    assert cli("token", "list", "-o", "name").out == "t-1\n"
    server.problem("GET", "/v1/federations", 429, "too-many-requests", detail="too many")
    assert cli("federation", "list").code == 7


# --------------------------------------------------------------------------------- federations


def test_a_federation_is_applied_as_it_was_read(
    cli: Cli, server: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "github.yaml"
    file.write_text(
        "kind: Federation\nname: github\nissuer: https://issuer.example\n"
        "audience: https://orchctl.example\nrules:\n"
        "  - {claims: {repository: acme/a}, role: viewer, queues: ['*']}\n"
    )
    server.problem("GET", "/v1/federations/github", 404, "not-found", detail="none")
    server.on("PUT", "/v1/federations/github", record(), status=201)
    ran = cli("federation", "apply", str(file))
    assert ran.out == "federation github: version 1, 1 rule\n"
    asked = server.asked[-1]
    assert asked.headers["if-none-match"] == "*"
    assert asked.body == {
        "issuer": "https://issuer.example",
        "audience": "https://orchctl.example",
        "rules": [{"claims": {"repository": "acme/a"}, "role": "viewer", "queues": ["*"]}],
    }


def test_a_federation_is_changed_by_the_version_that_was_read(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/v1/federations/github", record(version=4))
    server.on("PUT", "/v1/federations/github", record(version=5))
    monkeypatch.setattr("sys.stdin", io.StringIO("name: github\nissuer: x\n"))
    assert cli("federation", "apply", "-").code == 0
    assert server.asked[-1].headers["if-match"] == '"4"'


@pytest.mark.parametrize("text", ["", "[]", "x", "name: 5", "issuer: x", "name: [", "\x00"])
def test_what_is_no_federation_is_not_sent(
    cli: Cli, server: FakeServer, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert cli("federation", "apply", str(file)).code == 2
    assert cli("federation", "apply", str(tmp_path / "none.yaml")).code == 2
    assert server.asked == []


def test_what_get_prints_can_be_applied_again(cli: Cli, server: FakeServer, tmp_path: Path) -> None:
    server.on("GET", "/v1/federations/github", record(jwks_uri="https://issuer.example/keys"))
    server.on("PUT", "/v1/federations/github", record(version=2))
    file = tmp_path / "github.yaml"
    file.write_text(cli("federation", "get", "github").out)
    assert cli("federation", "apply", str(file)).code == 0
    assert server.asked[-1].body == {
        "issuer": "https://issuer.example",
        "audience": "https://orchctl.example",
        "session": "3600s",
        "rules": [
            {
                "claims": {"repository": ["acme/a", "acme/b"], "ref": "x"},
                "role": "submitter",
                "queues": ["default"],
            }
        ],
        "jwks_uri": "https://issuer.example/keys",
    }
    assert json.loads(cli("federation", "get", "github", "-o", "json").out)["version"] == 1


def test_federations_are_listed_and_removed(cli: Cli, server: FakeServer) -> None:
    server.on("GET", "/v1/federations", samples.page(record()))
    table = cli("federation", "list").out
    assert all(cell in table for cell in ("github", "https://issuer.example", "1h", "admin"))
    server.on("DELETE", "/v1/federations/github", status=204, content=b"")
    assert cli("federation", "remove", "github").code == 0


# -------------------------------------------------------------------------------------- events


def test_events_say_who_did_what(cli: Cli, server: FakeServer) -> None:
    told = [
        to_json(
            Event(
                at=AT,
                kind="audit",
                subject="q",
                text="POST /v1/queues/q/pause: 200",
                actor=actor,
                role="operator",
                request_id="4f2a",
                seq=number,
            )
        )
        for number, actor in enumerate(("alice", "bob", "alice"))
    ]
    server.on("GET", "/v1/events", samples.page(*told))
    table = cli("events", "--kind", "audit", "--about", "q", "--who", "alice").out
    assert table.count("alice") == 2
    assert "bob" not in table
    assert "operator" in table
    assert server.asked[-1].query == {"kind": "audit", "subject": "q"}
    assert "4f2a" in cli("events", "--kind", "audit", "-o", "wide").out
    assert len(json.loads(cli("events", "--limit", "1", "-o", "json").out)) == 1


# -------------------------------------------------------------------------------------- report


def test_a_report_of_a_job_is_markdown(cli: Cli, server: FakeServer) -> None:
    job = samples.ended(3, leased_at=AT + timedelta(seconds=90), name="a | b [x](y)", attempt=2)
    server.on("GET", "/v1/jobs/j-1", job)
    cost = CostRow(cost_usd=Decimal("0.1234"), saved_usd=Decimal("0.5"))
    server.on("GET", "/v1/jobs/j-1/cost", to_json(cost))
    out = cli("job", "report", "j-1").out
    assert out.startswith("### a \\| b \\[x\\](y)\n\n| | |\n| --- | --- |\n")
    assert "| state | failed, exit code 3 |" in out
    assert "| waited | 1m30s |" in out
    assert "| cost | 0.1234 USD |" in out
    assert "| saved by spot | 0.5000 USD |" in out
    data = json.loads(cli("job", "report", "j-1", "-o", "json").out)
    assert data == {"job": "j-1", "state": JobState.FAILED.value, "cost_usd": "0.1234"}


# --------------------------------------------------------------------------------- context add


def test_adding_a_context_says_who_you_are_there(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another server that is in use must not see the token.
    monkeypatch.setenv(contexts.SERVER_VARIABLE, "http://127.0.0.1:9")
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    server.on("GET", "/v1/whoami", WHO)
    ran = cli("context", "add", "prod", "--server", server.url, "--token-stdin")
    assert (ran.code, ran.out) == (0, "context prod added\n")
    assert ran.err == "you are alice: submitter for a\n"
    assert server.asked[0].headers["authorization"] == "Bearer secret"


def test_a_token_that_is_wrong_is_said(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    server.problem("GET", "/v1/whoami", 401, "denied", detail="this token is not known here")
    ran = cli("context", "add", "prod", "--server", server.url, "--token-stdin")
    assert ran.code == 0
    assert "this token is not known here" in ran.err


def test_on_a_terminal_it_asks_and_does_not_show_the_token(
    server: FakeServer, tmp_path: Path
) -> None:
    server.on("GET", "/v1/whoami", WHO)
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", "from orchctl.main import run; run()", "context", "add", "prod"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, contexts.DIRECTORY_VARIABLE: str(tmp_path / "own")},
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    seen = _answer(ours, b"Server address:", server.url)
    seen += _answer(ours, b"Token", "secret")
    seen += _rest(ours)
    os.close(ours)
    assert done.wait(20) == 0, seen
    assert b"you are alice: submitter for a" in seen
    assert b"secret" not in seen
    assert "secret" in (tmp_path / "own" / "contexts.json").read_text()


def _own_terminal() -> None:
    """Where `getpass` asks is the terminal that controls the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _answer(terminal: int, question: bytes, text: str) -> bytes:
    seen = b""
    while question not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, text.encode() + b"\n")
    return seen


def _rest(terminal: int) -> bytes:
    seen = b""
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:  # the other end is closed
        pass
    return seen
