"""Proves that each start-up text is exactly the reviewed one, is POSIX sh, quotes every value, and
fits where its cloud takes it.

After a wanted change: `python -m tests.unit.agent.test_user_data` writes the golden texts anew."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_bootstrap import cloud, user_data
from agent_bootstrap.user_data import aws_startup, azure_startup, gcp_startup, local_startup
from tests.requires import missing

GOLDEN = Path(__file__).parent / "golden"
TEXTS: dict[str, Callable[..., str]] = {
    "local": local_startup,
    "aws": aws_startup,
    "gcp": gcp_startup,
    "azure": azure_startup,
}
BYTES_MAX = {
    "aws": user_data.AWS_BYTES_MAX,
    "gcp": user_data.GCP_BYTES_MAX,
    "azure": user_data.AZURE_BYTES_MAX,
}
NAMES = ["server_url", "machine_id", "fleet", "pool", "agent_sha256"]
QUOTED = [
    *((text, name) for text in TEXTS for name in NAMES),
    ("local", "token_file"),
    *((text, "metadata_url") for text in BYTES_MAX),
    ("gcp", "api_url"),
    ("azure", "api_url"),
]

texts = pytest.mark.parametrize("name", list(TEXTS))


def text(name: str, **values: object) -> str:
    settings: dict[str, object] = {
        "server_url": "http://127.0.0.1:8080/",
        "machine_id": "m-7k2m9",
        "fleet": "research",
        "pool": "cpu",
        "agent_sha256": "ab" * 32,
        "boot_timeout_s": 600,
        "max_lifetime_s": 86400,
    }
    if name == "local":
        settings["token_file"] = "/var/lib/orchctl/m-7k2m9.1/token"
    return TEXTS[name](**(settings | values))


@texts
def test_the_text_is_the_reviewed_one(name: str) -> None:
    assert text(name) == (GOLDEN / f"{name}_startup.sh").read_text()


@texts
@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_shells_understand_it(shell: str, name: str) -> None:
    if shutil.which(shell) is None:
        missing(f"no {shell} here; install it with: sudo apt-get install --yes {shell}")
    command = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    subprocess.run(command, input=text(name).encode(), check=True)


@pytest.mark.parametrize(("name", "value"), QUOTED)
def test_no_value_becomes_a_command(tmp_path: Path, name: str, value: str) -> None:
    evil = "a'; touch pwned; echo \"$(touch pwned)`touch pwned`\n touch pwned #"
    # Only the lines that set variables: what follows would start a machine.
    settings, _, program = text(name, **{value: evil}).partition("\nsay()")
    if value == "api_url":
        # It stands in the one line that starts the program which deletes the machine.
        line = program[program.index('"$python" -I - ') : program.index("<<'END_OF_PROGRAM'")]
        settings = "python=: metadata=\n" + line + "\n"
    subprocess.run(["/bin/sh", "-eu"], input=settings.encode(), cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(BYTES_MAX))
def test_it_fits_with_the_longest_values(name: str) -> None:
    """Each quote of a value becomes five bytes, so this is as long as a text can get."""
    longest = "'" * 200
    made = text(name, server_url="http://" + longest, fleet=longest, pool=longest)
    assert len(made.encode()) <= BYTES_MAX[name]


@texts
def test_it_holds_no_secret_and_asks_for_none(name: str) -> None:
    assert "one-time" not in text(name)
    assert ("token_file" in text(name)) == (name == "local")


def test_the_timer_of_a_local_machine_is_armed_before_anything_else_is_done() -> None:
    made = text("local")
    assert made.index("\n) &\n") < made.index("fetch() {") < made.index("agent.pyz --server")


@pytest.mark.parametrize("name", list(BYTES_MAX))
def test_the_timers_of_a_machine_are_armed_before_anything_is_fetched(name: str) -> None:
    _, _, steps = text(name).partition("\nsettle() {")
    assert -1 < steps.index("\nlater late") < steps.index("\nlater end") < steps.index("\nrun\n")


@pytest.mark.parametrize("name", ["gcp", "azure"])
def test_the_program_that_deletes_the_machine_is_carried_whole(name: str) -> None:
    program = Path(str(cloud.__file__)).read_text()
    assert text(name).count(f"<<'END_OF_PROGRAM'\n{program}END_OF_PROGRAM\n") == 1
    assert "END_OF_PROGRAM" not in program
    assert "agent_bootstrap" not in program, "it runs where there is nothing of ours"


def test_a_machine_of_aws_ends_by_shutting_down() -> None:
    assert "END_OF_PROGRAM" not in text("aws")
    assert "shutdown -h now" in text("aws")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in TEXTS:
        (GOLDEN / f"{each}_startup.sh").write_text(text(each))
