"""Attacks on a real server, over real connections: each is refused with a clear problem, none is a
fault of the server, and what somebody tried is in the log."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from control_plane.api import edge
from control_plane.api.changes import Changes
from control_plane.api.limits import FAILURES
from control_plane.api.server import Server
from control_plane.stores.sqlite import SqliteStore
from tests.answers import SOON_S, Answer, altered, ask
from tests.api.test_server import until
from tests.api.world import DOCUMENT, TOKEN, World
from tests.fakes.forged import AUDIENCE, FORGED
from tests.fakes.issuer import Issuer, rsa_key


class Target:
    """A server on a port, with a machine of each name and a federation."""

    def __init__(self, store: SqliteStore) -> None:
        changes = Changes()
        self.world = World(store, changes=changes)
        self.server = Server(self.world.app(), changes, host="127.0.0.1", port=0)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.bound_port}"

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        return ask(self.url, method, path, body, token=token, headers=headers)

    def raw(self, request: bytes) -> bytes:
        """All that comes back on a connection on which this was written; it asks to be closed."""
        with socket.create_connection(("127.0.0.1", self.server.bound_port), SOON_S) as connection:
            connection.sendall(request)
            found = b""
            while piece := connection.recv(65536):
                found += piece
            return found

    def exchange(self, token: str, key: str = "k") -> Answer:
        headers = {"Idempotency-Key": key}
        return self.ask("POST", "/v1/sessions", {"token": token}, token="", headers=headers)


@pytest.fixture
def target(sqlite: SqliteStore) -> Iterator[Target]:
    target = Target(sqlite)
    target.ask(
        "PUT",
        "/v1/autoscalers/research",
        {"document": DOCUMENT},
        headers={"If-None-Match": "*"},
    )
    yield target
    target.stop()


@pytest.fixture
def issuer(target: Target) -> Iterator[Issuer]:
    """One whose word is taken for pushes to `main` of `acme/train`."""
    issuer = Issuer(target.world.clock.now)
    rule = {
        "claims": {"repository": "acme/train", "ref": "refs/heads/main"},
        "role": "submitter",
        "queues": ["default"],
    }
    wanted = {"issuer": issuer.url, "audience": AUDIENCE, "rules": [rule]}
    assert target.ask("PUT", "/v1/federations/github", wanted).status == 201
    yield issuer
    issuer.close()


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the server says of what it refused."""
    lines: list[str] = []
    with caplog.at_level(logging.WARNING):
        yield lines
    lines += [each.getMessage() for each in caplog.records]
    assert all("\n" not in line and line.isprintable() for line in lines)


