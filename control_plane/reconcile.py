"""The loop: observe, plan, check, take the lease, commit, execute; then wait to be woken, a minute
at most.

Looking needs no lease, so a look that finds nothing to do writes nothing. Whoever wants to act
takes the autoscaler's lease, and gets it only if nobody has held it since the look: what was
decided on is then still what is. Every commit carries the lease's fencing generation, so a
controller that was stopped for a while and wakes up again can write nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.alerts import tell_of_plan, tell_of_storm
from control_plane.core.alerts import Delivery
from control_plane.core.check import Finding, check
from control_plane.core.codec import to_json
from control_plane.core.lifecycle import COUNTED
from control_plane.core.model import MachineState
from control_plane.core.plan import Plan
from control_plane.core.planner import plan as decide
from control_plane.core.policy import AutoscalerRecord
from control_plane.core.reasons import span
from control_plane.core.snapshot import Snapshot
from control_plane.errors import Conflict, FencedOut
from control_plane.execute import Done, Executor, no_checkpoint
from control_plane.lease import LEASE_TTL_S, Lease, take_lease
from control_plane.loop_figures import LoopFigures
from control_plane.observe import Eyes, View
from control_plane.ports import PlanRecord, Shared
from control_plane.service import Service
from control_plane.throttle import Rests

_UNSETTLED = frozenset(COUNTED - {MachineState.READY, MachineState.BOOTING})
"""States a machine leaves by itself soon, with nobody to tell us. A machine that boots or works
tells us: its agent calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one look at one autoscaler came to."""

    autoscaler: str
    plan: Plan | None = None
    """None when another controller acts, or has acted since the look."""
    findings: tuple[Finding, ...] = ()
    done: Done | None = None
    unsettled: bool = False
    """Something is on its way: look again soon rather than in a minute."""
    waited_s: float = 0.0
    """For how long the job has waited that waits longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    """What a look at one autoscaler came to, before anything is done about it."""

    record: AutoscalerRecord
    snapshot: Snapshot
    plan: Plan
    findings: tuple[Finding, ...]
    said: str
    read_generation: int
    """Of the controller lease, when the look began."""
    listed: bool
    """Whether clouds were asked what runs there."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def unsettled(self) -> bool:
        return any(machine.state in _UNSETTLED for machine in self.snapshot.machines)

    @property
    def waited_s(self) -> float:
        now = self.snapshot.now
        return max(
            ((now - each.oldest_at).total_seconds() for each in self.snapshot.waiting), default=0.0
        )

    @property
    def idle(self) -> bool:
        """Whether the books show neither machines nor work for any."""
        return not (self.snapshot.machines or self.snapshot.waiting)

    @property
    def over(self) -> bool:
        """Whether the autoscaler is being deleted and nothing of it is left."""
        seen = any(s.state != "gone" for o in self.snapshot.observations for s in o.sightings)
        unknown = any(o.unknown for o in self.snapshot.observations)
        return self.record.deleting and not (self.snapshot.machines or seen or unknown)


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
        alone: bool = True,
        send: Callable[[Sequence[Delivery]], None] = lambda _waiting: None,
        checkpoint: Callable[[str], None] = no_checkpoint,
    ) -> None:
        """`owner` names this controller and no other that may be alive: one that comes back under
        the name of a dead one takes up its lease at once. `installation` keeps the machines of two
        control planes apart that share a cloud account; `reachable_since` is when agents could
        first reach this control plane again. Is it not `alone`, others answer agents, and that this
        process slept says nothing of them. `send` is given the messages that wait, if any do."""
        self._service = service
        self._store = service.store
        self._eyes = eyes
        self._executor = executor
        self._owner = owner
        self._installation = installation
        self._reachable_since = reachable_since
        self._alone = alone
        self._send = send
        self._checkpoint = checkpoint
        self._turn = threading.Lock()
        self._last_told: dict[str, str] = {}
        self._quiet: set[str] = set()
        """Where there was nothing to do at the last look."""
        self._listed: dict[str, datetime] = {}
        """Where nothing ran or waited at the last look: when its clouds were listed."""
        self._first = -1
        """Whose turn it is to be looked at first."""
        self._buying = True
        self._looked_at: datetime | None = None

    @property
    def figures(self) -> LoopFigures:
        """What this process has done so far."""
        return self._executor.figures

    def tick(self) -> list[Tick]:
        """Look at every autoscaler once; a fault in one is noted and does not stop the others. One
        look at a time: to the store two threads of one owner would be the same controller."""
        with self._turn:
            self._notice_own_absence()
            began = self._now()
            shared = self._store.shared_read()
            self._let_jobs_go()
            rests = Rests(self._store, shared.cooldowns)
            ticks = [self._guarded(each, shared, rests) for each in self._in_turn(shared)]
            self._looked_at = self._now()
            self.figures.look((self._looked_at - began).total_seconds())
            if shared.deliveries:
                self._send(shared.deliveries)
            return ticks

    def _in_turn(self, shared: Shared) -> Sequence[AutoscalerRecord]:
        """All autoscalers, each time another one first: they share what a cloud takes in calls."""
        records = shared.autoscalers
        self._first = (self._first + 1) % max(len(records), 1)
        return [*records[self._first :], *records[: self._first]]

    def _let_jobs_go(self) -> None:
        """Jobs whose time has come, or whose dependencies have ended, while nobody looked."""
        try:
            moved = self._store.job_release(now=self._now())
        except Exception as error:  # noqa: BLE001 - one bad job must never keep machines waiting
            text = f"{type(error).__name__}: {error}"
            self._service.note("error", "jobs", text, code="release-failed")
            return
        if moved:
            self._service.changed()

    def _notice_own_absence(self) -> None:
        """After a pause that no loop makes (the computer slept, the process was stopped) it was we
        who were silent: agents get their time again."""
        if not self._alone:
            return
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

    def _guarded(self, record: AutoscalerRecord, shared: Shared, rests: Rests) -> Tick:
        try:
            return self._tick(record, shared, rests)
        except FencedOut:
            return Tick(autoscaler=record.name, unsettled=True)
        except Exception as error:  # noqa: BLE001 - one autoscaler must never stop the others
            text = f"{type(error).__name__}: {error}"
            self._service.note("error", record.name, text, code="tick-failed")
            return Tick(autoscaler=record.name, done=Done(errors=[text]))

    def _tick(self, record: AutoscalerRecord, shared: Shared, rests: Rests) -> Tick:
        """Raises `FencedOut` when another controller acts, or has acted since the look."""
        decision = self._decide(record, shared, rests)
        if self._nothing_to_do(decision):
            self._quiet.add(record.name)
            self._note_listing(decision)
            return Tick(
                autoscaler=record.name,
                plan=decision.plan,
                done=Done(),
                unsettled=decision.unsettled,
                waited_s=decision.waited_s,
            )
        self._quiet.discard(record.name)
        self._listed.pop(record.name, None)
        lease = take_lease(
            self._store,
            self._service.clock,
            _lease_name(record.name),
            self._owner,
            generation=decision.read_generation,
        )
        try:
            tick = self._act(decision, lease, rests)
        except Exception:
            lease.release()
            raise
        lease.release()
        return tick

    # ------------------------------------------------------------------------ looking

    def _decide(self, record: AutoscalerRecord, shared: Shared, rests: Rests) -> _Decision:
        """Where there was nothing to do at the last look, a read that may lag behind is enough to
        see that there is still nothing; whatever is to be done is decided on a sure one."""
        now = self._now()
        owner, generation = self._holder(record.name, shared, now)
        view = View(
            record=record if self._buying else replace(record, paused=True),
            fleet=self.fleet(record.name),
            queues=shared.queues,
            rests=rests,
            generation=generation if owner == self._owner else generation + 1,
            reachable_since=self._reachable_since,
        )
        if record.name in self._quiet:
            listing = self._listing_is_due(record.name)
            decision = self._look(view, generation, sure=False, listing=listing)
            if self._nothing_to_do(decision) and (listing or decision.idle):
                return decision
        return self._look(view, generation, sure=True, listing=True)

    def _listing_is_due(self, autoscaler: str) -> bool:
        listed, pause = self._listed.get(autoscaler), self._eyes.timing.idle_look_s
        return listed is None or self._now() - listed >= timedelta(seconds=pause)

    def _note_listing(self, decision: _Decision) -> None:
        if not decision.idle:
            self._listed.pop(decision.name, None)
        elif decision.listed:
            self._listed[decision.name] = decision.snapshot.now

    def _look(self, view: View, read_generation: int, *, sure: bool, listing: bool) -> _Decision:
        snapshot = self._eyes.gather(view, self._now(), look=listing, sure=sure)
        self._checkpoint("observed")
        self._age(snapshot)
        plan = decide(snapshot)
        return _Decision(
            record=view.record,
            snapshot=snapshot,
            plan=plan,
            findings=check(plan, snapshot),
            said=_said(plan, snapshot),
            read_generation=read_generation,
            listed=listing,
        )

    def _nothing_to_do(self, decision: _Decision) -> bool:
        new = decision.said != self._last_told.get(decision.name)
        return decision.plan.empty and not new and not decision.over

    def _holder(self, autoscaler: str, shared: Shared, now: datetime) -> tuple[str, int]:
        """Who held the lease last, and its generation. Raises `FencedOut` while another does."""
        held = shared.leases.get(_lease_name(autoscaler))
        if held is None:
            return "", 0
        if held.fence.owner not in ("", self._owner) and held.until > now:
            raise FencedOut(f"{held.fence.owner} acts for {autoscaler}")
        return held.fence.owner, held.fence.generation

    def _age(self, snapshot: Snapshot) -> None:
        """Raise the priority of jobs that have waited long. It needs no lease: whoever does it, and
        however often, a job is raised once in its time."""
        for queue in snapshot.policy.queues.values():
            since = snapshot.now - timedelta(seconds=queue.ageing_s)
            mine = (group for group in snapshot.waiting if group.queue == queue.name)
            if any((group.aged_at or group.oldest_at) < since for group in mine):
                self._store.queue_promote(queue.name, waiting_since=since, now=snapshot.now)

    # ------------------------------------------------------------------------ acting

    def _act(self, decision: _Decision, lease: Lease, rests: Rests) -> Tick:
        plan = decision.plan
        self._checkpoint("leased")
        self._refuse_what_is_old(decision)
        self._tell(decision)
        self._checkpoint("planned")
        if decision.findings:
            return Tick(
                autoscaler=decision.name,
                plan=plan,
                findings=decision.findings,
                waited_s=decision.waited_s,
            )
        done = self._executor.execute(
            plan,
            decision.record.policy,
            fleet=self.fleet(decision.name),
            lease=lease,
            rests=rests,
        )
        self._checkpoint("executed")
        if decision.over:
            self._remove(decision.record)
        return Tick(
            autoscaler=decision.name,
            plan=plan,
            done=done,
            unsettled=done.unsettled or decision.unsettled,
            waited_s=decision.waited_s,
        )

    def _refuse_what_is_old(self, decision: _Decision) -> None:
        """Raise `FencedOut` when the look is so long ago that it says nothing of now. The lease,
        taken after it, holds for as long."""
        age_s = (self._now() - decision.snapshot.now).total_seconds()
        if age_s > LEASE_TTL_S:
            text = f"the look was {span(age_s)} ago; what was decided then is not done"
            self._service.note("error", decision.name, text, code="look-too-old")
            raise FencedOut(text)

    def _tell(self, decision: _Decision) -> None:
        """Keep the plan when it says something new, and alert whoever wants that."""
        for finding in decision.findings:
            self._service.note("error", decision.name, finding.sentence, code=finding.code)
        policy, seen = decision.record.policy, decision.snapshot
        if tell_of_storm(self._store, policy, seen.machines, seen.now):
            self._service.changed()
        if self._last_told.get(decision.name) == decision.said:
            return
        self._last_told[decision.name] = decision.said
        self._store.plan_put(
            PlanRecord(
                id=self._service.ids.new("p"),
                autoscaler=decision.name,
                at=decision.plan.at,
                plan=json.dumps(to_json(decision.plan)),
                snapshot=json.dumps(to_json(decision.snapshot)),
            )
        )
        if tell_of_plan(self._store, policy, decision.plan):
            self._service.changed()

    def _remove(self, record: AutoscalerRecord) -> None:
        """Forget an autoscaler of which nothing is left."""
        if self._store.autoscaler_get(record.name).version != record.version:
            return  # somebody has declared it again meanwhile
        for queue in self._store.queue_list():
            if queue.autoscaler == record.name:
                self._free(queue.name)
        self._store.autoscaler_remove(record.name)
        self._service.forget()
        self._service.note("autoscaler", record.name, "deleted: nothing of it is left")

    def _free(self, queue_name: str) -> None:
        queue = self._store.queue_get(queue_name)
        freed = replace(
            queue,
            autoscaler="",
            max_running=None,
            max_running_per_owner=None,
            version=queue.version + 1,
        )
        try:
            self._store.queue_put(freed, expected_version=queue.version)
        except Conflict:
            return  # somebody has changed it meanwhile; an undeclared queue is harmless

    def _now(self) -> datetime:
        return self._service.clock.now()


def _lease_name(autoscaler: str) -> str:
    return f"autoscaler/{autoscaler}"


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
