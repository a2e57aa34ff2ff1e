"""A client that checks nothing and lets everything through, and what comes back to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SOON_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def refused(self, status: int = 0, code: str = "") -> bool:
        """Whether it is a problem, of this status (else a client's) and of this code where they are
        told, that says what is wrong."""
        if not (self.status == status if status else 400 <= self.status < 500):
            return False
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status, self
        assert problem["type"].endswith(f"/{problem['code']}"), self
        assert problem["title"], self
        assert problem["detail"], self
        return code in ("", problem["code"])


def ask(
    server: str,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request to the server at this URL; bytes as they are, all else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    more = {"Content-Type": "application/json", **(headers or {})}
    if token:
        more["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=SOON_S)
    try:
        connection.request(method, path, content, more)
        answer = connection.getresponse()
        return Answer(
            status=answer.status,
            headers={name.lower(): value for name, value in answer.getheaders()},
            body=answer.read(),
        )
    finally:
        connection.close()


def altered(cursor: str) -> list[str]:
    """What is no cursor, most of it nearly this one."""
    swapped = [
        cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in (0, -2)
    ]
    return [*swapped, cursor[:-1], cursor + "AA", "../../etc", "%00", "%F0%9F%92%A9", "=" * 50]
