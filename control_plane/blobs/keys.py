"""Which blob keys are safe: the same for every kind of storage."""

from __future__ import annotations

import re

from control_plane.errors import InvalidInput

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,199}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_LENGTH_MAX = 800
"""Below the 1024 bytes of an object key in S3, with room for a prefix."""


def check(key: str) -> None:
    """Raise `InvalidInput` unless the key is made of names joined by `/`, none of which begins with
    a dot: so no key climbs out of its folder, hides, or needs quoting anywhere."""
    if len(key) > _LENGTH_MAX or not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{key[:80]!r} is not a blob key",
            fix="Use letters, digits and _.+=@- in names joined by /; no name begins with a dot.",
        )


def check_prefix(prefix: str) -> None:
    """Raise `InvalidInput` unless the prefix names whole folders: a key with a `/` behind it."""
    if not prefix.endswith("/"):
        raise InvalidInput(
            f"{prefix[:80]!r} is not a blob prefix", fix="End it in /, so no other name begins so."
        )
    check(prefix[:-1])
