"""From a token to a session of the dashboard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.access.who import ADMIN, Identity
from control_plane.api.auth import COOKIE, SESSION_S, Auth, sender_of
from control_plane.api.deps import ApiDeps
from control_plane.api.parameters import Deps
from control_plane.api.problems import Unauthenticated

router = APIRouter()


@router.get("/login", include_in_schema=False)
def login(
    request: Request, deps: Deps, token: Annotated[str, Query(max_length=4096)] = ""
) -> Response:
    """Turn a token into the dashboard's session cookie."""
    auth = Auth(deps.settings, deps.clock, deps.access)
    identity = _logged_in(auth, deps, request, token)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        auth.new_session("" if identity is ADMIN else identity.key),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def _logged_in(auth: Auth, deps: ApiDeps, request: Request, token: str) -> Identity:
    deps.failures.check(sender_of(request), token)
    try:
        identity = auth.check_token(token)
    except Unauthenticated:
        if token:
            deps.failures.failed(sender_of(request))
        raise
    if identity.key.startswith("ci "):
        raise Unauthenticated("a session of a CI system is none for a browser")
    return identity
