"""Operations, answers and worlds as short text, for those who have to read a failed history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from tests.conformance.builders import NOW
from tests.model.world import Seen, World


def brief(value: Any) -> str:
    """A value without what is as it always is; times in seconds from the start."""
    if isinstance(value, datetime):
        return f"{(value - NOW).total_seconds():+g}s"
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Seen):
        return brief_fields("", value._asdict())
    if is_dataclass(value):
        changed = {
            each.name: getattr(value, each.name)
            for each in fields(value)
            if each.default is MISSING or getattr(value, each.name) != each.default
        }
        return brief_fields(type(value).__name__, changed)
    if isinstance(value, (tuple, list, frozenset)):
        return f"[{', '.join(map(brief, value))}]"
    return repr(value)


def brief_fields(name: str, values: Mapping[str, Any]) -> str:
    shown = [f"{key}={brief(value)}" for key, value in values.items() if value not in ("", ())]
    return f"{name}({', '.join(shown)})"


def lines(world: World) -> list[str]:
    """Each queue with its jobs, one a line."""
    told = [f"machines {brief_fields('', world.machines)}"]
    for name, queue in world.queues.items():
        told.append(f"{name} {brief(queue)}")
        told += [f"  {brief(job.seen)}" for job in world.line(name)]
    return told
