"""Cursors people hold: the store's own, signed and bound to one listing with one set of filters."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from control_plane.api.deps import deps_of
from control_plane.errors import InvalidInput
from control_plane.ports import Page

LIMIT_DEFAULT = 100
LIMIT_MAX = 500
_MAC_BYTES = 16

T = TypeVar("T")


class Paging:
    """Which page of a listing a request asks for, and how its answer names the next one."""

    def __init__(self, request: Request, limit: int, cursor: str) -> None:
        self._secret = deps_of(request).settings.cursor_secret
        query = [(k, v) for k, v in request.query_params.multi_items() if k not in _PAGING]
        self._path = request.url.path
        self._query = sorted(query)
        self.limit = limit
        self.cursor = self._open(cursor) if cursor else ""
        """The store's own text; empty = from the start."""

    def seal(self, inner: str) -> str:
        """The cursor to hand out for the store's own; empty stays empty."""
        if not inner:
            return ""
        sealed = self._mac(inner.encode()) + inner.encode()
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def link(self, cursor: str) -> str:
        """The `Link` header of the page behind a cursor to hand out."""
        query = urlencode([*self._query, ("limit", self.limit), ("cursor", cursor)])
        return f'<{self._path}?{query}>; rel="next"'

    def cut(self, items: Sequence[T], key: Callable[[T], str]) -> Page[T]:
        """The page of a listing that is at hand as a whole; `key` orders it and is unique."""
        rest = sorted((each for each in items if key(each) > self.cursor), key=key)
        page = rest[: self.limit]
        more = len(rest) > len(page)
        return Page(items=tuple(page), cursor=key(page[-1]) if more else "")

    def _open(self, cursor: str) -> str:
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            inner = sealed[_MAC_BYTES:].decode()
        except ValueError:
            inner = ""
        # Comparing the whole text also refuses spellings that decode to the same bytes.
        if not hmac.compare_digest(self.seal(inner).encode(), cursor.encode()):
            raise InvalidInput(
                "this cursor does not belong to this listing", fix="start again without a cursor"
            )
        return inner

    def _mac(self, inner: bytes) -> bytes:
        bound = "\n".join((self._path, urlencode(self._query))).encode()
        return hmac.new(self._secret, bound + b"\n" + inner, hashlib.sha256).digest()[:_MAC_BYTES]


_PAGING = ("limit", "cursor")
