"""The fake behind TLS on a port of 127.0.0.1: addresses, tokens and bodies checked on the way in,
answers checked against the published models on the way out."""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Mapping
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.azure import specs
from tests.fakes.azure.api import Answer, Request, answer, price_page
from tests.fakes.azure.certificate import write_certificate
from tests.fakes.azure.cloud import ArmError, AzureCloud, Dropped, Garbled

_PRICES = "/api/retail/prices"
_CONTROL = "/_control/"
_CONTROLS = frozenset(
    {
        *("add_group", "add_subnet", "remove_subnet", "add_security_group"),
        *("set_capacity", "set_quota", "withhold", "set_price"),
        *(
            "fail_next",
            "lose_next_call",
            "drop_next_answer",
            "garble_next_answer",
            "silence",
            "speak",
            "next_launch",
        ),
        *("leave_behind", "interrupt", "shut_down", "delete_from_within"),
    }
)
_SETTINGS = frozenset(
    {
        "provision_s",
        "delete_s",
        "clear_s",
        "listing_lag_s",
        "page_size",
        "latency_s",
        "status_allowed",
    }
)


class AzureServer:
    """A running fake; a context manager that stops it."""

    def __init__(self, cloud: AzureCloud | None = None, *, port: int = 0) -> None:
        self.cloud = cloud or AzureCloud()
        self._folder = tempfile.TemporaryDirectory(prefix="fake-azure-")
        certificate, key = write_certificate(Path(self._folder.name))
        self.ca_file = str(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http = _TlsServer(("127.0.0.1", port), context, self)
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.01,), name="fake-azure", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> AzureServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._folder.cleanup()


class _TlsServer(ThreadingHTTPServer):
    """One thread a connection; the handshake is made in it, so that nobody waits for another's."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, fake: AzureServer
    ) -> None:
        super().__init__(address, _Handler)
        self._context = context
        self.fake = fake

    def get_request(self) -> tuple[socket.socket, Any]:
        plain, address = super().get_request()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        return wrapped, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    timeout = 60
    server: _TlsServer

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            reply = self._reply(raw)
        except Dropped:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        except Garbled:
            reply = Answer(text="<html><h1>Sign in to this network</h1></html>")
        except ArmError as error:
            reply = _refusal(error)
        self._send(reply)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _reply(self, raw: bytes) -> Answer:
        cloud, parts = self.server.fake.cloud, urlsplit(self.path)
        if parts.path.startswith(_CONTROL):
            return _controlled(cloud, parts.path.removeprefix(_CONTROL), _json(raw))
        time.sleep(cloud.latency_s)
        request = Request(
            url=self.server.fake.url,
            path=parts.path,
            names={},
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=_json(raw),
        )
        if parts.path == _PRICES:
            with cloud.troubled("prices", ""):
                return price_page(cloud, request)
        return self._resource_manager(cloud, request)

    def _resource_manager(self, cloud: AzureCloud, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {cloud.token}":
            raise ArmError(401, "InvalidAuthenticationToken", "The access token is invalid.")
        found = specs.find(self.command, request.path)
        if found is None:
            raise ArmError(404, "InvalidResourceType", f"no {self.command} {request.path}")
        operation, names = found
        unknown = set(request.query) - operation.query
        if unknown or request.query.get("api-version") != operation.version:
            raise ArmError(400, "InvalidApiVersionParameter", f"{sorted(request.query)}")
        named = Request(
            url=request.url,
            path=request.path,
            names=names,
            query=request.query,
            headers=request.headers,
            body=request.body,
        )
        try:
            with cloud.troubled(operation.name, named.group):
                reply = answer(cloud, operation.name, named)
        finally:
            cloud.holds.before_answer(operation.name)
        _check(cloud, operation.name, reply)
        return reply

    def _send(self, reply: Answer) -> None:
        body = (reply.text if reply.body is None else json.dumps(reply.body)).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if body:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        if reply.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` of an answer."""
        return format_datetime(self.server.fake.cloud.clock.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The fake is silent."""


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw) if raw else {}
    except ValueError as error:
        raise ArmError(400, "InvalidRequestContent", str(error)) from error
    if not isinstance(body, dict):
        raise ArmError(400, "InvalidRequestContent", "not an object")
    return body


def _refusal(error: ArmError) -> Answer:
    wait = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return Answer(error.status, {"error": error.error}, wait)


def _check(cloud: AzureCloud, operation: str, reply: Answer) -> None:
    """The fake must not make anything up: its answers keep to the published models."""
    if not reply.model:
        return
    paged = isinstance(reply.body, Mapping) and operation.endswith(("list", "list_all", "_group"))
    for each in reply.body["value"] if paged else [reply.body]:
        network, _, kind = reply.model.partition(":")
        check = specs.wrong_in_network_answer if kind else specs.wrong_in_answer
        wrong = check(kind or network, each)
        cloud.answers_checked += 1
        if wrong:
            cloud.invalid.append(f"{operation}: {wrong}")


def _controlled(cloud: AzureCloud, name: str, arguments: dict[str, Any]) -> Answer:
    """What a test in another process orders: `POST /_control/METHOD` with its arguments."""
    if name == "machines":
        return Answer(body=cloud.told())
    if name == "resources":
        return Answer(body=cloud.resources())
    if name == "advance":
        cloud.clock.advance(**arguments)
    elif name == "settings" and set(arguments) <= _SETTINGS:
        for setting, value in arguments.items():
            setattr(cloud, setting, value)
    elif name in _CONTROLS:
        getattr(cloud, name)(**arguments)
    else:
        raise ArmError(404, "NotFound", f"no control {name}")
    return Answer(body={})
