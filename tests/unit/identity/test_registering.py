"""Proves registering with a proof: over HTTP, with real agents, one agent for one machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from agent_bootstrap import wire
from agent_bootstrap.bundle import bundle
from agent_bootstrap.identity import proof
from control_plane.agents import Agents, AgentSettings
from control_plane.api.changes import Changes
from control_plane.api.server import Server
from control_plane.core.model import JobState, Machine, MachineState
from control_plane.core.snapshot import Timing
from control_plane.errors import Denied, Unavailable
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.web import Web
from control_plane.stores.memory import MemoryStore
from tests.api.world import DOCUMENT, World, policy
from tests.fakes.metadata.identity import Clouds, Fault
from tests.fakes.metadata.server import Metadata
from tests.unit.identity.conftest import NOW, ON_AWS, ON_AZURE, ON_GCP

AGENT_PYTHON = os.environ.get("ORCHCTL_AGENT_PYTHON", sys.executable)
"""Set it to an older interpreter to see the agent run there."""
MACHINES = {
    name: replace(machine, protected=True)  # so that it does not leave, idle as it is
    for name, machine in (("aws", ON_AWS), ("gcp", ON_GCP), ("azure", ON_AZURE))
}
BUSY = Fault(503)


class Told:
    """A verifier that says what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.seen: list[tuple[str, str]] = []

    def check(self, machine: Machine, proof: Mapping[str, str], nonce: str) -> None:
        self.seen.append((machine.provider_id, nonce))
        if self.error is not None:
            raise self.error


class Plane:
    """A control plane whose machines of AWS prove themselves to `told`."""

    def __init__(self) -> None:
        self.told = Told()
        self.world = World(MemoryStore())
        self.world.agents = agents(self.world, {"aws": self.told})
        self.http = TestClient(self.world.app())
        self.machine = launched(self.world, ON_AWS)

    def nonce(self, machine_id: str = "") -> str:
        answer = self.http.post(
            "/v1/agent/nonce", json={"machine_id": machine_id or self.machine.id}
        )
        assert answer.status_code == 200
        return str(answer.json()["nonce"])

    def register(self, instance: str = "one", **proof: str) -> Any:
        made = {"kind": "aws", "nonce": self.nonce(), **proof}
        message = wire.Register(machine_id=self.machine.id, instance=instance, proof=made)
        return self.http.post("/v1/agent/register", json=wire.dump(message))

    def notes(self) -> list[str]:
        """What the log of events says of access."""
        events = self.world.store.event_list(limit=100)
        return [event.code for event in events.items if event.kind == "access"]


def agents(world: World, verifiers: Mapping[str, Any]) -> Agents:
    settings = AgentSettings(wait_s=0.0, poll_s=0.1)
    return Agents(world.service, world.blobs, world.tokens, Timing(), settings, verifiers)


def launched(world: World, machine: Machine, state: MachineState = MachineState.BOOTING) -> Machine:
    """This machine as the store has it."""
    found = world.store.machine_put(
        replace(machine, state=MachineState.PLANNED, provider_id=""), expected_version=0, fence=None
    )
    for step in (MachineState.LAUNCHING, state):
        if found.state is not step:
            moved = replace(found, state=step, provider_id=machine.provider_id, launched_at=NOW)
            found = world.store.machine_put(moved, expected_version=found.version, fence=None)
    return found


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane()
    with plane.http:
        yield plane


# -------------------------------------------------------------------------------------- nonces


def test_a_nonce_is_ten_digits_of_this_machine(plane: Plane) -> None:
    nonce = plane.nonce()
    assert len(nonce) == 10
    assert nonce.isdecimal()
    assert plane.nonce() == nonce
    assert plane.nonce("m-other") != nonce


def test_whether_there_is_a_machine_is_not_told(plane: Plane) -> None:
    there, not_there = (
        plane.http.post("/v1/agent/nonce", json={"machine_id": name})
        for name in (plane.machine.id, "m-none")
    )
    assert (there.status_code, set(there.json())) == (not_there.status_code, set(not_there.json()))


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "\u00e9", "a\nb"])
def test_a_name_that_is_none(plane: Plane, name: str) -> None:
    assert plane.http.post("/v1/agent/nonce", json={"machine_id": name}).status_code == 422


def test_a_nonce_is_good_for_its_window_and_the_next(plane: Plane) -> None:
    nonce = plane.nonce()
    tokens, machine = plane.world.tokens, plane.machine.id
    for seconds in (0, 299, 300, 599):
        tokens.check_nonce(machine, nonce, NOW + timedelta(seconds=seconds))
    for seconds in (600, 86_400, -601):
        with pytest.raises(Denied, match="too old"):
            tokens.check_nonce(machine, nonce, NOW + timedelta(seconds=seconds))


