"""What every request passes first and every answer last: host, size, identity, role, limits;
headers, faults, the audit.

Deny by default: a path needs a known identity unless it is named here, and a role by the table
(`roles`), so a new route is an admin's alone until somebody opens it.
"""

from __future__ import annotations

import html
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.access.who import Identity
from control_plane.api import problems, roles
from control_plane.api.auth import Auth, credential_of, sender_of
from control_plane.api.deps import ApiDeps
from control_plane.api.limits import REQUESTS, Counts
from control_plane.api.problems import Malformed, Misdirected, TooLarge, Unauthenticated
from control_plane.api.roles import Found, Of
from control_plane.core.access import Role
from control_plane.core.model import AUDIT, Event
from control_plane.errors import Denied, OrchctlError, StaleEpoch, TooManyRequests

SESSIONS = "/v1/sessions"
PUBLIC = frozenset({"/v1/health", "/login", SESSIONS})
"""Paths that need no identity; at the last two one is proven."""
AGENTS = "/v1/agent/"
"""Below it, the routes themselves ask for a machine's session; its proof and the one-file agent
stand before there can be one."""

NOTICES = "/v1/notices/"
"""Below it, the route itself asks for what a cloud's service proves itself by."""

HOOKS = "/v1/hooks/"
"""A POST to a hook itself, one name below it, asks for the signature of its sender."""

NOTICES_MAX_BYTES = 2**20
"""Event Grid delivers a megabyte at a time at most, the others less."""
HOOKS_MAX_BYTES = 2**20
"""GitHub sends a few dozen KiB; what is larger names more than a thousand commits."""
SESSIONS_MAX_BYTES = 2**16
"""Strangers may send this much; a token is read before anything else is known of its sender."""
JSON_MAX_BYTES = 10 * 2**20
BYTES_MAX_BYTES = 64 * 2**20
"""Of a source archive, an artifact or a piece of a log: held in memory while it is stored."""

_HOST = re.compile(r"(\[(?P<ipv6>[0-9a-f:.]+)\]|[a-z0-9._-]+)(?::[0-9]*)?")

DATA_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
"""Of answers that are data and nobody's page."""
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        b"object-src 'none'",
    ),
    # Not `no-referrer`: with it browsers send `Origin: null`, and our own forms look foreign.
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    *DATA_HEADERS,
)
"""Of every answer that does not say otherwise itself."""

REQUEST_ID = b"x-request-id"
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_log = logging.getLogger(__name__)


class Edge:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, deps: ApiDeps) -> None:
        self._app = app
        self._deps = deps
        self._auth = Auth(deps.settings, deps.clock, deps.access)
        self._hosts = Hosts(deps.settings.allowed_hosts)
        self._requests = Counts(REQUESTS, deps.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, head=scope["method"] == "HEAD")
        if answer.head:
            scope = {**scope, "method": "GET"}
        limit = body_limit(scope["path"])
        visit = _Visit(scope=scope, answer=answer)
        try:
            await self._admit(visit, limit)
            await self._app(scope, _counted(receive, limit), answer)
            self._log_refusal(visit, scope["state"].get("refused"))
        except Exception as error:
            if answer.started:
                raise
            self._log_refusal(visit, error)
            await _refusal(Request(scope), error)(scope, receive, answer)

    async def _admit(self, visit: _Visit, limit: int) -> None:
        scope = visit.scope
        headers = Headers(scope=scope)
        self._hosts.check(headers.get("host", ""))
        state = scope.setdefault("state", {})
        state["actor"], state["told"] = "", False
        if not _is_open(scope):
            visit.answer.more.append((REQUEST_ID, visit.id.encode()))
            identity = await self._identity(Request(scope))
            state["identity"], state["actor"] = identity, identity.actor
            visit.identity = identity
            visit.found = roles.find(scope["method"], scope["path"])
            if scope["method"] in _CHANGES:
                visit.answer.before = lambda status: self._note(visit, status)
            self._count(visit)
            await self._check_role(identity, visit.found)
        check_length(headers.get("content-length", ""), limit)

    async def _identity(self, request: Request) -> Identity:
        """Who sends a request. Raises `Unauthenticated`, `Denied`, `TooManyRequests`."""
        failures, sender = self._deps.failures, sender_of(request)
        credential = credential_of(request)
        try:
            known = self._auth.at_once(request)
            if known is not None:
                return known
            failures.check(sender, credential)
            identity = await run_in_threadpool(self._auth.identify, request)
        except Unauthenticated:
            if credential:
                failures.failed(sender)
            raise
        failures.succeeded(credential)
        return identity

    def _count(self, visit: _Visit) -> None:
        if visit.identity is None or not visit.identity.key:
            return
        left = self._requests.take(visit.identity.key)
        visit.answer.more += [(k.lower().encode(), v.encode()) for k, v in left.headers().items()]
        if not left.ok:
            raise TooManyRequests(
                "this token has sent too many requests",
                fix="send fewer a second; waiting calls such as `orchctl job wait` count once",
                retry_after_s=left.wait_s,
            )

    async def _check_role(self, identity: Identity, found: Found) -> None:
        """Raise `RoleNeeded`; `NotFound` when the path names a job that is not there."""
        needs = found.needs
        if needs.of is Of.ALL:
            identity.require(needs.role)
        elif needs.of is Of.QUEUE:
            identity.require(needs.role, found.params["name"])
        elif needs.of is Of.ASKED:
            identity.require(needs.role, *identity.grant.queues[:1])
        elif not identity.grant.allows(Role.OPERATOR if needs.of is Of.OWN_JOB else needs.role):
            await run_in_threadpool(self._check_job, identity, found)

    def _check_job(self, identity: Identity, found: Found) -> None:
        job = self._deps.store.job_get(found.params["job_id"])
        identity.require(found.needs.role, job.queue)
        if found.needs.of is Of.OWN_JOB and job.owner != identity.actor:
            identity.require(Role.OPERATOR, job.queue)

    def _log_refusal(self, visit: _Visit, error: Exception | None) -> None:
        request = Request(visit.scope)
        is_stranger = isinstance(error, Unauthenticated) and not _is_open(visit.scope)
        if is_stranger and not credential_of(request):
            return
        actor = visit.identity.actor if visit.identity else ""
        log_refusal(self._deps, visit.scope, error, actor=actor, request_id=visit.id)

    async def _note(self, visit: _Visit, status: int) -> None:
        """Leave in the log who changed what, before they hear that it is done."""
        assert visit.identity is not None, "only known people get here"
        if status < 300 and visit.scope["state"].get("told"):
            return
        params = visit.found.params if visit.found else {}
        event = Event(
            at=self._deps.clock.now(),
            kind=AUDIT,
            subject=plain(next(iter(params.values()), visit.scope["path"]), 100),
            text=f"{_asked(visit.scope)}: {status}",
            actor=visit.identity.actor,
            role=visit.identity.grant.role.value,
            request_id=visit.id,
        )
        try:
            await run_in_threadpool(self._deps.store.event_append, event)
        except OrchctlError as error:
            # It is done: an answer that says otherwise would have it done again.
            _log.error("not in the audit: %s by %s: %s", event.text, event.actor, error.message)


