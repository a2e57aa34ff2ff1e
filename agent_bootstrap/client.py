"""Talking to the control plane: one request, one answer, and how often to try again.

No connection is kept, no redirect is followed and no proxy is asked: the session token goes to the
configured server or nowhere.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Optional, Type, TypeVar, Union
from urllib.parse import quote, urlencode, urlsplit

from agent_bootstrap import wire

TIMEOUT_S = 20.0
"""For one request without a wait on the server. Longer than a cold start of a serverless API."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Pauses double in between. Not longer, because a machine that is being taken away has seconds."""

BLOCK_BYTES = 1 << 20

T = TypeVar("T")


class Unanswered(Exception):
    """No answer, or one that says: later. The same request may be sent again."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refusal(Exception):
    """The control plane said no; sending it again will not help."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__("%d %s %s" % (status, code, detail))
        self.status = status
        self.code = code


class Stale(Refusal):
    """The lease belongs to somebody else now: drop the job and say nothing more of it."""


class SessionOver(Refusal):
    """The control plane wants no more of this machine."""


class Elsewhere(Refusal):
    """It is to be had at `url`, without the session token."""

    def __init__(self, url: str) -> None:
        super().__init__(307, "elsewhere", "")
        self.url = url


def never() -> bool:
    """For `give_up`: go on until the client is closed."""
    return False


class Client:
    """The agent's routes of one server. Threads may share it.

    `on_contact` is called after each answer that shows the control plane at work, `on_over` when it
    ended the session (before `SessionOver` is raised)."""

    def __init__(
        self,
        server_url: str,
        *,
        on_contact: Callable[[], None] = lambda: None,
        on_over: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        parts = urlsplit(server_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http or https address: %s" % server_url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._root = parts.path.rstrip("/") + "/v1/agent/"
        self._on_contact = on_contact
        self._on_over = on_over
        self._closed = threading.Event()
        self.token = ""

    def close(self) -> None:
        """Whoever repeats a request gives up now."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def repeat(self, attempt: Callable[[], T], give_up: Callable[[], bool] = never) -> T:
        """Call until it is answered, with growing, jittered pauses. Raises `Refusal`, and
        `Unanswered` when `give_up` says so or the client is closed."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return attempt()
            except Unanswered as error:
                wait = max(error.retry_after_s, pause * random.uniform(0.5, 1.0))
                if give_up() or self._closed.wait(wait):
                    raise
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def ask(self, route: str, message: Any, kind: Type[T], *, wait_s: float = 0.0) -> T:
        """POST one message, once. Raises `Unanswered`, `Refusal`."""
        body = json.dumps(wire.dump(message)).encode()
        answer = self._send("POST", route, body, "application/json", wait_s)
        return wire.parse(kind, _object(answer))

    def tell(self, route: str, message: Any) -> None:
        """POST one message whose answer says nothing. Raises `Unanswered`, `Refusal`."""
        body = json.dumps(wire.dump(message)).encode()
        self._send("POST", route, body, "application/json", 0.0)

    def send_log(self, job_id: str, epoch: int, offset: int, data: bytes) -> int:
        """Add to a job's log; returns its size there. Raises `Unanswered`, `Refusal`."""
        query = urlencode({"epoch": epoch, "offset": offset})
        answer = self._send(
            "POST", job_route(job_id, "logs?" + query), data, "application/octet-stream", 0.0
        )
        size = _object(answer).get("size")
        return size if isinstance(size, int) else offset + len(data)

    def send_artifact(self, job_id: str, epoch: int, name: str, path: Path) -> None:
        """Upload one file. Raises `Unanswered`, `Refusal`, `OSError` when it cannot be read."""
        route = "%s?epoch=%d" % (artifact_route(job_id, name), epoch)
        with path.open("rb") as file:
            self._send("PUT", route, file, "application/octet-stream", 0.0)

    def fetch_source(self, job_id: str, epoch: int, path: Path) -> None:
        """Download a job's archive. Raises `Unanswered`, `Refusal`, of these `Elsewhere` when it is
        not here."""
        with path.open("wb") as file:
            self._send("GET", job_route(job_id, "source?epoch=%d" % epoch), None, "", 0.0, file)

    def _send(
        self,
        method: str,
        route: str,
        body: Union[bytes, BinaryIO, None],
        content_type: str,
        wait_s: float,
        into: Optional[BinaryIO] = None,
    ) -> bytes:
        connection = self._connect(TIMEOUT_S + wait_s)
        try:
            headers = self._headers(body, content_type)
            connection.request(method, self._root + route, body=body, headers=headers)
            with connection.getresponse() as response:
                if response.status >= 300:
                    raise self._refusal(response)
                answer = read(response, into)
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered("%s: %s" % (type(error).__name__, error)) from error
        finally:
            connection.close()
        self._on_contact()
        return answer

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def _headers(self, body: Union[bytes, BinaryIO, None], content_type: str) -> Dict[str, str]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self.token:
            headers["Authorization"] = "Bearer " + self.token
        if body is not None:
            size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
            headers.update({"Content-Type": content_type, "Content-Length": str(size)})
        return headers

    def _refusal(self, response: http.client.HTTPResponse) -> Exception:
        """What a status other than success means; see the refusals in `wire`."""
        status, problem = response.status, _problem(response)
        code = str(problem.get("code") or str(problem.get("type", "")).rpartition("/")[2])
        detail = str(problem.get("detail", ""))
        if status == 307:
            self._on_contact()
            return Elsewhere(response.getheader("Location") or "")
        if later(status):
            return Unanswered(
                "%d %s" % (status, detail),
                retry_after_s=_seconds(response.getheader("Retry-After")),
            )
        if status in (401, 410):
            over = SessionOver(status, code, detail)
            self._on_over(str(over))
            return over
        if status == 409:
            self._on_contact()
            return (
                Stale(status, code, detail) if code == "stale-epoch" else Refusal(409, code, detail)
            )
        return Refusal(status, code, detail)


def later(status: int) -> bool:
    """Whether the same request may be answered another time."""
    return status >= 500 or status in (408, 425, 429)


def job_route(job_id: str, rest: str) -> str:
    """A route below one job."""
    return "jobs/%s/%s" % (quote(job_id, safe=""), rest)


def artifact_route(job_id: str, name: str) -> str:
    """The route of one file that a job leaves."""
    return job_route(job_id, "artifacts/" + quote(name))


def read(response: http.client.HTTPResponse, into: Optional[BinaryIO]) -> bytes:
    """The body of an answer, or nothing when it went into a file."""
    if into is None:
        return response.read()
    while True:
        block = response.read(BLOCK_BYTES)
        if not block:
            break
        into.write(block)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b""


def _object(answer: bytes) -> Dict[str, Any]:
    """A JSON object; anything else was not our control plane speaking (a captive portal, a load
    balancer's page) and is as good as no answer."""
    try:
        data = json.loads(answer)
    except ValueError as error:
        raise Unanswered("the answer is not JSON") from error
    if not isinstance(data, dict):
        raise Unanswered("the answer is not a JSON object")
    return data


def _problem(response: http.client.HTTPResponse) -> Dict[str, Any]:
    try:
        return _object(response.read(1 << 16))
    except Unanswered:
        return {}


def _seconds(header: Optional[str]) -> float:
    """`Retry-After` in seconds, bounded; a date or nonsense is ignored."""
    try:
        return min(max(float(header or 0), 0.0), 60.0)
    except ValueError:
        return 0.0
