"""Files too large for the API go to the storage behind it and come from there, at addresses that
the API has signed for one file and a few minutes. The token of the API does not go along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO

import httpx2

from orchctl.errors import OrchctlError, Refused, Unavailable

TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
"""For each step of it, not for the whole."""


class Storage:
    """Each call is one try: whoever tries again has asked for a new address."""

    def __init__(self, transport: httpx2.BaseTransport | None) -> None:
        self._transport = transport

    def put(self, url: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Store a file. Raises `Unavailable` when it may work another time, else `Refused`."""
        try:
            with self._http(url) as http:
                answer = http.put(url, content=content, headers=dict(headers))
        except httpx2.TransportError as error:
            raise _silent(error) from error
        if answer.status_code >= 300:
            raise _refusal(answer)

    def get(self, url: str, into: BinaryIO) -> None:
        """Write a file to the end of `into`. Raises as `put`, after a part of it was written."""
        try:
            with self._http(url) as http, http.stream("GET", url) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    raise _refusal(answer)
                for block in answer.iter_raw():
                    into.write(block)
        except httpx2.TransportError as error:
            raise _silent(error) from error

    def _http(self, url: str) -> httpx2.Client:
        # Plain HTTP shows no certificate; reading the CA bundle for it takes 40 ms.
        verify = not url.startswith("http://")
        return httpx2.Client(timeout=TIMEOUT, transport=self._transport, verify=verify)


def _silent(error: Exception) -> Unavailable:
    return Unavailable(
        "the storage behind the server does not answer", why=str(error) or type(error).__name__
    )


def _refusal(answer: httpx2.Response) -> OrchctlError:
    found = re.search("<Code>([A-Za-z]+)</Code>", answer.text)  # S3 says what is wrong in XML
    later = answer.status_code >= 500 or answer.status_code in (408, 429)
    return (Unavailable if later else Refused)(
        f"the storage behind the server answered {answer.status_code}",
        why=found[1] if found else "",
    )
