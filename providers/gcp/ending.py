"""What the operations of one instance tell: whether it was ever made, and how it ended.

Compute keeps operations for days after an instance is gone, under its name. They are read before an
insert, because a name can be used again and a request id is forgotten within the hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from providers.gcp.errors import Refused
from providers.gcp.names import Place, moment

if TYPE_CHECKING:
    from providers.gcp.client import Client

BY_CLOUD = frozenset(
    {
        "compute.instances.preempted",
        "compute.instances.hostError",
        "compute.instances.terminateOnHostMaintenance",
        "compute.instances.baremetalCaretakerPreempted",
    }
)
BY_ITSELF = frozenset({"compute.instances.guestTerminate"})
_BY_SOMEBODY = frozenset({"delete", "stop"})
_THE_CLOUDS_OWN = ("system", "@compute-system.iam.gserviceaccount.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One operation."""

    name: str
    kind: str
    """`insert`, `delete`, `compute.instances.preempted` …"""
    user: str
    at: datetime
    done: bool
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The operations of one instance name, oldest first."""

    deeds: Sequence[Deed]

    @property
    def inserts(self) -> Sequence[Deed]:
        return [deed for deed in self.deeds if deed.kind == "insert"]

    @property
    def pending(self) -> Deed | None:
        """The insert that is still going on."""
        return next((deed for deed in self.inserts if not deed.done), None)

    @property
    def made(self) -> Deed | None:
        """The insert that has made an instance."""
        return next((deed for deed in self.inserts if deed.done and not deed.refused), None)

    @property
    def failures(self) -> int:
        """Inserts that came to nothing."""
        return sum(1 for deed in self.inserts if deed.done and deed.refused)

    def end_reason(self, account: str) -> str:
        """`interrupted`, `self`, `user` or empty, by the first that ended the instance: a delete
        often follows what really ended it. `account` is the instance's own."""
        ends = (_end_of(deed, account) for deed in self.deeds if deed.kind != "insert")
        return next((end for end in ends if end is not None), "")


def _end_of(deed: Deed, account: str) -> str | None:
    if deed.kind in BY_CLOUD:
        return "interrupted"
    if deed.kind in BY_ITSELF:
        return "self"
    if deed.kind not in _BY_SOMEBODY or deed.refused:
        return None
    if deed.user.endswith(_THE_CLOUDS_OWN):
        return ""
    return "self" if account and deed.user == account else "user"


def history(client: Client, place: Place) -> History:
    """All that Compute remembers of one instance name."""
    return next(iter(histories(client, place, place.name).values()), History(()))


def histories(client: Client, place: Place, pattern: str) -> dict[str, History]:
    """The same for all names in one zone that a regular expression matches, by name."""
    pages = client.pages(
        "ZoneOperations",
        "list",
        project=place.project,
        zone=place.zone,
        filter=f'targetLink eq ".*/instances/{pattern}"',
    )
    found: dict[str, list[Deed]] = {}
    for page in pages:
        for operation in page.items:
            found.setdefault(operation.target_link.rpartition("/")[2], []).append(deed(operation))
    return {
        name: History(sorted(deeds, key=lambda each: (each.at, each.name)))
        for name, deeds in found.items()
    }


def deed(operation: Any) -> Deed:
    """An `Operation` of the client."""
    return Deed(
        name=operation.name,
        kind=operation.operation_type,
        user=operation.user,
        at=moment(operation.insert_time),
        done=_status(operation) == "DONE",
        refused=_refused(operation),
    )


def _status(operation: Any) -> str:
    """The client leaves a status that it does not know as a number, so names are compared."""
    return str(getattr(operation.status, "name", operation.status))


def _refused(operation: Any) -> Refused | None:
    """The real reason is in the error list; the HTTP status beside it says less."""
    for error in operation.error.errors:
        limits = [d.quota_info.limit for d in error.error_details if "quota_info" in d]
        return Refused(code=error.code, text=error.message, quota_limit=next(iter(limits), None))
    if operation.http_error_status_code:
        return Refused(
            code="", text=operation.http_error_message, status=operation.http_error_status_code
        )
    return None
