"""The Python environment of a job, built once for each set of requirements and shared.

A built environment is named by what it was built from. The name is a link that appears only when
the environment is complete, so nobody sees half of one; the builder holds a lock, so nobody builds
twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List, Sequence, Tuple

from agent_bootstrap.source import Execute, Unprepared

LOCK_PAUSE_S = 0.2
"""Between two tries for the lock: a job that is cancelled stops waiting this soon."""

VERSION = re.compile(r"\d+(\.\d+){0,2}")

LOCAL = re.compile(r"(-r|-c|-e|--requirement|--constraint|--editable|\.|/|file:)|.*@\s*(file:|\.)")
"""A requirement that means files of the job."""

EDITABLE = re.compile(r"-e|--editable")


@dataclass(frozen=True)
class Recipe:
    """All that the content of an environment depends on."""

    python: str
    """Version wanted; the agent's own when it will do."""
    requirements: Tuple[str, ...]
    source: str = ""
    """Identity of the job's files, when a requirement means them."""

    @property
    def key(self) -> str:
        text = json.dumps([self.python, sorted(self.requirements), self.source])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def shareable(self) -> bool:
        """Not when it points into the directory of the one job."""
        return not any(EDITABLE.match(line) for line in self.requirements)


def recipe(python: str, requirements: Sequence[str], source: str) -> Recipe:
    """The recipe for a job; `source` identifies its files. Raises `Unprepared`."""
    if python and not VERSION.fullmatch(python):
        raise Unprepared("the Python version must be like 3.11, not %r" % python)
    lines = tuple(line.strip() for line in requirements if _says_something(line))
    own = platform.python_version()
    return Recipe(
        python=own if not python or (own + ".").startswith(python + ".") else python,
        requirements=lines,
        source=source if any(LOCAL.match(line) for line in lines) else "",
    )


def environment(
    wanted: Recipe, cache: Path, work: Path, execute: Execute, check: Callable[[], None]
) -> Path:
    """The directory of a complete environment: a cached one, else built now.

    `work` is the job's directory, which relative requirements refer to; `check` is called while
    waiting for another builder and may raise. Raises `Unprepared` when the build fails; nothing of
    it is left then."""
    cache.mkdir(parents=True, exist_ok=True)
    if not wanted.shareable:
        return _build(wanted, work.parent / "environment", work, execute)
    link = cache / wanted.key
    if _complete(link):
        return link.resolve()
    with _lock(cache / (wanted.key + ".lock"), check):
        if _complete(link):
            return link.resolve()
        _sweep(cache, wanted.key)
        room = cache / ("%s-%s" % (wanted.key, secrets.token_hex(4)))
        _build(wanted, room, work, execute)
        _publish(room, link)
        return room


def variables(directory: Path, path: str) -> List[Tuple[str, str]]:
    """What a process needs to use an environment, given the PATH it would have otherwise."""
    return [
        ("VIRTUAL_ENV", str(directory)),
        ("PATH", "%s%s%s" % (directory / "bin", os.pathsep, path)),
    ]


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _complete(link: Path) -> bool:
    # The interpreter is itself a link to the system's one, which an update may have taken away.
    return (link / "bin" / "python").exists()


@contextmanager
def _lock(path: Path, check: Callable[[], None]) -> Iterator[None]:
    """Held until the block ends, or this process does."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(LOCK_PAUSE_S)
        yield


def _sweep(cache: Path, key: str) -> None:
    """Remove what a builder that was killed left; whoever holds the lock may."""
    for room in cache.glob(key + "-*"):
        shutil.rmtree(str(room), ignore_errors=True)


def _publish(room: Path, link: Path) -> None:
    fresh = room.with_name(room.name + ".link")
    os.symlink(room.name, str(fresh))
    os.replace(str(fresh), str(link))


def _build(wanted: Recipe, room: Path, work: Path, execute: Execute) -> Path:
    lines = room.with_name(room.name + ".txt")
    try:
        lines.write_text("".join(line + "\n" for line in wanted.requirements), encoding="utf-8")
        for step in _steps(wanted, room, lines):
            if execute(step, work) != 0:
                raise Unprepared("the Python environment cannot be built")
    except BaseException:
        shutil.rmtree(str(room), ignore_errors=True)
        raise
    finally:
        if lines.exists():
            lines.unlink()
    return room


def _steps(wanted: Recipe, room: Path, lines: Path) -> List[List[str]]:
    python = str(room / "bin" / "python")
    uv = shutil.which("uv")
    own = wanted.python == platform.python_version()
    if uv:
        wish = sys.executable if own else wanted.python
        return [
            [uv, "venv", "--quiet", "--python=" + wish, str(room)],
            [uv, "pip", "install", "--python=" + python, "--requirement", str(lines)],
        ]
    pip = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
    return [
        [sys.executable if own else _interpreter(wanted.python), "-m", "venv", str(room)],
        [python, *pip, "install", "--requirement", str(lines)],
    ]


def _interpreter(version: str) -> str:
    minor = ".".join(version.split(".")[:2])
    found = shutil.which("python" + minor)
    if not found or version.count(".") > 1:
        raise Unprepared("Python %s is not on this machine, nor uv that could fetch it" % version)
    return found
