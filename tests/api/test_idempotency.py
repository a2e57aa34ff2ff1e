"""A repeated POST gets its first answer and does nothing again, whatever happened in between."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.api.idempotency import KEEP_S
from control_plane.stores.memory import MemoryStore
from control_plane.stores.sqlite import SqliteStore
from tests.api.world import NOW, World

KEY = {"Idempotency-Key": "k-1"}
JOB = {
    "command": "true",
    "name": "first",
    "cpu": 1,
    "env": {"LR": "1"},
    "labels": {"team": "a"},
    "owner": "mia",
}


@pytest.fixture
def client(client: TestClient) -> TestClient:
    """An admin with two queues."""
    for name in ("default", "other"):
        client.post("/v1/queues", json={"name": name})
    return client


def jobs(client: TestClient) -> int:
    return len(client.get("/v1/jobs").json()["items"])


def test_a_repeat_is_answered_alike_and_does_nothing(world: World, client: TestClient) -> None:
    first = client.post("/v1/queues/default/pause", headers=KEY)
    assert "Idempotency-Replayed" not in first.headers
    client.post("/v1/queues/default/resume")
    again = client.post("/v1/queues/default/pause", headers=KEY)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for name in ("ETag", "Content-Type"):
        assert again.headers[name] == first.headers[name]
    assert not world.store.queue_get("default").paused


def test_a_job_handed_in_again_is_the_job_as_it_is_now(client: TestClient) -> None:
    first = client.post("/v1/jobs", json=JOB, headers=KEY)
    assert "Idempotency-Replayed" not in first.headers
    client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    again = client.post("/v1/jobs", json=JOB, headers=KEY)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.json()["state"]) == (201, "cancelled")
    for name in ("Location", "Content-Type"):
        assert again.headers[name] == first.headers[name]
    assert jobs(client) == 1


def test_handing_in_a_job_stores_no_answer(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.store, "answer_begin", None)
    assert client.post("/v1/jobs", json=JOB, headers=KEY).status_code == 201
    assert client.post("/v1/jobs", json=JOB, headers=KEY).status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"command": "false"},
        {"queue": "other"},
        {"name": "another"},
        {"cpu": 2},
        {"gpu": "L4:1"},
        {"market": "on-demand"},
        {"env": {"LR": "2"}},
        {"labels": {"team": "b"}},
        {"owner": "raj"},
        {"priority": 1},
        {"timeout": "1h"},
        {"max_attempts": 2},
        {"not_before": "2026-03-11T12:00:00Z"},
        {"artifacts": ["*.pt"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_key_belongs_to_one_job(client: TestClient, change: dict[str, Any]) -> None:
    client.post("/v1/jobs", json=JOB, headers=KEY)
    other = client.post("/v1/jobs", json={**JOB, **change}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert jobs(client) == 1


def test_a_job_may_wait_for_another_one_in_a_repeat_too(client: TestClient) -> None:
    first = client.post("/v1/jobs", json=JOB).json()["id"]
    after = {**JOB, "depends_on": [first]}
    made = client.post("/v1/jobs", json=after, headers=KEY).json()
    assert client.post("/v1/jobs", json=after, headers=KEY).json()["id"] == made["id"]
    assert client.post("/v1/jobs", json=JOB, headers=KEY).status_code == 422


def test_a_moved_job_is_still_the_same_one(client: TestClient) -> None:
    made = client.post("/v1/jobs", json=JOB, headers=KEY)
    moved = client.put(
        f"{made.headers['Location']}/position",
        json={"place": "top", "queue": "other"},
        headers={"If-Match": made.headers["ETag"]},
    )
    assert moved.status_code == 200
    again = client.post("/v1/jobs", json=JOB, headers=KEY)
    assert (again.status_code, again.json()["queue"]) == (201, "other")


def test_what_a_policy_adds_to_a_need_does_not_count(applied: TestClient) -> None:
    made = applied.post("/v1/jobs", json={"command": "true"}, headers=KEY).json()
    assert made["spec"]["need"]["share_ppm"]
    again = applied.post("/v1/jobs", json={"command": "true"}, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (201, made["id"])


def test_a_key_belongs_to_one_request(client: TestClient) -> None:
    first = client.post("/v1/jobs", json=JOB).json()["id"]
    path = f"/v1/jobs/{first}/clone"
    client.post(path, json={}, headers=KEY)
    other = client.post(path, json={"command": "false"}, headers=KEY)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert jobs(client) == 2


def test_the_query_belongs_to_the_request(client: TestClient) -> None:
    client.post("/v1/jobs", json={"command": "true"})
    dry = client.post("/v1/queues/default/clear", params={"dry_run": True}, headers=KEY)
    assert dry.json() == {"would_cancel": 1}
    real = client.post("/v1/queues/default/clear", headers=KEY)
    assert real.status_code == 422


def test_a_key_is_good_for_one_path(client: TestClient) -> None:
    paused = client.post("/v1/queues/default/pause", headers=KEY)
    other = client.post("/v1/queues/other/pause", headers=KEY)
    assert (paused.json()["name"], other.json()["name"]) == ("default", "other")


def test_the_first_request_must_be_answered_before(world: World, client: TestClient) -> None:
    key = "admin POST /v1/reconcile k-1"
    world.store.answer_begin(key, "anything", now=NOW, keep_s=KEEP_S)
    other = client.post("/v1/reconcile", headers=KEY)
    assert other.status_code == 422
    world.store.answer_abandon(key)
    fingerprint = hashlib.sha256(b"\n").hexdigest()
    world.store.answer_begin(key, fingerprint, now=NOW, keep_s=KEEP_S)
    busy = client.post("/v1/reconcile", headers=KEY)
    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency-in-flight")
    assert busy.headers["Retry-After"] == "1"


def test_a_refused_request_frees_its_key(client: TestClient) -> None:
    body = {"command": "true", "queue": "later"}
    assert client.post("/v1/jobs", json=body, headers=KEY).status_code == 404
    client.post("/v1/queues", json={"name": "later"})
    assert client.post("/v1/jobs", json=body, headers=KEY).status_code == 201


def test_a_broken_request_frees_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret in a message")

    with monkeypatch.context() as patch:
        patch.setattr(world.service, "queue_pause", broken)
        answer = client.post("/v1/queues/default/pause", headers=KEY)
        assert answer.status_code == 500
        assert "secret" not in answer.text
    assert client.post("/v1/queues/default/pause", headers=KEY).status_code == 200


def test_a_crash_before_the_answer_was_kept_makes_no_second_job(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job and its answer are two writes; the job itself knows the key."""

    def crash(*_: Any) -> None:
        raise RuntimeError("no power")

    old = client.post("/v1/jobs", json=JOB).json()["id"]
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "answer_finish", crash)
        assert client.post(f"/v1/jobs/{old}/clone", headers=KEY).status_code == 500
    first = client.get("/v1/jobs").json()["items"][0]
    again = client.post(f"/v1/jobs/{old}/clone", headers=KEY)
    assert again.json()["id"] == first["id"]
    assert "Idempotency-Replayed" not in again.headers
    assert jobs(client) == 2