@dataclass(slots=True)
class _Visit:
    """One request on its way through."""

    scope: Scope
    answer: _Answer
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    identity: Identity | None = None
    found: Found | None = None


def log_refusal(
    deps: ApiDeps, scope: Scope, error: Exception | None, *, actor: str = "", request_id: str = ""
) -> None:
    """Leave a line about somebody who wanted what is not theirs; a few of each sender."""
    if not isinstance(error, (Denied, TooManyRequests, StaleEpoch)):
        return
    sender = sender_of(Request(scope))
    if deps.lines.take(sender).ok:
        # A late report of a lost lease is nobody's fault.
        level = logging.INFO if isinstance(error, StaleEpoch) else logging.WARNING
        who, what = plain(actor or sender, 200), plain(error.message, 300)
        _log.log(level, "%s: refused %s of %s: %s", request_id or "-", _asked(scope), who, what)


def _asked(scope: Scope) -> str:
    """Method and path, for a line of a log."""
    return f"{plain(scope['method'], 10)} {plain(scope['path'], 200)}"


def plain(text: str, most: int) -> str:
    """A text that cannot break the line it stands in."""
    return "".join(each if each.isprintable() else "?" for each in text[:most])


class Hosts:
    """The host names that requests may name; none = any."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(host.lower() for host in allowed)

    def check(self, host: str) -> None:
        """Raise `Misdirected` for a `Host` header that names another server, and `Malformed` for
        one that names none: it becomes part of an address that is taken apart again."""
        name = _host_name(host)
        if self._allowed and name not in self._allowed:
            raise Misdirected(
                "this server does not answer to that host name",
                fix="use the address that the server printed when it started",
            )
        if host and not name:
            raise Malformed("the `Host` header names no host")


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
        self.more: list[tuple[bytes, bytes]] = []
        """Headers of this answer alone."""
        self.before: Callable[[int], Awaitable[None]] | None = None
        """Called with the status before anything is sent."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self.before is not None:
                await self.before(message["status"])
            headers = message["headers"]
            names = {name for name, _ in headers}
            more = [header for header in (*HEADERS, *self.more) if header[0] not in names]
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


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in PUBLIC or path.startswith((AGENTS, NOTICES)) or is_hook(scope["method"], path)


def is_hook(method: str, path: str) -> bool:
    """Whether this is somebody's webhook."""
    return method == "POST" and path.startswith(HOOKS) and "/" not in path[len(HOOKS) :]


def body_limit(path: str) -> int:
    """How many bytes the body of a request for this path may have."""
    if path.startswith(NOTICES):
        return NOTICES_MAX_BYTES
    if path.startswith(HOOKS):
        return HOOKS_MAX_BYTES
    if path == SESSIONS:
        return SESSIONS_MAX_BYTES
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
    size = f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"
    return TooLarge(f"the body is larger than {size}")


@lru_cache(maxsize=64)
def _host_name(host: str) -> str:
    """The name in a `Host` header, without the port; empty when it is none."""
    found = _HOST.fullmatch(host.lower())
    if found is None or (found["ipv6"] and not _is_ipv6(found["ipv6"])):
        return ""
    return found[1]


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


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
