"""`orchctl sweep`: what fleets have at their clouds and nobody needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.commands.queue import YesOption
from orchctl.errors import InvalidInput, Unavailable
from orchctl.output import Column, Row, count, span, text, usd
from orchctl.session import Session, command, server_errors

if TYPE_CHECKING:
    from control_plane.core.policy import CloudPolicy
    from control_plane.ports import Provider
    from control_plane.sweep import Stray

app = typer.Typer(add_completion=False, rich_markup_mode=None)

COLUMNS = (
    Column(heading="CLOUD", cell=lambda row: row["provider"]),
    Column(heading="WHERE", cell=lambda row: row["zone"] or row["region"]),
    Column(heading="KIND", cell=lambda row: row["kind"]),
    Column(heading="WHAT", cell=lambda row: text(row["detail"])),
    Column(heading="MACHINE", cell=lambda row: text(row["machine_id"])),
    Column(heading="AGE", cell=lambda row: span(row["age_s"]), right=True),
    Column(heading="USD/H", cell=lambda row: usd(row["usd_hour"], 3), right=True),
    Column(heading="ID", cell=lambda row: row["id"]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fleet:
    """Where the machines of one autoscaler may be."""

    label: str
    clouds: Sequence[CloudPolicy]


@command(app, "sweep", example="orchctl sweep --dry-run")
def sweep(
    session: Session,
    dry_run: Annotated[bool, typer.Option(help="Only list what would be removed.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Look where this document may buy, with no server to ask: for when its records "
            "are lost. Needs --fleet, and takes every machine of that fleet for a stray.",
        ),
    ] = None,
    fleet: Annotated[
        str,
        typer.Option(metavar="LABEL", help="The machines' `orchctl-fleet` label, with --config."),
    ] = "",
    yes: YesOption = False,
) -> None:
    """List every machine, disk, network interface and address of our fleets that no record
    explains, in every configured region, and what it costs; then remove it. Uses the cloud
    credentials of this computer. Exits with 7 when a place did not answer."""
    with server_errors():
        fleets = [_declared(config, fleet)] if config else _served(session)
        known = dict if config else _records(session)
        found, problems = _look(fleets, known)
        _show(session, [stray for _, _, stray in found])
        for problem in problems:
            session.say(f"not everything is known: {problem}")
        if found and not dry_run and session.confirm(_question(found), yes=yes):
            for provider, options, stray in found:
                stray.remove(provider, options)
            session.say(f"{count(len(found), 'stray')} told to go; sweep again to see it done")
    if problems:
        raise Unavailable("a place did not answer", fix="sweep again in a minute")


_Found = tuple["Provider", Mapping[str, str], "Stray"]


def _served(session: Session) -> list[_Fleet]:
    """What the server has applied."""
    from control_plane.config.load import load_text

    installation = session.client.health().installation
    return [
        _Fleet(
            label=f"{installation}-{each.name}",
            clouds=load_text(each.document, name=each.name).clouds,
        )
        for each in session.client.autoscalers.list()
    ]


def _records(session: Session) -> Callable[[], Mapping[str, str]]:
    """Asks for the machines that the server knows."""
    return lambda: {each.id: each.provider_id for each in session.client.machines.list()}


def _declared(config: Path, fleet: str) -> _Fleet:
    from control_plane.config.load import load_text, read_text

    if not fleet:
        raise InvalidInput(
            "which fleet?", fix="pass --fleet: the label `orchctl-fleet` of a machine"
        )
    policy = load_text(read_text(config), name=str(config))
    return _Fleet(label=fleet, clouds=policy.clouds)


def _look(
    fleets: Sequence[_Fleet], known: Callable[[], Mapping[str, str]]
) -> tuple[list[_Found], list[str]]:
    from control_plane.clouds import cloud_providers
    from control_plane.core.policy import merged
    from control_plane.sweep import look
    from control_plane.system import SystemClock

    providers = cloud_providers(SystemClock().now)
    found: list[_Found] = []
    problems = []
    for fleet in fleets:
        for cloud in merged(fleet.clouds):
            if provider := providers.get(cloud.provider):
                seen = look(provider, fleet.label, [cloud], known)
                found += [(provider, cloud.options, stray) for stray in seen.strays]
                problems += [f"{cloud.provider}: {seen.problem}"] if seen.problem else []
    return found, problems


def _show(session: Session, strays: Sequence[Stray]) -> None:
    session.rows(_rows(session, strays), COLUMNS, key="id")
    if session.for_people and strays:
        session.say(_total(strays))


def _rows(session: Session, strays: Sequence[Stray]) -> Iterator[Row]:
    for each in strays:
        age_s = (session.now - each.created_at).total_seconds() if each.created_at else None
        yield {
            "provider": each.provider,
            "region": each.region,
            "zone": each.zone,
            "kind": each.kind,
            "id": each.id,
            "machine_id": each.machine_id,
            "detail": each.detail,
            "age_s": age_s,
            "usd_hour": None if each.usd_hour is None else str(each.usd_hour),
        }


def _total(strays: Sequence[Stray]) -> str:
    costs = [each.usd_hour for each in strays if each.usd_hour is not None]
    unpriced = len(strays) - len(costs)
    month = sum(costs, Decimal(0)) * 730
    more = f", and {unpriced} of unknown price" if unpriced else ""
    return f"{count(len(strays), 'stray')}, {usd(str(month), 2)} USD a month{more}"


def _question(found: Sequence[_Found]) -> str:
    machines = sum(stray.kind == "machine" for _, _, stray in found)
    return f"Remove all {len(found)}, {count(machines, 'machine')} among them?"
