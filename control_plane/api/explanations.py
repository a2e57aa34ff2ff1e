"""Why a queue has the machines it has: the sentences of the last plan that are about it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from control_plane.api.views import Explanation
from control_plane.core.codec import from_json
from control_plane.core.plan import Plan
from control_plane.core.policy import QueuePolicy
from control_plane.errors import NotFound
from control_plane.ports import Store


def explain(store: Store, autoscaler: str, queue: str) -> Explanation:
    """What the latest plan says of a queue and of the pools that serve it. Raises `NotFound` for an
    autoscaler, or a queue that it does not declare."""
    policy = store.autoscaler_get(autoscaler).policy
    if queue not in policy.queues:
        raise NotFound(f"autoscaler {autoscaler} has no queue {queue}")
    records = store.plan_list(autoscaler, limit=1)
    if not records:
        text = f"nothing was decided for {queue} yet"
        return Explanation(queue=queue, text=text, lines=(text,))
    plan = from_json(Plan, json.loads(records[0].plan))
    lines = tuple(dict.fromkeys(_sentences(plan, policy.queues[queue])))
    if not lines:
        lines = (f"the last plan changed nothing for {queue}",)
    return Explanation(
        queue=queue,
        text="\n".join(lines),
        lines=lines,
        plan_id=records[0].id,
        at=records[0].at,
    )


def _sentences(plan: Plan, queue: QueuePolicy) -> Iterator[str]:
    """What was found first, then what is done about it, then what is not."""
    about = {queue.name, *queue.pools}
    yield from (each.reason.sentence for each in plan.reports if each.subject in about)
    yield from (each.reason.sentence for each in plan.launches if each.pool in queue.pools)
    yield from (each.reason.sentence for each in plan.refusals if each.subject in about)
