"""Attacks on webhooks, on a real server over real connections: each is refused with a clear
problem, none is a fault of the server, and what somebody tried is in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from control_plane.api import edge
from control_plane.api.limits import FAILURES
from control_plane.stores.sqlite import SqliteStore
from control_plane.webhooks import signatures
from tests.api.test_attacks import Answer, Target

SHA = "ab" * 20
PUSH = {"ref": "refs/heads/main", "after": SHA, "repository": {"full_name": "acme/vision"}}
BODY = json.dumps(PUSH).encode()


class Hooked(Target):
    """A server with two hooks."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.world.service.queue_create("default")
        for name in ("deploy", "other"):
            hook = {"on": ["push"], "job": {"command": "true"}}
            assert self.ask("PUT", f"/v1/hooks/{name}", hook).status == 201

    def secret(self, name: str = "deploy") -> str:
        return str(self.ask("GET", f"/v1/hooks/{name}/secret").json["secret"])

    def send(self, body: bytes = BODY, *, name: str = "deploy", **headers: str) -> Answer:
        """What a stranger sends; a header's underscores are dashes."""
        given = {key.replace("_", "-"): value for key, value in headers.items() if value}
        return self.ask("POST", f"/v1/hooks/{name}", body, token="", headers=given)

    def github(self, body: bytes = BODY, *, secret: str = "", **changes: str) -> Answer:
        signature = signatures.github_signature(secret or self.secret(), body)
        headers = {
            "X_GitHub_Event": "push",
            "X_GitHub_Delivery": "d-1",
            "X_Hub_Signature_256": signature,
        }
        return self.send(body, **(headers | changes))

    def standard(self, *, late_s: float = 0, message: str = "m-1", **changes: str) -> Answer:
        body = b'{"type": "push"}'
        at = self.world.clock.now() - timedelta(seconds=late_s)
        signed = signatures.standard_headers(self.secret(), message, at, body)
        return self.send(body, **({k.replace("-", "_"): v for k, v in signed.items()} | changes))

    def jobs(self) -> int:
        return len(self.world.store.job_list().items)


@pytest.fixture
def target(sqlite: SqliteStore) -> Iterator[Hooked]:
    target = Hooked(sqlite)
    yield target
    target.stop()


def refused(answer: Answer, status: int = 401) -> Any:
    """A problem document of this status, and no word of how it came about."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"Traceback" not in answer.body
    return answer.json


def test_what_is_forged_is_refused_and_stands_in_the_log(
    target: Hooked, caplog: pytest.LogCaptureFixture
) -> None:
    good = target.secret()
    with caplog.at_level(logging.WARNING):
        refused(target.send())
        refused(target.github(X_Hub_Signature_256="sha256=" + "0" * 64))
        refused(target.github(secret=target.secret("other")))
        refused(target.github(secret="whsec_"))
        signature = signatures.github_signature(good, BODY)
        refused(target.github(BODY + b" ", X_Hub_Signature_256=signature))
    assert target.jobs() == 0
    assert caplog.text.count("refused POST /v1/hooks/deploy of 127.0.0.1") == 5
    assert good not in caplog.text


@pytest.mark.parametrize("prefix", ["sha1=", "SHA256=", "none=", "", "sha256=sha256=", "md5="])
def test_an_algorithm_of_the_senders_choice(target: Hooked, prefix: str) -> None:
    good = signatures.github_signature(target.secret(), BODY)
    refused(target.github(X_Hub_Signature_256=prefix + good.removeprefix("sha256=")))
    refused(target.send(X_Hub_Signature=good.replace("sha256", "sha1")))


def test_a_signature_of_one_kind_is_none_of_the_other(target: Hooked) -> None:
    """Both are made with one secret, so neither must open the other's door."""
    secret, at = target.secret(), str(int(target.world.clock.now().timestamp()))
    hex_of = signatures.github_signature(secret, BODY)
    refused(target.send(webhook_id="d", webhook_timestamp=at, webhook_signature=hex_of))
    base64_of = signatures.standard_signature(secret, "d", at, BODY)
    refused(target.send(X_GitHub_Delivery="d", X_Hub_Signature_256=base64_of))
    # Where both are there, a bad one is not made up for by the other.
    refused(target.standard(X_Hub_Signature_256="sha256=" + "0" * 64, X_GitHub_Delivery="d"))
    assert target.jobs() == 0


def test_a_delivery_that_was_overheard_starts_nothing_new(target: Hooked) -> None:
    first = target.github()
    assert first.status == 201
    for changes in ({}, {"X_GitHub_Delivery": "d-2"}, {"X_GitHub_Delivery": "d-3"}):
        again = target.github(**changes)
        assert again.status == 200
        assert again.json["job"] == (first.json["job"] if not changes else "")
    assert "came before, as delivery d-1" in target.github(X_GitHub_Delivery="d-2").json["ignored"]
    target.world.clock.sleep(23 * 3600)
    assert target.github(X_GitHub_Delivery="d-4").json["ignored"]
    assert target.jobs() == 1


def test_an_overheard_message_of_the_standard(target: Hooked) -> None:
    first = target.standard()
    assert (first.status, target.standard().json) == (201, first.json)
    refused(target.standard(late_s=301))
    refused(target.standard(late_s=-301))
    refused(target.standard(webhook_id="m-2"))
    at = str(int(target.world.clock.now().timestamp()) + 1)
    refused(target.standard(webhook_timestamp=at))
    assert target.jobs() == 1


