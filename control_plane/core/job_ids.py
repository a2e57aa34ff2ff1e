"""Ids that carry the time of their making, and ids that follow from an idempotency key.

A store that keeps jobs by day finds one from its id alone, and two requests with one key agree on
the job's id without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that could be taken for another in a log or on the phone. Texts of
one length sort like their numbers."""

TIME_DIGITS = 9
"""Milliseconds since 1970 at the start of an id."""

_TIMED = re.compile(rf"[a-z]+-([{ALPHABET}]{{{TIME_DIGITS}}})[{ALPHABET}]{{4,8}}")
_UUID7 = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$", re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""A time outside is none: the letters only look like one."""
_KEY_BITS = 40


def base32(number: int, digits: int) -> str:
    """The lowest `digits` base-32 digits of a number."""
    return "".join(ALPHABET[number >> (5 * place) & 31] for place in reversed(range(digits)))


def number(text: str) -> int:
    """The number that `base32` wrote. Raises `ValueError` for another letter."""
    value = 0
    for digit in text:
        value = value * 32 + ALPHABET.index(digit)
    return value


def made_at(job_id: str) -> datetime | None:
    """When an id was made, to the millisecond; None for one that does not say."""
    timed = _TIMED.fullmatch(job_id)
    return _moment(number(timed[1])) if timed else None


def id_for(key: str) -> str | None:
    """The job id that belongs to an idempotency key: the key's own time, then 40 bits of its
    SHA-256. None for a key that does not end in a UUID of version 7, whose time it would be."""
    uuid = _UUID7.search(key)
    if uuid is None:
        return None
    milliseconds = int(uuid[1] + uuid[2], 16)
    if _moment(milliseconds) is None:
        return None
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[: _KEY_BITS // 8], "big")
    return f"j-{base32(milliseconds, TIME_DIGITS)}{base32(digest, _KEY_BITS // 5)}"


def _moment(milliseconds: int) -> datetime | None:
    if milliseconds >= 1 << 43:  # year 2248: beyond it a datetime would overflow
        return None
    at = _EPOCH + timedelta(milliseconds=milliseconds)
    return at if _EARLIEST <= at < _LATEST else None
