"""A proxy that loses answers, on demand: what happens between two computers, one request at a time.

It stands in front of an emulator (or of nothing, when every request is answered by the script) and
plays one `Step` for each request; when the script is over it passes everything on.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from zlib import crc32

from tests.loopback import Loopback

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_HOP = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one request."""

    forward: bool = True
    """Whether it reaches the emulator."""
    answer: bool = True
    """Whether its sender hears anything; otherwise the connection is cut."""
    says: tuple[int, bytes] | None = None
    """The sender hears this status and body, whatever the emulator said."""
    garbled: bool = False
    """The sender hears noise of the right length."""
    after: Callable[[], object] | None = None
    """Called between the emulator's answer and the sender's."""


PASS = Step()
CUT = Step(forward=False, answer=False)
"""Lost on the way there: nothing happened."""
LOSE = Step(answer=False)
"""Lost on the way back: it happened, and its sender does not know."""
GARBLE = Step(garbled=True)
"""It happened, and what came back cannot be read."""


def refuse(status: int, code: str, message: str = "scripted", **more: Any) -> Step:
    """DynamoDB refuses the request; nothing happens."""
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    body = json.dumps({"__type": kind, "message": message, **more}).encode()
    return Step(forward=False, says=(status, body))


def spoil(status: int, code: str) -> Step:
    """It happened, and then the answer is an error."""
    return Step(says=refuse(status, code).says)


def hear(answer: object, *, forward: bool = True) -> Step:
    """The sender hears this answer."""
    return Step(forward=forward, says=(200, json.dumps(answer).encode()))


@dataclass(kw_only=True)
class Unreliable(Loopback):
    """A server at `url`; `script` is played from its start."""

    upstream: str = ""
    script: list[Step] = field(default_factory=list)
    seen: list[tuple[str, Any]] = field(default_factory=list)
    """Every request so far: action and body."""

    def __post_init__(self) -> None:
        super().__init__(_handler(self))

    def next(self, action: str, body: bytes) -> Step:
        """The step for a request that has just come in."""
        self.seen.append((action, json.loads(body)))
        return self.script.pop(0) if self.script else PASS


def _handler(proxy: Unreliable) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            step = proxy.next(self.headers["X-Amz-Target"].rpartition(".")[2], body)
            status, content, headers = self.forward(body) if step.forward else (500, b"", {})
            if step.after:
                step.after()
            if step.says:
                status, content = step.says
                headers = {"x-amz-crc32": str(crc32(content))}
            if step.garbled:
                content = b"?" * len(content)
            if step.answer:
                self.reply(status, content, headers)
            else:
                self.close_connection = True

        def forward(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            headers = {n: v for n, v in self.headers.items() if n.lower() not in _HOP}
            request = urllib.request.Request(proxy.upstream, data=body, headers=headers)
            try:
                answer = _DIRECT.open(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                kept = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP}
                return answer.status, answer.read(), kept

        def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            with suppress(ConnectionError):  # its sender may have lost patience
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler
