"""An HTTP server in a thread that plays the API: canned answers out, recorded requests in."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.loopback import Loopback


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeServer(Loopback):
    """Answers of one route are used up in order; the last one stays."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        super().__init__(_handler(self))

    def on(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int = 200,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        data = json.dumps(body).encode() if content is None else content
        answer = Answer(status=status, content=data, headers=headers or {})
        self._answers[method, path].append(answer)

    def problem(self, method: str, path: str, status: int, code: str, **more: Any) -> None:
        document = {"type": f"https://orchctl.dev/problems/{code}", "code": code, "status": status}
        headers = {"Content-Type": "application/problem+json"}
        self.on(method, path, document | more, status=status, headers=headers)

    def of(self, method: str, path: str) -> list[Asked]:
        return [each for each in self.asked if (each.method, each.path) == (method, path)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        waiting = self._answers.get((asked.method, asked.path))
        if not waiting:
            detail = f"the fake has no {asked.method} {asked.path}"
            body = {"code": "error", "detail": detail}
            return Answer(status=418, content=json.dumps(body).encode())
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            answer = fake.answer(
                Asked(
                    method=self.command,
                    path=parts.path,
                    query=dict(parse_qsl(parts.query)),
                    headers={name.lower(): value for name, value in self.headers.items()},
                    content=self.rfile.read(int(self.headers.get("Content-Length", 0))),
                )
            )
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    return Handler
