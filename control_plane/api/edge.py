"""What every request passes first and every answer last: host, size, identity; headers, faults.

Deny by default: a path needs a known identity unless it is named here, so a new route is closed
until somebody opens it.
"""

from __future__ import annotations

import html
import logging
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api import problems
from control_plane.api.auth import Auth
from control_plane.api.deps import ApiSettings
from control_plane.api.problems import Misdirected, TooLarge, Unauthenticated
from control_plane.errors import OrchctlError
from control_plane.ports import Clock

PUBLIC = frozenset({"/v1/health", "/login"})
"""Paths that need no identity."""
AGENTS = "/v1/agent/"
"""Below it, the routes themselves ask for a machine's session; its proof and the one-file agent
stand before there can be one."""

JSON_MAX_BYTES = 10 * 2**20
BYTES_MAX_BYTES = 64 * 2**20
"""Of a source archive, an artifact or a piece of a log: held in memory while it is stored."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::[0-9]*)?")

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    # Not `no-referrer`: with it browsers send `Origin: null`, and our own forms look foreign.
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
"""Of every answer that does not say otherwise itself."""

_log = logging.getLogger(__name__)


class Edge:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, clock: Clock) -> None:
        self._app = app
        self._auth = Auth(settings, clock)
        self._hosts = Hosts(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, head=scope["method"] == "HEAD")
        if answer.head:
            scope = {**scope, "method": "GET"}
        limit = body_limit(scope["path"])
        try:
            self._admit(scope, limit)
            await self._app(scope, _counted(receive, limit), answer)
        except Exception as error:
            if answer.started:
                raise
            await _refusal(Request(scope), error)(scope, receive, answer)

    def _admit(self, scope: Scope, limit: int) -> None:
        headers = Headers(scope=scope)
        self._hosts.check(headers.get("host", ""))
        actor = "" if _is_open(scope["path"]) else self._auth.actor(Request(scope))
        scope.setdefault("state", {})["actor"] = actor
        check_length(headers.get("content-length", ""), limit)


class Hosts:
    """The host names that requests may name; none = any."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(host.lower() for host in allowed)

    def check(self, host: str) -> None:
        """Raise `Misdirected` for a `Host` header that names another server."""
        if self._allowed and _host_name(host) not in self._allowed:
            raise Misdirected(
                "this server does not answer to that host name",
                fix="use the address that the server printed when it started",
            )


def check_length(announced: str, limit: int) -> None:
    """Raise `TooLarge` for a `Content-Length` header beyond the limit, in bytes."""
    if announced.isdecimal() and int(announced[:12]) > limit:
        raise too_large(limit)


async def refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that ended in this, with the headers that all answers have."""
    answer = _Answer(send, head=scope["method"] == "HEAD")
    await _refusal(Request(scope), error)(scope, receive, answer)


class _Answer:
    """Sends an answer with the headers that all have, and without a body for HEAD."""

    def __init__(self, send: Send, *, head: bool) -> None:
        self._send = send
        self.head = head
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = message["headers"]
            names = {name for name, _ in headers}
            more = [header for header in HEADERS if header[0] not in names]
            message = {**message, "headers": [*headers, *more]}
        elif message["type"] == "http.response.body" and self.head:
            message = {**message, "body": b""}
        await self._send(message)


def _refusal(request: Request, error: Exception) -> Response:
    if isinstance(error, Unauthenticated) and _wants_page(request):
        return _please_log_in(error)
    if isinstance(error, OrchctlError):
        return problems.of_error(error)
    if isinstance(error, HTTPException):
        return problems.of_http(error)
    error_id = secrets.token_hex(6)
    _log.error("%s: %s %s failed", error_id, request.method, request.url.path, exc_info=error)
    return problems.unexpected(error_id)


def _is_open(path: str) -> bool:
    return path in PUBLIC or path.startswith(AGENTS)


def body_limit(path: str) -> int:
    """How many bytes the body of a request for this path may have."""
    raw = path.startswith(("/v1/blobs/", f"{AGENTS}jobs/"))
    return BYTES_MAX_BYTES if raw else JSON_MAX_BYTES


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            # As the framework's own exception, because that one alone passes its body reader.
            raise HTTPException(413, too_large(limit).message)
        return message

    return counted


def too_large(limit: int) -> TooLarge:
    """The refusal of a body beyond the limit."""
    return TooLarge(f"the body is larger than {limit // 2**20} MiB")


@lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port; empty when it is none."""
    found = _HOST.fullmatch(host.lower())
    return found[1] if found else ""


def _wants_page(request: Request) -> bool:
    is_api = request.url.path.startswith("/v1/")
    return not is_api and "text/html" in request.headers.get("accept", "")


def _please_log_in(error: OrchctlError) -> Response:
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>orchctl: log in</title>"
        f"<h1>Log in</h1><p>{html.escape(error.message)}. "
        "Open the link that <code>orchctl up</code> printed: it ends in "
        "<code>/login?token=…</code></p></html>",
        401,
    )
