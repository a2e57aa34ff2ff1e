"""How fast a cloud may be called: token buckets whose rate is learnt.

A cloud refuses what comes faster than its own buckets refill, and what those hold differs from
account to account. So a bucket of ours starts at the rate the cloud documents, grows a little for
every second in which more was wanted, and shrinks when the cloud refuses: additive increase,
multiplicative decrease, as TCP has it (RFC 5681). A bucket that refills more slowly than documented
holds as much less: else every rest would fill it for the next crowd of refusals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

GROWTH = 0.1
"""Of the documented rate, added for a second in which more was wanted than there was."""
SHRINK = 0.7
"""What a refusal leaves of the rate."""
LEAST = 0.125
"""Of the documented rate: no refusal takes it below."""
MOST = 20.0
"""Times the documented rate: it never grows beyond."""
LONGEST_GROWTH_S = 5.0
"""A look that comes late has not been wanting all the while."""
AHEAD = timedelta(minutes=1)
"""By how much the clock of another controller is believed to be ahead of ours. A bucket of a later
moment was written by a clock that was wrong, and would stay empty until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What an API takes in the long run and at once, as its cloud documents it."""

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What is left for one kind of call in one place, shared by all controllers."""

    key: str
    """`aws/us-east-1/launches` and the like."""
    version: int
    tokens: float
    per_s: float
    """The rate as learnt so far."""
    at: datetime
    """When `tokens` was right."""
    short: bool = False
    """Whether more was wanted than there was."""


def full(key: str, pace: Pace, now: datetime) -> Bucket:
    """The bucket of an API that was not called yet."""
    return Bucket(key=key, version=0, tokens=pace.burst, per_s=pace.per_s, at=now)


def taken(bucket: Bucket, pace: Pace, want: int, now: datetime) -> tuple[Bucket, int]:
    """The bucket after up to `want` calls were taken out of it, and how many they are."""
    since_s = max((now - bucket.at) / timedelta(seconds=1), 0.0)
    per_s = bucket.per_s
    if bucket.short:
        grown = per_s + GROWTH * pace.per_s * min(since_s, LONGEST_GROWTH_S)
        per_s = min(grown, MOST * pace.per_s)
    most = max(pace.burst * min(per_s / pace.per_s, 1.0), 1.0)
    tokens = min(bucket.tokens + per_s * since_s, most)
    got = min(want, int(tokens))
    left = replace(
        bucket,
        tokens=tokens - got,
        per_s=per_s,
        at=_later(bucket, now),
        short=got < want,
    )
    return left, got


def can_slow(bucket: Bucket, pace: Pace) -> bool:
    """Whether a refusal leaves less of the rate."""
    return bucket.per_s > pace.per_s * LEAST


def slowed(bucket: Bucket, pace: Pace, now: datetime) -> Bucket:
    """The bucket after the cloud has refused a call for coming too fast: empty, and slower."""
    per_s = max(bucket.per_s * SHRINK, pace.per_s * LEAST)
    return replace(bucket, tokens=0.0, per_s=per_s, at=_later(bucket, now), short=False)


def _later(bucket: Bucket, now: datetime) -> datetime:
    return max(now, min(bucket.at, now + AHEAD))
