"""Queues are made, paused, cleared with a receipt, and removed only when nobody needs them."""

from __future__ import annotations

from datetime import timedelta

from starlette.testclient import TestClient

from tests.api.world import NOW, World


def test_a_queue_made_by_hand(client: TestClient) -> None:
    made = client.post("/v1/queues", json={"name": "own"})
    assert made.status_code == 201
    assert made.headers["Location"] == "/v1/queues/own"
    assert made.json() == {
        "name": "own",
        "autoscaler": "",
        "paused": False,
        "version": 1,
        "created_at": NOW.isoformat(),
        "priority": 0,
        "pools": [],
        "waiting": 0,
        "running": 0,
        "oldest_at": None,
        "oldest_wait_s": None,
    }
    assert client.post("/v1/queues", json={"name": "own"}).status_code == 409
    assert client.post("/v1/queues", json={"name": "Own queue"}).status_code == 422


def test_a_declared_queue_shows_its_policy_and_its_figures(
    world: World, applied: TestClient
) -> None:
    applied.post("/v1/jobs", json={"command": "true"})
    world.clock.at += timedelta(seconds=90)
    found = applied.get("/v1/queues/default").json()
    assert (found["autoscaler"], found["priority"], found["pools"]) == ("research", 3, ["small"])
    assert (found["waiting"], found["oldest_wait_s"]) == (1, 90.0)
    assert [each["name"] for each in applied.get("/v1/queues").json()["items"]] == ["default"]


def test_pause_and_resume(client: TestClient) -> None:
    client.post("/v1/queues", json={"name": "own"})
    paused = client.post("/v1/queues/own/pause")
    assert (paused.json()["paused"], paused.headers["ETag"]) == (True, '"2"')
    assert client.post("/v1/queues/own/resume").json()["paused"] is False
    assert client.post("/v1/queues/none/pause").status_code == 404


def test_clearing_gives_a_receipt(client: TestClient) -> None:
    client.post("/v1/queues", json={"name": "own"})
    ids = [
        client.post("/v1/jobs", json={"command": "true", "queue": "own"}).json()["id"]
        for _ in range(2)
    ]
    dry = client.post("/v1/queues/own/clear", params={"dry_run": True})
    assert dry.json() == {"would_cancel": 2}
    assert sorted(client.post("/v1/queues/own/clear").json()["cancelled"]) == ids
    assert client.post("/v1/queues/own/clear").json() == {"cancelled": []}
    assert client.post("/v1/queues/none/clear").status_code == 404


def test_only_an_empty_queue_of_nobody_can_be_removed(applied: TestClient) -> None:
    declared = applied.delete("/v1/queues/default")
    assert (declared.status_code, declared.json()["code"]) == (409, "refused")
    applied.post("/v1/queues", json={"name": "own"})
    job = applied.post("/v1/jobs", json={"command": "true", "queue": "own"}).json()
    assert applied.delete("/v1/queues/own").status_code == 409
    applied.post(f"/v1/jobs/{job['id']}/cancel")
    assert applied.delete("/v1/queues/own", headers={"If-Match": '"9"'}).status_code == 412
    gone = applied.delete("/v1/queues/own")
    assert (gone.status_code, gone.content) == (204, b"")
    assert applied.delete("/v1/queues/own").status_code == 404


def test_pages_of_a_listing_that_is_at_hand(client: TestClient) -> None:
    for name in ("c", "a", "b"):
        client.post("/v1/queues", json={"name": name})
    first = client.get("/v1/queues", params={"limit": 2})
    assert [each["name"] for each in first.json()["items"]] == ["a", "b"]
    link = first.headers["Link"]
    rest = client.get(link[1 : link.index(">")]).json()
    assert [each["name"] for each in rest["items"]] == ["c"]
    assert rest["cursor"] == ""
