"""`orchctl doctor`: everything that commonly stands in the way, each with its fix."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl import contexts, version
from orchctl.errors import OrchctlError
from orchctl.output import Column
from orchctl.session import Session, command, server_errors

if TYPE_CHECKING:
    import httpx2

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PYTHON_MIN = (3, 11)
SKEW_MAX_S = 30
"""Tokens of machines and CI systems are valid for minutes; half a minute is still harmless."""

COLUMNS = (
    Column(heading="", cell=lambda row: row["state"]),
    Column(heading="CHECK", cell=lambda row: row["check"]),
    Column(heading="FOUND", cell=lambda row: row["found"]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: str
    """`ok`, `failed`, or `skipped` where something before it failed."""
    found: str
    fix: str = ""


@command(app, "doctor", example="orchctl doctor")
def doctor(
    session: Session,
    state_dir: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="State directory of `orchctl up`.")
    ] = Path(".orchctl"),
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Look at the clouds of this document too, with the credentials of this computer.",
        ),
    ] = None,
) -> None:
    """Look for what commonly stands in the way. Exits with 1 when something failed."""
    findings = [*_here(state_dir), *_there(session)]
    if config is not None:
        with server_errors():
            findings += _clouds(config)
    rows = [
        {"check": each.check, "state": each.state, "found": each.found, "fix": each.fix}
        for each in findings
    ]
    session.rows(rows, COLUMNS, key="check")
    failed = [each for each in findings if each.state == "failed"]
    for each in failed:
        session.say(f"{each.check}: {each.found}\n  fix: {each.fix}")
    if failed:
        raise typer.Exit(1)


# ---------------------------------------------------------------------------------- the clouds


def _clouds(config: Path) -> Iterator[Finding]:
    """What each cloud of a document says of itself. Nothing is launched."""
    from control_plane.clouds import cloud_providers
    from control_plane.config.load import load_text, read_text
    from control_plane.ports import Examiner
    from control_plane.system import SystemClock

    policy = load_text(read_text(config), name=str(config))
    providers = cloud_providers(SystemClock().now)
    for name in sorted({cloud.provider for cloud in policy.clouds}):
        provider = providers.get(name)
        if isinstance(provider, Examiner):
            clouds = [cloud for cloud in policy.clouds if cloud.provider == name]
            sold = provider.offers([])
            wanted = [
                each for each in sold if any(pool.accepts(each) for pool in policy.pools.values())
            ]
            for each in provider.examine(clouds, wanted):
                yield _finding(f"{name} {each.name}", each.ok, each.detail, each.fix)


# -------------------------------------------------------------------------------- this machine


def _here(state_dir: Path) -> Iterator[Finding]:
    yield _python()
    yield _program("git", ("git",), "install git: it tells which files belong to a job")
    yield _program(
        "installer", ("uv", "pip", "pip3"), "install uv: it builds the environments of jobs"
    )
    yield _rights()
    yield _writable(state_dir)


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    fix = "install Python {}.{} or newer".format(*PYTHON_MIN)
    return _finding("python", sys.version_info[:2] >= PYTHON_MIN, version, fix)


def _program(check: str, names: tuple[str, ...], fix: str) -> Finding:
    path = next(filter(None, map(shutil.which, names)), None)
    return _finding(check, path is not None, path or "not found", fix)


def _rights() -> Finding:
    path = contexts.path()
    if not path.exists():
        return _finding("contexts file", True, "none yet", "")
    mode = path.stat().st_mode & 0o777
    return _finding("contexts file", mode & 0o077 == 0, f"mode {mode:o}", f"chmod 600 {path}")


def _writable(directory: Path) -> Finding:
    existing = next(
        each for each in (directory.absolute(), *directory.absolute().parents) if each.exists()
    )
    allowed = os.access(existing, os.W_OK)
    fix = f"make {existing} writable, or pass another --state-dir"
    return _finding("state directory", allowed, str(directory), fix)


# ----------------------------------------------------------------------------------- the server


def _there(session: Session) -> Iterator[Finding]:
    try:
        health = session.client.transport.request("GET", "/v1/health")
    except OrchctlError as error:
        yield _finding("server", False, error.message, error.fix)
        for check in ("version", "clock", "token"):
            yield Finding(check=check, state="skipped", found="no server to ask")
        return
    yield _finding("server", True, session.client.transport.server, "")
    yield _version(health)
    yield _clock(health, session.now)
    yield _checked("token", lambda: next(session.client.queues.list(), None))


def _version(health: httpx2.Response) -> Finding:
    from orchctl.http import parsed

    theirs, ours = str(parsed(health).get("version", "")), version.installed()
    found = f"server {theirs or 'unknown'}, here {ours or 'not installed'}"
    fix = f"install the server's version here: pip install orchctl=={theirs}"
    return _finding("version", not ours or theirs == ours, found, fix)


def _clock(health: httpx2.Response, now: datetime) -> Finding:
    date = health.headers.get("Date", "")
    if not date:
        return Finding(check="clock", state="skipped", found="the server tells no time")
    skew = abs((parsedate_to_datetime(date) - now).total_seconds())
    fix = "let both machines set their clocks by NTP"
    return _finding("clock", skew <= SKEW_MAX_S, f"{skew:.0f} s from the server's", fix)


def _checked(check: str, call: Callable[[], object]) -> Finding:
    try:
        call()
    except OrchctlError as error:
        fix = error.fix or "add a valid token: orchctl context add NAME --server URL --token-stdin"
        return _finding(check, False, error.message, fix)
    return _finding(check, True, "accepted", "")


def _finding(check: str, good: bool, found: str, fix: str) -> Finding:
    return Finding(
        check=check, state="ok" if good else "failed", found=found, fix="" if good else fix
    )
