"""What the functions of one deployment share beside the store: a secret and a bell.

Both are items of the same table, apart from everything that is listed, moved or counted.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.expressions import ABSENT, expr

SECRET = ("Z", "secret")
BELL = ("Z", "bell")
VALUE = "val"
RUNG_UNTIL = "until"

RUNG = timedelta(seconds=60)
"""A bell that nobody has answered for so long is rung again: whoever heard it has died."""


def kept_secret(table: TableClient) -> bytes:
    """Thirty-two random bytes that the first function to ask has chosen."""
    item = table.get(*SECRET)
    if item is None:
        pk, sk = SECRET
        fresh = {"pk": pk, "sk": sk, VALUE: secrets.token_hex(32)}
        try:
            table.put(fresh, condition=ABSENT)
        except ConditionFailed:
            item = table.get(*SECRET)
        else:
            item = fresh
    assert item is not None, "nobody deletes the secret"
    return bytes.fromhex(item[VALUE])


def cursor_secret(secret: bytes) -> bytes:
    """What signs cursors, sessions and webhooks. Derived: who has it cannot speak for a machine."""
    return hashlib.sha256(b"cursors" + secret).digest()


class Bell:
    """Wakes the loop, once for all that change at about the same time.

    `ring` after a change, `answer` before a look: a change that finds the bell rung is seen by the
    look that answers it, since that begins later."""

    def __init__(
        self, table: TableClient, now: Callable[[], datetime], wake: Callable[[], None]
    ) -> None:
        """`wake` starts a look somewhere else, and is not waited for."""
        self._table = table
        self._now = now
        self._wake = wake

    def ring(self) -> None:
        """Something has changed."""
        now = self._now()
        free = expr(
            f"attribute_not_exists({RUNG_UNTIL}) OR {RUNG_UNTIL} < :now", now=now.isoformat()
        )
        try:
            self._table.update(*BELL, assign={RUNG_UNTIL: (now + RUNG).isoformat()}, condition=free)
        except ConditionFailed:
            return
        self._wake()

    def answer(self) -> None:
        """A look begins."""
        # Most looks find it silent, and reading costs a fifth of writing.
        if (self._table.get(*BELL) or {}).get(RUNG_UNTIL):
            self._table.update(*BELL, assign={RUNG_UNTIL: ""})
