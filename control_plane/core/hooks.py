"""Webhooks that come in: what an outside system may tell us, and which job that starts.

Pure: that the sender is who it says has been proven elsewhere (`control_plane/webhooks/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.core.access import matches
from control_plane.core.model import JobSpec

FORMER_KEPT = timedelta(days=1)
"""How long the secret before the current one is still taken: time to change it at the sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A job that an outside system starts, and what it takes to start it. Patterns are those of
    `access.matches`; where there is none, anything will do."""

    name: str
    id: str
    """Of this one: a hook that is made again under the name has another secret."""
    on: tuple[str, ...]
    """Events, such as `push`, or with their action, such as `release.published`."""
    repositories: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    queue: str
    spec: JobSpec
    job_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    generation: int = 1
    """Of its secret; grows when that is changed."""
    rotated_at: datetime | None = None
    """When the generation grew last."""
    applied_at: datetime
    applied_by: str = ""
    version: int = 1

    def generations(self, now: datetime) -> Sequence[int]:
        """Those whose secrets are taken, the current one first."""
        former = self.rotated_at is not None and now < self.rotated_at + FORMER_KEPT
        return (self.generation, self.generation - 1) if former else (self.generation,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """What a webhook says has happened. Empty = it does not say."""

    event: str
    action: str = ""
    """What became of what the event is about, such as `published`."""
    repository: str = ""
    """`owner/name`."""
    ref: str = ""
    """In full: `refs/heads/main`."""
    sha: str = ""
    """The commit."""
    deleted: bool = False
    """The ref is gone: there is nothing to work on."""


def mismatch(hook: Hook, told: Occurrence) -> str:
    """Why this starts no job of the hook; empty = it does."""
    events = (told.event, f"{told.event}.{told.action}") if told.action else (told.event,)
    if not set(events) & set(hook.on):
        return f"the event is {events[-1]}, the hook is on {', '.join(hook.on)}"
    if told.deleted:
        return f"{told.ref} was deleted"
    return _outside("repository", told.repository, hook.repositories) or _outside(
        "ref", told.ref, hook.refs
    )


def _outside(what: str, value: str, patterns: Sequence[str]) -> str:
    if not patterns or (value and any(matches(each, value) for each in patterns)):
        return ""
    return f"the {what} is {value or 'not named'}, the hook takes {', '.join(patterns)}"
