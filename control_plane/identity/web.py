"""The few requests that checking a proof takes: to fixed hosts, with a deadline, small answers.

Strangers can cause them, so few go out at once, and what does not fit is told to come again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control_plane.errors import Unavailable

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 3.0
READ_S = 5.0
"""Between two pieces of an answer."""
TOTAL_S = 10.0
"""Of one request: agents wait 20 s for the answer that needs it."""
ANSWER_MAX_BYTES = 64 * 1024
"""Of one answer. Keys and certificates have a few KiB."""
AT_ONCE = 8
"""Requests at a time: a boot wave gets through, a flood does not take all threads."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class Web:
    """Requests to clouds. Redirects are answers like any other: nobody follows them."""

    def __init__(self, transport: httpx2.BaseTransport | None = None) -> None:
        """`transport` stands for the network in tests."""
        self._transport = transport
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None

    def get(self, url: str) -> bytes:
        """The body of a GET that succeeded. Raises `Unavailable`."""
        answer = self._send("GET", url, b"", {})
        if answer.status != 200:
            raise Unavailable(f"{url} answered {answer.status}")
        return answer.body

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to a POST, whatever its status. Raises `Unavailable` when there is none."""
        return self._send("POST", url, body, headers)

    def _send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        import httpx2  # here, since reading it takes longer than most commands

        if not self._room.acquire(blocking=False):
            raise Unavailable("too many proofs are being checked at once")
        try:
            return self._answer(method, url, body, headers)
        except httpx2.HTTPError as error:
            raise Unavailable(f"{url} does not answer: {type(error).__name__}") from error
        finally:
            self._room.release()

    def _answer(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        deadline = time.monotonic() + TOTAL_S
        pieces = bytearray()
        client = self._opened()
        with client.stream(method, url, content=body, headers=dict(headers)) as answer:
            for piece in answer.iter_raw():
                pieces += piece
                if len(pieces) > ANSWER_MAX_BYTES or time.monotonic() > deadline:
                    raise Unavailable(f"{url} answers without end")
            return Answer(answer.status_code, bytes(pieces))

    def _opened(self) -> httpx2.Client:
        import httpx2

        with self._lock:
            if self._client is None:
                self._client = httpx2.Client(
                    transport=self._transport,
                    timeout=httpx2.Timeout(READ_S, connect=CONNECT_S),
                    headers={
                        "Connection": "close",  # machines boot in waves, with hours in between
                        "Accept-Encoding": "identity",  # what unpacks to much is not small
                    },
                    follow_redirects=False,
                )
            return self._client
