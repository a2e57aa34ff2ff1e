"""The committed description of the interface: `python -m control_plane.api.openapi` rewrites it."""

from __future__ import annotations

import json
from pathlib import Path

from control_plane.api.people import bare_people

FILE = Path("docs/reference/openapi.json")
"""In the repository."""


def text() -> str:
    """OpenAPI 3.1 as JSON, the same bytes for the same routes."""
    return json.dumps(bare_people().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file, from the root of the repository."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
