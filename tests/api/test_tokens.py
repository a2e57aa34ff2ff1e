"""Tokens: shown once, stored hashed, good until they expire or are revoked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from control_plane.access import entrance
from control_plane.api.auth import SESSION_S
from control_plane.api.limits import COUNTED_MAX, FAILURES, REQUESTS, Counts, Limit
from control_plane.core.codec import to_json
from tests.api.world import NOW, TOKEN, ManualClock, World

WANTED = {"name": "alice", "role": "viewer", "queues": ["*"]}


def make(client: TestClient, **changes: Any) -> Any:
    answer = client.post("/v1/tokens", json={**WANTED, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def stranger(world: World) -> Iterator[TestClient]:
    with TestClient(world.app(), follow_redirects=False) as client:
        yield client


def test_a_token_opens_what_it_is_for(client: TestClient, stranger: TestClient) -> None:
    made = make(client, queues=["a", "b"], role="submitter")
    who = client.get("/v1/whoami", headers=bearer(made["token"])).json()
    assert who == {
        "actor": "alice",
        "role": "submitter",
        "queues": ["a", "b"],
        "expires_at": None,
    }
    admin = client.get("/v1/whoami").json()
    assert (admin["actor"], admin["role"], admin["queues"]) == ("admin", "admin", ["*"])
    assert stranger.get("/v1/whoami").status_code == 401


def test_a_token_is_shown_once_and_stored_hashed(world: World, client: TestClient) -> None:
    made = make(client)
    token = made["token"]
    assert token.startswith(made["record"]["prefix"])
    assert len(token) - len(made["record"]["prefix"]) == 64
    (listed,) = client.get("/v1/tokens").json()["items"]
    assert listed == made["record"]
    assert token not in client.get("/v1/tokens").text
    kept = json.dumps([to_json(each) for each in world.store.token_list()])
    kept += json.dumps([to_json(each) for each in world.store.event_list(limit=500).items])
    assert token not in kept
    assert token.rpartition("_")[2] not in kept


def test_an_answer_that_shows_a_token_is_not_kept(world: World, client: TestClient) -> None:
    headers = {"Idempotency-Key": "same"}
    first = client.post("/v1/tokens", json=WANTED, headers=headers).json()
    again = client.post("/v1/tokens", json=WANTED, headers=headers).json()
    assert first["token"] != again["token"]
    assert not world.store._answers  # type: ignore[attr-defined]


def test_a_revoked_token_opens_nothing_any_more(client: TestClient) -> None:
    made = make(client)
    headers = bearer(made["token"])
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    assert client.delete(f"/v1/tokens/{made['record']['id']}").status_code == 204
    assert client.get("/v1/jobs", headers=headers).status_code == 401
    assert client.delete(f"/v1/tokens/{made['record']['id']}").status_code == 404


def test_a_token_expires(world: World, client: TestClient) -> None:
    made = make(client, expires_at=(NOW + timedelta(hours=1)).isoformat())
    headers = bearer(made["token"])
    world.clock.sleep(3599)
    assert client.get("/v1/jobs", headers=headers).status_code == 200
    world.clock.sleep(1)
    assert client.get("/v1/jobs", headers=headers).status_code == 401
    (listed,) = client.get("/v1/tokens").json()["items"]
    assert listed["expired"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "admin"},
        {"name": "orchctl"},
        {"name": ""},
        {"name": "two words"},
        {"name": "ci:github:x"},
        {"name": "a\nb"},
        {"role": "root"},
        {"role": "Admin"},
        {"queues": []},
        {"queues": ["*", "a"]},
        {"queues": ["**"]},
        {"queues": "*"},
        {"role": "admin", "queues": ["a"]},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"more": 1},
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(
    world: World, refused: TestClient, changes: dict[str, Any]
) -> None:
    answer = refused.post("/v1/tokens", json={**WANTED, **changes})
    assert answer.status_code == 422, answer.text
    assert refused.get("/v1/tokens").json()["items"] == []


def test_only_an_admin_makes_tokens(client: TestClient) -> None:
    for role in ("viewer", "submitter", "operator"):
        headers = bearer(make(client, role=role)["token"])
        answer = client.post("/v1/tokens", json=WANTED, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "role-needed")
        assert client.get("/v1/tokens", headers=headers).status_code == 403
    admin = bearer(make(client, role="admin")["token"])
    assert client.post("/v1/tokens", json=WANTED, headers=admin).status_code == 201


def test_there_are_not_any_number_of_tokens(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "TOKENS_MAX", 2)
    make(client)
    make(client)
    answer = client.post("/v1/tokens", json=WANTED)
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")


def test_a_token_that_is_nearly_right_is_wrong(client: TestClient, stranger: TestClient) -> None:
    made = make(client)
    token, token_id = made["token"], made["record"]["id"]
    secret = token.rpartition("_")[2]
    other = make(client)["token"].rpartition("_")[2]
    for wrong in (
        token[:-1],
        token + "0",
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        token.upper(),
        f"orchctl_{token_id}_{other}",
        f"orchctl_t-none_{secret}",
        f"orchctl_../t_{secret}",
        f"{token}\u00e4",
        secret,
        token_id,
    ):
        header = [(b"Authorization", b"Bearer " + wrong.encode())]
        assert stranger.get("/v1/jobs", headers=header).status_code in (401, 429), wrong


def test_a_session_of_the_dashboard_is_as_good_as_its_token(
    world: World, client: TestClient, stranger: TestClient
) -> None:
    made = make(client, role="operator")
    assert stranger.get("/login", params={"token": made["token"]}).status_code == 303
    cookie = dict(stranger.cookies)
    assert made["token"] not in json.dumps(cookie)
    assert stranger.get("/v1/whoami").json()["actor"] == "alice"
    form = {"Sec-Fetch-Site": "same-origin"}
    assert stranger.post("/v1/reconcile", headers=form).status_code == 202
    assert stranger.post("/v1/reconcile").status_code == 403
    assert stranger.post("/v1/tokens", json=WANTED, headers=form).status_code == 403
    # The id of another token, or none, does not fit what was signed.
    (name, value), *_ = cookie.items()
    expires, mac, token_id = value.split(".")
    other = make(client, role="admin")["record"]["id"]
    for forged in (f"{expires}.{mac}.{other}", f"{expires}.{mac}", f"{expires}.{mac}.{token_id}x"):
        headers = {"Cookie": f"{name}={forged}"}
        stranger.cookies.clear()
        assert stranger.get("/v1/whoami", headers=headers).status_code == 401
    stranger.cookies.update(cookie)
    client.delete(f"/v1/tokens/{made['record']['id']}")
    assert stranger.get("/v1/whoami").status_code == 401
    world.clock.sleep(SESSION_S)
    assert stranger.get("/v1/whoami").status_code == 401


# ----------------------------------------------------------------------------------- the audit


def audit(client: TestClient, **params: str) -> Any:
    return client.get("/v1/events", params={"kind": "audit", **params}).json()["items"]


def test_every_change_leaves_who_sent_it(client: TestClient) -> None:
    alice = bearer(make(client, role="operator")["token"])
    client.post("/v1/queues", json={"name": "q"}, headers=alice)
    paused = client.post("/v1/queues/q/pause", headers=alice)
    (last, *_) = audit(client)
    assert last["actor"] == "alice"
    assert last["role"] == "operator"
    assert last["text"] == "POST /v1/queues/q/pause: 200"
    assert last["subject"] == "q"
    assert last["request_id"] == paused.headers["X-Request-Id"]
    assert [each["text"] for each in audit(client, subject="q")] == [last["text"]]
    assert "audit" not in {each["kind"] for each in client.get("/v1/events").json()["items"]}


def test_what_was_refused_is_in_it_too(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    alice = bearer(make(client)["token"])
    with caplog.at_level(logging.WARNING):
        answer = client.post("/v1/machines/m-1/terminate", headers=alice)
    assert answer.status_code == 403
    assert audit(client)[0]["text"] == "POST /v1/machines/m-1/terminate: 403"
    (line,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert "alice" in line
    assert answer.headers["X-Request-Id"] in line


def test_looking_leaves_nothing_and_a_new_job_tells_itself(client: TestClient) -> None:
    client.post("/v1/queues", json={"name": "default"})
    before = len(audit(client))
    client.get("/v1/jobs")
    job = client.post("/v1/jobs", json={"command": "true"}).json()
    assert job["owner"] == "admin"
    assert len(audit(client)) == before
    client.post("/v1/jobs", json={"command": "true", "owner": "somebody"})
    assert audit(client)[0]["text"] == "POST /v1/jobs: 201"
    client.post("/v1/jobs", json={"command": "true", "queue": "none"})
    assert audit(client)[0]["text"] == "POST /v1/jobs: 404"


def test_a_path_cannot_break_its_line(client: TestClient) -> None:
    client.post("/v1/queues/a%0Aadmin%1b[2J/pause")
    text = audit(client)[0]["text"]
    assert text.isprintable()
    assert text.startswith("POST /v1/queues/a?admin?[2J/pause: 4")


# --------------------------------------------------------------------------------- the limits


def test_wrong_tokens_are_answered_so_often(world: World, stranger: TestClient) -> None:
    wrong = bearer("orchctl_t-1_" + "0" * 64)
    answers = [stranger.get("/v1/jobs", headers=wrong) for _ in range(FAILURES.burst + 1)]
    assert {each.status_code for each in answers[:-1]} == {401}
    last = answers[-1]
    assert (last.status_code, last.json()["code"]) == (429, "too-many-requests")
    assert int(last.headers["Retry-After"]) > 0
    assert last.headers["RateLimit-Policy"] == '"failures";q=20;w=60'
    assert last.headers["RateLimit"].startswith('"failures";r=0;t=')
    # Who says nothing is told how to come in, who is right comes in.
    assert stranger.get("/v1/jobs").status_code == 401
    assert stranger.get("/v1/jobs", headers=bearer(TOKEN)).status_code == 200
    world.clock.sleep(int(last.headers["Retry-After"]))
    assert stranger.get("/v1/jobs", headers=wrong).status_code == 401


def test_behind_one_address_a_known_token_goes_on(client: TestClient, stranger: TestClient) -> None:
    known, fresh = (bearer(make(client)["token"]) for _ in range(2))
    assert stranger.get("/v1/jobs", headers=known).status_code == 200
    for _ in range(FAILURES.burst + 1):
        stranger.get("/v1/jobs", headers=bearer("wrong"))
    assert stranger.get("/v1/jobs", headers=known).status_code == 200
    assert stranger.get("/v1/jobs", headers=fresh).status_code == 429, "unknown until it waits"


def test_a_flood_of_wrong_tokens_reads_nothing(
    world: World, stranger: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = world.store.token_get
    monkeypatch.setattr(world.store, "token_get", lambda each: (reads.append(each), read(each))[1])
    for number in range(100):
        stranger.get("/v1/jobs", headers=bearer(f"orchctl_t-{number}_" + "0" * 64))
    assert len(reads) == FAILURES.burst


def test_logins_count_too(stranger: TestClient) -> None:
    answers = [
        stranger.get("/login", params={"token": f"wrong{number}"}).status_code
        for number in range(FAILURES.burst + 1)
    ]
    assert answers == [401] * FAILURES.burst + [429]
    assert stranger.get("/login", params={"token": ""}).status_code == 429


def test_a_token_may_ask_so_often(world: World, client: TestClient) -> None:
    headers = bearer(make(client)["token"])
    first = client.get("/v1/whoami", headers=headers)
    assert first.headers["RateLimit-Policy"] == '"requests";q=500;w=10'
    assert first.headers["RateLimit"] == '"requests";r=499;t=1'
    for _ in range(REQUESTS.burst - 1):
        last = client.get("/v1/whoami", headers=headers)
    assert (last.status_code, last.headers["RateLimit"]) == (200, '"requests";r=0;t=10')
    refused = client.get("/v1/whoami", headers=headers)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.headers["RateLimit"] == '"requests";r=0;t=10'
    world.clock.sleep(1)
    assert client.get("/v1/whoami", headers=headers).status_code == 200
    assert client.get("/v1/whoami", headers=bearer(make(client)["token"])).status_code == 200


def test_the_servers_own_token_is_not_counted(client: TestClient) -> None:
    assert "RateLimit" not in client.get("/v1/whoami").headers


def test_what_is_remembered_is_bounded() -> None:
    counts = Counts(replace(FAILURES, burst=1), ManualClock())
    for number in range(COUNTED_MAX + 10):
        assert counts.take(str(number)).ok
    assert len(counts._left) == COUNTED_MAX
    assert not counts.take(str(COUNTED_MAX)).ok
    assert counts.take("0").ok, "forgotten: it was seen first"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = ManualClock()
    counts = Counts(Limit(name="x", burst=1, per_s=1.0), clock)
    assert counts.take("a").ok
    clock.sleep(-100)
    assert not counts.take("a").ok
    clock.sleep(101)
    assert counts.take("a").ok
