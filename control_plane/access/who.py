"""Somebody whose identity is proven, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from control_plane.core.access import ALL_QUEUES, Grant, Role
from control_plane.errors import RoleNeeded

EVERYTHING = Grant(role=Role.ADMIN, queues=(ALL_QUEUES,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who sends a request."""

    actor: str
    """The name in events, and of the owner of jobs. No blanks, so it can stand in a line."""
    grant: Grant
    key: str = ""
    """Of the credential, for counting requests; empty = they are not counted."""
    expires_at: datetime | None = None

    def require(self, role: Role, queue: str = ALL_QUEUES) -> None:
        """Raise `RoleNeeded` unless they have this role for a queue, or for all."""
        if not self.grant.allows(role, queue):
            where = "all queues" if queue == ALL_QUEUES else f"queue {queue}"
            raise RoleNeeded(
                f"this takes the role {role} for {where}; {self.actor} is {self._is()}",
                fix="ask an admin for a token with that role",
            )

    def sees(self, queue: str) -> bool:
        """Whether they may look at a queue and its jobs."""
        return self.grant.allows(Role.VIEWER, queue)

    def _is(self) -> str:
        queues = "all queues" if self.grant.everywhere else ", ".join(self.grant.queues)
        return f"{self.grant.role} for {queues or 'no queue'}"


ADMIN = Identity(actor="admin", grant=EVERYTHING)
"""Who has the server's own token."""
