"""What the API is built from, handed in by the wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request

from control_plane.access.entrance import Access
from control_plane.agents import Agents
from control_plane.api.changes import Changes
from control_plane.api.limits import FAILURES, Counts, Failures
from control_plane.api.together import Together
from control_plane.core.policy import Autoscaler
from control_plane.direct import THROUGH_THE_API, Direct
from control_plane.fleet import Fleet
from control_plane.interruptions import Interruptions
from control_plane.loop_figures import LoopFigures
from control_plane.ports import Blobs, Clock, PriceBook, Store
from control_plane.service import Service
from control_plane.webhooks.hooks import Hooks

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """What differs between servers."""

    server_id: str
    """Sessions of one server are no good at another."""
    admin_token_hash: str
    """SHA-256 of the admin token, in lower-case hex."""
    notices_token_hash: str = ""
    """The same of the token that clouds send notices with; empty = there is none."""
    cursor_secret: bytes
    """Signs cursors and sessions, and makes the secrets of hooks; at least 32 bytes."""
    version: str
    installation: str = "orchctl"
    """What the labels of its machines begin with."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names a request may name, against DNS rebinding; empty = any."""
    log_piece_bytes: int = 8 * 2**20
    """Of a log, in one answer at most."""

    def __post_init__(self) -> None:
        if len(self.cursor_secret) < 32:
            raise ValueError("the cursor secret needs at least 32 bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDeps:
    """Everything a route may use."""

    store: Store
    blobs: Blobs
    clock: Clock
    service: Service
    agents: Agents
    fleet: Fleet
    access: Access
    interruptions: Interruptions
    prices: PriceBook
    settings: ApiSettings
    bundle: Callable[[], bytes]
    """The one-file agent that machines download."""
    preview: Callable[[Autoscaler], str]
    """What a policy would do right now, as one sentence."""
    together: Together = field(default_factory=lambda: Together(None))
    """How agents' requests come to the store."""
    changes: Changes | None = None
    """What long polls wait on; None = they answer at once. `Service.changed` must notify it."""
    direct: Direct = THROUGH_THE_API
    """Which blobs go past the API."""
    loop: LoopFigures | None = None
    """What the loop of this process has done; None = it has none."""
    mount_dashboard: Callable[[FastAPI, ApiDeps], None] | None = None
    hooks: Hooks = field(init=False)
    """What outside systems may start."""
    failures: Failures = field(init=False)
    """Who sends wrong credentials, in this process."""
    lines: Counts = field(init=False)
    """How many lines of its log somebody has caused by what was refused."""

    def __post_init__(self) -> None:
        hooks = Hooks(self.service, secret=self.settings.cursor_secret)
        object.__setattr__(self, "hooks", hooks)
        object.__setattr__(self, "failures", Failures(self.clock))
        object.__setattr__(self, "lines", Counts(FAILURES, self.clock))


def deps_of(request: Request) -> ApiDeps:
    """What the app of this request was built from."""
    deps: ApiDeps = request.app.state.deps
    return deps
