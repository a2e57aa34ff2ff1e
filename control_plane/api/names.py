"""What names in a request look like."""

from __future__ import annotations

from control_plane.errors import InvalidInput

NAME = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
ID = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
SHA256 = "^[0-9a-f]{64}$"


def safe_file_name(name: str) -> str:
    """A relative path that stays where it is put. Raises `InvalidInput`."""
    parts = name.split("/")
    plain = len(name.encode("utf-8", "replace")) <= 400 and name.isprintable() and "\\" not in name
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"{name[:40]!r} is not a name for a file of a job")
    return name
