"""People and CI come in alike on each store that a wiring stands on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from control_plane.webhooks.signatures import github_signature
from tests.api.world import World
from tests.conformance.conftest import STORES
from tests.fakes.issuer import Issuer

AUDIENCE = "https://orchctl.example"


@pytest.fixture(params=["sqlite", "dynamodb"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    store = STORES[request.param].empty(request, tmp_path)
    world = World(store)
    world.service.queue_create("default")
    yield world
    store.close()


@pytest.fixture
def issuer(world: World, client: TestClient) -> Iterator[Issuer]:
    issuer = Issuer(world.clock.now)
    rule = {"claims": {"repository": "acme/train"}, "role": "submitter", "queues": ["default"]}
    wanted = {"issuer": issuer.url, "audience": AUDIENCE, "rules": [rule]}
    assert client.put("/v1/federations/ci", json=wanted).status_code == 201
    yield issuer
    issuer.close()


def exchange(client: TestClient, token: str, key: str) -> int:
    headers = {"Idempotency-Key": key}
    return client.post("/v1/sessions", json={"token": token}, headers=headers).status_code


def test_a_token_from_its_making_to_its_end(client: TestClient) -> None:
    wanted = {"name": "alice", "role": "operator", "queues": ["default"]}
    made = client.post("/v1/tokens", json=wanted).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert client.post("/v1/queues/default/pause", headers=headers).status_code == 200
    assert client.post("/v1/reconcile", headers=headers).status_code == 403
    told = client.get("/v1/events", params={"kind": "audit"}).json()["items"]
    assert [each["text"] for each in told[:2]] == [
        "POST /v1/reconcile: 403",
        "POST /v1/queues/default/pause: 200",
    ]
    assert {each["actor"] for each in told[:2]} == {"alice"}
    client.delete(f"/v1/tokens/{made['record']['id']}")
    assert client.get("/v1/queues", headers=headers).status_code == 401


def test_a_token_of_ci_opens_one_session_whoever_comes_first(
    client: TestClient, issuer: Issuer
) -> None:
    assert exchange(client, issuer.token(), "warm") == 201
    token = issuer.token()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda key: exchange(client, token, f"key {key}"), range(6)))
    assert sorted(found) == [201, 401, 401, 401, 401, 401]
    winner = f"key {found.index(201)}"
    assert exchange(client, token, winner) == 201
    assert exchange(client, issuer.token(repository="evil/train"), "x") == 401


def test_a_hook_starts_a_job_once_and_its_secret_changes(client: TestClient) -> None:
    hook = {"on": ["push"], "job": {"command": "true"}}
    assert client.put("/v1/hooks/deploy", json=hook).status_code == 201
    secret = client.get("/v1/hooks/deploy/secret").json()["secret"]

    def push(delivery: str, body: bytes = b'{"ref": "refs/heads/main"}') -> tuple[int, str]:
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": github_signature(secret, body),
        }
        answer = client.post("/v1/hooks/deploy", content=body, headers=headers)
        return answer.status_code, answer.json().get("job", "")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(push, ["d-1"] * 4))
    assert sorted(status for status, _ in found) == [200, 200, 200, 201]
    assert len({job for _, job in found}) == 1
    assert push("d-2") == (200, "")
    for _ in range(2):
        assert client.post("/v1/hooks/deploy/rotate").status_code == 200
    assert push("d-3", b'{"ref": "refs/heads/other"}')[0] == 401
