"""The document as JSON Schema, for editors: completion, hover texts, red lines while typing.

python -m control_plane.config.json_schema > docs/reference/orchctl.schema.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from control_plane.config.diff import usual_fields
from control_plane.config.schema import AutoscalerDoc

_ID = "https://orchctl.dev/schema/orchctl.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    made = AutoscalerDoc.model_json_schema()
    for owner, properties in _properties(made):
        for name, field in properties.items():
            _tidy(owner, name, field)
    return {"$schema": _DIALECT, "$id": _ID, **made}


def schema_text() -> str:
    """The schema as the committed file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _properties(made: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for owner, part in [("", made), *made["$defs"].items()]:
        part.pop("title", None)
        yield owner, part.get("properties", {})


def _tidy(owner: str, name: str, field: dict[str, Any]) -> None:
    """Titles repeat names, and a null default only means "not written"; say the real default."""
    field.pop("title", None)
    if "default" not in field:
        return
    del field["default"]
    path = f"machines.{name}" if owner == "MachinesDoc" else name
    usual = usual_fields().get(path, "")
    if usual and owner in _WITH_DEFAULTS:
        field["default"] = int(usual) if usual.isdecimal() else usual


_WITH_DEFAULTS = frozenset({"QueueDoc", "PoolDoc", "MachinesDoc", "BudgetDoc"})


if __name__ == "__main__":
    sys.stdout.write(schema_text())
