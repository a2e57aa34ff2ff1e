"""What a job is, as options of every command that describes one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND",
        help="What to run. Several words are one program with its arguments; "
        "a single word is a shell command line.",
    ),
]
Queue = Annotated[str, typer.Option(help="Where to queue it.")]
Gpu = Annotated[str, typer.Option(metavar="NAME:N", help="GPUs, such as L4:1.", show_default=False)]
Cpu = Annotated[int, typer.Option(help="CPU cores; 0 = not stated.", min=0)]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="Such as 16GB.", show_default=False)]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", metavar="K=V", help="Environment value; repeatable."),
]
Timeout = Annotated[
    str, typer.Option(metavar="TIME", help="Cancel it after, such as 2h.", show_default=False)
]


def command_line(words: Sequence[str]) -> str:
    """`Words` as a shell's command line."""
    return words[0] if len(words) == 1 else shlex.join(words)
