"""Alerts: what a document wants told is written down here, once for each thing, receiver and day.
`webhooks/courier.py` sends it, so that nobody waits for a receiver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from control_plane.core.alerts import AlertKind, Delivery, day_of, delivery_id
from control_plane.core.model import Job, Machine
from control_plane.core.policy import Autoscaler
from control_plane.errors import Conflict
from control_plane.ports import Store

if TYPE_CHECKING:
    from control_plane.core.plan import Plan

DAY_MAX = 200
"""Messages that are written in a day (UTC). A sweep whose jobs all fail says so often enough by
then; the rest stands where all jobs stand."""

STORM = 5
STORM_WITHIN = timedelta(hours=1)
"""So many machines that clouds take within this time are a storm."""
_STORM_LOOK = 500
"""Newest events of machines among which they are looked for."""
_TAKEN = frozenset({"interruption", "interrupted"})
"""Codes of the events that say so: announced, and found to be gone."""

_KINDS: Mapping[str, AlertKind] = {
    "budget-day": AlertKind.BUDGET,
    "budget-month": AlertKind.BUDGET,
    "cap-day": AlertKind.BUDGET,
    "cap-month": AlertKind.BUDGET,
    "no-capacity": AlertKind.NO_CAPACITY,
    "breaker-open": AlertKind.NO_CAPACITY,
}
"""Of which kind a plan's refusals are, by the code of their reason. The budget of an hour is none:
it is a brake, and every burst of jobs touches it."""


def tell_of_job(store: Store, policy: Autoscaler, job: Job, now: datetime) -> bool:
    """Write down that a job has ended without success. Returns whether that is new."""
    why = f": {job.reason.sentence}" if job.reason else ""
    text = f"job {job.id} of queue {job.queue} is {job.state}{why}"
    fix = f"orchctl job report {job.id}"
    return _tell(store, policy, AlertKind.JOB_FAILED, job.id, text, fix, now)


def tell_of_plan(store: Store, policy: Autoscaler, plan: Plan) -> bool:
    """Write down what a plan refused for want of money or capacity. Returns whether any is new."""
    told = [
        _tell(
            store,
            policy,
            _KINDS[each.reason.code],
            each.reason.code if each.reason.code.endswith(("day", "month")) else each.subject,
            each.reason.sentence,
            f"orchctl autoscaler explain {policy.name}",
            plan.at,
        )
        for each in plan.refusals
        if each.reason.code in _KINDS
    ]
    return any(told)


def tell_of_storm(
    store: Store, policy: Autoscaler, machines: Iterable[Machine], now: datetime
) -> bool:
    """Write down that clouds take many machines at a time, of whichever autoscaler, when one of
    these is among them. Returns whether that is new."""
    if not any(AlertKind.INTERRUPTION_STORM in alert.on for alert in policy.alerts):
        return False
    if all(machine.interruption_at is None for machine in machines):
        return False
    events = store.event_list(kind="machine", limit=_STORM_LOOK).items
    taken = {
        each.subject for each in events if each.code in _TAKEN and each.at > now - STORM_WITHIN
    }
    if len(taken) < STORM:
        return False
    text = f"clouds have taken {len(taken)} machines within an hour"
    fix = "orchctl events --kind machine"
    return _tell(store, policy, AlertKind.INTERRUPTION_STORM, "machines", text, fix, now)


def _tell(
    store: Store,
    policy: Autoscaler,
    kind: AlertKind,
    subject: str,
    text: str,
    fix: str,
    now: datetime,
) -> bool:
    wanted = [alert for alert in policy.alerts if kind in alert.on]
    if not wanted or _is_full(store, now):
        return False
    new = False
    for alert in wanted:
        record = Delivery(
            id=delivery_id(policy.name, kind, subject, alert, now),
            autoscaler=policy.name,
            kind=kind,
            subject=subject,
            text=text,
            fix=fix,
            channel=alert.channel,
            target=alert.target,
            created_at=now,
            due_at=now,
        )
        with suppress(Conflict):  # it was told today
            store.delivery_put(record, expected_version=0)
            new = True
    return new


def _is_full(store: Store, now: datetime) -> bool:
    log = store.delivery_list(limit=DAY_MAX)
    return len(log) == DAY_MAX and log[-1].id.startswith(day_of(now))
