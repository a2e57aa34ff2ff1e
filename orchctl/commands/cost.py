"""`orchctl cost`: what it cost, by whatever one wants to know it by."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.errors import InvalidInput
from orchctl.output import Column, Format, Row, as_csv, text, usd
from orchctl.session import Session, command

if TYPE_CHECKING:
    from orchctl.views import CostReport

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class CostFormat(StrEnum):
    """What a table of figures can be written as."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


@command(app, "cost", example="orchctl cost --by queue,cloud --since 30d\norchctl cost -o csv")
def cost(
    session: Session,
    by: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Any of queue, cloud, market, pool, region, type, owner, job, machine.",
        ),
    ] = "queue",
    since: Annotated[str, typer.Option(metavar="TIME", help="Such as 30d, or a date.")] = "30d",
    step: Annotated[str, typer.Option(help="Step of the series: hour or day.")] = "day",
    output: Annotated[
        CostFormat, typer.Option("--output", "-o", help="How results are printed.")
    ] = CostFormat.TABLE,
) -> None:
    """Show what was spent, what stood idle, and what spot saved."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    if not names:
        raise InvalidInput("--by needs at least one name", fix="pass --by queue")
    _show(session, output, names, session.client.costs(by=names, since=since, step=step))


def _show(session: Session, chosen: CostFormat, names: list[str], report: CostReport) -> None:
    from control_plane.core.codec import to_json

    data = to_json(report)
    if chosen is CostFormat.CSV:
        session.print(as_csv(data["rows"]))
        return
    session.output = Format(chosen)
    if session.for_people:
        total = {**data["totals"], "group": dict.fromkeys(names, "") | {names[0]: "total"}}
        session.rows([*data["rows"], total], _columns(names), key="group")
    else:
        session.one(data, (), key="since")


def _columns(names: list[str]) -> tuple[Column, ...]:
    return (
        *(Column(heading=name.upper(), cell=_group_cell(name)) for name in names),
        Column(heading="USD", cell=lambda row: usd(row["cost_usd"]), right=True),
        Column(heading="WORK", cell=lambda row: usd(row["work_usd"]), right=True),
        Column(heading="IDLE", cell=lambda row: usd(row["idle_usd"]), right=True),
        Column(heading="BOOT", cell=lambda row: usd(row["boot_usd"]), right=True),
        Column(heading="ON-DEMAND", cell=lambda row: usd(row["on_demand_usd"]), right=True),
        Column(heading="SAVED", cell=lambda row: usd(row["saved_usd"]), right=True),
        Column(heading="HOURS", cell=lambda row: usd(row["machine_hours"], 1), right=True),
        Column(heading="JOBS", cell=lambda row: str(row["job_count"]), right=True),
    )


def _group_cell(name: str) -> Callable[[Row], str]:
    return lambda row: text(row["group"].get(name))
