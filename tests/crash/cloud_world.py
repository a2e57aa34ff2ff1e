"""A cloud's fake with machines that do what their agents would, and a control plane in a process of
its own, which tests kill and start again over the same files.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from agent_bootstrap import wire
from agent_bootstrap.client import Client as AgentClient
from agent_bootstrap.client import Refusal, SessionOver, Unanswered
from agent_bootstrap.identity import proof
from control_plane.core.model import JobState, Market
from control_plane.core.policy import CloudPolicy
from control_plane.ports import BootSettings, LaunchRequest
from orchctl import Client
from orchctl.errors import Unavailable
from tests.clouds.world import CLOUDS, Azure, Gcp, VmMetadata
from tests.crash.cloud_server import Fate, Place, fork, provider, serve
from tests.fakes.holds import Holds
from tests.fakes.metadata import identity

NAME = "crash"
_QUIET_S = 0.3


class Agent:
    """What the agent of one machine says, a step at a time: it registers, and runs each job in no
    time. It never leaves by itself: its end is the control plane's work alone."""

    def __init__(self, cloud: str, server_url: str, machine_id: str, metadata: VmMetadata) -> None:
        self.metadata = metadata
        self._cloud = cloud
        self._server_url = server_url
        self._machine_id = machine_id
        self._client = AgentClient(server_url)

    def step(self) -> None:
        """Go on as far as the control plane lets it."""
        try:
            if not self._client.token:
                self._register()
            self._work()
        except (Unanswered, Refusal, SessionOver):
            return

    def _register(self) -> None:
        hello = wire.Hello(machine_id=self._machine_id)
        nonce = self._client.ask("nonce", hello, wire.Nonce).nonce
        message = wire.Register(
            machine_id=self._machine_id,
            instance=f"instance-{self._machine_id}",
            proof=proof(self._cloud, nonce, self._server_url, self.metadata.url),
            found=wire.Found(cpus=4, memory_mib=16_384, disk_gib=100),
        )
        self._client.token = self._client.ask("register", message, wire.Session).token

    def _work(self) -> None:
        claimed = self._client.ask("claim", wire.Claim(limit=4), wire.Claimed)
        for work in claimed.jobs:
            job = f"jobs/{work.job_id}"
            self._client.tell(f"{job}/start", wire.Started(epoch=work.epoch))
            done = wire.Finished(epoch=work.epoch, outcome="succeeded", exit_code=0)
            self._client.tell(f"{job}/finish", done)


