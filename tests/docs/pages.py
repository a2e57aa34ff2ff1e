"""The pages of the repository, and what stands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
SHELL = ("console", "sh", "bash", "shell")
QUICK_EXAMPLE = "<!-- quick example: a test runs it -->"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)
_INNER = re.compile(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str
    quick: bool
    """Marked as a part of the example that a test runs."""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[str]:
        """Its command lines; output and comments are left out."""
        for line in self.text.replace("\\\n", "").splitlines():
            if self.language != "console":
                yield line.strip()
            elif line.startswith("$ "):
                yield line[2:]


def pages() -> list[Path]:
    """Every page written for people. `cli.md` is the program's own help, tested with it."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found += [ROOT / "infra" / "README.md", ROOT / "terraform" / "README.md"]
    return sorted(path for path in found if path != REFERENCE / "cli.md")


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks of these languages, page by page."""
    return [each for page in pages() for each in blocks_of(page) if each.language in languages]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text="".join(line[indent:] for line in match["text"].splitlines(keepends=True)),
            quick=text[: match.start()].rstrip().endswith(QUICK_EXAMPLE),
        )


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each program that a shell line starts, assignments and redirections left out.

    Knows as much of the shell as our pages use: `;`, `|`, `&&`, `for … do … done`, `$(…)`, `>`."""
    for inner in _INNER.findall(line):
        yield from simple_commands(inner)
    flat = _INNER.sub("VALUE", line)
    lexer = shlex.shlex(flat, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|&"):
            yield from _program(words)
            words = []
        else:
            words.append(word)


def _program(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] == "do" or re.match(r"[A-Z_]+=", words[0])):
        words = words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if words and words[0] not in ("for", "done"):
        yield words


def anchors(page: Path) -> set[str]:
    """The fragments a link to a page may name, as GitHub makes them from headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def rows(page: Path, *, under: str = "") -> list[list[str]]:
    """The cells of every table row of a page or of one of its sections, backticks removed."""
    text = page.read_text(encoding="utf-8")
    if under:
        text = re.split(r"^## ", text.partition(f"\n## {under}\n")[2], maxsplit=1, flags=re.M)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-", " "}]
