"""The agent protocol over HTTP: one machine's life, what strangers and late writers get, and that
no message at all can break the server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from agent_bootstrap import wire
from control_plane.core.model import Machine, MachineState
from control_plane.stores.memory import MemoryStore
from tests.api.world import DOCUMENT, World


class Agent:
    """A machine's agent, as the server sees it."""

    def __init__(self, world: World, machine_id: str = "m-1") -> None:
        self.world = world
        self.machine: Machine = world.machine(machine_id)
        self.http = TestClient(world.app())
        self.token = ""

    def ask(self, route: str, body: object, **more: Any) -> Any:
        return self.http.post(f"/v1/agent/{route}", json=body, headers=self.headers, **more)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def registration(self, **changes: Any) -> dict[str, Any]:
        proof = {"kind": "one-time", "token": self.world.one_time_token(self.machine)}
        message = wire.Register(
            machine_id=self.machine.id,
            instance="one",
            proof=proof,
            found=wire.Found(cpus=4, memory_mib=16_384),
        )
        return {**wire.dump(message), **changes}

    def register(self) -> Any:
        answer = self.http.post("/v1/agent/register", json=self.registration())
        self.token = answer.json().get("token", "")
        return answer


@pytest.fixture
def agent(world: World, applied: TestClient) -> Iterator[Agent]:
    """The agent of a machine that has just booted."""
    agent = Agent(world)
    with agent.http:
        yield agent


