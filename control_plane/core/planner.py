"""`plan(snapshot)`: what to do now, and why. Pure: the same snapshot always gives the same plan."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

from control_plane.core import reasons
from control_plane.core.budget import Caps
from control_plane.core.demand import Demand, demand
from control_plane.core.placement import place
from control_plane.core.plan import Plan, Report
from control_plane.core.recovery import recover
from control_plane.core.retirement import drain, retire
from control_plane.core.snapshot import Snapshot


def plan(snapshot: Snapshot) -> Plan:
    """Repair the books, drain what has to go, put waiting jobs on what is there, end what is not
    needed, buy the rest."""
    snapshot = _ordered(snapshot)
    caps = Caps(snapshot)
    repaired = recover(snapshot)
    drained = drain(snapshot, repaired, caps)
    wanted = demand(snapshot, repaired)
    retired = retire(snapshot, repaired, wanted)
    bought = place(snapshot, repaired, wanted, caps)
    return Plan(
        autoscaler=snapshot.policy.name,
        at=snapshot.now,
        generation=snapshot.generation,
        launches=tuple(bought.launches),
        resumes=tuple(repaired.resumes),
        adoptions=tuple(repaired.adoptions),
        requeues=tuple(repaired.requeues),
        marks=(*repaired.marks, *drained),
        holds=tuple(retired.holds),
        terminations=(*repaired.terminations, *retired.terminations),
        reaps=tuple(repaired.reaps),
        refusals=(*repaired.refusals, *bought.refusals),
        reports=_reports(wanted),
    )


def _ordered(snapshot: Snapshot) -> Snapshot:
    """The same snapshot in one fixed order: how a store or a cloud lists things decides nothing."""
    return replace(
        snapshot,
        machines=tuple(sorted(snapshot.machines, key=attrgetter("id"))),
        observations=tuple(sorted(snapshot.observations, key=attrgetter("provider"))),
    )


def _reports(wanted: Demand) -> tuple[Report, ...]:
    return tuple(
        Report(
            subject=queue,
            reason=reasons.queue_report(
                queue,
                waiting=tally.waiting,
                ripe=tally.ripe,
                ready=tally.on_ready,
                booting=tally.on_booting,
                bought_for=tally.bought_for,
                left=tally.left,
                exact=tally.exact,
            ),
        )
        for queue, tally in sorted(wanted.tallies.items())
    )
