"""What the API of a deployment takes and gives at a time fits into Lambda's 6 MB as it is written
there: the text of a log as JSON, all other bytes as base64 (`mangum`)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from mangum import Mangum
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from control_plane.serverless.limits import DIRECT_ABOVE_BYTES, LOG_PIECE_BYTES

PAYLOAD_MAX_BYTES = 6_291_556
REST_BYTES = 64 * 1024
"""For the headers of a request or an answer, of which the gateway takes 10 KB, and their frame."""


@pytest.fixture(autouse=True)
def _event_loop() -> Iterator[None]:
    """The one that mangum finds; it would make its own and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def answered(content: bytes, kind: str) -> dict[str, Any]:
    """What Lambda is given for an answer of these bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(content, media_type=kind)(scope, receive, send)

    return dict(Mangum(app, lifespan="off")(event(b""), None))  # type: ignore[arg-type]


def event(body: bytes) -> dict[str, Any]:
    """What Lambda gives for a request of these bytes."""
    http = {"method": "PUT", "path": "/", "sourceIp": "192.0.2.1", "protocol": "HTTP/1.1"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {"host": "orchctl.example"},
        "requestContext": {"http": http, "stage": "$default"},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def size(message: dict[str, Any]) -> int:
    return len(json.dumps(message))


@pytest.mark.parametrize("content", [b"\x1b", b"\xff", b"x", "\u20ac".encode(), b"\x00"])
def test_a_piece_of_a_log_fits_whatever_stands_in_it(content: bytes) -> None:
    piece = content * (LOG_PIECE_BYTES // len(content))
    assert size(answered(piece, "text/plain; charset=utf-8")) + REST_BYTES <= PAYLOAD_MAX_BYTES


def test_what_does_not_go_past_the_api_fits_both_ways() -> None:
    whole = bytes(DIRECT_ABOVE_BYTES)
    assert size(event(whole)) + REST_BYTES <= PAYLOAD_MAX_BYTES
    assert size(answered(whole, "application/octet-stream")) + REST_BYTES <= PAYLOAD_MAX_BYTES


def test_what_is_measured_is_what_travels() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await Request(scope, receive).body())
        await Response(b"\x1b\xff")(scope, receive, send)

    answer = Mangum(app, lifespan="off")(event(b"\x00bytes"), None)  # type: ignore[arg-type]
    assert seen == [b"\x00bytes"]
    assert base64.b64decode(answer["body"]) == b"\x1b\xff"
