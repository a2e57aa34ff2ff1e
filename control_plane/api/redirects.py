"""Sending somebody to where the bytes are."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.direct import Elsewhere


def redirect(elsewhere: Elsewhere) -> Response:
    """The answer to somebody who is to fetch a blob from the storage itself."""
    return Response(status_code=307, headers={"Location": elsewhere.url})
