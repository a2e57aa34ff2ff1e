"""Proves that the start-up text is exactly the reviewed one, is POSIX sh, and quotes every value.

After a wanted change: `python -m tests.unit.agent.test_user_data` writes the golden text anew."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agent_bootstrap.user_data import local_startup
from tests.requires import missing

GOLDEN = Path(__file__).parent / "golden" / "local_startup.sh"


def text(**values: object) -> str:
    settings = {
        "server_url": "http://127.0.0.1:8080/",
        "machine_id": "m-7k2m9",
        "fleet": "research",
        "pool": "cpu",
        "agent_sha256": "ab" * 32,
        "boot_timeout_s": 600,
        "max_lifetime_s": 86400,
        "token_file": "/var/lib/orchctl/m-7k2m9.1/token",
    }
    return local_startup(**(settings | values))  # type: ignore[arg-type]


def test_the_text_is_the_reviewed_one() -> None:
    assert text() == GOLDEN.read_text()


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_shells_understand_it(shell: str) -> None:
    if shutil.which(shell) is None:
        missing(f"no {shell} here; install it with: sudo apt-get install --yes {shell}")
    command = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    subprocess.run(command, input=text().encode(), check=True)


@pytest.mark.parametrize("name", ["server_url", "machine_id", "fleet", "pool", "token_file"])
def test_no_value_becomes_a_command(tmp_path: Path, name: str) -> None:
    evil = "a'; touch pwned; echo \"$(touch pwned)`touch pwned`\n touch pwned #"
    # Only the lines that set variables: what follows would start a machine.
    settings = text(**{name: evil}).partition("\nsay()")[0]
    subprocess.run(["/bin/sh", "-eu"], input=settings.encode(), cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_timer_is_armed_before_anything_else_is_done() -> None:
    assert text().index("timer=$!") < text().index("fetch() {") < text().index("agent.pyz --server")


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(text())
