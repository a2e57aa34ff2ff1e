"""Plans as tables: what the last decision did, what it refused, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from datetime import datetime

from control_plane.core.codec import from_json
from control_plane.core.plan import Action as PlanAction
from control_plane.core.plan import Launch, Plan, Reap, Requeue
from control_plane.dashboard import format as fmt
from control_plane.dashboard.parts import Cell, Empty, Table, badge, url
from control_plane.ports import PlanRecord, Store

_VERBS = {
    "Launch": "buy",
    "Resume": "finish launch",
    "Adopt": "adopt",
    "Requeue": "give back",
    "Mark": "mark",
    "Hold": "hold",
    "Terminate": "end",
    "Reap": "reap",
}
_COLUMNS = (("What", ""), ("About", ""), ("Why", "wide"))


def parsed(record: PlanRecord) -> Plan:
    """The plan of a record."""
    return from_json(Plan, json.loads(record.plan))


def plan_table(
    store: Store, autoscaler: str, now: datetime, *, about: Set[str] = frozenset()
) -> Table:
    """The latest plan of an autoscaler; with `about` only what concerns these queues and pools."""
    latest = store.plan_list(autoscaler, limit=1) if autoscaler else ()
    if not latest:
        return Table(columns=_COLUMNS, rows=(), empty=_NO_PLAN)
    age = fmt.since(latest[0].at, now)
    return Table(
        columns=_COLUMNS,
        rows=_rows(parsed(latest[0]), about),
        empty=Empty(text=f"The last plan, {age} ago, had nothing to do and nothing to refuse."),
    )


def history_table(store: Store, autoscaler: str) -> Table:
    """The kept plans, the newest first."""
    plans = [(record, parsed(record)) for record in store.plan_list(autoscaler, limit=30)]
    return Table(
        columns=(
            ("When", ""),
            ("Bought", "num"),
            ("Ended", "num"),
            ("Refused", "num"),
            ("", "wide"),
        ),
        rows=[
            (
                Cell(text=fmt.clock(record.at), css="when"),
                Cell(text=str(len(plan.launches)), css="num"),
                Cell(text=str(len(plan.terminations)), css="num"),
                Cell(text=str(len(plan.refusals)), css="num"),
                Cell(text=_first_reason(plan), css="wide"),
            )
            for record, plan in plans
        ],
        empty=_NO_PLAN,
    )


_NO_PLAN = Empty(
    text="No plan yet: the loop has not found anything to decide.", command="orchctl run -- true"
)


def _rows(plan: Plan, about: Set[str]) -> Sequence[Sequence[Cell]]:
    done = [
        _action_row(each)
        for each in plan.actions()
        if not about or (isinstance(each, Launch) and each.pool in about)
    ]
    refused = [
        (
            Cell(text=badge("refuse", "warn")),
            Cell(text=each.subject, sub=f"{each.wanted} wanted" if each.wanted else ""),
            Cell(text=each.reason.sentence, css="wide"),
        )
        for each in plan.refusals
        if not about or each.subject in about
    ]
    return [*done, *refused]


def _action_row(action: PlanAction) -> Sequence[Cell]:
    verb = _VERBS[type(action).__name__]
    css = "good" if isinstance(action, Launch) else ""
    return (
        Cell(text=badge(verb, css)),
        _subject(action),
        Cell(text=action.reason.sentence, css="wide"),
    )


def _subject(action: PlanAction) -> Cell:
    if isinstance(action, Requeue):
        return Cell(text=action.job_id, href=url("jobs", action.job_id), css="id")
    if isinstance(action, Reap):
        return Cell(text=action.provider_id, sub=action.provider, css="id")
    sub = ""
    if isinstance(action, Launch):
        best = action.offers[0]
        sub = f"{best.instance_type} {fmt.money(best.price_usd_hour)}/h"
    return Cell(text=action.machine_id, href=url("machines", action.machine_id), css="id", sub=sub)


def _first_reason(plan: Plan) -> str:
    reasons = [each.reason.sentence for each in (*plan.actions(), *plan.refusals)]
    return reasons[0] if reasons else "nothing to do"
