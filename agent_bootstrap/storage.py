"""Files too large for the control plane go to the storage behind it and come from there, at
addresses that it has signed for one file and a few minutes. The session token does not go along.
"""

from __future__ import annotations

import http.client
import re
from pathlib import Path
from typing import BinaryIO, Dict, Optional
from urllib.parse import urlsplit

from agent_bootstrap.client import TIMEOUT_S, Refusal, Unanswered, later, read
from agent_bootstrap.wire import UploadTo

_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
"""S3 says what is wrong in XML."""


def put(to: UploadTo, path: Path) -> None:
    """Store a file. Raises `Unanswered`, `Refusal`, `OSError` when it cannot be read."""
    with path.open("rb") as file:
        _send("PUT", to.url, to.headers, file, None)


def get(url: str, path: Path) -> None:
    """Fetch a file. Raises `Unanswered`, `Refusal`."""
    with path.open("wb") as file:
        _send("GET", url, {}, None, file)


def _send(
    method: str,
    url: str,
    headers: Dict[str, str],
    body: Optional[BinaryIO],
    into: Optional[BinaryIO],
) -> None:
    parts = urlsplit(url)
    connection = _connect(parts.scheme, parts.netloc)
    try:
        target = "%s?%s" % (parts.path, parts.query)
        connection.request(method, target, body, {**headers, "Connection": "close"})
        with connection.getresponse() as response:
            if response.status >= 300:
                raise _refusal(response)
            read(response, into)
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered("storage: %s: %s" % (type(error).__name__, error)) from error
    finally:
        connection.close()


def _connect(scheme: str, place: str) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(place, timeout=TIMEOUT_S)
    return http.client.HTTPConnection(place, timeout=TIMEOUT_S)


def _refusal(response: http.client.HTTPResponse) -> Exception:
    text = response.read(1 << 16).decode("utf-8", "replace")
    found = _CODE.search(text)
    code = found.group(1) if found else ""
    if later(response.status):
        return Unanswered("storage: %d %s" % (response.status, code))
    return Refusal(response.status, code, "from the storage")
