"""A control plane as an agent sees it: the routes of `wire`, scripted work, and faults on demand.

It keeps what it was told, so that a test can look at it; it decides nothing by itself.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from agent_bootstrap import wire
from agent_bootstrap.bundle import bundle

TOKEN = "one-time-7f3a"
NONCE = "0123456789"
SESSION = "session-token-91bc"
_ONE_TIME = {"kind": "one-time", "token": TOKEN}


@dataclass
class Seen:
    """What the agent told of one job."""

    log: bytearray = field(default_factory=bytearray)
    starts: int = 0
    finishes: list[wire.Finished] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.log.decode()

    @property
    def finished(self) -> wire.Finished:
        return self.finishes[0]


@dataclass
class Fault:
    """What happens to the next requests of a route. `status`: answer that. `drop`: carry it out,
    then close the connection without an answer. `delay_s`: answer late. `until`: answer as soon as
    this is so, or after five seconds all the same."""

    status: int = 0
    code: str = ""
    drop: bool = False
    delay_s: float = 0.0
    until: Callable[[], bool] = lambda: True
    times: int = 1


class FakeControlPlane:
    """Serves one machine on a free port of the loopback interface."""

    def __init__(self) -> None:
        self.advice = wire.Advice(
            beat_s=0.1, poll_s=0.05, idle_timeout_s=-1, contact_timeout_s=30, max_lifetime_s=3600
        )
        self.bundle = bundle()
        self.cloud = ""
        """Whose machine it is; the proof that its agent sends must be of that kind."""
        self.waiting: list[wire.Work] = []
        self.leases: dict[str, wire.Work] = {}
        self.jobs: dict[str, Seen] = {}
        self.sources: dict[str, bytes] = {}
        self.elsewhere = ""
        """Where sources are had, and artifacts put that are asked about; empty = here."""
        self.cancel: list[str] = []
        self.lost: list[str] = []
        self.drain = False
        self.end = False
        self.taken_in_s: dict[str, float] = {}
        """What answers of a route, `claim` or `beat`, say of it."""
        self.agree = True
        self.calls: list[tuple[str, Any]] = []
        self.faults: dict[str, Fault] = {}
        self.tokens_seen: set[str] = set()
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()

    def job(self, job_id: str) -> Seen:
        return self.jobs.setdefault(job_id, Seen())

    def told(self, route: str) -> list[Any]:
        """The bodies of all requests of one route, first to last."""
        with self._lock:
            return [body for each, body in self.calls if each == route]

    # ------------------------------------------------------------------------------ answering

    def answer(self, method: str, target: str, token: str, body: bytes) -> tuple[int, bytes, Fault]:
        parts = urlsplit(target)
        route = unquote(parts.path).removeprefix("/v1/agent/")
        name = route.split("/", 2)[2].split("/")[0] if route.startswith("jobs/") else route
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with self._lock:
            fault = self._fault(name)
            if fault.status == 409 and route.startswith("jobs/"):
                # Such an answer is given by a control plane whose lease is somebody else's.
                self._unlease(route.split("/")[1])
            if fault.status:
                problem = {"type": f"https://orchctl.dev/problems/{fault.code}", "code": fault.code}
                return fault.status, json.dumps(problem).encode(), fault
            self.tokens_seen.add(token)
            if name not in ("nonce", "register", "bundle.pyz") and token != SESSION:
                return 401, b"{}", fault
            if self.elsewhere and (name == "source" or (name == "artifacts" and method == "POST")):
                return (*self._point(name, route, body), fault)
            if route.startswith("jobs/"):
                return 200, self._job(route.split("/", 2), query, body), fault
            if name == "bundle.pyz":
                return 200, self.bundle, fault
            data = json.loads(body)
            self.calls.append((name, data))
            return 200, json.dumps(wire.dump(self._message(name, data))).encode(), fault

    def _fault(self, name: str) -> Fault:
        fault = self.faults.get(name)
        if fault is None:
            return Fault()
        fault.times -= 1
        if fault.times <= 0:
            del self.faults[name]
        return fault

    def _point(self, name: str, route: str, body: bytes) -> tuple[int, bytes]:
        """Somewhere else, at an address that was not given before."""
        asked = json.loads(body) if body else {}
        self.calls.append((name, asked))
        url = f"{self.elsewhere}/{quote(route)}?signature={len(self.calls)}"
        if name == "source":
            return 307, url.encode()
        size, digest = str(asked["size_bytes"]), asked["sha256"]
        headers = {"Content-Length": size, "x-amz-checksum-sha256": digest}
        return 200, json.dumps(wire.dump(wire.UploadTo(url=url, headers=headers))).encode()

    def _message(self, name: str, data: dict[str, Any]) -> Any:
        if name == "nonce":
            return wire.Nonce(NONCE)
        if name == "register":
            expected = {"kind": self.cloud, "nonce": NONCE} if self.cloud else _ONE_TIME
            assert expected.items() <= data["proof"].items()
            return wire.Session(token=SESSION, advice=self.advice)
        if name == "claim":
            again = [work for key, work in self.leases.items() if key not in data["running"]]
            for work in [] if again else self.waiting[: data["limit"]]:
                self.waiting.remove(work)
                self.leases[f"{work.job_id}:{work.epoch}"] = work
                again.append(work)
            return wire.Claimed(
                jobs=again,
                drain=self.drain,
                taken_in_s=self.taken_in_s.get(name, -1.0),
                advice=self.advice,
            )
        if name == "beat":
            return wire.Beaten(
                cancel=self.cancel,
                lost=self.lost,
                drain=self.drain,
                end=self.end,
                taken_in_s=self.taken_in_s.get(name, -1.0),
                advice=self.advice,
            )
        if name == "leave":
            return wire.Left(agreed=self.agree)
        assert name == "notice", f"no such route: {name}"
        return wire.Left(agreed=True)

    def _job(self, route: list[str], query: dict[str, str], body: bytes) -> bytes:
        job = self.job(route[1])
        name, _, rest = route[2].partition("/")
        if name == "source":
            return self.sources[route[1]]
        if name == "logs":
            offset = int(query["offset"])
            assert offset <= len(job.log), "a gap in the log"
            job.log[offset:] = body[: len(job.log) - offset] + body[len(job.log) - offset :]
            return json.dumps({"size": len(job.log)}).encode()
        if name == "artifacts":
            job.artifacts[rest] = body
        elif name == "start":
            job.starts += 1
        else:
            finished = wire.parse(wire.Finished, json.loads(body))
            job.finishes.append(finished)
            self._unlease(route[1])
        return b"{}"

    def _unlease(self, job_id: str) -> None:
        self.leases = {key: work for key, work in self.leases.items() if work.job_id != job_id}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An agent that was killed in the middle of a request is part of the game."""


def _handler(plane: FakeControlPlane) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, answer, fault = plane.answer(self.command, self.path, token, body)
            time.sleep(fault.delay_s)
            limit = time.monotonic() + 5.0
            while not fault.until() and time.monotonic() < limit:
                time.sleep(0.005)
            if fault.drop:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(status)
            if status == 307:
                self.send_header("Location", answer.decode())
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the names that http.server looks up

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def eventually(condition: Callable[[], Any], what: str, within_s: float = 30.0) -> None:
    """Wait for a condition; a generous limit, because the computer may be busy."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
