"""Stands for the name and the certificate of an HTTP API: hands requests on to the emulator under
the host name by which that knows the API."""

from __future__ import annotations

import http.client
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.loopback import Loopback

HOP_BY_HOP = frozenset({"connection", "host", "keep-alive", "transfer-encoding", "content-length"})


class Front(Loopback):
    """Listens at `url`; where it leads to is told by `lead`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        """Method, path and status of each request."""
        self.largest_bytes = 0
        """Of all bodies that went through, either way."""
        self._upstream, self._host = "", ""
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                front._hand_on(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        super().__init__(Handler)

    def lead(self, endpoint: str, api_id: str) -> None:
        """To this API of the emulator there."""
        self._upstream = urlsplit(endpoint).netloc
        self._host = f"{api_id}.execute-api.localhost:{self._upstream.rpartition(':')[2]}"

    def _hand_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            connection.request(request.command, request.path, body, {**headers, "Host": self._host})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.seen.append((request.command, request.path, answer.status))
        self.largest_bytes = max(self.largest_bytes, len(body), len(content))
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked has hung up
                request.wfile.write(content)
