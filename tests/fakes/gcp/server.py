"""The fake as a server on 127.0.0.1. `POST /_control/NAME` with a JSON object of arguments calls
what `cloud.CONTROLS` lists, so that other processes can make trouble too.

Requests and answers are checked against the discovery document. An answer of the fake's own that
does not fit it is noted in `GcpCloud.violations` and sent as a 500.
"""

from __future__ import annotations

import json
import threading
import time
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.gcp.api import answer
from tests.fakes.gcp.cloud import CONTROLLER, CONTROLS, GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json, Method, NoSuchMethod, find
from tests.fakes.gcp.listings import Call

_CONTROL = "/_control/"


class GcpServer:
    """A running fake; a context manager."""

    def __init__(self, cloud: GcpCloud) -> None:
        self.cloud = cloud
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.cloud = cloud
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """What `api_endpoint` takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> GcpServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Serve until the thread ends."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    cloud: GcpCloud


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` of an answer."""
        return format_datetime(self.server.cloud.clock.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: a test reads `GcpCloud.calls`."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        if self.path.startswith(_CONTROL):
            self._control(json.loads(text or b"{}"))
            return
        cloud = self.server.cloud
        if cloud.latency_s:
            time.sleep(cloud.latency_s)
        name = ""
        try:
            name, status, body, headers = self._api(text)
        except ApiError as error:
            status, body, headers = error.status, error.body(), dict(error.headers)
        except NoSuchMethod:
            # As Google's front end does: a page, not an answer of the API.
            self.send_error(404)
            return
        except Exception as error:
            cloud.violations.append(f"{self.command} {self.path}: {error!r}")
            raise
        if name and cloud.answer_is_lost(name):
            self.close_connection = True
            return
        self._send(status, body, headers)

    def _api(self, text: bytes) -> tuple[str, int, Json, dict[str, str]]:
        url, cloud = urlsplit(self.path), self.server.cloud
        method, path = find(self.command, url.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        body = json.loads(text) if text else None
        try:
            with cloud.lock:
                fault = cloud.begin(method.name, path.get("project", ""))
                method.check_request(query, body)
                user = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                call = Call(
                    name=method.name,
                    path=path,
                    query=query,
                    body=body or {},
                    user=user or CONTROLLER,
                    fault=fault,
                )
                answered = answer(cloud, call)
        finally:
            cloud.holds.before_answer(method.name)
        return (method.name, *self._checked(method, answered))

    def _checked(self, method: Method, answered: Json) -> tuple[int, Json, dict[str, str]]:
        if problem := method.check_answer(answered):
            self.server.cloud.violations.append(f"{method.name}: {problem}")
            return 500, ApiError(500, "internalError", problem).body(), {}
        return 200, answered, {}

    def _control(self, arguments: Json) -> None:
        name = self.path.removeprefix(_CONTROL)
        if name not in CONTROLS:
            self._send(404, {"error": f"no control {name}"}, {})
            return
        try:
            result = CONTROLS[name](self.server.cloud, **arguments)
        except (TypeError, KeyError, StopIteration) as error:
            self._send(400, {"error": repr(error)}, {})
            return
        self._send(200, {"result": result}, {})

    def _send(self, status: int, body: Json, headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
