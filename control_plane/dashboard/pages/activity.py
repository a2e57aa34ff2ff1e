"""Activity: who did what, and what the control plane decided by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.core.model import AUDIT, Event
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.parts import Cell, Empty, Table, badge, url

KINDS = ("job", "machine", "queue", "autoscaler", "plan", "access", AUDIT, "error")
_NOUNS = {"job": "jobs", "machine": "machines", "queue": "queues", "autoscaler": "autoscalers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityPage:
    """A page of the log."""

    note: str
    tabs: Sequence[tuple[str, str, bool]]
    table: Table
    more: str
    """Address of the next page; empty = that was all."""


def activity_page(deps: Deps, *, kind: str, subject: str, cursor: str) -> ActivityPage:
    """Events, the newest first. Raises `InvalidInput` for a cursor that is none."""
    found = deps.store.event_list(kind=kind, subject=subject, cursor=cursor, limit=100)
    more = url("activity", kind=kind, subject=subject, cursor=found.cursor) if found.cursor else ""
    return ActivityPage(
        note=f"about {subject}" if subject else "newest first",
        tabs=[
            ("everything", url("activity", subject=subject), not kind),
            *((each, url("activity", kind=each, subject=subject), kind == each) for each in KINDS),
        ],
        table=event_table([each for each in found.items if kind == AUDIT or each.kind != AUDIT]),
        more=more,
    )


def event_table(events: Sequence[Event]) -> Table:
    """A row for each event."""
    return Table(
        columns=(("When", ""), ("Kind", ""), ("About", ""), ("What", "wide"), ("Who", "")),
        rows=[_row(each) for each in events],
        empty=Empty(
            text="Nothing has happened yet.", command="orchctl autoscaler apply config.yaml"
        ),
    )


def _row(event: Event) -> Sequence[Cell]:
    noun = _NOUNS.get(event.kind)
    return (
        Cell(text=fmt.clock(event.at), css="when"),
        Cell(text=badge(event.kind, "bad" if event.kind == "error" else "")),
        Cell(text=event.subject, href=url(noun, event.subject) if noun else "", css="id"),
        Cell(text=event.text, css="wide"),
        Cell(text=event.actor or "orchctl"),
    )