def submit(client: TestClient, **body: Any) -> str:
    answer = client.post("/v1/jobs", json={"command": "true", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_machine_runs_a_job_to_its_end(agent: Agent, applied: TestClient) -> None:
    archive = b"the files"
    sha256 = hashlib.sha256(archive).hexdigest()
    applied.put(f"/v1/blobs/sources/{sha256}", content=archive)
    source = {"kind": "archive", "blob": f"sources/{sha256}", "sha256": sha256}
    job_id = submit(applied, env={"LR": "1"}, source=source)

    session = agent.register()
    assert session.status_code == 200
    assert session.json()["advice"]["beat_s"] == 30.0
    work = agent.ask("claim", {}).json()
    (job,) = work["jobs"]
    assert (job["job_id"], job["epoch"], job["env"]) == (job_id, 1, {"LR": "1"})
    path = f"jobs/{job_id}"
    files = agent.http.get(f"/v1/agent/{path}/source", params={"epoch": 1}, headers=agent.headers)
    assert files.content == archive
    assert agent.ask(f"{path}/start", {"epoch": 1}).json() == {}
    assert applied.get(f"/v1/jobs/{job_id}").json()["state"] == "running"

    for _ in range(2):  # a repeat adds nothing
        sent = agent.http.post(
            f"/v1/agent/{path}/logs",
            params={"epoch": 1, "offset": 0},
            content=b"epoch 1\n",
            headers=agent.headers,
        )
        assert sent.json() == {"size": 8}
    hole = agent.http.post(
        f"/v1/agent/{path}/logs?epoch=1&offset=99", content=b"x", headers=agent.headers
    )
    assert (hole.status_code, hole.json()["code"]) == (409, "conflict")
    model = b"weights"
    kept = agent.http.put(
        f"/v1/agent/{path}/artifacts/out/model.pt?epoch=1", content=model, headers=agent.headers
    )
    assert kept.status_code == 200
    beaten = agent.ask("beat", {"running": [f"{job_id}:1", "j-other:1"]}).json()
    assert (beaten["lost"], beaten["cancel"]) == (["j-other:1"], [])

    finished = {
        "epoch": 1,
        "outcome": "succeeded",
        "exit_code": 0,
        "artifacts": [
            {
                "name": "out/model.pt",
                "size_bytes": len(model),
                "sha256": hashlib.sha256(model).hexdigest(),
            }
        ],
    }
    for _ in range(2):
        assert agent.ask(f"{path}/finish", finished).json() == {}
    assert applied.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
    assert applied.get(f"/v1/jobs/{job_id}/logs").content == b"epoch 1\n"
    assert applied.get(f"/v1/jobs/{job_id}/artifacts/out/model.pt").content == model
    assert agent.ask("leave", {"why": "idle"}).json() == {"agreed": True, "why": ""}
    assert agent.ask("beat", {}).status_code == 410


def test_cancelling_reaches_the_machine_with_its_next_beat(
    agent: Agent, applied: TestClient
) -> None:
    job_id = submit(applied)
    agent.register()
    agent.ask("claim", {})
    applied.post(f"/v1/jobs/{job_id}/cancel")
    assert agent.ask("beat", {"running": [f"{job_id}:1"]}).json()["cancel"] == [job_id]
    agent.ask(f"jobs/{job_id}/finish", {"epoch": 1, "outcome": "cancelled"})
    assert applied.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_job_given_back_waits_again(agent: Agent, applied: TestClient) -> None:
    job_id = submit(applied)
    agent.register()
    agent.ask("claim", {})
    agent.ask(f"jobs/{job_id}/finish", {"epoch": 1, "outcome": "returned"})
    assert applied.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_an_interruption_drains_the_machine(agent: Agent, applied: TestClient) -> None:
    agent.register()
    assert agent.ask("notice", {"kind": "spot", "seconds_left": 110}).json() == {}
    assert applied.get("/v1/machines/m-1").json()["state"] == "draining"
    assert agent.ask("claim", {}).json()["drain"] is True


def test_a_wrong_proof_is_nobody(agent: Agent) -> None:
    wrong: list[dict[str, Any]] = [
        {"proof": {}},
        {"proof": {"token": "wrong"}},
        {"machine_id": "m-none"},
    ]
    for changes in wrong:
        answer = agent.http.post("/v1/agent/register", json=agent.registration(**changes))
        assert (answer.status_code, answer.json()["code"]) == (401, "denied"), changes


def test_a_second_agent_of_one_machine_is_refused(agent: Agent) -> None:
    first = agent.register()
    assert agent.register().json()["token"] == first.json()["token"]
    second = agent.http.post("/v1/agent/register", json=agent.registration(instance="two"))
    assert second.status_code == 409


def test_too_early_is_told_to_come_again(world: World, agent: Agent) -> None:
    agent.machine = world.machine("m-2", MachineState.LAUNCHING)
    answer = agent.http.post("/v1/agent/register", json=agent.registration())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_a_session_is_good_for_its_machine_alone(agent: Agent, applied: TestClient) -> None:
    job_id = submit(applied)
    agent.register()
    agent.ask("claim", {})
    other = Agent(agent.world, "m-2")
    other.register()
    for route in ("start", "finish"):
        answer = other.ask(f"jobs/{job_id}/{route}", {"epoch": 1, "outcome": "succeeded"})
        assert (answer.status_code, answer.json()["code"]) == (409, "stale-epoch"), route
    stolen = other.http.get(f"/v1/agent/jobs/{job_id}/source?epoch=1", headers=other.headers)
    assert stolen.status_code == 409
    other.token = agent.token.replace("m-1", "m-2")
    assert other.ask("beat", {}).status_code == 401


def test_people_and_machines_have_different_tokens(agent: Agent, applied: TestClient) -> None:
    agent.register()
    assert agent.http.get("/v1/jobs", headers=agent.headers).status_code == 401
    assert applied.post("/v1/agent/beat", json={}).status_code == 401


@pytest.mark.parametrize(
    "token", ["", "m-1", "m-1.", "m-1." + "0" * 64, ".", "m\xe4.x", "m-none.x"]
)
def test_a_made_up_session_is_none(agent: Agent, token: str) -> None:
    agent.register()
    headers = [(b"Authorization", b"Bearer " + token.encode("latin-1"))]
    answer = agent.http.post("/v1/agent/beat", json={}, headers=headers)
    assert answer.status_code == 401


def test_nothing_is_taken_from_whoever_is_unknown(world: World, agent: Agent) -> None:
    path = "/v1/agent/jobs/j-1/artifacts/x?epoch=1"
    answer = agent.http.put(path, content=b"x", headers={"Authorization": "Bearer m-1.x"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("claim", {"running": "x"}),
        ("claim", {"running": [1]}),
        ("claim", {"limit": "1"}),
        ("claim", {"limit": True}),
        ("claim", {"limit": 10**20}),
        ("claim", {"limit": float("nan")}),
        ("notice", {"kind": "spot", "seconds_left": 1e12}),
        ("notice", {"kind": "spot", "seconds_left": -1}),
        ("notice", {}),
        ("leave", {"why": None}),
        ("jobs/j-1/start", {}),
        ("jobs/j-1/start", {"epoch": None}),
        ("jobs/J!/start", {"epoch": 1}),
        ("jobs/j-1/finish", {"epoch": 1, "outcome": "exploded"}),
        ("jobs/j-1/finish", {"epoch": 1, "outcome": "failed", "reason": "a\x00"}),
        ("jobs/j-1/finish", {"epoch": 1, "outcome": "failed", "artifacts": [{"name": "x"}]}),
        (
            "jobs/j-1/finish",
            {
                "epoch": 1,
                "outcome": "failed",
                "artifacts": [{"name": "../x", "size_bytes": 1, "sha256": ""}],
            },
        ),
        ("jobs/j-1/artifacts/x", {"epoch": 1, "size_bytes": 1, "sha256": "A" * 64}),
        ("jobs/j-1/artifacts/x", {"epoch": 1, "size_bytes": 1, "sha256": "a" * 64 + "\n"}),
        ("jobs/j-1/artifacts/x", {"epoch": 1, "size_bytes": -1, "sha256": "a" * 64}),
        ("jobs/j-1/artifacts/a%5Cb", {"epoch": 1, "size_bytes": 1, "sha256": "a" * 64}),
        ("claim", []),
        ("claim", 1),
    ],
)
def test_a_message_that_makes_no_sense(agent: Agent, route: str, body: object) -> None:
    agent.register()
    content = json.dumps(body)
    headers = {**agent.headers, "Content-Type": "application/json"}
    answer = agent.http.post(f"/v1/agent/{route}", content=content, headers=headers)
    assert answer.status_code == 422, answer.text


def test_bytes_need_their_place(agent: Agent) -> None:
    agent.register()
    for query in ("", "?epoch=1", "?epoch=x&offset=0", "?epoch=-1&offset=0", "?epoch=1&offset=1e3"):
        answer = agent.http.post(
            f"/v1/agent/jobs/j-1/logs{query}", content=b"", headers=agent.headers
        )
        assert answer.status_code == 422, query
    for name in ("..%2Fx", "%2Fx", "a%5Cb", "a%00", "a//b"):
        path = f"/v1/agent/jobs/j-1/artifacts/{name}?epoch=1"
        assert agent.http.put(path, content=b"", headers=agent.headers).status_code == 422, name


@pytest.mark.parametrize("name", ["claim", "finish", "out/start", "out/beat"])
def test_a_file_may_be_called_what_a_message_is_called(
    agent: Agent, applied: TestClient, name: str
) -> None:
    job_id = submit(applied)
    agent.register()
    agent.ask("claim", {})
    path = f"/v1/agent/jobs/{job_id}/artifacts/{name}?epoch=1"
    assert agent.http.put(path, content=b"x", headers=agent.headers).status_code == 200
    asked = {"epoch": 1, "size_bytes": 1, "sha256": "0" * 64}
    assert agent.ask(f"jobs/{job_id}/artifacts/{name}", asked).json()["url"] == ""


def test_a_body_that_is_not_json(agent: Agent) -> None:
    agent.register()
    for content in (b"{", b"\xff", b'{"running": ["\\ud800"]}', b"[" * 100_000):
        answer = agent.http.post("/v1/agent/claim", content=content, headers=agent.headers)
        assert answer.status_code == 400, content[:10]
        assert "not JSON" in answer.json()["detail"]


def test_a_refusal_tells_where_but_not_what(agent: Agent) -> None:
    agent.register()
    wrong = agent.registration(proof={"token": ["hunter2"]})
    answer = agent.http.post("/v1/agent/register", json=wrong)
    assert answer.status_code == 422
    assert "Register.proof.token: Input should be a valid string" in answer.json()["detail"]
    assert "hunter2" not in answer.text


def test_an_older_or_newer_agent_is_understood(agent: Agent) -> None:
    body = agent.registration(from_the_future={"x": 1})
    del body["found"], body["protocol"], body["agent_version"]
    assert agent.http.post("/v1/agent/register", json=body).status_code == 200


def test_the_agent_itself_can_be_had_by_anybody(agent: Agent) -> None:
    file = agent.http.get("/v1/agent/bundle.pyz")
    assert file.content == b"one file"
    tag = f'"{hashlib.sha256(b"one file").hexdigest()}"'
    assert file.headers["ETag"] == tag
    again = agent.http.get("/v1/agent/bundle.pyz", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


# ---------------------------------------------------------------------- whatever they send

_ROUTES: dict[str, type] = {
    "nonce": wire.Hello,
    "register": wire.Register,
    "claim": wire.Claim,
    "beat": wire.Beat,
    "notice": wire.Notice,
    "leave": wire.Leave,
    "jobs/j-0001/start": wire.Started,
    "jobs/j-0001/finish": wire.Finished,
    "jobs/j-0001/artifacts/x": wire.Upload,
}
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def _messages(draw: Callable[..., Any]) -> tuple[str, Any]:
    route = draw(st.sampled_from(sorted(_ROUTES)))
    names = [each.name for each in fields(_ROUTES[route])]
    return route, draw(_json | st.fixed_dictionaries({}, optional=dict.fromkeys(names, _json)))


@pytest.fixture(scope="module")
def busy() -> Iterator[Agent]:
    """An agent with a leased job; it and the job may end in the course of the examples."""
    world = World(MemoryStore())
    with world.client() as client:
        client.put(
            "/v1/autoscalers/research",
            json={"document": DOCUMENT},
            headers={"If-None-Match": "*"},
        )
        submit(client)
        agent = Agent(world)
        agent.register()
        agent.ask("claim", {})
        with agent.http:
            yield agent


@given(sent=_messages())
@example(sent=("jobs/j-0001/finish", {"epoch": 1, "outcome": "returned", "exit_code": 2**63}))
@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_message_breaks_the_server(busy: Agent, sent: tuple[str, Any]) -> None:
    route, body = sent
    content = json.dumps(body)
    headers = {**busy.headers, "Content-Type": "application/json"}
    answer = busy.http.post(f"/v1/agent/{route}", content=content, headers=headers)
    assert answer.status_code < 500, answer.text
