"""Requests to the API: identity, retries, idempotency keys, and problems as exceptions."""

from __future__ import annotations

import random
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

import httpx2

from orchctl import version
from orchctl.errors import BY_CODE, BY_STATUS, Detail, OrchctlError, Unavailable
from orchctl.storage import Storage

ATTEMPTS = 5
"""Tries of one request: with the pauses below they bridge a restart of the server (about 3 s)."""
IN_FLIGHT_ATTEMPTS = 70
"""Tries, a second apart, of a request whose first try is still being answered. When the server died
over it, its key is free again after a minute."""
PAUSE_FIRST_S = 0.2
PAUSE_MAX_S = 10.0
"""Also bounds what a `Retry-After` can make us wait before each try."""
TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
TRANSFER_S = 300.0
"""For a request or an answer of many bytes."""

A = TypeVar("A")
T = TypeVar("T")

_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


def fresh_key() -> str:
    """An idempotency key that nobody had before: a UUID of version 7 (RFC 9562), which carries its
    time, so that the server needs no record of its own for it."""
    milliseconds = time.time_ns() // 1_000_000
    chance = secrets.randbits(74)
    high = milliseconds << 16 | 7 << 12 | chance >> 62
    return str(uuid.UUID(int=high << 64 | 2 << 62 | chance & ((1 << 62) - 1)))


class Transport:
    """One server, one identity. Safe to repeat is every request it repeats: a POST carries one
    `Idempotency-Key` through all its tries, and a conditional write whose answer was lost is not
    tried again (its second try would be refused as a conflict with itself)."""

    def __init__(
        self,
        server: str,
        token: str = "",
        *,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"User-Agent": f"orchctl/{version.installed()}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.server = server
        self._sleep = sleep
        self._storage = Storage(transport)
        self._http = httpx2.Client(
            base_url=server,
            headers=headers,
            timeout=TIMEOUT,
            transport=transport,
            # Plain HTTP shows no certificate; reading the CA bundle for it takes 40 ms.
            verify=not server.startswith("http://"),
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """The JSON of a GET; parameters that are None or empty are left out."""
        return parsed(self.request("GET", path, query=query))

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        key: str = "",
    ) -> Any:
        """The JSON of a POST, None for an empty answer; `key` is the idempotency key, a fresh one
        by default."""
        headers = {"Idempotency-Key": key or fresh_key()}
        response = self.request("POST", path, query=query, body=body or {}, headers=headers)
        return parsed(response) if response.content else None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx2.Response:
        """Send until there is an answer. Raises the class of the problem, or `Unavailable`."""
        request = self._http.build_request(
            method,
            path,
            params={name: str(value) for name, value in (query or {}).items() if _given(value)},
            json=body,
            content=content,
            headers=headers,
            timeout=TIMEOUT if timeout_s is None else httpx2.Timeout(timeout_s, connect=5.0),
        )
        response = self._send(request)
        if response.is_error:
            raise problem(response)
        return response

    def store(self, ask: str, query: Mapping[str, object], content: bytes) -> bool:
        """Put bytes where a GET of the path `ask` says; False, and nothing is done, when it says
        that the server takes them itself. Raises as `request`, and `Refused`."""

        def put(to: Mapping[str, Any]) -> bool:
            if to["url"]:
                self._storage.put(to["url"], content, to["headers"])
            return bool(to["url"])

        return self._insist(lambda: self.get(ask, **query), put)

    def download(self, path: str, into: BinaryIO) -> None:
        """Write what a GET answers into an empty file, from wherever the server says it is. Raises
        as `request`, and `Refused`."""

        def write(answer: httpx2.Response) -> None:
            if answer.status_code == 200:
                into.write(answer.content)
                return
            if answer.status_code != 307:
                raise not_understood(f"it answered {answer.status_code} to {path}")
            into.seek(0)
            into.truncate()
            self._storage.get(answer.headers["Location"], into)

        self._insist(lambda: self.request("GET", path, timeout_s=TRANSFER_S), write)

    def _insist(self, ask: Callable[[], A], act: Callable[[A], T]) -> T:
        """Do something with an answer, and with a new one as long as the storage cannot be had."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = ask()
            try:
                return act(answer)
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
            self._sleep(pause(attempt, ""))
        raise AssertionError("the last attempt returns or raises")

    def _send(self, request: httpx2.Request) -> httpx2.Response:
        for attempt in range(1, IN_FLIGHT_ATTEMPTS + 1):
            try:
                response = self._http.send(request)
            except httpx2.TransportError as error:
                if attempt >= ATTEMPTS or not _may_repeat(request, error):
                    raise self._silent(error) from error
                self._sleep(pause(attempt, ""))
                continue
            if attempt >= _attempts(response):
                return response
            self._sleep(pause(attempt, response.headers.get("Retry-After", "")))
        raise AssertionError("the last attempt returns or raises")

    def _silent(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self.server} does not answer",
            why=str(error) or type(error).__name__,
            fix="check the address with `orchctl context show`; "
            "`orchctl doctor` finds out more, `orchctl up` starts a server here",
        )


def pause(attempt: int, retry_after: str) -> float:
    """Seconds before the next try: as the server asks, else doubling, varied by half so that many
    clients do not come back at once."""
    if retry_after.isdecimal():
        return min(float(retry_after), PAUSE_MAX_S)
    full: float = min(PAUSE_FIRST_S * 2 ** (attempt - 1), PAUSE_MAX_S)
    return full * (0.5 + random.random() / 2)


def problem(response: httpx2.Response) -> OrchctlError:
    """The exception of an error answer."""
    data = _document(response)
    fallback = BY_STATUS.get(response.status_code, OrchctlError)
    kind = BY_CODE.get(str(data.get("code", "")), fallback)
    details = [
        Detail(pointer=str(each.get("pointer", "")), text=str(each.get("detail", "")))
        for each in data.get("errors") or ()
    ]
    title = data.get("title") or f"the server answered {response.status_code}"
    return kind(str(data.get("detail") or title), fix=str(data.get("fix") or ""), details=details)


def parsed(response: httpx2.Response) -> Any:
    """The JSON of an answer. Raises `OrchctlError` when it is none, as from a login page."""
    try:
        return response.json()
    except ValueError as error:
        raise not_understood(str(error)) from error


def not_understood(why: str) -> OrchctlError:
    """The exception of an answer that is not what the API would say."""
    return OrchctlError(
        "the server's answer is not understood",
        why=why,
        fix="check that the address is an orchctl server of this version: `orchctl doctor`",
    )


def _document(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        data = response.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _attempts(response: httpx2.Response) -> int:
    """How often a request that got this answer is worth sending in all."""
    if response.status_code == 409 and "Retry-After" in response.headers:
        return IN_FLIGHT_ATTEMPTS
    return ATTEMPTS if response.status_code in _TRY_AGAIN else 1


def _given(value: object) -> bool:
    return value is not None and value != ""


def _may_repeat(request: httpx2.Request, error: httpx2.TransportError) -> bool:
    return isinstance(error, _NEVER_SENT) or "If-Match" not in request.headers
