"""What controllers share, in memory: the lease, cool-downs, plans, events, answers given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.model import Cooldown, Event
from control_plane.ports import Fence, Page, PlanRecord, StoredAnswer
from control_plane.stores import cursors, transitions
from control_plane.stores.memory.tables import Tables, atomic


class Control(Tables):
    """`ports.ControlStore`."""

    @atomic
    def lease_take(self, name: str, owner: str, *, ttl_s: float, now: datetime) -> Fence | None:
        nobody = (Fence(name=name, owner="", generation=0), now)
        held, expires_at = self._leases.get(name, nobody)
        if held.owner not in ("", owner) and expires_at > now:
            return None
        taken = 0 if held.owner == owner else 1
        fence = Fence(name=name, owner=owner, generation=held.generation + taken)
        self._leases[name] = (fence, now + timedelta(seconds=ttl_s))
        return fence

    @atomic
    def lease_release(self, fence: Fence) -> None:
        held = self._leases.get(fence.name)
        if held is not None and held[0] == fence:
            # The generation stays: whoever comes next counts on from it.
            self._leases[fence.name] = (replace(fence, owner=""), held[1])

    @atomic
    def cooldown_put(self, cooldown: Cooldown) -> None:
        self._cooldowns[cooldown.key] = cooldown

    @atomic
    def cooldown_list(self) -> Sequence[Cooldown]:
        return tuple(self._cooldowns[key] for key in sorted(self._cooldowns))

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
        self._events.append(replace(event, seq=len(self._events) + 1))

    @atomic
    def event_list(
        self, *, kind: str = "", subject: str = "", cursor: str = "", limit: int = 100
    ) -> Page[Event]:
        scope = ("events", kind, subject)
        (behind,) = cursors.read(scope, cursor, (0,)) if cursor else (len(self._events) + 1,)
        found = [
            event
            for event in reversed(self._events[: behind - 1])
            if kind in ("", event.kind) and subject in ("", event.subject)
        ]
        return cursors.page(scope, found, limit, lambda event: (event.seq,))

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
