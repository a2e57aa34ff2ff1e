"""What controllers share, in memory: the lease, cool-downs, plans, events, answers given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from control_plane.core.alerts import DeliveryState
from control_plane.core.model import Cooldown, Event
from control_plane.core.pacing import Bucket
from control_plane.errors import Conflict
from control_plane.ports import Fence, HeldFence, Page, PlanRecord, Shared, StoredAnswer
from control_plane.stores import cursors, transitions
from control_plane.stores.memory.tables import Tables, atomic

T = TypeVar("T")


class Control(Tables):
    """`ports.ControlStore`."""

    @atomic
    def shared_read(self) -> Shared:
        return Shared(
            autoscalers=_by_name(self._autoscalers),
            queues=_by_name(self._queues),
            leases=dict(self._leases),
            cooldowns=_by_name(self._cooldowns),
            deliveries=tuple(
                each for each in _by_name(self._deliveries) if each.state is DeliveryState.WAITING
            ),
        )

    @atomic
    def lease_take(
        self,
        name: str,
        owner: str,
        *,
        ttl_s: float,
        now: datetime,
        expected_generation: int | None = None,
    ) -> Fence | None:
        nobody = HeldFence(fence=Fence(name=name, owner="", generation=0), until=now)
        held = self._leases.get(name, nobody)
        if held.fence.owner not in ("", owner) and held.until > now:
            return None
        if expected_generation not in (None, held.fence.generation):
            return None
        taken = 0 if held.fence.owner == owner else 1
        fence = Fence(name=name, owner=owner, generation=held.fence.generation + taken)
        self._leases[name] = HeldFence(fence=fence, until=now + timedelta(seconds=ttl_s))
        return fence

    @atomic
    def lease_release(self, fence: Fence) -> None:
        held = self._leases.get(fence.name)
        if held is not None and held.fence == fence:
            # The generation stays: whoever comes next counts on from it.
            self._leases[fence.name] = replace(held, fence=replace(fence, owner=""))

    @atomic
    def cooldown_put(self, cooldown: Cooldown) -> None:
        self._cooldowns[cooldown.key] = cooldown

    @atomic
    def cooldown_list(self) -> Sequence[Cooldown]:
        return _by_name(self._cooldowns)

    @atomic
    def bucket_get(self, key: str) -> Bucket | None:
        return self._buckets.get(key)

    @atomic
    def bucket_put(self, bucket: Bucket) -> None:
        held = self._buckets.get(bucket.key)
        if bucket.version != (held.version if held else 0) + 1:
            raise Conflict(f"bucket {bucket.key} was changed by somebody else")
        self._buckets[bucket.key] = bucket

    @atomic
    def plan_put(self, record: PlanRecord, *, keep: int = 200) -> None:
        self._plans[record.id] = record
        for old in self._plans_of(record.autoscaler)[keep:]:
            del self._plans[old.id]

    @atomic
    def plan_list(self, autoscaler: str, *, limit: int = 20) -> Sequence[PlanRecord]:
        return tuple(self._plans_of(autoscaler)[:limit])

    @atomic
    def event_append(self, event: Event) -> None:
        self._last_event += 1
        self._events[self._last_event] = replace(event, seq=self._last_event)

    @atomic
    def event_list(
        self, *, kind: str = "", subject: str = "", cursor: str = "", limit: int = 100
    ) -> Page[Event]:
        scope = ("events", kind, subject)
        (behind,) = cursors.read(scope, cursor, (0,)) if cursor else (self._last_event + 1,)
        found = (
            event
            for event in reversed(self._events.values())
            if event.seq < behind and kind in ("", event.kind) and subject in ("", event.subject)
        )
        page = tuple(islice(found, limit + 1))
        return cursors.page(scope, page, limit, lambda event: (event.seq,))

    @atomic
    def answer_begin(
        self, key: str, fingerprint: str, *, now: datetime, keep_s: float
    ) -> StoredAnswer | None:
        if key in self._answers:
            begun_at, answer = self._answers[key]
            lasts_s = keep_s if answer.status else min(keep_s, transitions.ANSWER_IN_FLIGHT_S)
            if now - begun_at <= timedelta(seconds=lasts_s):
                return answer
        self._answers[key] = (now, StoredAnswer(fingerprint=fingerprint))
        return None

    @atomic
    def answer_finish(self, key: str, answer: StoredAnswer) -> None:
        if key in self._answers:
            self._answers[key] = (self._answers[key][0], answer)

    @atomic
    def answer_abandon(self, key: str) -> None:
        if key in self._answers and self._answers[key][1].status == 0:
            del self._answers[key]

    @atomic
    def answer_abandon_all(self) -> None:
        for key in [key for key, (_, answer) in self._answers.items() if answer.status == 0]:
            del self._answers[key]

    def _plans_of(self, autoscaler: str) -> list[PlanRecord]:
        """Newest first."""
        plans = [plan for plan in self._plans.values() if plan.autoscaler == autoscaler]
        return sorted(plans, key=lambda plan: (plan.at, plan.id), reverse=True)


def _by_name(records: Mapping[str, T]) -> Sequence[T]:
    return tuple(records[name] for name in sorted(records))
