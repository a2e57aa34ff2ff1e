"""Containers of tests, as Debian's podman and runc run them."""

from __future__ import annotations

import subprocess

PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager=cgroupfs"]
"""Works as root also where cgroups are of two versions and limits are locked."""


def podman(*command: str) -> str:
    """What podman prints, to either side. Raises `RuntimeError`."""
    done = _run(*command)
    if done.returncode:
        raise RuntimeError(f"podman {command[0]}: {done.returncode}\n{done.stdout}")
    return done.stdout


def has_image(name: str) -> bool:
    """Whether podman keeps an image of this name."""
    return _run("image", "exists", name).returncode == 0


def remove(container: str) -> None:
    """End a container and take it away. podman refuses to remove one that ends by itself at the
    same moment: so it is killed, if it still runs, and waited for first."""
    _run("kill", container)
    podman("wait", "--condition=created", "--condition=exited", container)
    podman("rm", "--force", container)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODMAN, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