def test_a_clock_a_little_behind_takes_the_nonce_of_one_ahead(plane: Plane) -> None:
    """Two servers, at the turn of a window."""
    tokens = plane.world.tokens
    tokens.check_nonce("m-1", tokens.nonce("m-1", NOW), NOW - timedelta(seconds=1))


@pytest.mark.parametrize("nonce", ["", "0000000000", "x", "\u00b2" * 10])
def test_a_nonce_that_was_not_given(plane: Plane, nonce: str) -> None:
    with pytest.raises(Denied):
        plane.world.tokens.check_nonce(plane.machine.id, nonce, NOW)
    with pytest.raises(Denied):
        plane.world.tokens.check_nonce("m-other", plane.nonce(), NOW)


# --------------------------------------------------------------------------------- registering


def test_a_proof_gets_a_session(plane: Plane) -> None:
    answer = plane.register()
    assert answer.status_code == 200, answer.text
    assert plane.told.seen == [(ON_AWS.provider_id, plane.nonce())]
    assert plane.world.store.machine_get(plane.machine.id).state is MachineState.READY


def test_a_wrong_proof_gets_none_and_is_noted_once(plane: Plane) -> None:
    plane.told.error = Denied("the wrong one")
    for _ in range(3):
        answer = plane.register()
        assert (answer.status_code, answer.json()["detail"]) == (401, "the wrong one")
    assert plane.notes() == ["proof-refused"]
    assert plane.world.store.machine_get(plane.machine.id).state is MachineState.BOOTING


def test_what_is_noted_of_a_wrong_proof_is_short(plane: Plane) -> None:
    plane.told.error = Denied("x" * 10_000)
    plane.register()
    (event,) = plane.world.store.event_list(limit=100).items
    assert 200 < len(event.text) < 300


def test_a_wrong_nonce_is_refused_before_anybody_is_asked(plane: Plane) -> None:
    for nonce in ("0000000000", ""):
        assert plane.register(nonce=nonce).status_code == 401
    assert not plane.told.seen


def test_what_cannot_be_checked_now_comes_again(plane: Plane) -> None:
    plane.told.error = Unavailable("AWS does not answer")
    assert plane.register().status_code == 503
    plane.told.error = None
    assert plane.register().status_code == 200
    assert not plane.notes()


def test_the_first_agent_wins(plane: Plane) -> None:
    first = plane.register("one")
    assert plane.register("one").json()["token"] == first.json()["token"]
    second = plane.register("two")
    assert (second.status_code, plane.notes()) == (409, ["second-instance"])


def test_a_registered_machine_still_needs_its_proof(plane: Plane) -> None:
    """Who knows the name of the instance only gets no session."""
    plane.register("one")
    plane.told.error = Denied("the wrong one")
    assert plane.register("one").status_code == 401
    assert not plane.notes()


