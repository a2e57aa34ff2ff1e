"""Cursors of listings: where the next page begins, as text that belongs to one query.

The digest is no secret; it tells a damaged cursor, or one from another query, from a good one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from control_plane.errors import InvalidInput
from control_plane.ports import Page

T = TypeVar("T")
Scope = tuple[str, ...]
"""What a query asks for; a cursor of one query is no good for another."""
Key = tuple[Any, ...]
"""The sort key of an item: texts and numbers."""


def write(scope: Scope, key: Key) -> str:
    """The cursor behind the item of this sort key, for the query that `scope` names."""
    payload = json.dumps(key, separators=(",", ":"))
    text = f"{_digest(scope, payload)}{payload}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(scope: Scope, cursor: str, like: Key) -> Key:
    """The sort key in a cursor of the same query; its values have the types of `like`.

    Raises `InvalidInput`."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        key = tuple(json.loads(text[_DIGEST:]))
    except (ValueError, TypeError) as error:
        raise _invalid() from error
    # Comparing the whole text refuses spellings that decode to the same bytes.
    if write(scope, key) != cursor or [type(each) for each in key] != [type(e) for e in like]:
        raise _invalid()
    return key


def page(scope: Scope, items: Sequence[T], limit: int, key: Callable[[T], Key]) -> Page[T]:
    """The first `limit` of `items`, of which one more was asked for than the page may hold."""
    shown = tuple(items[:limit])
    more = len(items) > limit and shown
    return Page(items=shown, cursor=write(scope, key(shown[-1])) if more else "")


_DIGEST = 12


def _digest(scope: Scope, payload: str) -> str:
    text = json.dumps([*scope, payload])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]


def _invalid() -> InvalidInput:
    return InvalidInput(
        "this cursor does not belong to this listing",
        fix="Start again without a cursor.",
    )
