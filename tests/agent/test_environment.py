"""Proves that a job's Python environment is built once, shared, and never left half-made.

No network: the only requirement is a directory that builds its own wheel."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import threading
from functools import cache
from pathlib import Path

import pytest

from agent_bootstrap import environment
from agent_bootstrap.source import Unprepared
from agent_bootstrap.wire import SourceRef
from tests.agent.conftest import Stage
from tests.requires import missing

BACKEND = """\
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "greeting-1-py3-none-any.whl"
    info = "greeting-1.dist-info/"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr("greeting.py", "WORD = 'hello'\\n")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: greeting\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""

PROJECT = """\
[project]
name = "greeting"
version = "1"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

SAY = "python -c 'import greeting, sys; print(greeting.WORD, sys.prefix)'"

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@cache
def package() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in (("pkg/pyproject.toml", PROJECT), ("pkg/backend.py", BACKEND)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def give(stage: Stage, command: str, *requirements: str) -> str:
    data = package()
    ref = SourceRef(kind="archive", sha256=hashlib.sha256(data).hexdigest())
    job_id = stage.give(command, source=ref, requirements=list(requirements))
    stage.plane.sources[job_id] = data
    return job_id


def offline(stage: Stage, tool: str) -> None:
    """Agents find this tool only, cut off from every index."""
    path = "/usr/bin:/bin"
    if tool == "uv":
        if UV is None:
            missing("no uv on the path; install it with: python -m pip install uv")
        path = f"{Path(UV).parent}:{path}"
    elif shutil.which("uv", path=path):
        missing("uv stands beside sh in /usr/bin and cannot be hidden from the agent")
    stage.environment = {"PATH": path, "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_an_environment_is_built_once_and_shared(stage: Stage, tool: str) -> None:
    offline(stage, tool)
    shared = stage.directory / "cache"
    first = give(stage, SAY, "./pkg")
    stage.start(cache=shared)
    built = stage.finish(first)
    assert built.finished.outcome == "succeeded", built.text
    word, prefix = built.text.splitlines()[-1].split()
    assert (word, Path(prefix).parent) == ("hello", shared)
    # Another machine of this host; a second build would have to print something.
    second = give(stage, SAY, "# the same", " ./pkg ")
    stage.start(cache=shared)
    assert stage.finish(second).text.splitlines()[1:] == [f"hello {prefix}"]
    assert len([each for each in shared.iterdir() if each.is_symlink()]) == 1


def test_a_failed_build_fails_the_job_with_the_tools_own_words(stage: Stage) -> None:
    offline(stage, "uv" if UV else "pip")
    shared = stage.directory / "cache"
    job_id = stage.give("true", requirements=["./nowhere"])
    stage.start(cache=shared)
    job = stage.finish(job_id)
    assert (job.finished.outcome, job.finished.exit_code, job.starts) == ("failed", -1, 0)
    assert "nowhere" in job.finished.reason
    assert [each.suffix for each in shared.iterdir()] == [".lock"]


# ------------------------------------------------------------------- without a real machine


class Tool:
    """Stands for uv or pip: counts, and makes what `python` a build is recognised by."""

    def __init__(self) -> None:
        self.builds = 0

    def __call__(self, command: list[str], directory: Path) -> int:
        if "venv" in command:
            self.builds += 1
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").touch()
        return 0


def ensure(shared: Path, tool: Tool, *lines: str, source: str = "") -> Path:
    wanted = environment.recipe("", lines, source)
    (shared.parent / "job" / "work").mkdir(parents=True, exist_ok=True)
    return environment.environment(
        wanted, shared, shared.parent / "job" / "work", tool, lambda: None
    )


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    tool = Tool()
    found: list[Path] = []
    builders = [
        threading.Thread(target=lambda: found.append(ensure(tmp_path / "cache", tool, "a==1")))
        for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert tool.builds == 1
    assert len(set(found)) == 1


def test_the_order_of_requirements_does_not_matter_their_text_does(tmp_path: Path) -> None:
    tool, shared = Tool(), tmp_path / "cache"
    assert ensure(shared, tool, "a==1", "b==2") == ensure(shared, tool, "b==2", "a==1")
    assert ensure(shared, tool, "a==1", "b==3") != ensure(shared, tool, "a==1", "b==2")
    assert tool.builds == 2


@pytest.mark.parametrize("line", ["./pkg", "-r more.txt", "pkg @ file:./pkg"])
def test_an_environment_from_a_jobs_own_files_is_not_given_to_others(
    tmp_path: Path, line: str
) -> None:
    tool, shared = Tool(), tmp_path / "cache"
    assert ensure(shared, tool, line, source="s1") != ensure(shared, tool, line, source="s2")
    assert ensure(shared, tool, "a==1", source="s1") == ensure(shared, tool, "a==1", source="s2")


def test_an_editable_requirement_is_never_shared(tmp_path: Path) -> None:
    room = ensure(tmp_path / "cache", Tool(), "-e ./pkg")
    assert room == tmp_path / "job" / "environment"


def test_what_a_killed_builder_left_is_swept_and_a_broken_environment_is_rebuilt(
    tmp_path: Path,
) -> None:
    tool, shared = Tool(), tmp_path / "cache"
    room = ensure(shared, tool, "a==1")
    (room / "bin" / "python").unlink()
    again = ensure(shared, tool, "a==1")
    assert again != room
    assert not room.exists()
    assert tool.builds == 2


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unprepared, match="must be like"):
        environment.recipe("--help", ["a"], "")