def test_only_one_of_many_at_once_gets_in(plane: Plane) -> None:
    statuses: list[int] = []

    def register(name: str) -> None:
        statuses.append(plane.register(name).status_code)

    threads = [threading.Thread(target=register, args=(f"agent-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7


def test_a_token_is_no_proof_of_a_machine_of_a_cloud(plane: Plane) -> None:
    """Not even the right one."""
    token = plane.world.tokens.one_time(plane.machine)
    message = wire.Register(
        machine_id=plane.machine.id, instance="one", proof={"kind": "one-time", "token": token}
    )
    answer = plane.http.post("/v1/agent/register", json=wire.dump(message))
    assert answer.status_code == 401
    plane.told.error = Denied("no")
    assert plane.register(token=token).status_code == 401


@pytest.mark.parametrize(
    ("state", "provider_id"),
    [(MachineState.LAUNCHING, ON_AWS.provider_id), (MachineState.BOOTING, "")],
)
def test_an_agent_faster_than_its_record_comes_again(
    plane: Plane, state: MachineState, provider_id: str
) -> None:
    early = replace(ON_AWS, id="m-early", provider_id=provider_id)
    plane.machine = launched(plane.world, early, state)
    assert plane.register().status_code == 503
    assert not plane.told.seen


def test_a_closed_record_takes_no_proof(plane: Plane) -> None:
    closed = replace(plane.machine, state=MachineState.TERMINATING, provider_id=ON_AWS.provider_id)
    plane.world.store.machine_put(closed, expected_version=closed.version, fence=None)
    assert plane.register().status_code == 410


# --------------------------------------------------------------------------------- real agents


class Running:
    """A server on a port, its clouds, and the metadata service of one machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clouds = Clouds()
        self.metadata = Metadata()
        self.clouds.equip(self.metadata)
        self.web = Web(self.clouds.transport())
        changes = Changes()
        self.world = World(MemoryStore(), changes=changes)
        self.world.agents = agents(self.world, {})
        self.server = Server(self.world.app(), changes, host="127.0.0.1", port=0)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until(lambda: self.server.started)
        self.url = f"http://127.0.0.1:{self.server.bound_port}"
        self.agents: list[subprocess.Popen[bytes]] = []
        self._trust()

    def _trust(self) -> None:
        """Know the clouds, now that the address is known that tokens must name."""
        roots = self.clouds.azure.write_roots(self.directory / "roots.pem")
        self.world.agents._verifiers = {
            "aws": AwsIdentity(self.web, _now),
            "gcp": GcpIdentity(self.web, _now, server_url=self.url),
            "azure": AzureIdentity(self.web, _now, roots),
        }

    def start(self, cloud: str) -> subprocess.Popen[bytes]:
        """An agent, as the start-up text of this cloud starts it."""
        here = self.directory / f"agent-{len(self.agents)}"
        here.mkdir()
        (here / "agent.pyz").write_bytes(bundle())
        options = {
            "server": self.url,
            "machine": MACHINES[cloud].id,
            "cloud": cloud,
            "metadata": self.metadata.url,
            "dir": here,
            "cache": here / "cache",
        }
        flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (here / "console.log").open("wb") as console:
            process = subprocess.Popen(
                [AGENT_PYTHON, "-I", str(here / "agent.pyz"), *flags],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.agents.append(process)
        return process

    def console(self) -> str:
        return (self.directory / f"agent-{len(self.agents) - 1}" / "console.log").read_text()

    def state(self, cloud: str) -> MachineState:
        return self.world.store.machine_get(MACHINES[cloud].id).state

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        self.server.should_exit = True
        self.thread.join()
        self.metadata.close()
        self.clouds.close()


def _now() -> datetime:
    return datetime.now(UTC)


def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait for something another thread or process does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


@pytest.mark.parametrize("cloud", list(MACHINES))
def test_an_agent_of_each_cloud_registers_and_works(running: Running, cloud: str) -> None:
    running.world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    launched(running.world, MACHINES[cloud])
    agent = running.start(cloud)
    until(lambda: running.state(cloud) is MachineState.READY or agent.poll() is not None)
    assert running.state(cloud) is MachineState.READY, running.console()
    job_id = running.world.submit()
    until(lambda: running.world.store.job_get(job_id).state is JobState.SUCCEEDED)
    second = running.start(cloud)
    assert second.wait(30) == 3
    assert "registered already" in running.console()


@pytest.mark.parametrize("cloud", list(MACHINES))
def test_an_agent_on_another_machine_is_turned_away(running: Running, cloud: str) -> None:
    elsewhere = {
        "aws": "i-0ffffffffffffffff",
        "gcp": "projects/acme-research/zones/us-central1-a/instances/another",
        "azure": ON_AZURE.provider_id + "-2",
    }
    identity = {**MACHINES[cloud].identity, "vm_id": "another"}
    there = replace(MACHINES[cloud], provider_id=elsewhere[cloud], identity=identity)
    launched(running.world, there)
    agent = running.start(cloud)
    assert agent.wait(30) in (3, 5), running.console()
    assert "another" in running.console()
    assert running.state(cloud) is MachineState.BOOTING


def test_an_agent_waits_for_its_proof_and_for_its_record(running: Running) -> None:
    """Credentials come to an instance some seconds after it boots, and so may its record."""
    role = "/latest/meta-data/iam/security-credentials/"
    running.metadata.faults[role] = [404, 404]
    running.clouds.faults[f"sts.{ON_AWS.offer.region}.amazonaws.com"] = BUSY
    launched(running.world, MACHINES["aws"])
    running.start("aws")
    until(lambda: "no proof of who" in running.console())
    until(lambda: len(running.clouds.seen) >= 2)
    running.clouds.faults.clear()
    until(lambda: running.state("aws") is MachineState.READY)


def test_the_proof_of_one_machine_is_no_good_for_another(running: Running) -> None:
    """Both of one fleet: what the one is asked for names the other nowhere."""
    launched(running.world, ON_GCP)
    other = launched(running.world, replace(ON_GCP, id="m-other", provider_id="p/x/z/y/i/name"))
    agents, tokens = running.world.agents, running.world.tokens
    nonce = tokens.nonce(ON_GCP.id, running.world.clock.now())
    made = proof("gcp", nonce, running.url, running.metadata.url)
    message = wire.Register(machine_id=other.id, instance="one", proof=made)
    with pytest.raises(Denied, match="nonce"):
        agents.register(message)
    agents.register(replace(message, machine_id=ON_GCP.id))
