"""What a queue's limits leave room for: worked out once for every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.core.model import QueueRecord


@dataclass(slots=True)
class Room:
    """How many more jobs of one queue machines may have, in all and by owner."""

    max_running: int | None
    max_running_per_owner: int | None
    running: int = 0
    by_owner: Counter[str] = field(default_factory=Counter)

    @property
    def limited(self) -> bool:
        """Whether the queue has any limit: without one nothing needs to be counted."""
        return self.max_running is not None or self.max_running_per_owner is not None

    def admits(self, owner: str) -> bool:
        """Whether one more job of this owner may run."""
        return self.left(owner) > 0

    def left(self, owner: str) -> int:
        """How many more jobs of this owner may run; a large number without limits."""
        limits = (
            (self.max_running, self.running),
            (self.max_running_per_owner, self.by_owner[owner]),
        )
        return min((most - have for most, have in limits if most is not None), default=_MANY)

    def take(self, owner: str, count: int = 1) -> None:
        """Count jobs of this owner as running."""
        self.running += count
        self.by_owner[owner] += count


_MANY = 1 << 62


def room(record: QueueRecord, running_by_owner: Mapping[str, int]) -> Room:
    """The room that a queue's limits leave beside what runs."""
    return Room(
        max_running=record.max_running,
        max_running_per_owner=record.max_running_per_owner,
        running=sum(running_by_owner.values()),
        by_owner=Counter(running_by_owner),
    )
