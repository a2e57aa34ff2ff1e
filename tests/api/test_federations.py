"""Federations are applied through the API, hold at once, and let nobody in by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.core.access import PUBLIC_ISSUERS
from tests.api.world import World
from tests.fakes.issuer import GITLAB, Issuer

AUDIENCE = "https://orchctl.example"
GITHUB, GITLAB_COM = PUBLIC_ISSUERS
RULE = {"claims": {"repository": "acme/train"}, "role": "submitter", "queues": ["default"]}
WANTED = {"issuer": GITHUB, "audience": AUDIENCE, "rules": [RULE]}


@pytest.fixture
def issuer(world: World) -> Iterator[Issuer]:
    issuer = Issuer(world.clock.now)
    yield issuer
    issuer.close()


def put(client: TestClient, name: str = "ci", **changes: Any) -> Any:
    return client.put(f"/v1/federations/{name}", json={**WANTED, **changes})


def exchange(client: TestClient, token: str, key: str = "k") -> Any:
    headers = {"Idempotency-Key": key, "Authorization": ""}
    return client.post("/v1/sessions", json={"token": token}, headers=headers)


def test_a_federation_is_applied_shown_and_removed(client: TestClient) -> None:
    made = put(client, session="30m")
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    record = made.json()
    assert record["rules"][0]["claims"] == {"repository": ["acme/train"]}
    assert (record["session_s"], record["applied_by"]) == (1800, "admin")
    again = put(client, session="30m")
    assert (again.status_code, again.json()) == (200, record)
    assert client.get("/v1/federations/ci").json() == record
    assert client.get("/v1/federations").json()["items"] == [record]
    assert client.delete("/v1/federations/ci", headers={"If-Match": '"7"'}).status_code == 412
    assert client.delete("/v1/federations/ci").status_code == 204
    assert client.get("/v1/federations/ci").status_code == 404


def test_two_admins_do_not_overwrite_each_other(client: TestClient) -> None:
    path = "/v1/federations/ci"
    new = {"If-None-Match": "*"}
    assert client.put(path, json=WANTED, headers=new).status_code == 201
    assert client.put(path, json=WANTED, headers=new).status_code == 412
    changed = {**WANTED, "session": "2h"}
    assert client.put(path, json=changed, headers={"If-Match": '"1"'}).status_code == 200
    stale = client.put(path, json=WANTED, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "conflict")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rules": []}, "rules"),
        ({"rules": [{**RULE, "claims": {}}]}, "claims"),
        ({"rules": [{**RULE, "claims": {"ref": "refs/heads/main"}}]}, "name the owner"),
        ({"rules": [{**RULE, "claims": {"repository": "*/train"}}]}, "name the owner"),
        ({"rules": [RULE, {**RULE, "claims": {"sub": "repo:*"}}]}, "/rules/1/claims"),
        ({"rules": [{**RULE, "queues": []}]}, "queues"),
        ({"rules": [{**RULE, "role": "admin"}]}, "all queues"),
        ({"rules": [{**RULE, "role": "root"}]}, "role"),
        ({"rules": [{**RULE, "claims": {"repository": []}}]}, "claims"),
        ({"rules": [{**RULE, "claims": {"repository": "a/b\n"}}]}, "claims"),
        ({"rules": [{**RULE, "claims": {"repository": 5}}]}, "claims"),
        ({"audience": ""}, "audience"),
        ({"issuer": "http://issuer.example"}, "https"),
        ({"issuer": "gitlab.com"}, "issuer"),
        ({"issuer": "https://issuer.example/ x"}, "issuer"),
        ({"jwks_uri": "http://169.254.169.254/keys"}, "https"),
        ({"session": "1m"}, "5 minutes"),
        ({"session": "2d"}, "12 hours"),
        ({"session": "x"}, "session"),
        ({"more": 1}, "more"),
    ],
)
def test_a_federation_that_lets_in_too_many_is_refused(
    refused: TestClient, changes: dict[str, Any], words: str
) -> None:
    answer = put(refused, **changes)
    assert answer.status_code == 422, answer.text
    assert words in answer.text
    assert refused.get("/v1/federations").json()["items"] == []


def test_a_job_of_ci_comes_in_without_a_stored_secret(client: TestClient, issuer: Issuer) -> None:
    client.post("/v1/queues", json={"name": "default"})
    put(client, issuer=issuer.url)
    made = exchange(client, issuer.token())
    assert made.status_code == 201, made.text
    assert made.json()["who"]["role"] == "submitter"
    session = {"Authorization": f"Bearer {made.json()['token']}"}
    job = client.post("/v1/jobs", json={"command": "true"}, headers=session).json()
    assert job["owner"] == "ci:ci:repo:acme/train:ref:refs/heads/main"
    assert client.get(f"/v1/jobs/{job['id']}", headers=session).status_code == 200
    assert client.post("/v1/queues/default/pause", headers=session).status_code == 403
    assert client.get("/v1/tokens", headers=session).status_code == 403
    events = client.get("/v1/events", params={"kind": "access"}).json()["items"]
    assert events[0]["actor"] == job["owner"]
    assert issuer.token()[:20] not in str(events)


def test_a_job_of_gitlab_too(client: TestClient, issuer: Issuer) -> None:
    rule = {**RULE, "claims": {"project_path": "acme/*", "ref_protected": "true"}}
    put(client, issuer=issuer.url, rules=[rule])
    leave = dict.fromkeys(("repository", "environment", "job_workflow_ref"))
    assert exchange(client, issuer.token(**{**leave, **GITLAB}), "a").status_code == 201
    for changes in ({"ref_protected": "false"}, {"project_path": "evil/train"}):
        answer = exchange(client, issuer.token(**{**leave, **GITLAB, **changes}), "b")
        assert (answer.status_code, answer.json()["code"]) == (401, "denied")


def test_a_session_is_no_login_for_a_browser(client: TestClient, issuer: Issuer) -> None:
    put(client, issuer=issuer.url)
    token = exchange(client, issuer.token()).json()["token"]
    answer = client.get("/login", params={"token": token}, follow_redirects=False)
    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_an_issuer_that_is_silent_is_told_as_such(client: TestClient, issuer: Issuer) -> None:
    put(client, issuer=issuer.url)
    issuer.status = 503
    answer = exchange(client, issuer.token())
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"]


def test_without_its_library_the_server_says_what_to_install(
    client: TestClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    put(client, issuer=issuer.url)
    monkeypatch.setitem(sys.modules, "jwt", None)
    answer = exchange(client, "a.b.c")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "orchctl[oidc]" in answer.text
