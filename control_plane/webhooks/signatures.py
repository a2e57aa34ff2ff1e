"""How webhooks are signed, and known again: GitHub's way and the one of Standard Webhooks 1.0.

https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Always over the body as it came, byte by byte: what is not proven is not read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from control_plane.errors import Denied

GITHUB_SIGNATURE = "x-hub-signature-256"
GITHUB_EVENT = "x-github-event"
GITHUB_DELIVERY = "x-github-delivery"
ID = "webhook-id"
TIMESTAMP = "webhook-timestamp"
SIGNATURE = "webhook-signature"

TOLERANCE = timedelta(minutes=5)
"""Between what a sender's clock says and ours, in both directions. What is older is a replay."""
SIGNATURES_MAX = 16
"""In one header: a sender has two while it changes its secret."""
ID_MAX = 200
PREFIX = "whsec_"
NONE_GOOD = "no signature is one of this hook's secret"


ALERT = "alert"
"""Of what the secrets are that sign messages of ours, by the reference of their receiver."""


def hooks_key(secret: bytes) -> bytes:
    """What all secrets of webhooks are derived from; `secret` is the server's."""
    return hashlib.sha256(b"hooks" + secret).digest()


def new_secret(key: bytes, *parts: str) -> str:
    """The secret of this name, as both sides write it. Derived, so that none is stored."""
    # Parts are joined by a character that no name may hold, so two lists never collide.
    derived = hmac.new(key, "\n".join(parts).encode(), hashlib.sha256).digest()
    return PREFIX + base64.b64encode(derived).decode()


def github_signature(secret: str, body: bytes) -> str:
    """What GitHub sends as `X-Hub-Signature-256`. It takes the secret's text as it is."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard_signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """One signature of Standard Webhooks: over id, time and body."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def standard_headers(secret: str, message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message of ours."""
    timestamp = str(int(now.timestamp()))
    return {
        ID: message_id,
        TIMESTAMP: timestamp,
        SIGNATURE: standard_signature(secret, message_id, timestamp, body),
    }


def check_github(headers: Mapping[str, str], body: bytes, secrets: Iterable[str]) -> str:
    """The id of a delivery of GitHub that one of these secrets has signed. Raises `Denied`."""
    given = headers[GITHUB_SIGNATURE]
    _require(_matches((given,), [github_signature(each, body) for each in secrets]))
    return _plain_id(headers.get(GITHUB_DELIVERY, ""), GITHUB_DELIVERY)


def check_standard(
    headers: Mapping[str, str], body: bytes, secrets: Iterable[str], now: datetime
) -> str:
    """The same of a message in the form of Standard Webhooks, made within the tolerance."""
    message_id = _plain_id(headers.get(ID, ""), ID)
    timestamp = headers.get(TIMESTAMP, "")
    # Digits of ours alone: others have other ones, which are numbers too.
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Denied(f"`{TIMESTAMP}` is no time in seconds")
    given = headers[SIGNATURE].split(" ")[:SIGNATURES_MAX]
    _require(_matches(given, [standard_signature(s, message_id, timestamp, body) for s in secrets]))
    if abs(now.timestamp() - int(timestamp)) > TOLERANCE.total_seconds():
        raise Denied(f"`{TIMESTAMP}` is more than {TOLERANCE.seconds // 60} minutes from now")
    return message_id


def _matches(given: Iterable[str], good: Iterable[str]) -> bool:
    """Whether one of them is good. All are compared, each in constant time."""
    wanted = [each.encode() for each in good]
    found = [
        hmac.compare_digest(each.encode("utf-8", "surrogatepass"), one)
        for each in given
        for one in wanted
    ]
    return any(found)


def _require(matches: bool) -> None:
    if not matches:
        raise Denied(NONE_GOOD)


def _plain_id(text: str, header: str) -> str:
    if not 0 < len(text) <= ID_MAX or not (text.isascii() and text.isprintable()):
        raise Denied(f"`{header}` is no id of a delivery")
    return text
