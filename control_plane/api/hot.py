"""What agents send all day, answered before the framework looks at it: claim, beat, start, finish.

Each is checked and read here in one pass, as `edge` does it for all others, done together with the
others of the same moment (`together`), and written here. Everything else about agents is in
`routes/agent.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from agent_bootstrap import wire
from control_plane.agents import Agents
from control_plane.api import edge, messages
from control_plane.api.auth import bearer_token
from control_plane.api.deps import ApiDeps
from control_plane.api.polling import poll
from control_plane.api.problems import Unauthenticated
from control_plane.core.model import Machine
from control_plane.errors import Denied

T = TypeVar("T")
_EMPTY = b"{}"


_HOT = ("/claim", "/beat", "/start", "/finish")


def is_hot(scope: Scope) -> bool:
    """Whether a request is one of these."""
    path: str = scope["path"] if scope["type"] == "http" else ""
    # A job may leave a file of such a name.
    return path.startswith(edge.AGENTS) and path.endswith(_HOT) and "/artifacts/" not in path


class Hot:
    """Answers what `is_hot`."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._hosts = edge.Hosts(deps.settings.allowed_hosts)
        self._answers = {"claim": self._claim, "beat": self._beat}
        self._job_answers = {"start": self._start, "finish": self._finish}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - each has its answer
            edge.log_refusal(self._deps, scope, error)
            await edge.refuse(error, scope, receive, send)
        else:
            await _send(send, body)

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        path: str = scope["path"]
        limit = edge.body_limit(path)
        # Of two headers of one name the first counts, as everywhere.
        headers = dict(reversed(scope["headers"]))
        self._hosts.check(_text(headers, b"host"))
        edge.check_length(_text(headers, b"content-length"), limit)
        answer = self._find(path.removeprefix(edge.AGENTS))
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        token = bearer_token(_text(headers, b"authorization"))
        return await answer(token, await _body(receive, limit), receive)

    def _find(self, name: str) -> _Handler:
        answer = self._answers.get(name) or self._find_job(name)
        if answer is None:
            raise HTTPException(404)
        return answer

    def _find_job(self, name: str) -> _Handler | None:
        jobs, _, rest = name.partition("/")
        job_id, _, verb = rest.partition("/")
        answer = self._job_answers.get(verb) if jobs == "jobs" else None
        if answer is None:
            return None
        return lambda token, body, _: answer(token, body, messages.job_id(job_id))

    async def _claim(self, token: str, body: bytes, receive: Receive) -> bytes:
        """Get work; waits for some while there is none."""
        message = messages.message(wire.Claim, body)

        def look() -> Awaitable[wire.Claimed]:
            # The machine is read anew each time: it may be drained or closed while it waits.
            return self._as_machine(token, lambda agents, m: agents.claim(m, message))

        def wait_s(found: wire.Claimed) -> float:
            return 0.0 if found.jobs or found.drain else found.advice.wait_s

        found = await poll(receive, self._deps.changes, look, wait_s=wait_s)
        return messages.written(found)

    async def _beat(self, token: str, body: bytes, _: Receive) -> bytes:
        """Note that a machine lives; tell it what to end."""
        message = messages.message(wire.Beat, body)
        return messages.written(
            await self._as_machine(token, lambda agents, m: agents.beat(m, message))
        )

    async def _start(self, token: str, body: bytes, job_id: str) -> bytes:
        """A job's command is about to run."""
        message = messages.message(wire.Started, body)
        await self._as_machine(token, lambda agents, m: agents.start(m, job_id, message))
        return _EMPTY

    async def _finish(self, token: str, body: bytes, job_id: str) -> bytes:
        """An attempt has ended."""
        message = messages.message(wire.Finished, body)
        await self._as_machine(token, lambda agents, m: agents.finish(m, job_id, message))
        return _EMPTY

    def _as_machine(self, token: str, act: Callable[[Agents, Machine], T]) -> Awaitable[T]:
        agents = self._deps.agents
        return self._deps.together.do(lambda: act(agents, machine_of(agents, token)))


_Handler = Callable[[str, bytes, Receive], Awaitable[bytes]]


def machine_of(agents: Agents, token: str) -> Machine:
    """The machine that sends a session token. Raises `Unauthenticated`, and `Gone` when its record
    is closed."""
    if not token.isascii():
        raise Unauthenticated("this is no session")
    try:
        return agents.authenticate(token)
    except Denied as error:
        raise Unauthenticated(error.message) from error


def _text(headers: Mapping[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


async def _body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    parts, size = [body], len(body)
    while message.get("more_body", False) and size <= limit:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if size > limit:
        raise edge.too_large(limit)
    if message["type"] == "http.disconnect":
        raise HTTPException(400, "the client has hung up")
    return b"".join(parts)


# The server looks through each header of each answer.
_HEADERS = ((b"content-type", b"application/json"), *edge.DATA_HEADERS)


async def _send(send: Send, body: bytes) -> None:
    headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
