"""Jobs are handed in, seen, moved, ended and repeated; their bytes come back as they were."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.agents import artifact_key, log_key
from control_plane.api.positions import COUNTED_MAX
from control_plane.core.model import Artifact, Capacity, JobState
from control_plane.ports import Ending, Store
from tests.api.world import NOW, World


@pytest.fixture
def client(client: TestClient) -> TestClient:
    """An admin with a queue made by hand, which takes any job."""
    assert client.post("/v1/queues", json={"name": "default"}).status_code == 201
    return client


def submit(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"command": "true", **body})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def end(world: World, job_id: str, *, outcome: JobState = JobState.SUCCEEDED) -> None:
    """Let a machine run the job to its end, with a log and a file."""
    world.registered("m-1")
    (job,) = world.store.job_claim(
        "m-1", ["default"], Capacity(cpus=64, memory_mib=10**6), limit=1, now=NOW
    )
    assert job.id == job_id
    world.blobs.append(log_key(job_id, job.epoch), 0, b"hello log")
    blob = artifact_key(job_id, job.epoch, "out/page.html")
    world.blobs.put(blob, b"<script>")
    kept = Artifact(name="out/page.html", size_bytes=8, sha256="ab" * 32, blob=blob)
    world.store.job_finish(
        job_id,
        job.epoch,
        Ending(outcome=outcome, exit_code=0, artifacts=(kept,)),
        state=outcome,
        now=NOW,
    )


def test_a_job_is_what_was_asked_for(client: TestClient) -> None:
    answer = client.post(
        "/v1/jobs",
        json={
            "command": "python train.py",
            "name": "sweep",
            "gpu": "H100:80GB:2",
            "cpu": 8,
            "memory": "64GB",
            "disk": "200GB",
            "market": "on-demand",
            "env": {"LR": "1e-3"},
            "python": "3.11",
            "requirements": ["numpy==2.0"],
            "artifacts": ["out/*.pt"],
            "timeout": "2h",
            "grace": "30s",
            "max_attempts": 2,
            "labels": {"team": "vision"},
            "priority": 4,
            "not_before": "2026-03-10T14:00:00+01:00",
        },
    )
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["ETag"] == '"1"'
    assert (job["state"], job["queue"], job["owner"]) == ("queued", "default", "admin")
    assert job["not_before"] == "2026-03-10T13:00:00+00:00"
    need = job["spec"]["need"]
    assert need == {
        "gpus": 2,
        "gpu_name": "H100",
        "gpu_memory_gib": 80,
        "cpus": 8,
        "memory_mib": 65_536,
        "disk_gib": 200,
        "share_ppm": 0,
        "on_demand_only": True,
    }
    assert (job["spec"]["timeout_s"], job["spec"]["grace_s"]) == (7200, 30)
    assert client.get(f"/v1/jobs/{job['id']}").json()["spec"] == job["spec"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/command"),
        ({"command": ""}, "/command"),
        ({"command": "x" * 33_000}, "/command"),
        ({"command": "a\x00b"}, "/command"),
        ({"command": "true", "commmand": "true"}, "/commmand"),
        ({"command": "true", "queue": "No Such"}, "/queue"),
        ({"command": "true", "gpu": "L4:1..2"}, "/gpu"),
        ({"command": "true", "gpu": "L4:9999"}, "/gpu"),
        ({"command": "true", "memory": "lots"}, "/memory"),
        ({"command": "true", "timeout": "999999999d"}, "/timeout"),
        ({"command": "true", "env": {"1A": "x"}}, "/env/1A/[key]"),
        ({"command": "true", "env": {"A": "x\x00"}}, "/env/A"),
        ({"command": "true", "env": {f"A{n}": "" for n in range(257)}}, "/env"),
        ({"command": "true", "artifacts": ["../secrets"]}, "/artifacts/0"),
        ({"command": "true", "artifacts": ["/etc/passwd"]}, "/artifacts/0"),
        ({"command": "true", "priority": 10**30}, "/priority"),
        ({"command": "true", "max_attempts": 0}, "/max_attempts"),
        ({"command": "true", "not_before": "2026-01-01T00:00:00"}, "/not_before"),
        ({"command": "true", "not_before": "0001-01-01T00:00:00+14:00"}, "/not_before"),
        ({"command": "true", "source": {"kind": "archive"}}, "/source"),
        (
            {"command": "true", "source": {"kind": "git", "remote": "--upload-pack=x"}},
            "/source/remote",
        ),
        (
            {"command": "true", "source": {"kind": "archive", "blob": "jobs/j-1/1/log"}},
            "/source/blob",
        ),
    ],
)
def test_what_is_wrong_is_named(refused: TestClient, body: dict[str, Any], pointer: str) -> None:
    answer = refused.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid-input"
    assert pointer in [each["pointer"] for each in problem["errors"]]


def test_lone_surrogates_are_refused(client: TestClient) -> None:
    raw = b'{"command": "echo \\ud800"}'
    answer = client.post("/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_unknown_queue_and_unknown_job(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={"command": "true", "queue": "absent"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    for path in ("", "/attempts", "/logs", "/artifacts", "/wait?timeout_s=0"):
        assert client.get(f"/v1/jobs/j-none{path}").status_code == 404, path


def test_a_job_no_pool_can_run_is_refused_at_once(world: World, applied: TestClient) -> None:
    answer = applied.post("/v1/jobs", json={"command": "true", "cpu": 64})
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")
    assert answer.json()["fix"]


def test_places_in_the_queue(client: TestClient) -> None:
    assert [submit(client)["position_in_queue"] for _ in range(3)] == [1, 2, 3]
    urgent = submit(client, priority=5)
    assert urgent["position_in_queue"] == 1
    listed = client.get("/v1/jobs", params={"queue": "default", "state": "queued"}).json()["items"]
    assert [job["position_in_queue"] for job in listed] == [1, 2, 3, 4]
    assert listed[0]["id"] == urgent["id"]


def test_of_a_job_far_back_no_place_is_told_at_first(world: World, client: TestClient) -> None:
    submit(client)
    for _ in range(COUNTED_MAX - 2):
        world.submit()
    last, beyond = submit(client), submit(client)
    assert (last["position_in_queue"], beyond["position_in_queue"]) == (COUNTED_MAX, None)
    assert submit(client, priority=5)["position_in_queue"] == 1
    asked = client.get(f"/v1/jobs/{beyond['id']}").json()
    assert asked["position_in_queue"] == COUNTED_MAX + 2


def test_one_whose_time_has_not_come_stands_beside_the_line(client: TestClient) -> None:
    later, now = submit(client, not_before="2999-01-01T00:00:00Z"), submit(client)
    asked = [client.get(f"/v1/jobs/{job['id']}").json() for job in (later, now)]
    places = [job["position_in_queue"] for job in (later, now, *asked)]
    assert places == [None, 1, None, 1]


def test_who_asks_for_a_waiting_job_has_no_other_job_read(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [submit(client) for _ in range(3)][-1]
    forbid(monkeypatch, world.store, "queue_stats", "job_list")
    assert client.get(f"/v1/jobs/{asked['id']}").json()["position_in_queue"] == 3


def forbid(monkeypatch: pytest.MonkeyPatch, store: Store, *names: str) -> None:
    def dear(*_: Any, **__: Any) -> None:
        raise AssertionError("this reads more the more there is")

    for name in names:
        monkeypatch.setattr(store, name, dear)


def test_a_submission_counts_so_far_at_every_depth(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(client)
    forbid(monkeypatch, world.store, "queue_stats", "job_list")
    count = world.store.waiting_groups
    limits: list[int] = []

    def counted(*asked: Any, limit: int, **more: Any) -> Any:
        limits.append(limit)
        return count(*asked, limit=limit, **more)

    monkeypatch.setattr(world.store, "waiting_groups", counted)
    assert submit(client)["position_in_queue"] == 2
    assert limits == [COUNTED_MAX]


def test_moving_is_conditional(client: TestClient) -> None:
    first, second = submit(client), submit(client)
    path = f"/v1/jobs/{second['id']}/position"
    assert client.put(path, json={"place": "top"}).status_code == 428
    moved = client.put(path, json={"place": "top"}, headers={"If-Match": '"1"'})
    assert (moved.status_code, moved.json()["position_in_queue"]) == (200, 1)
    assert moved.headers["ETag"] != '"1"'
    late = client.put(path, json={"place": "bottom"}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "conflict")
    after = client.put(path, json={"place": "after", "of": first["id"]}, headers={"If-Match": "*"})
    assert after.json()["position_in_queue"] == 2
    assert client.put(path, json={"place": "before"}, headers={"If-Match": "*"}).status_code == 422
    unknown = client.put(path, json={"place": "top", "queue": "absent"}, headers={"If-Match": "*"})
    assert unknown.status_code == 404


def test_a_job_that_does_not_wait_cannot_be_moved(client: TestClient) -> None:
    job = submit(client)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    answer = client.put(
        f"/v1/jobs/{job['id']}/position", json={"place": "top"}, headers={"If-Match": "*"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")


def test_cancel_retry_clone(client: TestClient) -> None:
    job = submit(client, env={"A": "1", "B": "2"}, cpu=2)
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 409
    cancelled = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (cancelled["state"], cancelled["position_in_queue"]) == ("cancelled", None)
    retried = client.post(f"/v1/jobs/{job['id']}/retry", json={})
    assert retried.status_code == 201
    assert retried.json()["cloned_from"] == job["id"]
    assert retried.json()["spec"] == job["spec"]
    cloned = client.post(
        f"/v1/jobs/{job['id']}/clone", json={"set": {"B": "3"}, "command": "false"}
    ).json()
    assert cloned["spec"]["env"] == {"A": "1", "B": "3"}
    assert cloned["spec"]["command"] == "false"
    assert client.post(f"/v1/jobs/{job['id']}/clone").status_code == 201
    bad = client.post(f"/v1/jobs/{job['id']}/clone", json={"set": {"": "3"}})
    assert bad.status_code == 422


def test_a_waiting_job_is_always_sent_an_ended_one_only_when_changed(client: TestClient) -> None:
    path = f"/v1/jobs/{submit(client)['id']}"
    waiting = client.get(path)
    assert client.get(path, headers={"If-None-Match": waiting.headers["ETag"]}).status_code == 200
    client.post(f"{path}/cancel")
    ended = client.get(path)
    again = client.get(path, headers={"If-None-Match": ended.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_listing_filters_and_pages(client: TestClient) -> None:
    client.post("/v1/queues", json={"name": "other"})
    ids = [submit(client)["id"] for _ in range(3)]
    elsewhere = submit(client, queue="other")["id"]
    client.post(f"/v1/jobs/{ids[0]}/cancel")
    every = [job["id"] for job in client.get("/v1/jobs").json()["items"]]
    assert sorted(every) == sorted([*ids, elsewhere])
    ended = client.get("/v1/jobs", params={"state": "cancelled,failed"}).json()["items"]
    assert [job["id"] for job in ended] == [ids[0]]
    assert client.get("/v1/jobs", params={"state": "lost"}).status_code == 422
    seen, params = [], {"limit": "1", "queue": "default"}
    while True:
        page = client.get("/v1/jobs", params=params)
        seen += [job["id"] for job in page.json()["items"]]
        if not page.json()["cursor"]:
            assert "Link" not in page.headers
            break
        params["cursor"] = page.json()["cursor"]
        link = page.headers["Link"]
        assert link.startswith("</v1/jobs?")
        assert client.get(link[1 : link.index(">")]).status_code == 200
    assert sorted(seen) == sorted(ids)


def test_log_artifacts_and_attempts(world: World, client: TestClient) -> None:
    job_id = submit(client)["id"]
    path = f"/v1/jobs/{job_id}"
    quiet = client.get(f"{path}/logs")
    assert (quiet.content, quiet.headers["X-Log-Size"]) == (b"", "0")
    assert quiet.headers["X-Job-State"] == "queued"
    end(world, job_id)
    log = client.get(f"{path}/logs", params={"offset": 6, "limit": 2})
    assert log.content == b"lo"
    assert log.headers["X-Log-Size"] == "9"
    assert log.headers["X-Log-Epoch"] == "1"
    assert log.headers["Content-Type"] == "text/plain; charset=utf-8"
    other = client.get(f"{path}/logs", params={"attempt_epoch": 7})
    assert (other.content, other.headers["X-Log-Epoch"]) == (b"", "7")
    (attempt,) = client.get(f"{path}/attempts").json()["items"]
    assert (attempt["machine_id"], attempt["outcome"]) == ("m-1", "succeeded")
    (kept,) = client.get(f"{path}/artifacts").json()["items"]
    assert kept["name"] == "out/page.html"


def test_a_file_of_a_job_is_never_shown_in_place(world: World, client: TestClient) -> None:
    job_id = submit(client)["id"]
    end(world, job_id)
    path = f"/v1/jobs/{job_id}/artifacts/out/page.html"
    file = client.get(path)
    assert file.content == b"<script>"
    assert file.headers["Content-Disposition"] == "attachment"
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get(path, headers={"If-None-Match": file.headers["ETag"]}).status_code == 304
    assert client.get(f"/v1/jobs/{job_id}/artifacts/other").status_code == 404
    assert client.get(f"/v1/jobs/{job_id}/artifacts/%2e%2e/log").status_code == 404


def test_the_log_follows_the_last_attempt_that_wrote_one(world: World, client: TestClient) -> None:
    job_id = submit(client)["id"]
    end(world, job_id)
    world.blobs.append(log_key(job_id, 1), 9, b"!")
    assert client.get(f"/v1/jobs/{job_id}/logs").headers["X-Log-Size"] == "10"


def test_waiting_answers_at_once_when_it_ended_or_time_is_over(
    world: World, client: TestClient
) -> None:
    job_id = submit(client)["id"]
    waiting = client.get(f"/v1/jobs/{job_id}/wait", params={"timeout_s": 0})
    assert waiting.json()["state"] == "queued"
    end(world, job_id)
    ended = client.get(f"/v1/jobs/{job_id}/wait", params={"timeout_s": 60})
    assert ended.json()["state"] == "succeeded"
    for wrong in ("nan", "inf", "-1", "61"):
        params = {"timeout_s": wrong}
        assert client.get(f"/v1/jobs/{job_id}/wait", params=params).status_code == 422, wrong


def test_a_source_is_kept_under_its_hash(client: TestClient) -> None:
    data = b"archive"
    sha256 = hashlib.sha256(data).hexdigest()
    source = {"kind": "archive", "blob": f"sources/{sha256}", "sha256": sha256}
    early = client.post("/v1/jobs", json={"command": "true", "source": source})
    assert (early.status_code, early.json()["code"]) == (409, "refused")
    wrong = client.put(f"/v1/blobs/sources/{'0' * 64}", content=data)
    assert wrong.status_code == 422
    for _ in range(2):
        stored = client.put(f"/v1/blobs/sources/{sha256}", content=data)
        assert (stored.status_code, stored.json()) == (201, {"blob": f"sources/{sha256}"})
    job = submit(client, source=source)
    assert job["spec"]["source"]["blob"] == f"sources/{sha256}"
    assert client.put("/v1/blobs/sources/short", content=data).status_code == 422
