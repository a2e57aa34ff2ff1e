"""`orchctl federation`: whose word is taken for CI systems."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchctl.errors import InvalidInput
from orchctl.output import Column, as_yaml, count, span
from orchctl.session import Session, command, group

app = group("CI systems that come in without a stored token.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the federation.")]

COLUMNS = (
    Column(heading="NAME", cell=lambda row: row["name"]),
    Column(heading="ISSUER", cell=lambda row: row["issuer"]),
    Column(heading="AUDIENCE", cell=lambda row: row["audience"]),
    Column(heading="RULES", cell=lambda row: str(len(row["rules"])), right=True),
    Column(heading="SESSION", cell=lambda row: span(row["session_s"]), right=True),
    Column(heading="APPLIED", cell=lambda row: row["applied_at"][:19]),
    Column(heading="BY", cell=lambda row: row["applied_by"]),
)


@command(app, "apply", example="orchctl federation apply github.yaml")
def apply(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML; `-` = standard input.")],
) -> None:
    """Make a file the federation of its name; it holds at once."""
    name, document = _read(file)
    version = session.client.federations.version(name)
    applied = session.client.federations.apply(name, document, expected_version=version)
    rules = count(len(applied.rules), "rule")
    session.done(f"federation {name}: version {applied.version}, {rules}", applied, key="name")


@command(app, "list", example="orchctl federation list")
def list_federations(session: Session) -> None:
    """List federations, by name."""
    session.rows(session.client.federations.list(), COLUMNS, key="name")


@command(app, "get", example="orchctl federation get github > github.yaml")
def get(session: Session, name: NameArgument) -> None:
    """Print a federation as `apply` takes it."""
    record = session.client.federations.get(name)
    if not session.for_people:
        session.one(record, (), key="name")
        return
    document: dict[str, Any] = {
        "name": record.name,
        "issuer": record.issuer,
        "audience": record.audience,
        "session": f"{record.session_s}s",
        "rules": [
            {
                "claims": {
                    claim: patterns[0] if len(patterns) == 1 else list(patterns)
                    for claim, patterns in rule.claims.items()
                },
                "role": rule.grant.role.value,
                "queues": list(rule.grant.queues),
            }
            for rule in record.rules
        ],
    }
    if record.jwks_uri:
        document["jwks_uri"] = record.jwks_uri
    session.print(as_yaml(document).rstrip())


@command(app, "remove", example="orchctl federation remove github")
def remove(session: Session, name: NameArgument) -> None:
    """Take its word no more; its sessions end."""
    session.client.federations.remove(name)
    session.done(f"federation {name} is removed", {"name": name}, key="name")


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """The name and the rest of a document. Raises `InvalidInput`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        document = YAML(typ="safe", pure=True).load(text)
    except (OSError, UnicodeError, YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read", why=str(error)) from error
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise InvalidInput(f"{file} is no federation", fix="begin it with `name: github`")
    rest = {key: value for key, value in document.items() if key not in ("name", "kind")}
    return document["name"], rest
