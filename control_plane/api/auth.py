"""Who sends a request: a bearer token, or the dashboard's session cookie made from one."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from control_plane.access.entrance import Access
from control_plane.access.who import ADMIN, Identity
from control_plane.api.deps import ApiSettings
from control_plane.api.problems import Unauthenticated
from control_plane.errors import Denied
from control_plane.ports import Clock

COOKIE = "orchctl_session"
SESSION_S = 12 * 3600
"""A working day: long enough not to be asked twice, short enough for a laptop left behind."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Auth:
    """Checks requests of people and programs; agents have sessions of their own."""

    def __init__(self, settings: ApiSettings, clock: Clock, access: Access) -> None:
        self._token_hash = settings.admin_token_hash.encode()
        self._notices_hash = settings.notices_token_hash.encode()
        self._clock = clock
        self._access = access
        # With the token's hash in the key, a new token ends all sessions made from the old one.
        self._key = hashlib.sha256(
            b"\n".join((settings.cursor_secret, self._token_hash, settings.server_id.encode()))
        ).digest()

    def at_once(self, request: Request) -> Identity | None:
        """Who sent a request, where that takes no look into the store; None = `identify` says it.
        Raises `Unauthenticated` when it does not say at all, and `Denied` for a change that another
        site's page sends with our cookie."""
        if "authorization" in request.headers:
            return ADMIN if self._is_admins(bearer(request)) else None
        holds, token_id = self._session_of(request.cookies.get(COOKIE, ""))
        if not holds:
            raise Unauthenticated(
                "this needs an API token", fix="send it as `Authorization: Bearer <token>`"
            )
        if request.method not in _SAFE_METHODS and not _same_origin(request):
            raise Denied("this request comes from another site")
        return None if token_id else ADMIN

    def identify(self, request: Request) -> Identity:
        """Who sent a request. Raises `Unauthenticated`."""
        if "authorization" in request.headers:
            return self.check_token(bearer(request))
        _, token_id = self._session_of(request.cookies.get(COOKIE, ""))
        try:
            return self._access.known(token_id)
        except Denied as error:
            raise Unauthenticated(error.message) from error

    def check_token(self, token: str) -> Identity:
        """Whose an API token is. Raises `Unauthenticated`."""
        if self._is_admins(token):
            return ADMIN
        try:
            return self._access.identify(token)
        except Denied as error:
            raise Unauthenticated(error.message, fix="orchctl context show") from error

    def check_notices(self, token: str) -> None:
        """Raise `Unauthenticated` unless this is the token that clouds send notices with."""
        if not hmac.compare_digest(_digest(token), self._notices_hash):
            raise Unauthenticated("this is not the token for notices")

    def new_session(self, token_id: str = "") -> str:
        """The value of a session cookie, of the admin or of whoever has this token."""
        expires = str(int(self._clock.now().timestamp()) + SESSION_S)
        return f"{expires}.{self._mac(expires, token_id)}" + (f".{token_id}" if token_id else "")

    def _is_admins(self, token: str) -> bool:
        return hmac.compare_digest(_digest(token), self._token_hash)

    def _session_of(self, value: str) -> tuple[bool, str]:
        """Whether a cookie holds, and the id of the token it was made from; empty = the admin's."""
        expires, _, rest = value.partition(".")
        mac, _, token_id = rest.partition(".")
        holds = (
            expires.isascii()
            and expires.isdecimal()
            and len(expires) < 12
            and hmac.compare_digest(mac.encode(), self._mac(expires, token_id).encode())
            and int(expires) > self._clock.now().timestamp()
        )
        return holds, token_id

    def _mac(self, expires: str, token_id: str) -> str:
        text = f"{expires}\n{token_id}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


def sender_of(request: Request) -> str:
    """The address a request comes from, as far as it is known."""
    return request.client.host if request.client else ""


def credential_of(request: Request) -> str:
    """What a request shows to say who sends it; empty = nothing."""
    return request.headers.get("authorization", "") or request.cookies.get(COOKIE, "")


def bearer(request: Request) -> str:
    """The token of an `Authorization: Bearer` header. Raises `Unauthenticated`."""
    return bearer_token(request.headers.get("authorization", ""))


def bearer_token(header: str) -> str:
    """The token in the value of such a header. Raises `Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send `Authorization: Bearer <token>`")
    return token.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest().encode()


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host")
