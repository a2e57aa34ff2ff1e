"""Queues are made, paused, cleared with a receipt, and removed only when nobody needs them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.core.model import Capacity, JobState, MachineState
from control_plane.ports import Ending
from tests.api.world import NOW, World

ROOM = Capacity(cpus=64, memory_mib=65_536, disk_gib=100)


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
        "delayed": 0,
        "blocked": 0,
        "exact": True,
        "max_running": None,
        "max_running_per_owner": None,
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


def queue(client: TestClient, name: str = "own", **limits: int) -> None:
    assert client.post("/v1/queues", json={"name": name, **limits}).status_code == 201


def submit(client: TestClient, **body: Any) -> str:
    answer = client.post("/v1/jobs", json={"command": "true", "queue": "own", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def finish(world: World, client: TestClient, job: str, outcome: str) -> None:
    """Let a machine take the next job, which must be this one, and end it."""
    now = world.clock.now()
    (claimed,) = world.store.job_claim("m-1", ["own"], ROOM, limit=1, now=now)
    assert claimed.id == job
    world.store.job_finish(
        job, claimed.epoch, Ending(outcome=outcome), state=JobState(outcome), now=now
    )


@pytest.fixture
def machine(world: World) -> None:
    """One that takes jobs."""
    world.machine("m-1", MachineState.READY)


def test_limits_are_set_shown_and_kept(world: World, client: TestClient, machine: None) -> None:
    queue(client, max_running=1)
    assert client.get("/v1/queues/own").json()["max_running"] == 1
    for _ in range(3):
        submit(client, owner="mia")

    def take() -> int:
        return len(world.store.job_claim("m-1", ["own"], ROOM, limit=9, now=NOW))

    assert (take(), take()) == (1, 0)
    wide = client.put("/v1/queues/own/limits", json={"max_running": 2})
    assert (wide.status_code, wide.json()["max_running"], wide.headers["ETag"]) == (200, 2, '"2"')
    assert (take(), take()) == (1, 0)
    lone = client.put("/v1/queues/own/limits", json={"max_running_per_owner": 2}).json()
    assert (lone["max_running"], lone["max_running_per_owner"]) == (None, 2)
    assert take() == 0
    assert client.put("/v1/queues/own/limits", json={}).json()["max_running_per_owner"] is None
    assert take() == 1


def test_limits_are_conditional_checked_and_a_document_s_own(applied: TestClient) -> None:
    queue(applied)
    path = "/v1/queues/own/limits"
    old = applied.put(path, json={"max_running": 1}, headers={"If-Match": '"9"'})
    assert old.status_code == 412
    for body in ({"max_running": 0}, {"max_running": "1"}, {"most": 1}):
        assert applied.put(path, json=body).status_code == 422, body
    declared = applied.put("/v1/queues/default/limits", json={"max_running": 1})
    assert (declared.status_code, declared.json()["code"]) == (409, "refused")
    assert applied.put("/v1/queues/none/limits", json={}).status_code == 404


def test_delayed_and_blocked_jobs_are_counted(
    world: World, client: TestClient, machine: None
) -> None:
    queue(client)
    first = submit(client)
    after = submit(client, depends_on=[first])
    submit(client, not_before=(NOW + timedelta(hours=1)).isoformat())

    def counts() -> tuple[int, ...]:
        found = client.get("/v1/queues/own").json()
        return tuple(found[name] for name in ("waiting", "delayed", "blocked", "running"))

    assert client.get(f"/v1/jobs/{after}").json()["state"] == "blocked"
    assert counts() == (2, 1, 1, 0)
    dry = client.post("/v1/queues/own/clear", params={"dry_run": True})
    assert dry.json() == {"would_cancel": 3}
    finish(world, client, first, "succeeded")
    assert client.get(f"/v1/jobs/{after}").json()["state"] == "queued"
    assert counts() == (2, 1, 0, 0)
    assert len(client.post("/v1/queues/own/clear").json()["cancelled"]) == 2


def test_what_a_job_depends_on_must_be_there_and_may_fail(
    world: World, client: TestClient, machine: None
) -> None:
    queue(client)
    first = submit(client)
    after = submit(client, depends_on=[first])
    last = submit(client, depends_on=[after])
    finish(world, client, first, "failed")
    for job in (after, last):
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"
    body = {"command": "true", "queue": "own"}
    for depends_on, status in (([first], 409), (["j-none"], 404), ([after, after], 422)):
        refused = client.post("/v1/jobs", json={**body, "depends_on": depends_on})
        assert refused.status_code == status, depends_on


def test_waits_of_the_jobs_taken_last(world: World, client: TestClient, machine: None) -> None:
    queue(client)
    none = {"queue": "own", "count": 0, "p50_s": None, "p90_s": None, "p99_s": None, "max_s": None}
    assert client.get("/v1/queues/own/waits").json() == none
    for seconds in (10, 20, 30):
        job = submit(client)
        world.clock.sleep(seconds)
        finish(world, client, job, "succeeded")
    found = client.get("/v1/queues/own/waits").json()
    assert found == {
        "queue": "own",
        "count": 3,
        "p50_s": 20.0,
        "p90_s": 30.0,
        "p99_s": 30.0,
        "max_s": 30.0,
    }
    assert client.get("/v1/queues/none/waits").status_code == 404


def test_dead_letters_are_listed_and_handed_in_again_once(
    world: World, client: TestClient, machine: None
) -> None:
    queue(client)
    dead = submit(client, name="flaky", env={"LR": "1"})
    finish(world, client, dead, "failed")
    fine = submit(client)
    finish(world, client, fine, "succeeded")
    letters = {"queue": "own", "state": "failed,exhausted"}
    listed = client.get("/v1/jobs", params=letters).json()["items"]
    assert [each["id"] for each in listed] == [dead]
    (again,) = client.post("/v1/queues/own/redrive").json()["jobs"]
    copy = client.get(f"/v1/jobs/{again}").json()
    assert (copy["name"], copy["spec"]["env"], copy["cloned_from"]) == ("flaky", {"LR": "1"}, dead)
    assert copy["state"] == "queued"
    assert client.post("/v1/queues/own/redrive").json() == {"jobs": []}
    assert client.post("/v1/queues/none/redrive").status_code == 404
