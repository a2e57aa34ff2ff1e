"""All of it at once: a running control plane, a cloud's fake, and virtual machines that boot the
start-up text which the cloud was given, as processes of this computer.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import httpx2

from agent_bootstrap.user_data import cloud_startup
from control_plane.agents import AgentSettings
from control_plane.clouds import Clouds, cloud_sources
from control_plane.config.load import load_text
from control_plane.core.model import Job, JobSpec, Machine, Need, Offer
from control_plane.core.snapshot import Timing
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import PUSH_ACCOUNT, GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from control_plane.local import serving
from control_plane.loop import Pace
from control_plane.ports import LaunchRequest, Provider
from control_plane.service import Submission
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from providers.gcp.provider import GcpProvider
from tests.agent.vm import ProcessVm
from tests.fakes import notices
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect
from tests.fakes.azure.server import AzureServer
from tests.fakes.clock import RunningClock
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.server import Ec2Server
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.server import GcpServer
from tests.fakes.metadata import identity
from tests.fakes.metadata.server import ROLE, Metadata, Query, Reply

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {{pools: [small]}}
pools:
  small:
    cpu: 4..8
    market: spot
    clouds: {{{cloud}: {settings}}}
    machines: {{max: 1}}
    idle_timeout: 2s
"""
NOTICE_S = 25.0
METADATA_URL = "http://metadata.invalid"
"""Stands in start-up texts for the metadata service of whichever machine boots them."""


class VmMetadata(Metadata):
    """The metadata service of one virtual machine. What it deletes itself by is here too."""

    def __init__(self, machine_id: str) -> None:
        super().__init__()
        self.machine_id = machine_id
        self.path = ""
        """What the cloud's API calls it."""

    def schedule(self, kind: str, seconds: float | None, resources: tuple[str, ...] = ()) -> str:
        return super().schedule(kind, seconds, resources or (self.path.rpartition("/")[2],))

    def _api(self, method: str, path: str, query: Query, headers: Mapping[str, str]) -> Reply:
        if headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, "Unauthorized")
        if method != "DELETE" or path.lower() != self.path.lower():
            return Reply(403, "a machine may delete itself and nothing else")
        self.deleted.append(path)
        return Reply(202, "{}")


class Cloud(ABC):
    """A fake, and what its virtual machines are told of themselves."""

    name = ""
    settings: ClassVar[Mapping[str, object]]
    """What the document says of it."""

    @abstractmethod
    def provider(self, render: Callable[[LaunchRequest], str]) -> Provider:
        """The real adapter on the fake."""

    @abstractmethod
    def verifier(self, web: Web, server_url: str, directory: Path) -> Verifier:
        """The real verifier, which trusts the keys of the tests."""

    @abstractmethod
    def vms(self) -> Mapping[str, tuple[str, str]]:
        """Start-up text and cloud's id of each virtual machine there is, by machine id."""

    @abstractmethod
    def equip(self, metadata: VmMetadata, cloud_id: str, vouching: identity.Clouds) -> None:
        """Let the metadata service speak for this virtual machine."""

    @abstractmethod
    def ended(self, cloud_id: str) -> None:
        """It has ended from within, as its kind of cloud lets it."""

    @abstractmethod
    def interrupt(self, cloud_id: str) -> None:
        """The cloud takes it back."""

    @abstractmethod
    def take(self, cloud_id: str) -> None:
        """The time of its notice is over."""

    @abstractmethod
    def taken(self, cloud_id: str) -> Any:
        """What the cloud's own service delivers when it takes a machine."""

    def proof(self, vouching: identity.Clouds, address: str, token: str) -> str:
        """What its service proves itself by, at an address that was given this token."""
        del vouching, address
        return token

    @abstractmethod
    def left(self) -> list[str]:
        """All that exists and costs money."""

    @abstractmethod
    def violations(self) -> list[str]:
        """Requests and answers that the real cloud would not have made so."""

    @abstractmethod
    def close(self) -> None: ...


