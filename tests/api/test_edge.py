"""Whatever is sent, the answer is a problem a person can read: no traceback, no 500 for bad input,
and the same headers everywhere."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.agents import Gone
from control_plane.api import edge
from control_plane.api.problems import of_error
from control_plane.core.lifecycle import IllegalTransition
from control_plane.core.model import ErrorClass
from control_plane.errors import (
    Conflict,
    Denied,
    FencedOut,
    InvalidInput,
    NotFound,
    OrchctlError,
    ProviderError,
    Refused,
    StaleEpoch,
    Unavailable,
)
from tests.api.world import World

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFound("x"), 404, "not-found"),
        (Conflict("x"), 409, "conflict"),
        (StaleEpoch("x"), 409, "stale-epoch"),
        (FencedOut("x"), 409, "fenced-out"),
        (Refused("x"), 409, "refused"),
        (InvalidInput("x"), 422, "invalid-input"),
        (Denied("x"), 403, "denied"),
        (Gone("x"), 410, "gone"),
        (Unavailable("x"), 503, "unavailable"),
        (ProviderError("x", error_class=ErrorClass.QUOTA, raw_code="Q"), 502, "provider-error"),
        (IllegalTransition("x"), 409, "refused"),
    ],
)
def test_every_error_has_its_status(
    world: World,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(world.fleet, "drain", fail)
    answer = client.post("/v1/machines/m-1/drain")
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"https://orchctl.dev/problems/{code}"
    assert problem["title"]
    assert problem["detail"] == "x"
    assert answer.headers.get("Retry-After") == ("1" if status == 503 else None)


def test_every_class_of_error_is_mapped() -> None:
    def tree(kind: type[OrchctlError]) -> set[type[OrchctlError]]:
        return {kind}.union(*(tree(child) for child in kind.__subclasses__()))

    unmapped = {
        kind.__name__
        for kind in tree(OrchctlError) - {OrchctlError}
        if kind.__module__.startswith("control_plane.") and of_error(_bare(kind)).status_code == 500
    }
    assert unmapped == set()


def _bare(kind: type[OrchctlError]) -> OrchctlError:
    """An error without the arguments that only some classes have."""
    error = kind.__new__(kind)
    OrchctlError.__init__(error, "x")
    error.problems = ()  # type: ignore[attr-defined]
    return error


def test_a_fault_of_ours_tells_nothing_but_an_id(
    world: World,
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(world.store, "queue_list", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/queues")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    error_id = re.search(r"[0-9a-f]{12}", answer.json()["detail"])
    assert error_id
    assert error_id[0] in caplog.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_the_framework_refuses_is_a_problem_too(client: TestClient) -> None:
    for method, path, status, code in [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/v1/jobs/", 404, "not-found"),
        ("PATCH", "/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/v1/agent/nothing", 404, "not-found"),
    ]:
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
    for path, allowed in [("/v1/jobs", "GET, HEAD, POST"), ("/v1/agent/claim", "POST")]:
        assert client.patch(path).headers["Allow"] == allowed, path


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff\xfe", b"[" * 100_000, b'{"command": NaN}', b'{"priority": ' + b"9" * 5000],
)
def test_a_body_that_cannot_be_read(refused: TestClient, body: bytes) -> None:
    answer = refused.post("/v1/jobs", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("malformed", "invalid-input")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"'])
def test_a_body_of_another_shape(refused: TestClient, body: bytes) -> None:
    assert refused.post("/v1/jobs", content=body, headers=JSON).status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/%00",
        "/v1/jobs/%ED%A0%80",
        "/v1/jobs/" + "x" * 5000,
        "/v1/queues/%C3%A4",
        "/v1/queues/a%0A",
        "/v1/autoscalers/..",
        "/v1/jobs?queue=%00",
        "/v1/jobs?machine=%ED%A0%80",
        "/v1/jobs?limit=99999999999999999999",
        "/v1/jobs?limit=0",
        "/v1/events?subject=%00",
        "/v1/jobs?cursor=%00",
        "/v1/jobs/j-1/logs?offset=-1",
        "/v1/jobs/j-1/logs?offset=99999999999999999999999",
        "/v1/jobs/j-1/artifacts/%00",
        "/v1/offers?pool=%00",
    ],
)
def test_strange_text_in_paths_is_refused(refused: TestClient, path: str) -> None:
    answer = refused.get(path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_too_large_is_refused_announced_or_not(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "JSON_MAX_BYTES", 100)
    monkeypatch.setattr(edge, "BYTES_MAX_BYTES", 200)
    body = b'{"command": "' + b"x" * 100 + b'"}'
    announced = client.post("/v1/jobs", content=body, headers=JSON)
    assert (announced.status_code, announced.json()["code"]) == (413, "too-large")
    for headers in (JSON, {**JSON, "Idempotency-Key": "k"}):
        streamed = client.post("/v1/jobs", content=iter([body[:60], body[60:]]), headers=headers)
        assert (streamed.status_code, streamed.json()["code"]) == (413, "too-large")
    source = f"/v1/blobs/sources/{'0' * 64}"
    assert client.put(source, content=b"x" * 150).status_code == 422
    assert client.put(source, content=b"x" * 250).status_code == 413


def test_the_way_of_agents_has_the_same_limits(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "JSON_MAX_BYTES", 100)
    monkeypatch.setattr(edge, "BYTES_MAX_BYTES", 200)
    for path, limit in (("/v1/agent/claim", 100), ("/v1/agent/jobs/j-1/finish", 200)):
        body = b'{"x": "' + b"x" * (limit - 9) + b'"'
        announced = client.post(path, content=body + b"}}", headers=JSON)
        assert (announced.status_code, announced.json()["code"]) == (413, "too-large"), path
        streamed = client.post(path, content=iter([body, b"}}"]), headers=JSON)
        assert (streamed.status_code, streamed.json()["code"]) == (413, "too-large"), path
        # Exactly the limit is read, and refused for what it says.
        assert client.post(path, content=body + b"}", headers=JSON).status_code in (401, 422), path


def test_the_way_of_agents_has_the_same_headers_but_those_of_pages(
    world: World, client: TestClient
) -> None:
    token = world.registered()
    found = client.post("/v1/agent/beat", json={}, headers={"Authorization": f"Bearer {token}"})
    assert found.status_code == 200
    # Without the session there is no such answer, and no browser's page can send one.
    assert dict(found.headers) == {
        "content-type": "application/json",
        "content-length": str(len(found.content)),
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    head = client.head("/v1/agent/beat")
    assert (head.status_code, head.content, head.headers["Allow"]) == (405, b"", "POST")
    refused = client.post("/v1/agent/beat", json={})
    assert refused.status_code == 401
    for answer in (head, refused):
        for name, value in client.get("/v1/health").headers.items():
            if name not in ("content-length", "content-type"):
                assert answer.headers[name] == value, name


def test_of_two_headers_of_one_name_the_first_counts(world: World, client: TestClient) -> None:
    right, wrong = f"Bearer {world.registered()}", "Bearer m-1.x"
    for first, second, status in ((right, wrong, 200), (wrong, right, 401)):
        headers = [("Authorization", first), ("Authorization", second)]
        bare = TestClient(client.app)
        assert bare.post("/v1/agent/beat", json={}, headers=headers).status_code == status


def test_headers_that_every_answer_has(client: TestClient) -> None:
    for path in ("/v1/health", "/v1/nothing", "/v1/jobs"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


def test_head_is_get_without_a_body(client: TestClient) -> None:
    got, head = client.get("/v1/queues"), client.head("/v1/queues")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert client.head("/v1/jobs/j-none").status_code == 404


def test_cursors_belong_to_one_listing(client: TestClient) -> None:
    for name in ("a", "b", "c"):
        client.post("/v1/queues", json={"name": name})
        client.post("/v1/jobs", json={"command": "true", "queue": name})
    cursor = client.get("/v1/jobs", params={"limit": 1}).json()["cursor"]
    assert client.get("/v1/jobs", params={"limit": 2, "cursor": cursor}).status_code == 200
    for params in (
        {"cursor": cursor, "queue": "a"},
        {"cursor": cursor[:-1] + ("A" if cursor[-1] != "A" else "B")},
        {"cursor": cursor[2:]},
        {"cursor": "x"},
        {"cursor": "ä"},
        {"cursor": "="},
    ):
        answer = client.get("/v1/jobs", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input"), params
    assert client.get("/v1/events", params={"cursor": cursor}).status_code == 422
