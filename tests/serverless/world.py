"""A deployment that buys at fakes of the clouds, and machines that boot what it gave them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2

from tests.agent.vm import ProcessVm
from tests.clouds.world import Aws, Azure, Cloud, Gcp, VmMetadata
from tests.fakes.metadata import identity
from tests.serverless.deployed import NETWORK, TOKEN, Deployed
from tests.serverless.tokens import MICROSOFT, TENANT, Tokens, google_account

METADATA = ("http://169.254.169.254", "http://metadata.google.internal")
"""Where machines of clouds find their metadata service."""

AZURE_TOKEN = "a-token-of-azure"

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: {name}
queues:
  {name}: {{pools: [small]}}
pools:
  small:
    cpu: 4..8
    market: spot
    clouds: {{{cloud}: {settings}}}
    machines: {{max: 1}}
    idle_timeout: 10s
"""


class Country:
    """A deployment, the clouds that it buys at, and what goes on there."""

    def __init__(self, deployed: Deployed, directory: Path, clouds: Sequence[Cloud]) -> None:
        self.deployed = deployed
        self.directory = directory
        self.clouds = {cloud.name: cloud for cloud in clouds}
        self.vouching = identity.Clouds()
        self.tokens = Tokens(AZURE_TOKEN)
        self.metadata: dict[str, VmMetadata] = {}
        self.vms: dict[str, ProcessVm] = {}
        self._of: dict[str, tuple[Cloud, str]] = {}
        self._over: set[str] = set()
        deployed.tell(self._environment())

    def _environment(self) -> dict[str, str]:
        internet = {
            ".amazonaws.com": self.vouching.url,
            "www.googleapis.com": self.vouching.url,
            ".microsoft.com": self.vouching.url,
            "oauth2.googleapis.com": self.tokens.url,
            MICROSOFT: self.tokens.url,
        }
        told = {"PYTHONPATH": str(NETWORK)}
        for cloud in self.clouds.values():
            if isinstance(cloud, Aws):
                names = ("EC2", "SSM", "SCHEDULER", "SERVICE_QUOTAS")
                told |= {f"AWS_ENDPOINT_URL_{name}": cloud.server.url for name in names}
            if isinstance(cloud, Gcp):
                account = google_account(self.directory / "google.json")
                told["GOOGLE_APPLICATION_CREDENTIALS"] = str(account)
                internet |= {
                    "compute.googleapis.com": cloud.server.url,
                    "cloudbilling.googleapis.com": cloud.server.url,
                }
            if isinstance(cloud, Azure):
                cloud.cloud.token = AZURE_TOKEN
                roots = self.vouching.azure.write_roots(self.directory / "roots.pem")
                told |= {
                    "FAKE_ROOTS": str(roots),
                    "AZURE_TENANT_ID": TENANT,
                    "AZURE_CLIENT_ID": "22222222-2222-4333-8444-555555555555",
                    "AZURE_CLIENT_SECRET": "of-the-tests",
                }
                internet |= {
                    "management.azure.com": cloud.server.url,
                    "prices.azure.com": cloud.server.url,
                }
        return {**told, "FAKE_INTERNET": json.dumps(internet)}

    def apply(self, cloud: Cloud) -> str:
        """Declare an autoscaler that buys at one cloud, with a queue of its name."""
        file = self.directory / f"{cloud.name}.yaml"
        settings = json.dumps(cloud.settings)
        file.write_text(DOCUMENT.format(name=cloud.name, cloud=cloud.name, settings=settings))
        return self.deployed.orchctl("autoscaler", "apply", str(file), "--yes")

    def submit(self, queue: str, command: str) -> str:
        """Queue a command and return the job's id."""
        words = ("run", "--queue", queue, "--no-capture", "--cpu", "1", "-o", "name", command)
        return self.deployed.orchctl(*words).strip().rpartition("/")[2]

    def state(self, job_id: str) -> str:
        return str(self._json("job", "get", job_id)["state"])

    def machines(self) -> list[dict[str, Any]]:
        """All there ever were."""
        return list(self._json("machine", "list", "--all"))

    def cost(self, by: str) -> dict[str, Any]:
        """The bill so far."""
        return dict(self._json("cost", "--by", by, "--since", "1d"))

    def _json(self, *words: str) -> Any:
        return json.loads(self.deployed.orchctl(*words, "-o", "json"))

    def until(self, condition: Callable[[], object], what: str, within_s: float = 300) -> None:
        """Let the clouds live until something is so."""
        deadline = time.monotonic() + within_s
        asked = 0.0
        while True:
            self.live()
            if time.monotonic() - asked > 0.5:  # a command takes as long as ten looks at the clouds
                asked = time.monotonic()
                if condition():
                    return
            assert time.monotonic() < deadline, f"never happened: {what}\n{self.story()}"
            time.sleep(0.05)

    def live(self) -> None:
        """Boot what was launched, take away what has ended or is gone."""
        there: dict[str, tuple[Cloud, str, str]] = {}
        for cloud in self.clouds.values():
            for machine_id, (text, cloud_id) in cloud.vms().items():
                there[machine_id] = (cloud, text, cloud_id)
        for machine_id, (cloud, text, cloud_id) in there.items():
            if machine_id not in self.vms:
                self._of[machine_id] = (cloud, cloud_id)
                metadata = self.metadata[machine_id] = VmMetadata(machine_id)
                cloud.equip(metadata, cloud_id, self.vouching)
                for address in METADATA:
                    text = text.replace(address, metadata.url)
                self.vms[machine_id] = ProcessVm(self.directory / machine_id, text)
                self.vms[machine_id].boot()
        for machine_id, vm in self.vms.items():
            if machine_id in self._over:
                continue
            cloud, cloud_id = self._of[machine_id]
            if machine_id not in there:
                self._over.add(machine_id)
                vm.cut()
            elif vm.shut_down.exists() or self.metadata[machine_id].deleted:
                self._over.add(machine_id)
                cloud.ended(cloud_id)

    def story(self) -> str:
        """What happened, for whoever has to find out why it did not."""
        asked = httpx2.get(
            f"{self.deployed.url}/v1/events?limit=100",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=60,
        )
        events = [
            f"{each['at']} {each['subject']} {each['text']}" for each in asked.json()["items"]
        ]
        logs = [self.deployed.log(name)[-6000:] for name in ("api", "reconcile", "interruption")]
        return "\n".join([*logs, *(vm.log()[-2000:] for vm in self.vms.values()), *events])

    def close(self) -> None:
        for vm in self.vms.values():
            vm.cut()
        for metadata in self.metadata.values():
            metadata.close()
        for cloud in self.clouds.values():
            cloud.close()
        self.tokens.close()
        self.vouching.close()
