"""What single values of a request may hold: names, texts and quantities, each with a limit.

Patterns keep out what the store, a process or a header could not take, such as NUL characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints
from pydantic_core import PydanticCustomError

from control_plane.api.names import ID, NAME, safe_file_name
from control_plane.config.units import (
    parse_disk_gib,
    parse_duration_s,
    parse_gpu_need,
    parse_memory_mib,
)
from control_plane.errors import InvalidInput

LINE = r"^[^\x00-\x1f\x7f]*$"
TEXT = r"^[^\x00]*$"

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


def safe_glob(pattern: str) -> str:
    """The same for a pattern of such names; for pydantic."""
    try:
        return safe_file_name(pattern.removesuffix("/"))
    except InvalidInput as error:
        raise PydanticCustomError("glob", "{what}", {"what": error.message}) from None


Glob = Annotated[str, StringConstraints(max_length=400), AfterValidator(safe_glob)]
