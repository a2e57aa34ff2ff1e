"""A real server on a port: long polls are woken by what happens, and end with it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.api.changes import Changes
from control_plane.api.server import Server
from control_plane.stores.sqlite import SqliteStore
from tests.api.world import DOCUMENT, TOKEN, World

WAIT_S = 30.0
"""How long the polls of these tests would wait by themselves; none may come near it."""
SOON_S = 10.0


class Running:
    """A server in a thread."""

    def __init__(self, store: SqliteStore) -> None:
        self.changes = Changes()
        self.world = World(store, wait_s=WAIT_S, changes=self.changes)
        self.server = Server(self.world.app(), self.changes, host="127.0.0.1", port=0)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.bound_port, timeout=SOON_S)

    def ask(
        self, method: str, path: str, body: object = None, token: str = TOKEN, **more: str
    ) -> Any:
        connection = self.connect()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **more}
        connection.request(method, path, json.dumps(body or {}), headers)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def submit(self) -> str:
        return str(self.ask("POST", "/v1/jobs", {"command": "true"})["id"])


def until(condition: Any) -> None:
    """Wait for something another thread does."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


class Asking(threading.Thread):
    """A request that is on its way; starting it waits until somebody waits for changes."""

    def __init__(self, running: Running, *request: Any, **more: Any) -> None:
        super().__init__()
        self.running, self.request, self.more = running, request, more
        self.answer: Any = None

    def run(self) -> None:
        self.answer = self.running.ask(*self.request, **self.more)

    def result(self) -> Any:
        self.join(SOON_S)
        assert not self.is_alive()
        return self.answer


@pytest.fixture
def running(sqlite: SqliteStore) -> Iterator[Running]:
    """A server with the autoscaler `research`."""
    running = Running(sqlite)
    running.ask("PUT", "/v1/autoscalers/research", {"document": DOCUMENT}, **{"If-None-Match": "*"})
    yield running
    running.stop()


def waiting(running: Running, count: int) -> None:
    until(lambda: len(running.changes._waiters) == count)


def test_a_claim_is_woken_by_a_job(running: Running) -> None:
    token = running.world.registered()
    claim = Asking(running, "POST", "/v1/agent/claim", token=token)
    claim.start()
    waiting(running, 1)
    job_id = running.submit()
    (work,) = claim.result()["jobs"]
    assert work["job_id"] == job_id


def test_of_many_claims_each_job_wakes_one(running: Running) -> None:
    tokens = [running.world.registered(f"m-{number}") for number in range(5)]
    claims = [Asking(running, "POST", "/v1/agent/claim", token=token) for token in tokens]
    for claim in claims:
        claim.start()
    waiting(running, 5)
    ids = [running.submit() for _ in tokens]
    got = [work["job_id"] for claim in claims for work in claim.result()["jobs"]]
    assert sorted(got) == sorted(ids)


def test_a_claim_hears_of_a_drain(running: Running) -> None:
    token = running.world.registered()
    claim = Asking(running, "POST", "/v1/agent/claim", token=token)
    claim.start()
    waiting(running, 1)
    running.ask("POST", "/v1/machines/m-1/drain")
    answer = claim.result()
    assert (answer["jobs"], answer["drain"]) == ([], True)


def test_a_wait_ends_with_its_job(running: Running) -> None:
    job_id = running.submit()
    wait = Asking(running, "GET", f"/v1/jobs/{job_id}/wait?timeout_s={WAIT_S}")
    wait.start()
    waiting(running, 1)
    running.submit()  # not ours: it sleeps on
    until(lambda: running.changes.generation and len(running.changes._waiters) == 1)
    assert wait.is_alive()
    running.ask("POST", f"/v1/jobs/{job_id}/cancel")
    assert wait.result()["state"] == "cancelled"


def test_a_client_that_hangs_up_is_not_waited_for(running: Running) -> None:
    token = running.world.registered()
    connection = running.connect()
    connection.request("POST", "/v1/agent/claim", "{}", {"Authorization": f"Bearer {token}"})
    waiting(running, 1)
    connection.close()
    waiting(running, 0)
    job_id = running.submit()
    assert running.ask("GET", f"/v1/jobs/{job_id}")["state"] == "queued"


def test_a_server_that_goes_down_sends_everybody_home(sqlite: SqliteStore) -> None:
    running = Running(sqlite)
    running.ask("PUT", "/v1/autoscalers/research", {"document": DOCUMENT}, **{"If-None-Match": "*"})
    token = running.world.registered()
    claim = Asking(running, "POST", "/v1/agent/claim", token=token)
    claim.start()
    waiting(running, 1)
    begun = time.monotonic()
    running.stop()
    assert claim.result()["jobs"] == []
    assert time.monotonic() - begun < SOON_S / 2


def test_a_connection_is_kept_between_two_beats(running: Running) -> None:
    connection = running.connect()
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/v1/health")
        assert connection.getresponse().read()
        sockets.add(id(connection.sock))
    assert len(sockets) == 1
    connection.request("HEAD", "/v1/health")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/v1/health")
    assert connection.getresponse().read()
    connection.close()
