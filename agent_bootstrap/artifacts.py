"""The files a job leaves behind, found by its patterns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Iterator, List

FILES_MAX = 10_000
"""A pattern such as `**` in the wrong place must not upload a data set file by file."""


def find(work: Path, patterns: Iterable[str]) -> List[str]:
    """Names of regular files below `work` that match, sorted; a directory that matches stands for
    all files below it. What lies outside, by `..` or through a link, is not seen. At most
    `FILES_MAX`."""
    root = Path(os.path.realpath(str(work)))
    found = set()
    for pattern in patterns:
        for path in _matches(root, pattern):
            name = _name(root, path)
            if name:
                found.add(name)
    return sorted(found)[:FILES_MAX]


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    try:
        matches = list(root.glob(pattern))
    except (ValueError, NotImplementedError, OSError):  # an empty or absolute pattern
        return
    for match in matches:
        if match.is_dir():
            yield from (each for each in match.rglob("*") if each.is_file())
        elif match.is_file():
            yield match


def _name(root: Path, path: Path) -> str:
    """The file's name below the root; empty when the way to it leads outside at any step."""
    name = os.path.relpath(str(path), str(root))
    step = root
    if ".." in path.parts:
        return ""
    for part in name.split(os.sep):
        step = Path(os.path.realpath(str(step / part)))
        if root not in step.parents:
            return ""
    return name
