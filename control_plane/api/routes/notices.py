"""What clouds tell from outside: `POST /v1/notices/CLOUD`, for the clouds' own services alone.

How each cloud is set up to send here: docs/how-to/notices-from-the-clouds.md.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control_plane.api.auth import Auth, bearer
from control_plane.api.deps import ApiDeps, deps_of
from control_plane.api.edge import NOTICES
from control_plane.api.problems import Malformed, Unauthenticated
from control_plane.errors import Denied, InvalidInput, NotFound
from control_plane.interruptions import Source


async def notices(request: Request) -> Response:
    """Take a delivery; the machines of ours that it was about. What it was about besides is
    somebody else's, and ignored."""
    deps, cloud, token = deps_of(request), request.path_params["cloud"], _token(request)
    source, scope = await run_in_threadpool(_admitted, deps, cloud, token)
    body = await request.body()
    return await run_in_threadpool(_heard, deps, cloud, source, scope, body)


def _token(request: Request) -> str:
    """From the header; from the address where a service sends no header of ours."""
    in_address = request.query_params.get("token", "")
    return in_address if in_address and "authorization" not in request.headers else bearer(request)


def _admitted(deps: ApiDeps, cloud: str, token: str) -> tuple[Source, str]:
    """How this cloud is read, and which machines the sender may speak of. Raises
    `Unauthenticated`; whether there is such a cloud is told to none but who has our token."""
    source = deps.interruptions.sources.get(cloud)
    if source is not None and source.scope is not None:
        return source, _scope(source.scope, token)
    Auth(deps.settings, deps.clock, deps.access).check_notices(token)
    if source is None:
        raise NotFound(f"this server hears nothing of {cloud}", fix="start it with --public-url")
    return source, ""


def _scope(scope_of: Callable[[str], str], token: str) -> str:
    try:
        return scope_of(token)
    except Denied as error:
        raise Unauthenticated(error.message) from error


def _heard(deps: ApiDeps, cloud: str, source: Source, scope: str, body: bytes) -> Response:
    try:
        told = source.read(body)
    except InvalidInput as error:
        raise Malformed(error.message, fix=error.fix) from error
    heard = deps.interruptions.hear(cloud, told.notices, scope=scope)
    return JSONResponse(dict(told.answer) or {"machines": list(heard)})


ROUTES = [Route(NOTICES + "{cloud}", notices, methods=["POST"])]
