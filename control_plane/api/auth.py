"""Who sends a request: a bearer token, or the dashboard's session cookie made from one."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from control_plane.api.deps import ApiSettings, Deps
from control_plane.api.problems import Unauthenticated
from control_plane.errors import Denied
from control_plane.ports import Clock

COOKIE = "orchctl_session"
SESSION_S = 12 * 3600
"""A working day: long enough not to be asked twice, short enough for a laptop left behind."""
ADMIN = "admin"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Auth:
    """Checks requests of people and programs; agents have sessions of their own."""

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self._token_hash = settings.admin_token_hash.encode()
        self._clock = clock
        # With the token's hash in the key, a new token ends all sessions made from the old one.
        self._key = hashlib.sha256(
            b"\n".join((settings.cursor_secret, self._token_hash, settings.server_id.encode()))
        ).digest()

    def actor(self, request: Request) -> str:
        """Who sent a request. Raises `Unauthenticated`, and `Denied` for a change that another
        site's page sends with our cookie."""
        if "authorization" in request.headers:
            return self.check_token(bearer(request))
        if not self._session_holds(request.cookies.get(COOKIE, "")):
            raise Unauthenticated(
                "this needs an API token", fix="send it as `Authorization: Bearer <token>`"
            )
        if request.method not in _SAFE_METHODS and not _same_origin(request):
            raise Denied("this request comes from another site")
        return ADMIN

    def check_token(self, token: str) -> str:
        """The actor of an API token. Raises `Unauthenticated`."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        if not hmac.compare_digest(digest.encode(), self._token_hash):
            raise Unauthenticated("this token is not known here", fix="orchctl context show")
        return ADMIN

    def new_session(self) -> str:
        """The value of a session cookie."""
        expires = str(int(self._clock.now().timestamp()) + SESSION_S)
        return f"{expires}.{self._mac(expires)}"

    def _session_holds(self, value: str) -> bool:
        expires, _, mac = value.partition(".")
        return (
            expires.isascii()
            and expires.isdecimal()
            and len(expires) < 12
            and hmac.compare_digest(mac.encode(), self._mac(expires).encode())
            and int(expires) > self._clock.now().timestamp()
        )

    def _mac(self, expires: str) -> str:
        return hmac.new(self._key, expires.encode(), hashlib.sha256).hexdigest()


def bearer(request: Request) -> str:
    """The token of an `Authorization: Bearer` header. Raises `Unauthenticated`."""
    return bearer_token(request.headers.get("authorization", ""))


def bearer_token(header: str) -> str:
    """The token in the value of such a header. Raises `Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send `Authorization: Bearer <token>`")
    return token.strip()


router = APIRouter()


@router.get("/login", include_in_schema=False)
def login(
    request: Request, deps: Deps, token: Annotated[str, Query(max_length=1024)] = ""
) -> Response:
    """Turn a token into the dashboard's session cookie."""
    auth = Auth(deps.settings, deps.clock)
    auth.check_token(token)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        auth.new_session(),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host")
