"""The agent protocol over HTTP: reads `wire` messages, asks `Agents`, writes the answers.

What agents send all day is answered before it comes here (`api/hot.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_bootstrap import wire
from control_plane.agents import Agents
from control_plane.api import messages
from control_plane.api.auth import bearer
from control_plane.api.deps import deps_of
from control_plane.api.etags import matches
from control_plane.api.hot import machine_of
from control_plane.api.names import safe_file_name
from control_plane.api.problems import Unauthenticated
from control_plane.api.redirects import redirect
from control_plane.core.model import Machine
from control_plane.direct import Elsewhere
from control_plane.errors import Denied

T = TypeVar("T")


async def nonce(request: Request) -> Response:
    """What the proof of a machine must carry."""
    message = await messages.read(request, wire.Hello)
    return _answer(deps_of(request).agents.nonce(message))


async def register(request: Request) -> Response:
    """Exchange the proof of a machine for its session."""
    message = await messages.read(request, wire.Register)
    try:
        session = await run_in_threadpool(deps_of(request).agents.register, message)
    except Denied as error:
        raise Unauthenticated(error.message, fix=error.fix) from error
    return _answer(session)


async def logs(request: Request) -> Response:
    """Add to the log of an attempt."""
    job_id = _job_id(request)
    epoch, offset = (messages.whole_number(request, name) for name in ("epoch", "offset"))
    data = await request.body()
    size = await _as_machine(request, lambda agents, m: agents.log(m, job_id, epoch, offset, data))
    return JSONResponse({"size": size})


async def artifact(request: Request) -> Response:
    """Store one file of an attempt."""
    # Known to be a machine of ours before its bytes are taken.
    await _as_machine(request, lambda _, machine: machine)
    job_id = _job_id(request)
    epoch = messages.whole_number(request, "epoch")
    name = safe_file_name(request.path_params["name"])
    data = await request.body()
    await _as_machine(request, lambda agents, m: agents.artifact(m, job_id, epoch, name, data))
    return JSONResponse({})


async def upload(request: Request) -> Response:
    """Where to put one file of an attempt."""
    message = await messages.read(request, wire.Upload)
    job_id = _job_id(request)
    name = safe_file_name(request.path_params["name"])
    return _answer(
        await _as_machine(request, lambda agents, m: agents.upload(m, job_id, name, message))
    )


async def source(request: Request) -> Response:
    """The archive of a job's files."""
    job_id = _job_id(request)
    epoch = messages.whole_number(request, "epoch")
    found = await _as_machine(request, lambda agents, m: agents.source(m, job_id, epoch))
    if isinstance(found, Elsewhere):
        return redirect(found)
    return Response(found, media_type="application/gzip")


async def notice(request: Request) -> Response:
    """The cloud announced that it takes a machine."""
    message = await messages.read(request, wire.Notice)
    await _as_machine(request, lambda agents, m: agents.notice(m, message))
    return JSONResponse({})


async def leave(request: Request) -> Response:
    """Whether a machine may end itself."""
    message = await messages.read(request, wire.Leave)
    return _answer(await _as_machine(request, lambda agents, m: agents.leave(m, message)))


async def bundle(request: Request) -> Response:
    """The one-file agent; what starts a machine checks its hash."""
    data = await run_in_threadpool(deps_of(request).bundle)
    tag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "public, no-cache"}
    if matches(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type="application/zip")


Handler = Callable[[Request], Awaitable[Response]]


def _route(method: str, path: str, handler: Handler) -> Route:
    """A route for machines with a session; without any token nothing of the request is read."""

    async def checked(request: Request) -> Response:
        bearer(request)
        return await handler(request)

    return Route(f"/v1/agent/{path}", checked, methods=[method])


ROUTES = [
    Route("/v1/agent/bundle.pyz", bundle, methods=["GET"]),
    Route("/v1/agent/nonce", nonce, methods=["POST"]),
    Route("/v1/agent/register", register, methods=["POST"]),
    _route("POST", "notice", notice),
    _route("POST", "leave", leave),
    _route("POST", "jobs/{job_id}/logs", logs),
    _route("PUT", "jobs/{job_id}/artifacts/{name:path}", artifact),
    _route("POST", "jobs/{job_id}/artifacts/{name:path}", upload),
    _route("GET", "jobs/{job_id}/source", source),
]


async def _as_machine(request: Request, act: Callable[[Agents, Machine], T]) -> T:
    """Do something in the name of the machine that sent a request."""
    token = bearer(request)
    agents = deps_of(request).agents
    return await run_in_threadpool(lambda: act(agents, machine_of(agents, token)))


def _job_id(request: Request) -> str:
    return messages.job_id(request.path_params["job_id"])


def _answer(message: Any) -> Response:
    return JSONResponse(wire.dump(message))
