"""Webhooks that come in: what each sender's delivery starts, and who may say what starts what."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.core.model import Job
from control_plane.webhooks import signatures
from tests.api.world import World

SHA = "c0ffee" * 6 + "beef"
HOOK: dict[str, Any] = {
    "on": ["push"],
    "repositories": ["acme/*"],
    "refs": ["refs/heads/main"],
    "job": {"command": "make train", "queue": "default", "cpu": 2, "env": {"A": "b"}},
}
PUSH: dict[str, Any] = {
    "ref": "refs/heads/main",
    "after": SHA,
    "repository": {"full_name": "acme/vision"},
}


@pytest.fixture
def hooked(client: TestClient) -> TestClient:
    """An admin of a world with a queue and the hook `deploy`."""
    client.post("/v1/queues", json={"name": "default"})
    made = client.put("/v1/hooks/deploy", json=HOOK, headers={"If-None-Match": "*"})
    assert made.status_code == 201, made.text
    return client


def secret_of(client: TestClient, name: str = "deploy") -> str:
    return str(client.get(f"/v1/hooks/{name}/secret").json()["secret"])


def github(
    client: TestClient,
    secret: str,
    *,
    event: str = "push",
    delivery: str = "d-1",
    name: str = "deploy",
    **changes: Any,
) -> Any:
    body = json.dumps({**PUSH, **changes}).encode()
    headers = {
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": signatures.github_signature(secret, body),
        "Authorization": "",
    }
    return client.post(f"/v1/hooks/{name}", content=body, headers=headers)


def standard(
    client: TestClient, world: World, secret: str, *, message: str = "m-1", late_s: float = 0
) -> Any:
    data = {"repository": "acme/vision", "ref": "refs/heads/main", "sha": SHA}
    body = json.dumps({"type": "push", "data": data}).encode()
    at = world.clock.now() - timedelta(seconds=late_s)
    headers = signatures.standard_headers(secret, message, at, body)
    return client.post("/v1/hooks/deploy", content=body, headers=headers)


def jobs(world: World) -> list[Job]:
    return list(world.store.job_list().items)


# ---------------------------------------------------------------------------------- starting


def test_a_push_starts_the_hooks_job(hooked: TestClient, world: World) -> None:
    answer = github(hooked, secret_of(hooked))
    (job,) = jobs(world)
    assert (answer.status_code, answer.json()) == (201, {"job": job.id, "ignored": ""})
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    assert (job.spec.command, job.spec.need.cpus, job.queue) == ("make train", 2, "default")
    assert job.owner == "hook:deploy"
    assert job.spec.env == {
        "A": "b",
        "ORCHCTL_HOOK": "deploy",
        "ORCHCTL_HOOK_REPOSITORY": "acme/vision",
        "ORCHCTL_HOOK_REF": "refs/heads/main",
        "ORCHCTL_HOOK_SHA": SHA,
    }
    assert world.wakes > 0


def test_a_message_of_the_standard_starts_it_too(hooked: TestClient, world: World) -> None:
    secret = secret_of(hooked)
    first = standard(hooked, world, secret)
    again = standard(hooked, world, secret, late_s=-60)
    other = standard(hooked, world, secret, message="m-2")
    assert [each.status_code for each in (first, again, other)] == [201, 200, 201]
    assert first.json() == again.json()
    assert len(jobs(world)) == 2


def test_a_repeated_delivery_is_answered_with_the_same_job(
    hooked: TestClient, world: World
) -> None:
    secret = secret_of(hooked)
    first, again = (github(hooked, secret) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    changed = github(hooked, secret, delivery="d-2", after="f" * 40)
    assert changed.status_code == 201
    assert len(jobs(world)) == 2


def test_a_repeat_is_known_though_the_hook_has_changed(hooked: TestClient, world: World) -> None:
    secret = secret_of(hooked)
    first = github(hooked, secret)
    other = {**HOOK, "job": {**HOOK["job"], "command": "make other"}}
    assert hooked.put("/v1/hooks/deploy", json=other).status_code == 200
    assert github(hooked, secret).json() == first.json()
    assert len(jobs(world)) == 1


def test_a_ping_is_answered(hooked: TestClient, world: World) -> None:
    answer = github(hooked, secret_of(hooked), event="ping", ref=None)
    assert (answer.status_code, answer.json()["ignored"]) == (200, "pong")
    assert not jobs(world)


@pytest.mark.parametrize(
    ("event", "changes", "why"),
    [
        ("issues", {}, "the event is issues, the hook is on push"),
        ("push", {"ref": "refs/heads/dev"}, "the ref is refs/heads/dev"),
        ("push", {"repository": {"full_name": "x/y"}}, "the repository is x/y"),
        ("push", {"deleted": True}, "refs/heads/main was deleted"),
    ],
)
def test_what_does_not_match_is_ignored_and_says_why(
    hooked: TestClient, world: World, event: str, changes: dict[str, Any], why: str
) -> None:
    answer = github(hooked, secret_of(hooked), event=event, **changes)
    assert answer.status_code == 200
    assert answer.json()["ignored"].startswith(why)
    assert not jobs(world)


def test_what_it_says_never_reaches_the_command(hooked: TestClient, world: World) -> None:
    loose = {**HOOK, "refs": []}
    hooked.put("/v1/hooks/deploy", json=loose)
    evil = "refs/heads/$(reboot)`id`;'\""
    assert github(hooked, secret_of(hooked), ref=evil).status_code == 201
    (job,) = jobs(world)
    assert job.spec.command == "make train"
    assert job.spec.env["ORCHCTL_HOOK_REF"] == evil


def test_a_queue_that_is_gone_is_said_and_the_delivery_can_be_repeated(
    hooked: TestClient, world: World
) -> None:
    secret = secret_of(hooked)
    world.service.queue_delete("default")
    refused = github(hooked, secret)
    assert (refused.status_code, refused.json()["code"]) == (404, "not-found")
    world.service.queue_create("default")
    assert github(hooked, secret).status_code == 201


# ----------------------------------------------------------------------------------- secrets


def test_a_changed_secret_leaves_the_former_one_a_day(hooked: TestClient, world: World) -> None:
    old = secret_of(hooked)
    assert hooked.post("/v1/hooks/deploy/rotate").json()["generation"] == 2
    new = secret_of(hooked)
    assert new != old
    assert github(hooked, old, delivery="1", after="1" * 40).status_code == 201
    assert github(hooked, new, delivery="2", after="2" * 40).status_code == 201
    world.clock.sleep(24 * 3600)
    assert github(hooked, old, delivery="3", after="3" * 40).status_code == 401
    assert github(hooked, new, delivery="4", after="4" * 40).status_code == 201


def test_changing_it_twice_ends_the_first_at_once(hooked: TestClient) -> None:
    leaked = secret_of(hooked)
    for _ in range(2):
        hooked.post("/v1/hooks/deploy/rotate")
    assert github(hooked, leaked).status_code == 401


def test_a_hook_made_again_has_another_secret(hooked: TestClient) -> None:
    old = secret_of(hooked)
    assert hooked.delete("/v1/hooks/deploy").status_code == 204
    assert github(hooked, old).status_code == 401
    assert hooked.put("/v1/hooks/deploy", json=HOOK).status_code == 201
    assert github(hooked, old).status_code == 401


def test_a_changed_hook_keeps_its_secret(hooked: TestClient) -> None:
    old = secret_of(hooked)
    hooked.post("/v1/hooks/deploy/rotate")
    before = hooked.get("/v1/hooks/deploy").json()
    changed = hooked.put("/v1/hooks/deploy", json={**HOOK, "refs": []}).json()
    for name in ("id", "generation", "rotated_at"):
        assert changed[name] == before[name]
    assert github(hooked, old).status_code == 201


def test_nothing_secret_is_stored(hooked: TestClient, world: World) -> None:
    secret = secret_of(hooked)
    github(hooked, secret)
    kept = [hooked.get(path).text for path in ("/v1/hooks", "/v1/events", "/v1/jobs")]
    kept += [repr(vars(world.store))]
    assert not any(secret.removeprefix("whsec_") in each for each in kept)


# ----------------------------------------------------------------------------------- keeping


def test_who_did_what_to_a_hook_stands_in_the_log(hooked: TestClient) -> None:
    secret_of(hooked)
    hooked.post("/v1/hooks/deploy/rotate")
    hooked.delete("/v1/hooks/deploy")
    told = hooked.get("/v1/events", params={"kind": "access", "subject": "deploy"}).json()["items"]
    assert [each["text"] for each in told] == [
        "hook removed",
        "secret changed",
        "secret shown",
        "hook applied: on push, to default",
    ]
    assert {each["actor"] for each in told} == {"admin"}
    audit = hooked.get("/v1/events", params={"kind": "audit", "subject": "deploy"}).json()["items"]
    assert [each["text"].partition(" ")[0] for each in audit] == ["DELETE", "POST", "PUT"]


def test_two_that_make_a_hook_at_once(hooked: TestClient) -> None:
    again = hooked.put("/v1/hooks/deploy", json=HOOK, headers={"If-None-Match": "*"})
    assert again.status_code == 412
    stale = hooked.put("/v1/hooks/deploy", json=HOOK, headers={"If-Match": '"9"'})
    assert stale.status_code == 412


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"on": []}, 422),
        ({"on": ["a b"]}, 422),
        ({"refs": [""]}, 422),
        ({"job": {"command": "x", "queue": "nowhere"}}, 404),
        ({"job": {"command": ""}}, 422),
        ({"job": {"command": "x", "owner": "root"}}, 422),
        ({"job": {"command": "x", "depends_on": ["j-1"]}}, 422),
        ({"job": {"command": "x", "not_before": "2030-01-01T00:00:00Z"}}, 422),
        ({"job": {"command": "x", "source": {"kind": "none"}}}, 422),
        ({"secret": "mine"}, 422),
    ],
)
def test_a_hook_that_makes_no_sense(
    hooked: TestClient, changes: dict[str, Any], status: int
) -> None:
    assert hooked.put("/v1/hooks/other", json={**HOOK, **changes}).status_code == status
    assert hooked.get("/v1/hooks/other").status_code == 404


def test_a_job_that_can_never_run_is_refused_when_the_hook_is_made(applied: TestClient) -> None:
    job = {**HOOK["job"], "gpu": "H100:8"}
    answer = applied.put("/v1/hooks/big", json={**HOOK, "job": job})
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")


def client_of(admin: TestClient, role: str, *queues: str) -> dict[str, str]:
    wanted = {"name": "alice", "role": role, "queues": list(queues)}
    token = admin.post("/v1/tokens", json=wanted).json()["token"]
    return {"Authorization": f"Bearer {token}"}


def test_an_operator_of_its_queue_keeps_a_hook(hooked: TestClient) -> None:
    hooked.post("/v1/queues", json={"name": "other"})
    mine, others = client_of(hooked, "operator", "default"), client_of(hooked, "operator", "other")
    assert hooked.put("/v1/hooks/deploy", json=HOOK, headers=mine).status_code == 200
    assert hooked.get("/v1/hooks/deploy/secret", headers=mine).status_code == 200
    assert hooked.get("/v1/hooks", headers=others).json()["items"] == []
    for method, path in (
        ("GET", "/v1/hooks/deploy"),
        ("GET", "/v1/hooks/deploy/secret"),
        ("POST", "/v1/hooks/deploy/rotate"),
        ("DELETE", "/v1/hooks/deploy"),
        ("PUT", "/v1/hooks/deploy"),
    ):
        body = {**HOOK, "job": {**HOOK["job"], "queue": "other"}} if method == "PUT" else None
        refused = hooked.request(method, path, headers=others, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "role-needed"), method


def test_a_submitter_sees_no_secret(hooked: TestClient) -> None:
    headers = client_of(hooked, "submitter", "*")
    assert hooked.get("/v1/hooks/deploy", headers=headers).status_code == 200
    assert hooked.get("/v1/hooks/deploy/secret", headers=headers).status_code == 403
