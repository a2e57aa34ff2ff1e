"""Autoscalers: the declared documents, what they decided last and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from control_plane.core.cost import hour_rate, spend
from control_plane.core.policy import AutoscalerRecord
from control_plane.dashboard import charts
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.figures import day_start, month_start
from control_plane.dashboard.pages.plans import history_table, plan_table
from control_plane.dashboard.parts import Action, Cell, Empty, Fact, Table, badge, fact, num, url


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalersPage:
    """The list."""

    table: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerPage:
    """One document in force."""

    name: str
    state: Markup
    actions: Sequence[Action]
    facts: Sequence[Fact]
    document: str
    plan: Table
    plans: Table
    history: Table


def autoscalers_page(deps: Deps) -> AutoscalersPage:
    """All documents."""
    machines = deps.store.machine_list()
    rows = []
    for record in deps.store.autoscaler_list():
        mine = [each for each in machines if each.autoscaler == record.name]
        policy = record.policy
        most = sum(pool.machines_max for pool in policy.pools.values())
        rows.append(
            (
                Cell(text=record.name, href=url("autoscalers", record.name)),
                Cell(text=_state(record)),
                Cell(text=", ".join(policy.queues)),
                Cell(text=", ".join(policy.pools)),
                num(f"{len(mine)} of {most}", href=url("machines")),
                num(f"{fmt.money(hour_rate(mine))} of {fmt.money(policy.budget.hour_usd)}"),
                num(str(record.version)),
                Cell(text=fmt.moment(record.applied_at), css="when", sub=record.applied_by),
            )
        )
    return AutoscalersPage(
        table=Table(
            columns=(
                ("Autoscaler", ""),
                ("State", ""),
                ("Queues", ""),
                ("Pools", ""),
                ("Machines", "num"),
                ("$/h", "num"),
                ("Version", "num"),
                ("Applied", ""),
            ),
            rows=rows,
            empty=Empty(
                text="Nothing is declared, so nothing is bought.",
                command="orchctl autoscaler init > config.yaml && "
                "orchctl autoscaler apply config.yaml",
            ),
        )
    )


def autoscaler_page(deps: Deps, name: str) -> AutoscalerPage:
    """One document. Raises `NotFound`."""
    record = deps.store.autoscaler_get(name)
    now = deps.clock.now()
    switch = "resume" if record.paused else "pause"
    return AutoscalerPage(
        name=name,
        state=_state(record),
        actions=[Action(label=switch, url=url("autoscalers", name, switch))],
        facts=_facts(deps, record),
        document=record.document,
        plan=plan_table(deps.store, name, now),
        plans=history_table(deps.store, name),
        history=_history(deps.store.autoscaler_history(name)),
    )


def _state(record: AutoscalerRecord) -> Markup:
    if record.deleting:
        return badge("deleting", "warn")
    return badge("paused", "warn") if record.paused else badge("active", "good")


def _facts(deps: Deps, record: AutoscalerRecord) -> Sequence[Fact]:
    now, budget = deps.clock.now(), record.policy.budget
    start = month_start(now)
    paid = [p for p in deps.store.prices_between(start, now) if p.autoscaler == record.name]
    mine = deps.store.machine_list(autoscaler=record.name)
    most = sum(pool.machines_max for pool in record.policy.pools.values())
    spans = (
        ("This hour", hour_rate(mine), budget.hour_usd),
        ("Today", spend(paid, day_start(now), now), budget.day_usd),
        ("This month", spend(paid, start, now), budget.month_usd),
    )
    return [
        *(
            Fact(
                name=name,
                cell=Cell(
                    text=charts.meter(
                        float(spent / limit) if limit else 0.0,
                        title=f"{fmt.money(spent)} of {fmt.money(limit)}",
                        css="warn" if limit and spent / limit > 0.8 else "",
                    ),
                    sub=f"{fmt.money(spent)} of {fmt.money(limit)}",
                ),
            )
            for name, spent, limit in spans
        ),
        fact("At the limit", budget.at_limit.value),
        fact("Machines", f"{len(mine)} of {most}", href=url("machines")),
        fact("Version", str(record.version)),
        fact("Applied", fmt.moment(record.applied_at), sub=record.applied_by),
    ]


def _history(records: Sequence[AutoscalerRecord]) -> Table:
    return Table(
        columns=(("Version", ""), ("Applied", ""), ("By", ""), ("State", "")),
        rows=[
            (
                Cell(text=str(each.version)),
                Cell(text=fmt.moment(each.applied_at), css="when"),
                Cell(text=each.applied_by or fmt.NOTHING),
                Cell(text=_state(each)),
            )
            for each in records
        ],
    )
