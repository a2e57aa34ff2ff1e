"""Reading what clouds deliver: JSON that anybody may have made who knows the address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from control_plane.errors import InvalidInput


def json_of(body: bytes | str) -> Any:
    """The JSON of a delivery. Raises `InvalidInput`."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the delivery is not JSON") from error


def part(data: Any, *path: str) -> Mapping[str, Any]:
    """The object at a path. Raises `InvalidInput`."""
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        raise InvalidInput(f"the delivery has no object {_at(path)}")
    return data


def text(data: Any, *path: str) -> str:
    """The text at a path, not empty. Raises `InvalidInput`."""
    found = part(data, *path[:-1]).get(path[-1])
    if not isinstance(found, str) or not found:
        raise InvalidInput(f"the delivery has no text {_at(path)}")
    return found


def moment(data: Any, *path: str) -> datetime:
    """The time at a path, which names its zone, in UTC. Raises `InvalidInput`."""
    try:
        found = datetime.fromisoformat(text(data, *path))
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{_at(path)} is no time") from error
    raise InvalidInput(f"{_at(path)} names no time zone")


def _at(path: tuple[str, ...]) -> str:
    return f"`{'.'.join(path)}`" if path else "at its top"
