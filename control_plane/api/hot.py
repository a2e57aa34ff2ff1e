"""What agents send all day, answered before the framework looks at it: claim, beat, start, finish.

Each is read here, done together with the others of the same moment (`together`), and written here.
Everything else about agents is in `routes/agent.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from agent_bootstrap import wire
from control_plane.agents import Agents
from control_plane.api import messages
from control_plane.api.auth import bearer_token
from control_plane.api.deps import ApiDeps
from control_plane.api.edge import AGENTS
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
    return path.startswith(AGENTS) and path.endswith(_HOT)


class Hot:
    """Answers what `is_hot`."""

    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._answers = {"claim": self._claim, "beat": self._beat}
        self._job_answers = {"start": self._start, "finish": self._finish}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self._find(scope["path"].removeprefix(AGENTS))
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        token = _token(scope)
        await _send(send, await answer(token, await _body(receive), receive))

    def _find(self, name: str) -> _Answer:
        answer = self._answers.get(name) or self._find_job(name)
        if answer is None:
            raise HTTPException(404)
        return answer

    def _find_job(self, name: str) -> _Answer | None:
        jobs, _, rest = name.partition("/")
        job_id, _, verb = rest.partition("/")
        answer = self._job_answers.get(verb) if jobs == "jobs" else None
        if answer is None:
            return None
        return lambda token, body, _: answer(token, body, messages.job_id(job_id))

    async def _claim(self, token: str, body: bytes, receive: Receive) -> bytes:
        """Get work; waits for some while there is none."""
        message = messages.message(wire.Claim, body)

        async def look() -> wire.Claimed:
            # The machine is read anew each time: it may be drained or closed while it waits.
            return await self._as_machine(token, lambda agents, m: agents.claim(m, message))

        def wait_s(found: wire.Claimed) -> float:
            return 0.0 if found.jobs or found.drain else found.advice.wait_s

        return to_json(await poll(receive, self._deps.changes, look, wait_s=wait_s))

    async def _beat(self, token: str, body: bytes, _: Receive) -> bytes:
        """Note that a machine lives; tell it what to end."""
        message = messages.message(wire.Beat, body)
        return to_json(await self._as_machine(token, lambda agents, m: agents.beat(m, message)))

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

    async def _as_machine(self, token: str, act: Callable[[Agents, Machine], T]) -> T:
        agents = self._deps.agents
        return await self._deps.together.do(lambda: act(agents, machine_of(agents, token)))


_Answer = Callable[[str, bytes, Receive], Awaitable[bytes]]


def machine_of(agents: Agents, token: str) -> Machine:
    """The machine that sends a session token. Raises `Unauthenticated`, and `Gone` when its record
    is closed."""
    if not token.isascii():
        raise Unauthenticated("this is no session")
    try:
        return agents.authenticate(token)
    except Denied as error:
        raise Unauthenticated(error.message) from error


def _token(scope: Scope) -> str:
    return bearer_token(
        next(
            (
                value.decode("latin-1")
                for name, value in scope["headers"]
                if name == b"authorization"
            ),
            "",
        )
    )


async def _body(receive: Receive) -> bytes:
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body", False):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise HTTPException(400, "the client has hung up")
    return b"".join(parts)


async def _send(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