# ------------------------------------------------------------------------------ tokens of CI


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_token_of_ci_opens_nothing(
    target: Target, issuer: Issuer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = FORGED[how](issuer)
    with logged(caplog) as lines:
        assert target.exchange(token).refused(401, "denied")
        assert target.ask("GET", "/v1/jobs", token=token).refused(401, "denied")
    assert any("POST /v1/sessions" in line for line in lines)
    assert not any(token in line for line in lines)
    assert target.exchange(issuer.token()).status == 201


def test_a_replayed_token_of_ci_opens_nothing(
    target: Target, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    token = issuer.token()
    first = target.exchange(token, "mine")
    assert first.status == 201
    assert target.exchange(token, "mine").json == first.json, "its own repeat"
    with logged(caplog) as lines:
        assert target.exchange(token, "theirs").refused(401, "denied")
        assert target.exchange(token, "").refused(401, "denied")
    assert any("used before" in line for line in lines)
    assert target.ask("GET", "/v1/jobs", token=token).refused(401), "it is no bearer itself"


def test_a_flood_of_unknown_keys_asks_the_issuer_once(target: Target, issuer: Issuer) -> None:
    answers = [
        target.exchange(issuer.token(kid=f"k{number}", key=rsa_key(1))).status
        for number in range(FAILURES.burst + 10)
    ]
    assert set(answers) == {401, 429}
    assert answers.count(401) == FAILURES.burst
    assert issuer.asked.count("/jwks") == 1


def test_keys_that_do_not_answer_hold_up_nobody_else(target: Target, issuer: Issuer) -> None:
    issuer.go.clear()
    token = issuer.token()
    hanging = threading.Thread(target=target.exchange, args=(token, "a"))
    hanging.start()
    until(lambda: issuer.asked)
    for number in range(60):
        assert target.exchange(issuer.token(), str(number)).refused(503, "unavailable")
    assert target.ask("GET", "/v1/jobs").status == 200
    assert target.ask("GET", "/v1/health", token="").status == 200
    issuer.go.set()
    hanging.join(SOON_S)
    assert not hanging.is_alive()


def test_what_ci_may_do_ends_with_its_rule(target: Target, issuer: Issuer) -> None:
    session = target.exchange(issuer.token()).json["token"]
    job = target.ask("POST", "/v1/jobs", {"command": "true"}, token=session)
    assert job.status == 201
    for method, path in (
        ("POST", "/v1/queues/default/clear"),
        ("POST", "/v1/tokens"),
        ("PUT", "/v1/federations/github"),
        ("GET", "/v1/machines"),
        ("GET", "/v1/metrics"),
        ("PUT", "/v1/autoscalers/research"),
    ):
        assert target.ask(method, path, token=session).refused(403, "role-needed"), path
    assert target.ask("DELETE", "/v1/federations/github").status == 204
    assert target.ask("GET", "/v1/jobs", token=session).refused(401, "denied")


# ------------------------------------------------------------------------------------ machines


def test_a_machine_reaches_only_what_it_holds(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one, two = target.world.registered("m-1"), target.world.registered("m-2")
    job_id = target.ask("POST", "/v1/jobs", {"command": "true"}).json["id"]
    (work,) = target.ask("POST", "/v1/agent/claim", token=one).json["jobs"]
    assert work["job_id"] == job_id
    epoch = {"epoch": work["epoch"]}
    start = f"/v1/agent/jobs/{job_id}/start"
    finish = f"/v1/agent/jobs/{job_id}/finish"
    ending = {**epoch, "outcome": "succeeded", "exit_code": 0}
    for path, body in ((start, epoch), (finish, ending)):
        assert target.ask("POST", path, body, token=two).refused(409, "stale-epoch"), path
    log = f"/v1/agent/jobs/{job_id}/logs?epoch={work['epoch']}&offset=0"
    stolen = target.ask("POST", log, b"x", token=two)
    assert 400 <= stolen.status < 500
    assert target.ask("GET", f"/v1/jobs/{job_id}").json["state"] == "leased"
    told = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert any(start in line for line in told)
    assert any(finish in line for line in told)
    assert target.ask("POST", start, epoch, token=one).status == 200
    assert target.ask("POST", finish, {**ending, "epoch": 99}, token=one).refused(409)
    # A machine's token is none of people's, nor the other way round.
    assert target.ask("GET", "/v1/jobs", token=one).refused(401)
    assert target.ask("POST", "/v1/agent/beat", token=TOKEN).refused(401)
    mac = one.partition(".")[2]
    for forged in (f"m-2.{mac}", one[:-1], f"{one}0", f"m-1\u00e4.{mac}", f".{mac}", "m-1."):
        answer = target.ask("POST", "/v1/agent/beat", token=forged.encode().decode("latin-1"))
        assert answer.refused(401, "denied"), forged


# ------------------------------------------------------------------------------------- cursors


def test_a_cursor_that_was_tampered_with_opens_nothing(target: Target) -> None:
    for _ in range(3):
        target.ask("POST", "/v1/jobs", {"command": "true"})
    cursor = target.ask("GET", "/v1/jobs?limit=1").json["cursor"]
    assert target.ask("GET", f"/v1/jobs?limit=1&cursor={cursor}").status == 200
    for each in altered(cursor):
        answer = target.ask("GET", f"/v1/jobs?limit=1&cursor={each}")
        assert answer.refused(422, "invalid-input"), each
    for path in ("/v1/queues", "/v1/events", "/v1/machines", "/v1/jobs?queue=default"):
        joint = "&" if "?" in path else "?"
        answer = target.ask("GET", f"{path}{joint}cursor={cursor}")
        assert answer.refused(422, "invalid-input"), path
    assert target.ask("GET", "/v1/jobs?cursor=" + "A" * 5000).refused(422)


# -------------------------------------------------------------------------------------- bodies


DEEP = 100_000
POSTED = ("/v1/jobs", "/v1/queues", "/v1/tokens", "/v1/sessions", "/v1/agent/register")


@pytest.mark.parametrize("path", POSTED)
def test_deep_bodies_are_refused(target: Target, path: str) -> None:
    size = 30_000 if path == "/v1/sessions" else DEEP
    for body in (
        b"[" * size,
        b'{"a":' * (size // 5),
        b"[" * (size // 2) + b"]" * (size // 2),
        b'{"command":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
    ):
        answer = target.ask("POST", path, body)
        assert answer.status in (400, 422), answer.body
        assert answer.refused(answer.status)


def test_large_bodies_are_refused_before_they_are_read(target: Target) -> None:
    announced = (
        ("/v1/jobs", edge.JSON_MAX_BYTES),
        ("/v1/sessions", edge.SESSIONS_MAX_BYTES),
        ("/v1/agent/register", edge.JSON_MAX_BYTES),
        ("/v1/agent/claim", edge.JSON_MAX_BYTES),
    )
    for path, limit in announced:
        request = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Length: {limit + 1}\r\nConnection: close\r\n\r\n"
        )
        assert target.raw(request.encode() + b"{").startswith(b"HTTP/1.1 413 "), path
    streamed = (
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
    )
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    # One byte too many and no more: what is left unread would break the connection off.
    assert target.raw(streamed + chunk + b"1\r\nx\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b'{"command": "\\ud800"}',
        b'{"command": "a\\u0000b"}',
        b'{"command": 1e999}',
        b'{"priority": 1' + b"0" * 5000 + b"}",
        b'{"command": "true", "command": ["x"]}',
        b'{"__proto__": {}, "command": "true"}',
        b"NaN",
    ],
)
def test_odd_bodies_are_refused(target: Target, body: bytes) -> None:
    answer = target.ask("POST", "/v1/jobs", body)
    assert answer.status in (400, 422)
    assert answer.refused(answer.status)


# ------------------------------------------------------------------------- paths and headers


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/../tokens",
        "/v1/jobs/%2e%2e/tokens",
        "/v1/jobs/..%2ftokens",
        "/v1/queues/a%2f..%2f..%2ftokens",
        "/v1//tokens",
        "/v1/tokens/",
        "/v1/tokens%00",
        "/v1/TOKENS",
        "//v1/tokens",
        "/v1/health/../tokens",
        "/v1/agent/../tokens",
        "/v1/notices/../tokens",
        "/v1/tokens;x=1",
        "/v1/tokens%3f",
        "/login/../v1/tokens",
    ],
)
def test_no_spelling_of_a_path_gets_round_the_roles(
    target: Target, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    viewer = target.ask("POST", "/v1/tokens", {"name": "v", "role": "viewer", "queues": ["*"]})
    for token, statuses in ((viewer.json["token"], (403, 404, 401)), ("", (401, 404))):
        answer = target.ask("GET", path, token=token)
        assert answer.status in statuses, (path, answer.body)
        assert b"prefix" not in answer.body


def test_a_log_line_cannot_be_written_by_a_stranger(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    with logged(caplog) as lines:
        wrong = "wrong\u00a0\u0085"
        assert (
            target.ask("POST", "/v1/queues/a%0d%0aWARNING%20all%20well", token=wrong).status == 401
        )
        target.raw(
            b"GET /v1/jobs%0A2026 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n"
            b"Connection: close\r\n\r\n"
        )
    assert lines
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(
    "head",
    [
        b"Authorization: Bearer " + TOKEN.encode() + b"\r\nAuthorization: Bearer wrong",
        b"Authorization : Bearer " + TOKEN.encode(),
        b"X-Forwarded-User: admin",
        b"X-Original-URL: /v1/health",
        b"X-HTTP-Method-Override: GET",
        b"Cookie: orchctl_session=9999999999." + b"0" * 64,
        b"Cookie: orchctl_session=" + b"9" * 5000,
        b"Authorization: Bearer " + b"x" * 20_000,
        b"Authorization: Bearer orchctl_ci." + b"A" * 4000 + b".x",
        b"Authorization: Basic YWRtaW46YWRtaW4=",
        b"Authorization: Bearer \x00",
        b"Authorization: bearer",
    ],
)
def test_no_header_gets_round_the_roles(target: Target, head: bytes) -> None:
    answer = target.raw(
        b"DELETE /v1/queues/default HTTP/1.1\r\nHost: x\r\n"
        + head
        + b"\r\nConnection: close\r\n\r\n"
    )
    status = int(answer.split(b" ", 2)[1])
    first_counts = head.startswith(b"Authorization: Bearer " + TOKEN.encode())
    assert 400 <= status < 500, answer
    assert first_counts or status in (400, 401, 431), answer
    assert target.ask("GET", "/v1/queues/default").status == 200, "it is still there"


def test_nothing_of_a_request_comes_back_in_a_header(target: Target) -> None:
    for path in ("/v1/queues/x%0d%0aSet-Cookie:%20a=b", "/v1/jobs?queue=x%0d%0aX-Evil:%201"):
        answer = target.ask("GET", path)
        assert 400 <= answer.status < 500
        assert "set-cookie" not in answer.headers
        assert not any("evil" in name.lower() for name in answer.headers)
    key = target.raw(
        b"POST /v1/reconcile HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + TOKEN.encode()
        + b"\r\nIdempotency-Key: a\tb\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    assert key.startswith(b"HTTP/1.1 4"), key


def test_two_lengths_smuggle_nothing(target: Target) -> None:
    inner = f"GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    for head in (
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        b"Content-Length: 0\r\nContent-Length: " + str(len(inner)).encode(),
    ):
        answer = target.raw(
            b"POST /v1/reconcile HTTP/1.1\r\nHost: x\r\n"
            + head
            + b"\r\nConnection: close\r\n\r\n0\r\n\r\n"
            + inner
        )
        assert not answer.startswith(b"HTTP/1.1 5")
        assert not answer.startswith(b"HTTP/1.1 2")
