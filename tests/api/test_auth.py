"""Every route is closed unless named here; sessions end; other sites' pages cannot use ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from control_plane.api.app import App, create_app
from control_plane.api.auth import COOKIE, SESSION_S
from tests.api.world import TOKEN, World

OPEN = {
    "/v1/health",
    "/v1/sessions",
    "/login",
    "/v1/agent/nonce",
    "/v1/agent/register",
    "/v1/agent/bundle.pyz",
}
"""Proofs of identity are made at `/login`, `sessions` and `register`; the others hold no secret."""


@pytest.fixture
def stranger(world: World) -> Iterator[TestClient]:
    """Somebody without a token."""
    with TestClient(world.app(), follow_redirects=False) as client:
        yield client


def routes(app: App) -> Iterator[tuple[str, str]]:
    """Method and path of everything that answers."""
    for route in iter_route_contexts([*app.routes, *app.people.routes]):
        for method in sorted(route.methods or ()):
            yield method, str(route.path)


def test_every_route_asks_who_you_are(world: World, stranger: TestClient) -> None:
    hot = ("claim", "beat", "jobs/{job_id}/start", "jobs/{job_id}/finish")
    found = [*routes(world.app()), *(("POST", f"/v1/agent/{path}") for path in hot)]
    assert ("POST", "/v1/jobs") in found
    assert ("POST", "/v1/agent/notice") in found
    for method, path in found:
        url = re.sub(r"\{\w+(:path)?\}", "x", path)
        answer = stranger.request(method, url)
        if path in OPEN:
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), (method, path)


def test_unknown_paths_are_closed_too(stranger: TestClient) -> None:
    assert stranger.get("/v1/nothing").status_code == 401
    assert stranger.get("/anything").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", "Basic " + TOKEN, TOKEN, "Bearer t\xf6ken"],
)
def test_only_the_token_opens(stranger: TestClient, header: str) -> None:
    answer = stranger.get("/v1/jobs", headers=[(b"Authorization", header.encode("latin-1"))])
    assert (answer.status_code, answer.json()["code"]) == (401, "denied")


def test_the_token_opens(stranger: TestClient) -> None:
    answer = stranger.get("/v1/jobs", headers={"Authorization": f"bearer {TOKEN}"})
    assert answer.status_code == 200


def test_login_makes_a_session_cookie(stranger: TestClient) -> None:
    answer = stranger.get("/login", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    for part in (f"{COOKIE}=", "HttpOnly", "SameSite=strict", "Path=/", f"Max-Age={SESSION_S}"):
        assert part in cookie
    assert TOKEN not in cookie
    assert stranger.get("/v1/jobs").status_code == 200


def test_the_cookie_is_for_https_alone_when_made_there(world: World) -> None:
    with TestClient(world.app(), base_url="https://testserver", follow_redirects=False) as client:
        assert "Secure" in client.get("/login", params={"token": TOKEN}).headers["Set-Cookie"]


def test_a_wrong_login_makes_none(stranger: TestClient) -> None:
    for params in ({}, {"token": ""}, {"token": "wrong"}):
        answer = stranger.get("/login", params=params)
        assert answer.status_code == 401
        assert "Set-Cookie" not in answer.headers


def test_a_session_ends(world: World, stranger: TestClient) -> None:
    stranger.get("/login", params={"token": TOKEN})
    world.clock.sleep(SESSION_S - 1)
    assert stranger.get("/v1/jobs").status_code == 200
    world.clock.sleep(1)
    assert stranger.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize("value", ["", "x", ".", "9999999999.", "9" * 40 + ".aa", "²³.aa", "١.aa"])
def test_a_made_up_session_is_none(stranger: TestClient, value: str) -> None:
    headers = [(b"Cookie", f"{COOKIE}={value}".encode())]
    assert stranger.get("/v1/jobs", headers=headers).status_code == 401


def test_a_changed_session_is_none(stranger: TestClient) -> None:
    stranger.get("/login", params={"token": TOKEN})
    expires, _, mac = stranger.cookies[COOKIE].partition(".")
    forged = {"Cookie": f"{COOKIE}={int(expires) + 1}.{mac}"}
    stranger.cookies.clear()
    assert stranger.get("/v1/jobs", headers=forged).status_code == 401


def test_a_new_token_ends_all_sessions(world: World, stranger: TestClient) -> None:
    stranger.get("/login", params={"token": TOKEN})
    deps = world.deps()
    renewed = replace(deps, settings=replace(deps.settings, admin_token_hash="0" * 64))
    with TestClient(create_app(renewed), cookies=dict(stranger.cookies)) as client:
        assert client.get("/v1/jobs").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 202),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, 403),
        ({"Origin": "http://testserver"}, 202),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_changes_by_cookie_must_come_from_our_own_pages(
    stranger: TestClient, headers: dict[str, str], status: int
) -> None:
    stranger.get("/login", params={"token": TOKEN})
    assert stranger.post("/v1/reconcile", headers=headers).status_code == status
    assert stranger.get("/v1/jobs", headers=headers).status_code == 200


def test_a_token_needs_no_origin(client: TestClient) -> None:
    answer = client.post("/v1/reconcile", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 202


def test_people_get_a_page_that_says_how_to_log_in(stranger: TestClient) -> None:
    page = stranger.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/login?token=" in page.text
    api = stranger.get("/v1/jobs", headers={"Accept": "text/html"})
    assert api.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[::1].evil", 421),
        ("", 421),
    ],
)
def test_only_our_own_host_names_are_answered(world: World, host: str, status: int) -> None:
    app = create_app(world.deps(allowed_hosts=("127.0.0.1", "localhost", "[::1]")))
    with TestClient(app) as client:
        assert client.get("/v1/health", headers={"Host": host}).status_code == status
        # What agents send all day has a way of its own, and the same door.
        hot = client.post("/v1/agent/claim", headers={"Host": host}).status_code
        assert hot == (401 if status == 200 else status)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("any.example", 200),
        ("a_b-1.example:8000", 200),
        ("[2001:db8::1]:8000", 200),
        ("", 200),
        ("[]", 400),
        ("[::1", 400),
        ("[1.1]", 400),
        ("evil.example/v1/health?", 400),
        ("a@b", 400),
        ("a b", 400),
        ("a:b", 400),
    ],
)
def test_where_any_name_is_answered_it_must_be_one(world: World, host: str, status: int) -> None:
    """Else an address that is made of it cannot be taken apart, or has another path."""
    with TestClient(create_app(world.deps())) as client:
        answer = client.get("/v1/health", headers={"Host": host})
        assert answer.status_code == status
        assert status == 200 or answer.json()["code"] == "malformed"
        hot = client.post("/v1/agent/claim", headers={"Host": host}).status_code
        assert hot == (401 if status == 200 else status)
