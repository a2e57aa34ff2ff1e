"""What stands in the README of each Terraform module between its marks: inputs and outputs, read
from its files. They are in the form that `terraform fmt` gives them, so a few patterns are enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MODULES = Path(__file__).parents[1] / "terraform" / "modules"

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_SAYS = re.compile(r'^  description = "(.*)"$', re.MULTILINE)
_FORM = re.compile(r"^  type +=(.*?)(?=^  \w|^$|\Z)", re.MULTILINE | re.DOTALL)
_USUAL = re.compile(r"^  default +=(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One input or output of a module."""

    kind: str
    name: str
    says: str
    form: str
    usual: str
    """Empty = required."""


def readmes() -> Iterator[Path]:
    """The pages, one for each module."""
    return (folder / "README.md" for folder in sorted(MODULES.iterdir()))


def tables(readme: Path) -> Mapping[str, str]:
    """What its marks hold, by their names."""
    found = list(parts(readme.parent))
    return {
        "inputs": "\n\n".join(map(_input, (each for each in found if each.kind == "variable"))),
        "outputs": "\n".join(
            [
                "| output | what it is |",
                "| --- | --- |",
                *(f"| `{each.name}` | {each.says} |" for each in found if each.kind == "output"),
            ]
        ),
    }


def parts(module: Path) -> Iterator[Part]:
    """Inputs and outputs in the order of the files. Raises `ValueError` for one without a
    description."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(module.glob("*.tf"), reverse=True))
    for kind, name, body in _BLOCK.findall(text):
        says = _SAYS.search(body)
        if says is None:
            raise ValueError(f"{kind} {name} of {module.name} has no description")
        yield Part(
            kind=kind,
            name=name,
            says=says[1].replace('\\"', '"'),
            form=_found(_FORM, body),
            usual=_found(_USUAL, body),
        )


def _found(pattern: re.Pattern[str], body: str) -> str:
    found = pattern.search(body)
    return re.sub("^  ", "", found[1], flags=re.MULTILINE).strip() if found else ""


def _input(part: Part) -> str:
    usual = f"default `{part.usual}`" if part.usual else "required"
    if "\n" in part.form:
        return f"### `{part.name}`\n\n{part.says} ({usual})\n\n```hcl\n{part.form}\n```"
    return f"### `{part.name}`\n\n{part.says} (`{part.form}`, {usual})"
