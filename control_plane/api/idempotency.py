"""`Idempotency-Key`: a repeated POST gets the first answer and does nothing again.

As in the IETF draft: the same key with another request is refused (422), and so is one whose first
request is still being answered (409). Only answers that say something was done are kept; after a
refusal the key is free.

Handing in a job keeps its promise without this layer (`routes/jobs.py`): the job itself knows its
key, for as long as there is the job.
"""

from __future__ import annotations

import hashlib

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.edge import AGENTS, NOTICES, SESSIONS, is_hook
from control_plane.api.problems import KeyInFlight, KeyReused
from control_plane.errors import InvalidInput
from control_plane.ports import Clock, Store, StoredAnswer

HEADER = "Idempotency-Key"
REPEATED = {"Idempotency-Replayed": "true"}
KEY_MAX = 255
KEEP_S = 24 * 3600.0
"""How long an answer can be had again: longer than any client goes on trying."""

SUBMIT = "/v1/jobs"
SECRETS = frozenset({SESSIONS, "/v1/tokens"})
"""Their answers hold a token, which is nowhere kept."""

_KEPT_HEADERS = ("content-type", "location", "etag")


class Idempotency:
    """The layer between the edge and the routes that keeps answers."""

    def __init__(self, app: ASGIApp, store: Store, clock: Clock) -> None:
        self._app = app
        self._store = store
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or repeat an earlier answer."""
        if scope["type"] != "http" or not _concerns(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        body = await request.body()
        key = scoped_key(request, request.headers[HEADER])
        fingerprint = hashlib.sha256(request.url.query.encode() + b"\n" + body).hexdigest()
        earlier = await run_in_threadpool(
            self._store.answer_begin, key, fingerprint, now=self._clock.now(), keep_s=KEEP_S
        )
        if earlier is not None:
            await _replay(earlier, fingerprint)(scope, receive, send)
            return
        recorder = _Recorder()
        try:
            await self._app(scope, _again(body, receive), recorder)
            await self._keep(key, fingerprint, recorder)
        except Exception:
            await run_in_threadpool(self._store.answer_abandon, key)
            raise
        for message in recorder.messages:
            await send(message)

    async def _keep(self, key: str, fingerprint: str, recorder: _Recorder) -> None:
        if recorder.status >= 300:
            await run_in_threadpool(self._store.answer_abandon, key)
            return
        answer = StoredAnswer(
            fingerprint=fingerprint,
            status=recorder.status,
            headers=recorder.kept_headers(),
            body=recorder.body.decode(),
        )
        await run_in_threadpool(self._store.answer_finish, key, answer)


class _Recorder:
    """Holds an answer back until it is stored: a client that has it may repeat at once."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    def kept_headers(self) -> dict[str, str]:
        headers = Headers(raw=self.messages[0]["headers"])
        return {name: headers[name] for name in _KEPT_HEADERS if name in headers}


def scoped_key(request: Request, key: str) -> str:
    """A key within whose it is and what it was sent to; empty stays empty.

    Raises `InvalidInput` for one that is too long or not plain text."""
    if not key:
        return ""
    if len(key) > KEY_MAX or not (key.isascii() and key.isprintable()):
        raise InvalidInput(f"`{HEADER}` takes at most {KEY_MAX} plain characters")
    return f"{request.state.actor} {request.method} {request.url.path} {key}"


def reused() -> KeyReused:
    """The refusal of a key that belongs to another request."""
    return KeyReused("this idempotency key was used for another request", fix="take a new key")


def _concerns(scope: Scope) -> bool:
    path: str = scope["path"]
    if scope["method"] != "POST" or path == SUBMIT or path.startswith((AGENTS, NOTICES)):
        return False
    if path in SECRETS or is_hook("POST", path):
        return False
    return bool(Headers(scope=scope).get(HEADER))


def _replay(earlier: StoredAnswer, fingerprint: str) -> Response:
    if earlier.fingerprint != fingerprint:
        raise reused()
    if not earlier.status:
        raise KeyInFlight("the first request with this key is still being answered")
    return Response(earlier.body, earlier.status, {**earlier.headers, **REPEATED})


def _again(body: bytes, receive: Receive) -> Receive:
    """What the routes receive: the body that was read already, then whatever comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