class World:
    """One cloud, one state directory, and whatever runs over it."""

    def __init__(self, cloud: str, folder: Path) -> None:
        self.cloud = CLOUDS[cloud]()
        self.made: set[str] = set()
        """What the cloud called each machine there ever was."""
        self.process: BaseProcess | None = None
        self._folder = folder
        self._vouching = identity.Clouds()
        self._vouching.azure.write_roots(folder / "roots.pem")
        self._agents: dict[str, Agent] = {}
        self._clients: list[Client] = []
        self._port = _free_port()
        if isinstance(self.cloud, Azure):
            self.cloud.cloud.provision_s = self.cloud.cloud.delete_s = 0.3
        elif isinstance(self.cloud, Gcp):
            self.cloud.cloud.operation_s = 0.3

    @property
    def holds(self) -> Holds:
        """Which answer of the cloud waits."""
        fake = self.cloud.account if self.cloud.name == "aws" else self.cloud.cloud  # type: ignore[attr-defined]
        found: Holds = fake.holds
        return found

    def calls(self) -> int:
        """How many calls the cloud has had."""
        if self.cloud.name == "aws":
            return sum(self.cloud.account.called().values())  # type: ignore[attr-defined]
        calls = self.cloud.cloud.calls  # type: ignore[attr-defined]
        return len(calls) if isinstance(calls, list) else sum(calls.values())

    def place(self) -> Place:
        """Where another process finds all that."""
        server = self.cloud.server  # type: ignore[attr-defined]
        azure = isinstance(self.cloud, Azure)
        return Place(
            cloud=self.cloud.name,
            url=server.url,
            ca_file=server.ca_file if azure else "",
            token=server.cloud.token if azure else "",
            vouching_url=self._vouching.url,
            roots=self._folder / "roots.pem",
        )

    # -------------------------------------------------------------------- the control plane

    def start(self, fate: Fate | None = None) -> None:
        """Start it over the same files."""
        state = self._folder / "state"
        self.process = fork(serve, state, self._port, self.place(), fate or Fate())

    def kill(self) -> None:
        """SIGKILL, from outside."""
        assert self.process is not None
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL

    def wait_killed(self) -> None:
        """Wait until it has killed itself; anything else is a failure of the test."""
        process = self.process
        assert process is not None
        self.until(lambda: not process.is_alive(), "it kills itself")
        assert process.exitcode == -signal.SIGKILL

    def wait_paused(self) -> None:
        """Wait until it has come to where it is to pause, and nothing of it asks the cloud."""
        self.until((self._folder / "paused").exists, "it pauses")
        calls, since = self.calls(), time.monotonic()
        while time.monotonic() - since < _QUIET_S:
            time.sleep(0.02)
            if self.calls() != calls:
                calls, since = self.calls(), time.monotonic()

    def go_on(self) -> None:
        """Let it go on from there."""
        (self._folder / "go").touch()

    def recorded(self) -> bool:
        """Whether a launch was recorded by any process so far."""
        return (self._folder / "launch-recorded").exists()

    # ---------------------------------------------------------------------------- its users

    @property
    def client(self) -> Client:
        """A client of a control plane that answers."""
        token = self._folder / "state" / "admin-token"
        self.until(token.exists, "a token is there")
        client = Client(f"http://127.0.0.1:{self._port}", token.read_text())
        self._clients.append(client)
        self.until(lambda: _answers(client), "it answers")
        return client

    def submit(self) -> str:
        """Declare one pool of one machine at the cloud, and hand in a job."""
        document = {
            "apiVersion": "orchctl/v1",
            "kind": "Autoscaler",
            "name": NAME,
            "queues": {"default": {"pools": ["small"]}},
            "pools": {
                "small": {
                    "cpu": "4..8",
                    "market": "spot",
                    "clouds": {self.cloud.name: self.cloud.settings},
                    "machines": {"max": 1},
                }
            },
        }
        client = self.client
        client.autoscalers.apply(NAME, json.dumps(document), expected_version=0)
        return client.jobs.submit(command="true", queue="default").id

    def drain(self, job: str) -> None:
        """Let the job be done, then close its machine."""
        client = self.client
        self.until(lambda: client.jobs.get(job).ended, "the job ends")
        (machine,) = client.machines.list()
        client.machines.drain(machine.id)

    def ended(self) -> bool:
        """Whether no machine is open in the books."""
        return not list(self._clients[-1].machines.list())

    def request(self) -> LaunchRequest:
        """A launch of a machine, as the control plane would ask for it."""
        settings = self.cloud.settings
        options = {name: str(settings[name]) for name in settings if name != "regions"}
        region = settings["regions"][0]  # type: ignore[index]
        offers = provider(self.place(), self._vouching.now).offers(
            [CloudPolicy(provider=self.cloud.name, regions=(region,), options=options)]
        )
        offer = next(
            each
            for each in sorted(offers, key=lambda each: each.price_usd_hour)
            if each.region == region and each.capacity.cpus == 4 and each.market is Market.SPOT
        )
        now = self._vouching.now()
        return LaunchRequest(
            machine_id="m-1",
            key="m-1.1",
            offer=offer,
            disk_gib=100,
            deadline=now + timedelta(hours=1),
            boot=BootSettings(
                server_url="http://127.0.0.1:1",
                machine_id="m-1",
                fleet="orchctl-crash",
                pool="small",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=3600,
            ),
            cloud=CloudPolicy(provider=self.cloud.name, regions=(region,), options=options),
        )

    def until(self, condition: Callable[[], object], what: str, within_s: float = 40.0) -> None:
        """Let the cloud live until something is so."""
        deadline = time.monotonic() + within_s
        while not condition():
            log = self._folder / "server.log"
            said = log.read_text()[-3000:] if log.exists() else ""
            assert time.monotonic() < deadline, f"never happened: {what}\n{said}"
            self._live()
            time.sleep(0.03)

    def _live(self) -> None:
        """Machines boot and work; there is never more than one."""
        there = self.cloud.vms()
        assert len(there) <= 1, f"two machines at once: {there}"
        for machine_id, (_, cloud_id) in there.items():
            self.made.add(cloud_id)
            if machine_id not in self._agents:
                metadata = VmMetadata(machine_id)
                self.cloud.equip(metadata, cloud_id, self._vouching)
                url = f"http://127.0.0.1:{self._port}"
                self._agents[machine_id] = Agent(self.cloud.name, url, machine_id, metadata)
            self._agents[machine_id].step()
        if isinstance(self.cloud, Gcp):
            self._hurry(self.cloud)

    def _hurry(self, cloud: Gcp) -> None:
        """Deleting takes twenty seconds there: let them pass."""
        if any(vm.ending for vm in list(cloud.cloud.vms.values())):
            cloud.clock.advance(30)

    # ------------------------------------------------------------------------------ the end

    def one_machine_did_it(self, job: str) -> None:
        """The job is done once, by the one machine that was ever made; that ends, is paid for no
        longer, and leaves nothing."""
        client = self.client
        self.until(lambda: client.jobs.get(job).ended, "the job ends")
        outcomes = [attempt.outcome for attempt in client.jobs.attempts(job)]
        assert client.jobs.get(job).state is JobState.SUCCEEDED, outcomes
        assert outcomes.count("succeeded") == 1
        for machine in client.machines.list():
            client.machines.drain(machine.id)
        self.all_gone()

    def all_gone(self) -> None:
        """Nothing is left, at the cloud and in the books."""
        client = self.client
        self.until(lambda: not list(client.machines.list()), "the machine ends")
        self.until(lambda: not self.cloud.left(), f"nothing is left: {self.cloud.left()}")
        (machine,) = client.machines.list(all=True)
        assert machine.ended_at is not None
        assert len(self.made) == 1, self.made
        assert self.cloud.violations() == []

    def close(self) -> None:
        self.holds.release()
        if self.process is not None and self.process.is_alive():
            self.process.kill()
            self.process.join()
        for client in self._clients:
            client.close()
        for agent in self._agents.values():
            agent.metadata.close()
        self.cloud.close()
        self._vouching.close()


def _answers(client: Client) -> bool:
    try:
        client.health()
    except Unavailable:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
