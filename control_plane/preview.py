"""What a document would do right now, before anybody applies it: the same planner on the same
books.
"""

from __future__ import annotations

from control_plane.core.plan import Plan
from control_plane.core.planner import plan
from control_plane.core.policy import Autoscaler, AutoscalerRecord
from control_plane.core.reasons import offer_text, span
from control_plane.core.snapshot import Snapshot
from control_plane.observe import Eyes, View
from control_plane.ports import Clock
from control_plane.throttle import Rests

_SHOWN = 3
"""Offers named before the sentence trails off."""


def right_now(eyes: Eyes, clock: Clock, policy: Autoscaler) -> str:
    """One sentence: what waits and what would be launched. Reads the store, asks no cloud."""
    now = clock.now()
    record = AutoscalerRecord(
        name=policy.name, version=0, document="", policy=policy, applied_at=now
    )
    shared = eyes.store.shared_read()
    view = View(
        record=record,
        fleet="",
        queues=shared.queues,
        rests=Rests(eyes.store, shared.cooldowns),
        reachable_since=now,
    )
    snapshot = eyes.gather(view, now, look=False)
    return _sentence(snapshot, plan(snapshot))


def _sentence(snapshot: Snapshot, preview: Plan) -> str:
    parts = []
    for queue in sorted(snapshot.policy.queues):
        groups = [group for group in snapshot.waiting if group.queue == queue]
        if groups:
            waited = (snapshot.now - min(group.oldest_at for group in groups)).total_seconds()
            jobs = sum(group.count for group in groups)
            wait = "1 job waits" if jobs == 1 else f"{jobs} jobs wait"
            least = "" if all(group.exact for group in groups) else "at least "
            parts.append(f"{least}{wait} {span(waited)} in {queue}")
    return f"{'; '.join(parts) or 'nothing waits'} -> {_would(preview)}"


def _would(preview: Plan) -> str:
    if not preview.launches:
        return preview.refusals[0].reason.sentence if preview.refusals else "would launch nothing"
    count = len(preview.launches)
    offers = list(dict.fromkeys(offer_text(launch.offers[0]) for launch in preview.launches))
    more = ", …" if len(offers) > _SHOWN else ""
    machines = "1 machine" if count == 1 else f"{count} machines"
    return f"would launch {machines} ({', '.join(offers[:_SHOWN])}{more})"