class Aws(Cloud):
    name = "aws"
    settings: ClassVar = {"regions": ["us-east-1"], "instance_profile": ROLE}

    def __init__(self) -> None:
        self.account = Account(start=None)
        self.account.start_s = self.account.stop_s = 0.2
        self.server = Ec2Server(self.account)

    def provider(self, render: Callable[[LaunchRequest], str]) -> Provider:
        settings = AwsSettings(
            endpoint_url=self.server.url, access_key="AKIAIOSFODNN7EXAMPLE", secret_key="secret"
        )
        return AwsProvider(settings, render=render, catalogue=self.catalogue, now=self.account.now)

    def catalogue(self) -> Sequence[Offer]:
        return load_offers(("aws",))

    def verifier(self, web: Web, server_url: str, directory: Path) -> Verifier:
        return AwsIdentity(web, _now)

    def vms(self) -> Mapping[str, tuple[str, str]]:
        return {
            vm["tags"]["orchctl-machine"]: (vm["user_data"], vm["id"])
            for vm in self.account.machines()
        }

    def equip(self, metadata: VmMetadata, cloud_id: str, vouching: identity.Clouds) -> None:
        role = f"/latest/meta-data/iam/security-credentials/{ROLE}"
        session = vouching.aws_credentials(cloud_id, account=self.account.id)
        metadata.documents["/latest/meta-data/instance-id"] = lambda _: cloud_id
        metadata.tags = self.account.metadata_tags(cloud_id)
        metadata.documents[role] = lambda _: json.dumps(session)

    def ended(self, cloud_id: str) -> None:
        self.account.shut_down(cloud_id)

    def interrupt(self, cloud_id: str) -> None:
        self.account.interrupt(cloud_id, notice_s=NOTICE_S)

    def take(self, cloud_id: str) -> None:
        self.account.interrupt(cloud_id)

    def taken(self, cloud_id: str) -> Any:
        return notices.aws_warning(cloud_id, _now())

    def ending(self, cloud_id: str) -> Any:
        """What EventBridge delivers when an instance has ended."""
        return notices.aws_state(cloud_id, "terminated", _now())

    def left(self) -> list[str]:
        return [each for found in self.account.resources().values() for each in found]

    def violations(self) -> list[str]:
        return self.account.violations

    def close(self) -> None:
        self.server.close()


class Gcp(Cloud):
    name = "gcp"
    project, email = "acme-ml", "agents@acme-ml.iam.gserviceaccount.com"
    settings: ClassVar = {"regions": ["us-central1"], "project": project, "service_account": email}

    def __init__(self) -> None:
        self.clock = RunningClock()
        self.cloud = GcpCloud(self.clock)
        self.server = GcpServer(self.cloud)
        self.server.__enter__()

    def provider(self, render: Callable[[LaunchRequest], str]) -> Provider:
        return GcpProvider(to(self.server.url), render=render, now=self.clock.now)

    def verifier(self, web: Web, server_url: str, directory: Path) -> Verifier:
        return GcpIdentity(web, _now, server_url=server_url)

    def vms(self) -> Mapping[str, tuple[str, str]]:
        return {
            vm["labels"]["orchctl-machine"]: (vm["startup"], vm["id"])
            for vm in self.cloud.machines()
        }

    def equip(self, metadata: VmMetadata, cloud_id: str, vouching: identity.Clouds) -> None:
        vm = self.cloud.vm(cloud_id)
        metadata.path = f"/compute/v1/{cloud_id}"

        def token(query: Query) -> str:
            claims = vouching.gcp_claims(
                query["audience"],
                project=vm.project,
                zone=vm.zone,
                name=vm.name,
                email=self.email,
            )
            claims["google"]["compute_engine"]["instance_id"] = str(vm.number)
            return vouching.gcp_token(claims)

        metadata.documents |= {
            "/computeMetadata/v1/project/project-id": lambda _: vm.project,
            "/computeMetadata/v1/instance/name": lambda _: vm.name,
            "/computeMetadata/v1/instance/zone": lambda _: f"projects/99/zones/{vm.zone}",
            "/computeMetadata/v1/instance/service-accounts/default/identity": token,
        }

    def ended(self, cloud_id: str) -> None:
        self.cloud.self_delete(cloud_id)
        self.clock.advance(30)

    def interrupt(self, cloud_id: str) -> None:
        self.cloud.preempt(cloud_id)

    def take(self, cloud_id: str) -> None:
        del cloud_id
        self.clock.advance(30)

    def taken(self, cloud_id: str) -> Any:
        return notices.gcp_preempted(cloud_id, _now())

    def proof(self, vouching: identity.Clouds, address: str, token: str) -> str:
        account = f"{PUSH_ACCOUNT}@{self.project}.iam.gserviceaccount.com"
        return vouching.gcp_token(vouching.gcp_push_claims(address, account))

    def left(self) -> list[str]:
        found = self.cloud.resources()
        return [*found["machines"], *found["disks"], *found["addresses"]]

    def violations(self) -> list[str]:
        return list(map(str, self.cloud.violations))

    def close(self) -> None:
        self.server.__exit__(None, None, None)


