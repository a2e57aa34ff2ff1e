"""The functions as a container image, on a base that stands for AWS's own: the Debian of
`tests/agent/image.py` with the runtime client that AWS publishes for other bases."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.agent import image as machine
from tests.agent.podman import has_image, podman, remove
from tests.requires import ROOT

CLIENT = "awslambdaric==4.2.2"
USER = "993:990"
"""As Lambda runs functions: nobody who owns anything of the image."""

_BASE = """\
FROM {machine}
COPY client /usr/local/lib/python3.11/dist-packages
ENTRYPOINT ["/usr/bin/python3", "-m", "awslambdaric"]
"""


def base(folder: Path) -> str:
    """The name of the base, which podman keeps; or a skip. Works in an empty folder."""
    recipe = _BASE.format(machine=machine.image())
    tag = hashlib.sha256((recipe + CLIENT).encode()).hexdigest()[:12]
    name = f"localhost/orchctl-test-lambda:{tag}"
    if has_image(name):
        return name
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--target", folder / "client", CLIENT], check=True
    )
    (folder / "Containerfile").write_text(recipe)
    podman("build", f"--tag={name}", str(folder))
    return name


class Image:
    """All functions, as `infra/lambda/Containerfile` puts them together from a directory."""

    def __init__(self, task: Path, base: str) -> None:
        self.name = f"localhost/orchctl-test-functions:{uuid.uuid4().hex[:12]}"
        recipe = ROOT / "infra" / "lambda" / "Containerfile"
        podman(
            "build",
            "--layers=false",
            f"--build-arg=BASE={base}",
            f"--file={recipe}",
            f"--tag={self.name}",
            str(task),
        )

    def start(self, environment: Mapping[str, str], *command: str) -> Container:
        """A function of it; without a command the one that the image names."""
        return Container(self.name, environment, command)

    def remove(self) -> None:
        podman("rmi", "--force", self.name)


class Container:
    """A function as Lambda runs it: nothing can be written but `/tmp`."""

    def __init__(self, image: str, environment: Mapping[str, str], command: tuple[str, ...]):
        self._name = f"orchctl-test-{uuid.uuid4().hex[:8]}"
        podman(
            "run",
            "--detach",
            f"--name={self._name}",
            "--network=host",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            f"--user={USER}",
            "--read-only",
            "--read-only-tmpfs=false",
            "--tmpfs=/tmp",
            *(f"--env={name}={value}" for name, value in environment.items()),
            image,
            *command,
        )

    def run(self, command: str) -> str:
        """What a command of the shell prints inside."""
        return podman("exec", self._name, "/bin/sh", "-c", command)

    def log(self) -> str:
        return podman("logs", self._name)

    def remove(self) -> None:
        remove(self._name)
