"""How often anybody may ask: so many at once, and so many a second after that.

Each process counts for itself. Where there are many, as on Lambda, each lets as much through; what
is limited here is what one stranger or one loop gone wild can cost.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

from control_plane.errors import TooManyRequests
from control_plane.ports import Clock

COUNTED_MAX = 4096
"""Senders that are remembered, those seen last. Who is forgotten starts anew: it takes that many
addresses to get there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many at once, refilled at a steady pace."""

    name: str
    burst: int
    per_s: float


FAILURES = Limit(name="failures", burst=20, per_s=1 / 3)
"""Of one address: credentials that are not known. Nobody guesses 256 bits; this keeps logs readable
and issuers unasked."""
REQUESTS = Limit(name="requests", burst=500, per_s=50.0)
"""Of one token or session: what a loop over a thousand jobs needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What somebody may still send."""

    limit: Limit
    tokens: float

    @property
    def ok(self) -> bool:
        """Whether this one may go on."""
        return self.tokens >= 0

    @property
    def wait_s(self) -> int:
        """Whole seconds until the next one may."""
        return max(1, math.ceil((1 - self.tokens) / self.limit.per_s)) if self.tokens < 1 else 0

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers writes it: what is left, and in how many seconds
        it is full again."""
        limit = self.limit
        full_s = math.ceil((limit.burst - max(0.0, self.tokens)) / limit.per_s)
        window_s = math.ceil(limit.burst / limit.per_s)
        return {
            "RateLimit": f'"{limit.name}";r={max(0, math.floor(self.tokens))};t={full_s}',
            "RateLimit-Policy": f'"{limit.name}";q={limit.burst};w={window_s}',
        }


class Counts:
    """What is left of one limit, for everybody. Any number of threads may use it."""

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By sender: what was left, and when (seconds since 1970)."""

    def take(self, sender: str) -> Left:
        """Count one of a sender. One that is refused costs nothing."""
        with self._lock:
            tokens, now = self._now_left(sender), self._clock.now().timestamp()
            if tokens >= 1:
                self._left[sender] = (tokens - 1, now)
                self._left.move_to_end(sender)
                while len(self._left) > COUNTED_MAX:
                    self._left.popitem(last=False)
            # Below nought: it was refused, and this much was there.
            return Left(limit=self.limit, tokens=tokens - 1)

    def look(self, sender: str) -> Left:
        """What `take` would say; counts nothing."""
        with self._lock:
            return Left(limit=self.limit, tokens=self._now_left(sender) - 1)

    def _now_left(self, sender: str) -> float:
        if sender not in self._left:
            return float(self.limit.burst)
        tokens, at = self._left[sender]
        passed_s = max(0.0, self._clock.now().timestamp() - at)
        return min(self.limit.burst, tokens + passed_s * self.limit.per_s)


KNOWN_MAX = 4096
"""Credentials that were good lately and are remembered."""


class Failures:
    """Refuses who sends one wrong credential after the other, before anything is looked up for it.
    A credential that was good lately is always looked up: others behind the same address go on."""

    def __init__(self, clock: Clock) -> None:
        self._counts = Counts(FAILURES, clock)
        self._lock = threading.Lock()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def check(self, sender: str, credential: str) -> None:
        """Raise `TooManyRequests` when this sender has had its tries."""
        if not self._counts.look(sender).ok and _digest(credential) not in self._good:
            raise self._refusal(sender)

    def failed(self, sender: str) -> None:
        """Count a wrong credential. Raises `TooManyRequests` when it is one too many."""
        if not self._counts.take(sender).ok:
            raise self._refusal(sender)

    def succeeded(self, credential: str) -> None:
        """Remember a good one."""
        with self._lock:
            self._good[_digest(credential)] = None
            self._good.move_to_end(_digest(credential))
            while len(self._good) > KNOWN_MAX:
                self._good.popitem(last=False)

    def _refusal(self, sender: str) -> TooManyRequests:
        left = self._counts.look(sender)
        return TooManyRequests(
            "too many wrong tokens came from this address",
            fix="check the token: `orchctl context show`",
            retry_after_s=left.wait_s,
            limit=left.headers(),
        )


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