class Azure(Cloud):
    name = "azure"
    settings: ClassVar = {
        "regions": ["eastus"],
        "resource_group": "ml",
        "subscription": SUBSCRIPTION,
    }

    def __init__(self) -> None:
        self.cloud = AzureCloud(RunningClock())
        self.cloud.provision_s = 0
        self.cloud.add_group("ml", "eastus")
        self.server = AzureServer(self.cloud)
        self.clients = connect(self.server)

    def provider(self, render: Callable[[LaunchRequest], str]) -> Provider:
        return AzureProvider(self.clients, render=render, now=self.cloud.clock.now)

    def verifier(self, web: Web, server_url: str, directory: Path) -> Verifier:
        assert isinstance(web, VouchedWeb)
        roots = web.vouching.azure.write_roots(directory / "roots.pem")
        return AzureIdentity(web, _now, roots)

    def vms(self) -> Mapping[str, tuple[str, str]]:
        return {
            vm["tags"]["orchctl-machine"]: (vm["startup"], vm["id"]) for vm in self.cloud.told()
        }

    def equip(self, metadata: VmMetadata, cloud_id: str, vouching: identity.Clouds) -> None:
        vm = self.cloud.machine(cloud_id)
        metadata.path = cloud_id

        def attested(query: Query) -> str:
            content = vouching.azure_content(
                query["nonce"],
                vm_id=f"00000000-0000-4000-8000-{vm.number:012x}",
                subscription=SUBSCRIPTION,
            )
            return json.dumps(vouching.azure_document(content))

        metadata.documents |= {
            "/metadata/instance/compute/name": lambda _: vm.name,
            "/metadata/instance/compute/resourceId": lambda _: cloud_id,
            "/metadata/attested/document": attested,
        }

    def ended(self, cloud_id: str) -> None:
        self.cloud.delete_from_within(cloud_id)

    def interrupt(self, cloud_id: str) -> None:
        self.cloud.interrupt(cloud_id, notice_s=NOTICE_S)

    def take(self, cloud_id: str) -> None:
        self.cloud.interrupt(cloud_id, notice_s=0)

    def taken(self, cloud_id: str) -> Any:
        return notices.azure_preempted(cloud_id, _now())

    def ending(self, cloud_id: str) -> Any:
        """What Event Grid delivers when a machine is deleted."""
        return notices.azure_deleted(cloud_id, _now())

    def left(self) -> list[str]:
        return self.cloud.resources()

    def violations(self) -> list[str]:
        return list(map(str, self.cloud.invalid))

    def close(self) -> None:
        self.clients.close()
        self.server.stop()


CLOUDS: Mapping[str, type[Cloud]] = {"aws": Aws, "gcp": Gcp, "azure": Azure}


class VouchedWeb(Web):
    """Asks the fakes of STS, Google's keys and Azure's certificates."""

    def __init__(self, vouching: identity.Clouds) -> None:
        super().__init__(vouching.transport())
        self.vouching = vouching