def test_one_key_at_two_doors_makes_two_jobs(client: TestClient) -> None:
    first = client.post("/v1/jobs", json={"command": "true"}, headers=KEY).json()
    clone = client.post(f"/v1/jobs/{first['id']}/clone", json={}, headers=KEY).json()
    assert clone["id"] != first["id"]
    same = client.post(f"/v1/jobs/{first['id']}/clone", json={}, headers=KEY).json()
    assert same["id"] == clone["id"]


def test_a_key_is_forgotten_after_a_day(world: World, client: TestClient) -> None:
    client.post("/v1/queues/default/pause", headers=KEY)
    world.clock.sleep(KEEP_S + 1)
    again = client.post("/v1/queues/default/pause", headers=KEY)
    assert "Idempotency-Replayed" not in again.headers


@pytest.mark.parametrize("key", ["x" * 256, "t\xe4st", "a\tb"])
def test_an_unusable_key_is_refused(client: TestClient, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    assert client.post("/v1/reconcile", headers=headers).status_code == 422


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_of_many_at_once_one_is_done(kind: str, sqlite: SqliteStore) -> None:
    world = World(MemoryStore() if kind == "memory" else sqlite)
    answers: list[Any] = []
    with world.client() as client:
        client.post("/v1/queues", json={"name": "default"})

        def send() -> None:
            answers.append(client.post("/v1/jobs", json=JOB, headers=KEY))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert jobs(client) == 1
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
