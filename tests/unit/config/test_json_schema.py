"""The committed JSON Schema is the one the code makes, and it accepts what the loader accepts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from control_plane.config.json_schema import schema, schema_text
from control_plane.config.template import template
from tests.unit.config.documents import document

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs" / "reference" / "orchctl.schema.json"
VALID = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.yaml")}
VALID |= {"template": template(), "smallest": document()}


def data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_committed_schema_is_current() -> None:
    """Run `python -m control_plane.config.json_schema > docs/reference/orchctl.schema.json`."""
    assert COMMITTED.read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("name", sorted(VALID))
def test_valid_documents_are_valid_for_editors(name: str) -> None:
    """No red lines under what the loader takes."""
    jsonschema_rs.validator_for(schema()).validate(data(VALID[name]))


@pytest.mark.parametrize(
    "line",
    [
        "    markt: spot\n",  # unknown field
        "    market: spot_first\n",  # unknown word
        "    idle_timeout: 5 minutes\n",  # not a duration
        "    max_price: 1.50 EUR\n",  # not a price
        "    machines: {max: -1}\n",  # out of bounds
        "    warm: [{cron: '0 8 * * *'}]\n",  # fields are missing
    ],
)
def test_editors_see_what_is_wrong(line: str) -> None:
    """The schema is no mere decoration."""
    assert not jsonschema_rs.validator_for(schema()).is_valid(data(document(line)))


def fields(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for piece in [part, *part["$defs"].values()]:
        yield from piece.get("properties", {}).items()


def test_every_field_says_what_it_is_for() -> None:
    """Hover texts: each field has a description, of its own or of what it refers to."""
    silent = [
        name
        for name, field in fields(schema())
        if not ("description" in field or "const" in field or "$ref" in field)
    ]
    assert silent == []


def test_defaults_are_shown_as_people_write_them() -> None:
    """`5m`, not 300."""
    pool = schema()["$defs"]["PoolDoc"]["properties"]
    assert pool["idle_timeout"]["default"] == "5m"
    assert pool["disk"]["default"] == "100GB"
    assert pool["gpus_max"]["default"] == 64
    assert "default" not in pool["max_price"]
    assert schema()["$defs"]["MachinesDoc"]["properties"]["max"]["default"] == 4
    assert schema()["$defs"]["BudgetDoc"]["properties"]["hour"]["default"] == "20 USD"
