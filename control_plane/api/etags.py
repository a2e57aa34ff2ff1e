"""ETags: the version of a noun, for conditional writes and for answers nobody needs twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control_plane.api.problems import PreconditionFailed, PreconditionRequired
from control_plane.errors import Conflict, InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The version that the sender of a conditional write has seen."""

    version: int | None
    """0 = it must not exist yet; None = any, as long as it exists."""


def etag(version: int) -> str:
    """The strong ETag of a version."""
    return f'"{version}"'


def matches(header: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names a tag; weak and strong are alike here."""
    tags = [each.strip().removeprefix("W/") for each in header.split(",")]
    return tag in tags or header.strip() == "*"


def expected(if_match: str, if_none_match: str = "") -> Expected | None:
    """What a conditional write expects; None when it does not say. Raises `InvalidInput`."""
    if if_none_match:
        if if_none_match.strip() != "*" or if_match:
            raise InvalidInput("send `If-None-Match: *` for a new one, or `If-Match` alone")
        return Expected(version=0)
    if not if_match:
        return None
    if if_match.strip() == "*":
        return Expected(version=None)
    text = if_match.strip().strip('"')
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) > 0):
        raise InvalidInput('`If-Match` takes one version, such as `"3"`')
    return Expected(version=int(text))


def required(found: Expected | None, how: str) -> Expected:
    """The same. Raises `PreconditionRequired` when the request did not say."""
    if found is None:
        raise PreconditionRequired("this write must name the version it changes", fix=how)
    return found


def check(found: Expected | None, version: int) -> None:
    """Raise `PreconditionFailed` unless the stored version (0 = none) is the expected one."""
    if found is None:
        return
    if found.version is None:
        if version == 0:
            raise PreconditionFailed("there is nothing to change yet")
    elif found.version != version:
        raise PreconditionFailed(
            f"it is at version {version}, not {found.version}", fix="read it again, then repeat"
        )


@contextmanager
def conditional() -> Iterator[None]:
    """Within it, a `Conflict` means that the expected version was not there any more."""
    try:
        yield
    except PreconditionFailed:
        raise
    except Conflict as error:
        raise PreconditionFailed(error.message, fix=error.fix) from error
