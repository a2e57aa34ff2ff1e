"""A plain Debian with systemd and cloud-init as an image of podman: what boots in a fresh machine.

`make machine-image` makes it from the host's own package mirror, in a minute or two; podman keeps
it. Tests without it skip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.agent.podman import PODMAN, has_image
from tests.requires import missing

_TOOLS = ("podman", "runc", "debootstrap")
_INSTALL = f"install them with: sudo apt-get install --yes {' '.join(_TOOLS)}"
_PACKAGES = "python3,ca-certificates,systemd,systemd-sysv,dbus,cloud-init,python3-cffi-backend"
_FILES = {
    # cloud-init as on AWS and Azure, without what a container has no use for.
    "etc/cloud/cloud.cfg.d/99-test.cfg": """\
datasource_list: [NoCloud, None]
network: {config: disabled}
cloud_init_modules: []
cloud_config_modules: []
cloud_final_modules: [scripts-user]
""",
    # What Google's guest agent does at every boot.
    "etc/systemd/system/google-startup-scripts.service": """\
[Unit]
After=network-online.target
ConditionPathExists=/startup-script

[Service]
Type=oneshot
ExecStart=/bin/sh /startup-script
KillMode=process

[Install]
WantedBy=multi-user.target
""",
}

_RECIPE = hashlib.sha256(repr((_PACKAGES, _FILES)).encode()).hexdigest()[:12]
NAME = f"localhost/orchctl-test-machine:{_RECIPE}"


def image() -> str:
    """The image's name, or a skip."""
    if shutil.which("podman") is None or os.geteuid() != 0:
        missing(f"machines in containers need root and {', '.join(_TOOLS)}; {_INSTALL}")
    if not has_image(NAME):
        missing("no image of a machine here; make it with: make machine-image")
    return NAME


def make() -> None:
    """Make the image, unless it is there, and see that it starts. Raises `CalledProcessError`."""
    if not has_image(NAME):
        _make()
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    subprocess.run([*PODMAN, "run", "--rm", "--network=host", *limits, NAME, "true"], check=True)


def _make() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm"]
        subprocess.run([*command, str(root), *_mirror()], check=True)
        for path, text in _FILES.items():
            (root / path).write_text(text)
        wanted = root / "etc/systemd/system/multi-user.target.wants/google-startup-scripts.service"
        wanted.symlink_to("../google-startup-scripts.service")
        packed = subprocess.Popen(["tar", "-C", directory, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run([*PODMAN, "import", "-", NAME], stdin=packed.stdout, check=True)
        assert packed.wait() == 0


def _mirror() -> list[str]:
    """Where this host's own packages come from; nothing = where debootstrap looks by itself."""
    for source in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        for line in source.read_text().splitlines():
            if line.startswith("URIs:"):
                return [line.split()[1]]
    return []


if __name__ == "__main__":
    make()
