"""The loop: lease, observe, plan, check, commit, execute; then wait to be woken, a minute at most.

Whoever holds an autoscaler's lease is its only writer: every commit carries the lease's fencing
generation, so a controller that was stopped for a while and wakes up again can write nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.core.check import Finding, check
from control_plane.core.codec import to_json
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import MachineState
from control_plane.core.plan import Plan
from control_plane.core.planner import plan as decide
from control_plane.core.policy import AutoscalerRecord
from control_plane.core.snapshot import Snapshot
from control_plane.errors import Conflict, FencedOut
from control_plane.execute import Done, Executor, no_checkpoint
from control_plane.observe import Eyes
from control_plane.ports import Fence, PlanRecord
from control_plane.service import Service

LEASE_TTL_S = 120.0
"""How long a controller that died keeps others out. Longer than any tick may take: what a tick
does late is refused by the fence anyway, this only saves the second controller a wasted look."""


_UNSETTLED = frozenset(COUNTED - {MachineState.READY, MachineState.BOOTING})
"""States a machine leaves by itself soon, with nobody to tell us. A machine that boots or works
tells us: its agent calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one look at one autoscaler came to."""

    autoscaler: str
    plan: Plan | None = None
    """None when another controller holds the lease."""
    findings: tuple[Finding, ...] = ()
    done: Done | None = None
    unsettled: bool = False
    """Something is on its way: look again soon rather than in a minute."""


class Reconciler:
    """Decides and acts for all autoscalers of one store."""

    def __init__(
        self,
        service: Service,
        eyes: Eyes,
        executor: Executor,
        *,
        owner: str,
        installation: str,
        reachable_since: datetime | None = None,
        checkpoint: Callable[[str], None] = no_checkpoint,
    ) -> None:
        """`owner` names this controller; `installation` keeps the machines of two control planes
        apart that share a cloud account; `reachable_since` is when agents could first reach this
        control plane again."""
        self._service = service
        self._store = service.store
        self._eyes = eyes
        self._executor = executor
        self._owner = owner
        self._installation = installation
        self._reachable_since = reachable_since
        self._checkpoint = checkpoint
        self._last_told: dict[str, str] = {}
        self._buying = True
        self._looked_at: datetime | None = None

    def tick(self) -> list[Tick]:
        """Look at every autoscaler once; a fault in one is noted and does not stop the others."""
        self._notice_own_absence()
        ticks = [self._guarded(record) for record in self._store.autoscaler_list()]
        self._looked_at = self._now()
        return ticks

    def _notice_own_absence(self) -> None:
        """After a pause that no loop makes (the computer slept, the process was stopped) it was we
        who were silent: agents get their time again."""
        now = self._now()
        away = now - self._looked_at if self._looked_at else timedelta(0)
        if away > timedelta(seconds=self._eyes.timing.lease_s):
            self._reachable_since = now

    def stop_buying(self) -> None:
        """Plan from now on as if every autoscaler were paused: this control plane is going down."""
        self._buying = False

    def fleet(self, autoscaler: str) -> str:
        """The label that all machines of an autoscaler carry."""
        return f"{self._installation}-{autoscaler}"

    def _guarded(self, record: AutoscalerRecord) -> Tick:
        try:
            return self._tick(record)
        except FencedOut:
            return Tick(autoscaler=record.name)
        except Exception as error:  # noqa: BLE001 - one autoscaler must never stop the others
            text = f"{type(error).__name__}: {error}"
            self._service.note("error", record.name, text, code="tick-failed")
            return Tick(autoscaler=record.name, done=Done(errors=[text]))

    def _tick(self, record: AutoscalerRecord) -> Tick:
        record = record if self._buying else replace(record, paused=True)
        name = record.name
        fence = self._store.lease_take(
            f"autoscaler/{name}", self._owner, ttl_s=LEASE_TTL_S, now=self._now()
        )
        if fence is None:
            return Tick(autoscaler=name)
        self._checkpoint("leased")
        self._age(record)
        snapshot = self._eyes.gather(
            record,
            fleet=self.fleet(name),
            fence=fence,
            now=self._now(),
            reachable_since=self._reachable_since,
        )
        self._checkpoint("observed")
        plan = decide(snapshot)
        findings = check(plan, snapshot)
        self._hold_on(fence)
        self._tell(plan, snapshot, findings)
        self._checkpoint("planned")
        if findings:
            return Tick(autoscaler=name, plan=plan, findings=findings)
        done = self._executor.execute(plan, record.policy, fleet=self.fleet(name), fence=fence)
        self._checkpoint("executed")
        self._remove_if_done(record, snapshot, fence)
        unsettled = done.unsettled or any(m.state in _UNSETTLED for m in snapshot.machines)
        return Tick(autoscaler=name, plan=plan, done=done, unsettled=unsettled)

    def _hold_on(self, fence: Fence) -> None:
        """Renew the lease: looking takes time, and nothing may be written by one whose lease ran
        out meanwhile. Raises `FencedOut`."""
        held = self._store.lease_take(fence.name, self._owner, ttl_s=LEASE_TTL_S, now=self._now())
        if held != fence:
            raise FencedOut(f"another controller has taken over {fence.name}")

    def _age(self, record: AutoscalerRecord) -> None:
        now = self._now()
        for queue in record.policy.queues.values():
            since = now - timedelta(seconds=queue.ageing_s)
            self._store.queue_promote(queue.name, waiting_since=since, now=now)

    def _tell(self, plan: Plan, snapshot: Snapshot, findings: tuple[Finding, ...]) -> None:
        """Keep the plan when it says something new; an idle tick writes nothing."""
        for finding in findings:
            self._service.note("error", plan.autoscaler, finding.sentence, code=finding.code)
        told = _said(plan, snapshot)
        if self._last_told.get(plan.autoscaler) == told:
            return
        self._last_told[plan.autoscaler] = told
        self._store.plan_put(
            PlanRecord(
                id=self._service.ids.new("p"),
                autoscaler=plan.autoscaler,
                at=plan.at,
                plan=json.dumps(to_json(plan)),
                snapshot=json.dumps(to_json(snapshot)),
            )
        )

    def _remove_if_done(self, record: AutoscalerRecord, snapshot: Snapshot, fence: Fence) -> None:
        """An autoscaler that is being deleted goes when nothing of it is left."""
        seen = any(s.state != "gone" for o in snapshot.observations for s in o.sightings)
        unknown = any(o.unknown for o in snapshot.observations)
        if not record.deleting or snapshot.machines or seen or unknown:
            return
        if self._store.autoscaler_get(record.name).version != record.version:
            return  # somebody has declared it again meanwhile
        for queue in self._store.queue_list():
            if queue.autoscaler == record.name:
                self._free(queue.name)
        self._store.autoscaler_remove(record.name)
        self._store.lease_release(fence)
        self._service.note("autoscaler", record.name, "deleted: nothing of it is left")

    def _free(self, queue_name: str) -> None:
        queue = self._store.queue_get(queue_name)
        freed = replace(queue, autoscaler="", version=queue.version + 1)
        try:
            self._store.queue_put(freed, expected_version=queue.version)
        except Conflict:
            return  # somebody has changed it meanwhile; an undeclared queue is harmless

    def _now(self) -> datetime:
        return self._service.clock.now()


def _said(plan: Plan, snapshot: Snapshot) -> str:
    """What a plan says, without when it says it, how long things have waited, and what it only
    repeats: a machine that nobody can reach is ended again and again."""
    ending = {m.id for m in snapshot.machines if m.state is MachineState.TERMINATING}
    anew = tuple(each for each in plan.terminations if each.machine_id not in ending)
    body: dict[str, Any] = to_json(replace(plan, terminations=anew))
    acts = {key: value for key, value in body.items() if key not in ("at", "generation")}
    acts["refusals"] = [[r["subject"], r["wanted"], r["reason"]["code"]] for r in body["refusals"]]
    acts["reports"] = [[r["subject"], r["reason"]["numbers"]] for r in body["reports"]]
    return json.dumps(acts, sort_keys=True)