class Land:
    """A control plane that buys at one cloud, and everything that happens there."""

    def __init__(self, cloud: Cloud, directory: Path, *, at_least_s: float = 0.5) -> None:
        """`at_least_s`: how often the loop looks while all is settled and nobody wakes it."""
        self.cloud = cloud
        self.directory = directory
        self.vouching = identity.Clouds()
        self.metadata: dict[str, VmMetadata] = {}
        self.vms: dict[str, ProcessVm] = {}
        self.ids: dict[str, str] = {}
        self._over: set[str] = set()
        self._serving = serving(
            directory / "state",
            timing=Timing(lease_s=15, terminate_repeat_s=1),
            pace=Pace(at_least_s=at_least_s, unsettled_s=0.2),
            # Waiting for work is not what these tests are about, and an idle machine ends after it.
            agents=AgentSettings(wait_s=1, poll_s=1),
            public_url="http://127.0.0.1:{port}",
            clouds=self._clouds,
        )
        self.server = self._serving.__enter__()
        self.plane = self.server.plane
        settings = json.dumps(cloud.settings)
        document = DOCUMENT.format(cloud=cloud.name, settings=settings)
        policy = load_text(document, name="research")
        self.plane.fleet.apply(document, policy, expected_version=None)

    def _clouds(self, public_url: str, now: Callable[[], datetime]) -> Clouds:
        web = VouchedWeb(self.vouching)
        return Clouds(
            providers={self.cloud.name: self.cloud.provider(self._render)},
            verifiers={self.cloud.name: self.cloud.verifier(web, public_url, self.directory)},
            sources=cloud_sources(web, now, public_url),
        )

    def _render(self, request: LaunchRequest) -> str:
        """The real start-up text, but for where the metadata service is."""
        boot = request.boot
        return cloud_startup(
            self.cloud.name,
            server_url=boot.server_url,
            machine_id=boot.machine_id,
            fleet=boot.fleet,
            pool=boot.pool,
            agent_sha256=boot.agent_sha256,
            boot_timeout_s=boot.boot_timeout_s,
            max_lifetime_s=boot.max_lifetime_s,
            metadata_url=METADATA_URL,
            api_url=METADATA_URL,
        )

    def submit(self, command: str, **spec: Any) -> Job:
        job, _ = self.plane.service.submit(
            Submission(spec=JobSpec(command=command, need=Need(cpus=1), **spec))
        )
        return job

    def job(self, job: Job) -> Job:
        return self.plane.store.job_get(job.id)

    def machines(self) -> list[Machine]:
        """All there ever were, the oldest first."""
        return list(self.plane.store.machine_list(open_only=False))

    def until(self, condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
        """Let the cloud live until something is so."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}\n{self.story()}"
            self.live()
            time.sleep(0.05)

    def live(self) -> None:
        """Boot what was launched, take away what has ended or is gone."""
        there = self.cloud.vms()
        for machine_id, (text, cloud_id) in there.items():
            if machine_id not in self.vms:
                self.ids[machine_id] = cloud_id
                metadata = self.metadata[machine_id] = VmMetadata(machine_id)
                self.cloud.equip(metadata, cloud_id, self.vouching)
                text = text.replace(METADATA_URL, metadata.url)
                self.vms[machine_id] = ProcessVm(self.directory / machine_id, text)
                self.vms[machine_id].boot()
        for machine_id, vm in self.vms.items():
            if machine_id in self._over:
                continue
            if machine_id not in there:
                self._over.add(machine_id)
                vm.cut()
            elif vm.shut_down.exists() or self.metadata[machine_id].deleted:
                self._over.add(machine_id)
                self.cloud.ended(self.ids[machine_id])

    def interrupt(self, machine_id: str) -> None:
        """The cloud announces that it takes this machine, and takes it."""
        self.metadata[machine_id].preempt(NOTICE_S)
        self.cloud.interrupt(self.ids[machine_id])

    def tell(self, delivery: Any) -> list[str]:
        """The cloud's own service delivers this; which of our machines it was about."""
        address = f"{self.server.url}/v1/notices/{self.cloud.name}"
        proof = self.cloud.proof(self.vouching, address, self.plane.notices_token)
        answer = httpx2.post(address, json=delivery, headers={"Authorization": f"Bearer {proof}"})
        assert answer.status_code == 200, answer.text
        heard: list[str] = answer.json()["machines"]
        return heard

    def story(self) -> str:
        """What happened, for whoever has to find out why it did not."""
        events = self.plane.store.event_list(limit=60).items
        lines = [f"{each.at:%H:%M:%S} {each.subject} {each.text}" for each in reversed(events)]
        return "\n".join([*lines, *(vm.log() for vm in self.vms.values())])

    def close(self) -> None:
        for vm in self.vms.values():
            vm.cut()
        self._serving.__exit__(None, None, None)
        for metadata in self.metadata.values():
            metadata.close()
        self.cloud.close()
        self.vouching.close()


def _now() -> datetime:
    return datetime.now(UTC)