def test_nobody_learns_which_hooks_there_are(target: Hooked) -> None:
    missing = target.send(name="nothing", X_Hub_Signature_256="sha256=00", X_GitHub_Delivery="d")
    there = target.send(name="deploy", X_Hub_Signature_256="sha256=00", X_GitHub_Delivery="d")
    assert refused(missing)["detail"] == refused(there)["detail"]
    assert refused(target.send(name="nothing"))["code"] == refused(target.send())["code"]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2fjobs", "Deploy", "a" * 300, "%00", "deploy%0d%0aX"]
)
def test_a_name_that_is_none(target: Hooked, name: str) -> None:
    answer = target.send(name=name, X_Hub_Signature_256="sha256=00")
    assert answer.status in (401, 404, 405, 422)
    assert "x" not in {each.lower() for each in answer.headers}


@pytest.mark.parametrize(
    "path", ["/v1/hooks/deploy/secret", "/v1/hooks/deploy/rotate", "/v1/hooks"]
)
def test_what_stands_beside_a_hook_is_not_open(target: Hooked, path: str) -> None:
    signature = signatures.github_signature(target.secret(), BODY)
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": "d"}
    for method in ("GET", "POST", "PUT", "DELETE"):
        refused(target.ask(method, path, BODY, token="", headers=headers))
    for method in ("GET", "PUT", "DELETE"):
        refused(target.ask(method, "/v1/hooks/deploy", BODY, token="", headers=headers))


def test_the_admins_token_is_no_signature(target: Hooked) -> None:
    assert target.ask("POST", "/v1/hooks/deploy", BODY).status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
        b'{"ref": ' + b"9" * 100_000 + b"}",
        b"payload=%7B%22ref%22%3A1%7D",
        b"\xff\xfe\x00",
        b"",
        b"null",
        b'{"ref": "refs/heads/a\\u0000b"}',
        b'{"ref": "\\ud800"}',
        b'{"after": "$(reboot)"}',
        b'{"repository": {"full_name": "a b"}}',
    ],
)
def test_a_bomb_of_somebody_who_has_the_secret(target: Hooked, body: bytes) -> None:
    refused(target.github(body), 400)
    assert target.jobs() == 0


def test_a_bomb_of_somebody_who_has_not_is_not_even_read(target: Hooked) -> None:
    refused(target.send(b"[" * 500_000, X_Hub_Signature_256="sha256=00", X_GitHub_Delivery="d"))


def test_a_large_body_is_refused_before_anything_is_worked_out(target: Hooked) -> None:
    refused(target.github(b" " * (edge.HOOKS_MAX_BYTES + 1)), 413)
    head = (
        b"POST /v1/hooks/deploy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"X-Hub-Signature-256: sha256=00\r\n"
    )
    announced = b"Content-Length: 99999999999999\r\n\r\n"
    assert b" 413 " in target.raw(head + announced).split(b"\r\n")[0]
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    streamed = head + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 17 + b"0\r\n\r\n"
    assert b" 413 " in target.raw(streamed).split(b"\r\n")[0]


@pytest.mark.parametrize("name", ["X-GitHub-Delivery", "X-GitHub-Event", "X-Hub-Signature-256"])
@pytest.mark.parametrize("value", [b"d\r\nX-Evil: 1", b"d\x00", b"d" * 5000, b"\xc3\xa4", b"d\x0b"])
def test_headers_hold_no_other_headers(target: Hooked, name: str, value: bytes) -> None:
    headers = {
        b"X-GitHub-Event": b"push",
        b"X-GitHub-Delivery": b"d-1",
        b"X-Hub-Signature-256": signatures.github_signature(target.secret(), BODY).encode(),
        name.encode(): value,
    }
    lines = b"".join(key + b": " + each + b"\r\n" for key, each in headers.items())
    size = b"Content-Length: %d\r\nConnection: close\r\nHost: x\r\n" % len(BODY)
    answer = target.raw(b"POST /v1/hooks/deploy HTTP/1.1\r\n" + lines + size + b"\r\n" + BODY)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    if b"\r\n" in value and name != "X-Hub-Signature-256":
        return  # two headers of the sender's own: nothing was hidden in one
    assert 400 <= status < 500, answer
    assert b"evil" not in head.lower()
    assert target.jobs() == 0
    assert b"Traceback" not in body


def test_two_signatures_in_two_headers(target: Hooked) -> None:
    """The first counts, on every way in."""
    good = signatures.github_signature(target.secret(), BODY).encode()
    bad = b"sha256=" + b"0" * 64
    for first, second, status in ((bad, good, b" 401 "), (good, bad, b" 201 ")):
        lines = b"".join(b"X-Hub-Signature-256: " + each + b"\r\n" for each in (first, second))
        rest = b"X-GitHub-Event: push\r\nX-GitHub-Delivery: d\r\nHost: x\r\nConnection: close\r\n"
        size = b"Content-Length: %d\r\n\r\n" % len(BODY)
        request = b"POST /v1/hooks/deploy HTTP/1.1\r\n" + lines + rest + size + BODY
        assert status in target.raw(request).split(b"\r\n")[0]


def test_who_guesses_is_made_to_wait_and_who_is_known_is_not(target: Hooked) -> None:
    """GitHub sends for everybody from the same addresses: a stranger's hook there, pointed here,
    must not keep ours out."""
    secret = target.secret()
    assert target.github(secret=secret).status == 201
    statuses = [target.send(name="other").status for _ in range(FAILURES.burst + 3)]
    assert statuses == [401] * FAILURES.burst + [429] * 3
    body = json.dumps({**PUSH, "after": "cd" * 20}).encode()
    assert target.github(body, secret=secret, X_GitHub_Delivery="d-9").status == 201
    waiting = target.send(name="other")
    assert int(waiting.headers["retry-after"]) >= 1
