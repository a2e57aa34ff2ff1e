"""What single values of a request may hold: names, texts and quantities, each with a limit.

Patterns keep out what the store, a process or a header could not take, such as NUL characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from control_plane.config.units import (
    parse_disk_gib,
    parse_duration_s,
    parse_gpu_need,
    parse_memory_mib,
)
from control_plane.errors import InvalidInput

_NAME = "[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_ID = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
NAME = f"^{_NAME}$"
ID = f"^{_ID}$"
LINE = r"^[^\x00-\x1f\x7f]*$"
TEXT = r"^[^\x00]*$"
SHA256 = "^[0-9a-f]{64}$"

DURATION_MAX_S = 400 * 86_400
DISK_MAX_GIB = 64 * 1024
MEMORY_MAX_MIB = 64 * 1024 * 1024
GPUS_MAX = 64

Name = Annotated[str, StringConstraints(pattern=NAME)]
Id = Annotated[str, StringConstraints(pattern=ID)]
Line = Annotated[str, StringConstraints(pattern=LINE, max_length=200)]
"""One line for people."""
Command = Annotated[str, StringConstraints(pattern=TEXT, min_length=1, max_length=32 * 1024)]
EnvName = Annotated[str, StringConstraints(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]
EnvValue = Annotated[str, StringConstraints(pattern=TEXT, max_length=32 * 1024)]
LabelName = Annotated[
    str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=63)
]
Requirement = Annotated[str, StringConstraints(pattern=LINE, min_length=1, max_length=2000)]
PythonVersion = Annotated[
    str, StringConstraints(pattern=r"^(3\.[0-9]{1,2}(\.[0-9]{1,2})?)?$", max_length=12)
]

PathName = Annotated[str, Path(pattern=NAME)]
PathId = Annotated[str, Path(pattern=ID)]
QueryName = Annotated[str, Query(pattern=f"^({_NAME})?$")]
QueryId = Annotated[str, Query(pattern=f"^({_ID})?$")]


def _quantity(parse: Callable[[str], Any], most: int, words: str) -> AfterValidator:
    def check(text: str) -> str:
        if not text:
            return text
        try:
            value = parse(text)
        except InvalidInput as error:
            raise PydanticCustomError("quantity", "{what}", {"what": error.message}) from None
        if value > most:
            raise PydanticCustomError("quantity", "{what}", {"what": f"at most {words}"})
        return text

    return AfterValidator(check)


def _gpu_count(text: str) -> int:
    return parse_gpu_need(text)[1]


_Short = Annotated[str, StringConstraints(max_length=40)]
Duration = Annotated[_Short, _quantity(parse_duration_s, DURATION_MAX_S, "400 days")]
Memory = Annotated[_Short, _quantity(parse_memory_mib, MEMORY_MAX_MIB, "64TB")]
Disk = Annotated[_Short, _quantity(parse_disk_gib, DISK_MAX_GIB, "64TB")]
Gpu = Annotated[_Short, _quantity(_gpu_count, GPUS_MAX, f"{GPUS_MAX} GPUs")]


def safe_file_name(name: str) -> str:
    """A relative path that stays where it is put. Raises `InvalidInput`."""
    parts = name.split("/")
    plain = len(name.encode("utf-8", "replace")) <= 400 and name.isprintable() and "\\" not in name
    if not plain or any(part in ("", ".", "..") for part in parts):
        raise InvalidInput(f"{name[:40]!r} is not a name for a file of a job")
    return name


def safe_glob(pattern: str) -> str:
    """The same for a pattern of such names; for pydantic."""
    try:
        return safe_file_name(pattern.removesuffix("/"))
    except InvalidInput as error:
        raise PydanticCustomError("glob", "{what}", {"what": error.message}) from None


Glob = Annotated[str, StringConstraints(max_length=400), AfterValidator(safe_glob)]
