"""Stand-ins for a fresh machine of a cloud, which boots a start-up text.

`ProcessVm` is a process tree of this host: no systemd, nothing outside its directory, and to shut
down only leaves a mark. `ContainerVm` is a Debian with systemd that may do all that the text wants.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

from agent_bootstrap.bundle import bundle_sha256
from agent_bootstrap.processes import kill_marked
from agent_bootstrap.user_data import aws_startup, azure_startup, gcp_startup
from tests.agent import image
from tests.agent.conftest import AGENT_PYTHON
from tests.agent.podman import podman, remove
from tests.fakes.metadata.server import Metadata

STARTUPS: dict[str, Callable[..., str]] = {
    "aws": aws_startup,
    "gcp": gcp_startup,
    "azure": azure_startup,
}

MARK = "ORCHCTL_HOME"
"""A variable that everything of a machine inherits, its jobs too."""

_CONTAINER = (
    "--systemd=always",
    "--tty",  # systemd writes its console there
    "--network=host",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
)


def startup(cloud: str, server_url: str, metadata: Metadata, **settings: object) -> str:
    """The real text for a machine of this cloud, whose metadata and API are the fake's."""
    values = {
        "server_url": server_url,
        # Jobs of two machines of one name would be taken for each other's.
        "machine_id": "m-" + uuid.uuid4().hex[:8],
        "fleet": "it's $(touch pwned)",
        "pool": "`touch pwned`",
        "agent_sha256": bundle_sha256(),
        "boot_timeout_s": 60,
        "max_lifetime_s": 600,
        "metadata_url": metadata.url,
        "api_url": metadata.url,
    }
    return STARTUPS[cloud](**(values | settings))


class ProcessVm:
    """A machine's directory and its first process; `boot` may be called again, as at a reboot."""

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        self.place = directory / "var" / "lib" / "orchctl"
        self.shut_down = directory / "shut-down"
        self.console = directory / "console.log"
        directory.mkdir()
        for original, ours in (
            ("/run/systemd/system", f"{directory}/no-systemd"),
            ("place=/var/lib/orchctl\n", f"place={self.place}\n"),
            ("shutdown -h now || poweroff -f\n", f": >{self.shut_down}\n"),
        ):
            assert original in text, "the text would reach this host"
            text = text.replace(original, ours)
        self._text = directory / "part-001"
        self._text.write_text(text)
        self.boots: list[subprocess.Popen[bytes]] = []

    def boot(self) -> subprocess.Popen[bytes]:
        with self.console.open("ab") as console:
            process = subprocess.Popen(
                ["/bin/sh", str(self._text)],
                cwd=self.directory,
                env={
                    "PATH": f"{Path(AGENT_PYTHON).parent}:{os.environ['PATH']}",
                    MARK: str(self.directory),
                },
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.boots.append(process)
        return process

    def again(self, word: str) -> None:
        """What a timer of the text does when it is due."""
        subprocess.run(["/bin/sh", str(self.place / "startup.sh"), word], check=True)

    def log(self) -> str:
        return self.console.read_text()

    def cut(self) -> None:
        """The power fails."""
        kill_marked({MARK: str(self.directory)})
        for process in self.boots:
            process.wait()


class ContainerVm:
    """A container that boots: the text comes by cloud-init at the first boot, as on AWS and Azure,
    or at every boot, as on Google Cloud."""

    def __init__(self) -> None:
        self.name = f"orchctl-test-{uuid.uuid4().hex[:8]}"
        podman("create", f"--name={self.name}", *_CONTAINER, image.image(), "/sbin/init")

    def receive(self, cloud: str, text: str, directory: Path) -> None:
        """Take the text in the way of this cloud."""
        seed = directory / "cloud" / "seed" / "nocloud"
        seed.mkdir(parents=True)
        (seed / "meta-data").write_text("instance-id: vm-1\n")
        (seed / "user-data").write_text(text)
        if cloud == "gcp":
            podman("cp", str(seed / "user-data"), f"{self.name}:/startup-script")
        else:
            podman("cp", str(directory / "cloud"), f"{self.name}:/var/lib")

    def boot(self) -> None:
        podman("start", self.name)

    def run(self, command: str) -> str:
        """What a command inside prints."""
        return podman("exec", self.name, "/bin/sh", "-c", command)

    def off(self) -> bool:
        """Whether it has shut down."""
        return podman("inspect", "--format={{.State.Status}}", self.name).strip() == "exited"

    def press_power(self) -> None:
        """What a cloud does as it takes a machine: ask its system to stop; then wait for it."""
        podman("stop", "--time=30", self.name)

    def cut(self) -> None:
        """The power fails."""
        podman("kill", self.name)

    def log(self) -> str:
        return podman("logs", self.name)

    def close(self) -> None:
        remove(self.name)
