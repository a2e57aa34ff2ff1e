"""Lambda's side of a function: the Runtime API, which a runtime asks for the next event and tells
what came of it.

Source: AWS, "Using the Lambda runtime API", version 2018-06-01.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import Loopback

VERSION = "/2018-06-01/runtime"
NEXT = f"{VERSION}/invocation/next"
DEADLINE_S = 60.0


class FunctionFailed(Exception):
    """What the runtime has reported instead of an answer."""


class Runtime(Loopback):
    """Serves one function on the loopback interface until it is closed."""

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.told: queue.Queue[tuple[str, bytes]] = queue.Queue()
        """Paths below the version, and what was sent there."""
        self.closing = threading.Event()
        super().__init__(_handler(self))

    def invoke(self, event: Mapping[str, Any], within_s: float = DEADLINE_S) -> Any:
        """What the function returns. Raises `FunctionFailed`, and `queue.Empty` when it is
        silent."""
        request = str(uuid.uuid4())
        self.events.put((request, json.dumps(event).encode()))
        path, body = self.told.get(timeout=within_s)
        if path != f"/invocation/{request}/response":
            raise FunctionFailed(f"{path}: {body.decode()}")
        return json.loads(body)

    def next_event(self) -> tuple[str, bytes] | None:
        """Waits for one; None when there will be none."""
        while not self.closing.is_set():
            try:
                return self.events.get(timeout=0.05)
            except queue.Empty:
                continue
        return None

    def close(self) -> None:
        self.closing.set()
        super().close()


def _handler(runtime: Runtime) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = runtime.next_event() if self.path == NEXT else None
            if found is None:
                self._say(404, b"{}", {})
                return
            request, body = found
            arn = "arn:aws:lambda:eu-central-1:123456789012:function:orchctl-test"
            headers = {
                "Lambda-Runtime-Aws-Request-Id": request,
                "Lambda-Runtime-Deadline-Ms": str(round((time.time() + DEADLINE_S) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": arn,
            }
            self._say(200, body, headers)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            runtime.told.put((self.path.removeprefix(VERSION), self.rfile.read(length)))
            self._say(202, b'{"status": "OK"}', {})

        def _say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Handler
