"""A storage as an agent and a command line see it: addresses where one file each is put and had."""

from __future__ import annotations

from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from tests.loopback import Loopback


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    content: bytes


class FakeStorage(Loopback):
    """Keeps what is put; the next requests are answered by `script` first."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        """By path, without what was signed."""
        self.script: list[tuple[int, bytes] | None] = []
        """Status and body; None closes the connection half-way."""
        self.seen: list[Request] = []
        super().__init__(_handler(self))

    def answer(self, request: Request) -> tuple[int, bytes]:
        self.seen.append(request)
        path = request.path.partition("?")[0]
        if request.method == "PUT":
            self.files[path] = request.content
            return 200, b""
        return (200, self.files[path]) if path in self.files else (404, b"<Code>NoSuchKey</Code>")


def _handler(storage: FakeStorage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            request = Request(
                method=self.command,
                path=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                content=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )
            scripted = storage.script.pop(0) if storage.script else ()
            if scripted == ():
                status, content = storage.answer(request)
            else:
                storage.seen.append(request)
                status, content = scripted or (200, b"half")
            self.send_response(status)
            self.send_header(
                "Content-Length", str(len(content) * (1 if scripted is not None else 2))
            )
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = _serve  # noqa: N815 - the names that http.server looks up

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
