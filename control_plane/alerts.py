"""Alerts: what a document wants told is written down here, once for each thing, receiver and day.
`webhooks/courier.py` sends it, so that nobody waits for a receiver.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from control_plane.core.alerts import AlertKind, Delivery, day_of, delivery_id
from control_plane.core.model import Job
from control_plane.core.policy import Autoscaler
from control_plane.errors import Conflict
from control_plane.ports import Store

if TYPE_CHECKING:
    from control_plane.core.plan import Plan

DAY_MAX = 200
"""Messages that are written in a day (UTC). A sweep whose jobs all fail says so often enough by
then; the rest stands where all jobs stand."""

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
