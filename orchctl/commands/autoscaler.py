"""`orchctl autoscaler`: the declared document, compared before it is applied."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchctl.commands.queue import YesOption
from orchctl.errors import Refused
from orchctl.output import Column, count, text
from orchctl.session import Session, command, group, server_errors

if TYPE_CHECKING:
    from orchctl.views import Preview

app = group("Autoscalers: what may be bought, for which queues.")

DIFFERENCES = 3
"""Exit code of `diff --exit-code` when applying would change something."""

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The document; - reads standard input.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Autoscaler name.")]

COLUMNS = (
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="VERSION", cell=lambda row: str(row["version"]), right=True),
    Column(heading="STATE", cell=lambda row: _state(row["paused"], row["deleting"])),
    Column(heading="APPLIED", cell=lambda row: text(row["applied_at"])[:19]),
    Column(heading="BY", cell=lambda row: text(row["applied_by"])),
)


@command(app, "init", example="orchctl autoscaler init autoscaler.yaml")
def init(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path(
        "autoscaler.yaml"
    ),
) -> None:
    """Write a commented example to start from."""
    from control_plane.config.json_schema import schema_text
    from control_plane.config.template import template

    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(template("example"))
    except FileExistsError as error:
        raise Refused(f"{file} exists", fix="name another file") from error
    # The first line of the document names it: editors complete and check by it.
    (file.parent / "orchctl.schema.json").write_text(schema_text(), encoding="utf-8")
    session.done(
        f"wrote {file}, and orchctl.schema.json beside it", {"file": str(file)}, key="file"
    )


@command(app, "validate", example="orchctl autoscaler validate config.yaml")
def validate(session: Session, file: FileArgument) -> None:
    """Check a document without a server; errors name file, line and column."""
    name, _ = _validated(file)
    session.done(f"{file}: autoscaler {name} is valid", {"name": name}, key="name")


@command(app, "diff", example="orchctl autoscaler diff config.yaml --exit-code")
def diff(
    session: Session,
    file: FileArgument,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when there are differences.")
    ] = False,
) -> None:
    """Show what applying a document would change."""
    name, document = _validated(file)
    version = session.client.autoscalers.version(name)
    preview = session.client.autoscalers.preview(name, document, expected_version=version)
    session.done("\n".join(preview_lines(name, preview)), preview, key="right_now")
    if exit_code and preview.changes:
        raise typer.Exit(DIFFERENCES)


@command(
    app, "apply", example="orchctl autoscaler apply config.yaml\norchctl autoscaler apply - --yes"
)
def apply(
    session: Session,
    file: FileArgument,
    yes: YesOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after showing it.")] = False,
) -> None:
    """Make a document the applied one, after showing what it changes."""
    name, document = _validated(file)
    version = session.client.autoscalers.version(name)
    preview = session.client.autoscalers.preview(name, document, expected_version=version)
    if dry_run:
        session.done("\n".join(preview_lines(name, preview)), preview, key="right_now")
        return
    session.say("\n".join(preview_lines(name, preview)))
    if version and not preview.changes:
        session.done(f"{name} is up to date", session.client.autoscalers.get(name), key="name")
        return
    if not session.confirm("Apply?", yes=yes):
        session.say("nothing was applied")
        return
    applied = session.client.autoscalers.apply(name, document, expected_version=version)
    session.done(f"{name} applied, version {applied.version}", applied, key="name")


@command(app, "list", example="orchctl autoscaler list")
def list_autoscalers(session: Session) -> None:
    """List autoscalers."""
    session.rows(session.client.autoscalers.list(), COLUMNS, key="name")


@command(app, "get", example="orchctl autoscaler get research > config.yaml")
def get(session: Session, name: NameArgument) -> None:
    """Print the applied document as it was written."""
    found = session.client.autoscalers.get(name)
    session.done(found.document.rstrip("\n"), found, key="name")


@command(app, "history", example="orchctl autoscaler history research")
def history(session: Session, name: NameArgument) -> None:
    """List the versions that were applied, newest first."""
    session.rows(session.client.autoscalers.history(name), COLUMNS, key="version")


@command(app, "explain", example="orchctl autoscaler explain default")
def explain(
    session: Session,
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="Queue name.")],
    autoscaler: Annotated[
        str, typer.Option(help="Its autoscaler, where it is not the queue's own.")
    ] = "",
) -> None:
    """Say why a queue has the machines it has, and why not more."""
    name = autoscaler or session.client.queues.get(queue).autoscaler
    if not name:
        raise Refused(
            f"no autoscaler serves {queue}", fix="declare the queue in a document and apply it"
        )
    explanation = session.client.autoscalers.explain(name, queue)
    sentences = explanation.text or "\n".join(explanation.lines)
    session.done(sentences, explanation, key="plan_id")


@command(app, "pause", example="orchctl autoscaler pause research")
def pause(session: Session, name: NameArgument) -> None:
    """Buy nothing more; running jobs finish, idle machines still end."""
    session.client.autoscalers.pause(name)
    session.done(f"{name} paused", {"name": name, "paused": True}, key="name")


@command(app, "resume", example="orchctl autoscaler resume research")
def resume(session: Session, name: NameArgument) -> None:
    """Let a paused autoscaler buy again."""
    session.client.autoscalers.resume(name)
    session.done(f"{name} resumed", {"name": name, "paused": False}, key="name")


@command(app, "delete", example="orchctl autoscaler delete research --yes")
def delete(session: Session, name: NameArgument, yes: YesOption = False) -> None:
    """Drain the machines of an autoscaler, then forget it."""
    if not session.confirm(f"Drain all machines of {name} and delete it?", yes=yes):
        session.say("nothing was deleted")
        return
    session.client.autoscalers.delete(name)
    session.done(f"{name} drains, then goes", {"name": name, "deleting": True}, key="name")


# ----------------------------------------------------------------------------- the comparison


def preview_lines(name: str, preview: Preview) -> Iterator[str]:
    """What would change, in settings, in money, and right now."""
    changed = count(len(preview.changes), "change") if preview.changes else "no changes"
    yield f"{name}: {changed}"
    width = max((len(change.path) for change in preview.changes), default=0)
    for change in preview.changes:
        values = " -> ".join(value for value in (change.old, change.new) if value)
        yield f"  {change.kind} {change.path:{width}}  {values}".rstrip()
    if money := _money(preview):
        yield f"  {money}"
    if preview.right_now:
        yield f"  right now: {preview.right_now}"
    for finding in preview.findings:
        yield f"  {finding.severity}: {finding.path}: {finding.sentence}"


def _money(preview: Preview) -> str:
    old, new = preview.worst_case_usd_hour.old, preview.worst_case_usd_hour.new
    if new is None:
        return ""
    if old is None or old == new:
        sentence = f"worst case {new:.2f} USD/hour"
    else:
        sentence = f"worst case {old:.2f} -> {new:.2f} USD/hour ({new - old:+.2f})"
    if preview.budget_usd_hour is not None:
        verdict = "within" if preview.within_budget else "OVER"
        sentence += f", {verdict} budget {preview.budget_usd_hour} USD/hour"
    return sentence


def _state(paused: bool, deleting: bool) -> str:
    return "deleting" if deleting else "paused" if paused else "ok"


# -------------------------------------------------------------------------------- the document


def _validated(file: Path) -> tuple[str, str]:
    """Read a document and check it here; returns its autoscaler's name and its text. Raises
    `ConfigError` with every mistake in it."""
    from control_plane.config import load

    with server_errors():
        document = sys.stdin.read() if str(file) == "-" else load.read_text(file)
        return load.load_text(document, name=str(file)).name, document
