"""What every command has: a server, an output format, and a place for messages.

`command` registers a function as a command of a typer app. The function's first parameter is its
`Session`; the options that fill it are added to the function's own, so every command has the same
`--context`, `--server`, `--output` and `--color` without spelling them out; an own
parameter with one of these names takes the shared one's place. A command that needs no server has
no `session` and gets none of them.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orchctl import output
from orchctl.errors import BY_CODE, ConfigError, Detail, InvalidInput
from orchctl.output import ColorChoice, Column, Format, Row

if TYPE_CHECKING:
    from control_plane.config.errors import ConfigError as ServerConfigError
    from orchctl.client import Client

ServerOption = Annotated[
    str, typer.Option("--server", metavar="URL", help="Server address.", show_default=False)
]
ContextOption = Annotated[
    str, typer.Option("--context", metavar="NAME", help="Named server.", show_default=False)
]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How results are printed.")]
ColorOption = Annotated[ColorChoice, typer.Option("--color", help="When to use colour.")]


@dataclass(slots=True, kw_only=True)
class Session:
    """One invocation of one command."""

    server: str = ""
    context: str = ""
    output: Format = Format.TABLE
    color: ColorChoice = ColorChoice.AUTO
    _client: Client | None = field(default=None, init=False)

    @property
    def client(self) -> Client:
        """The client of the chosen server, made on first use."""
        if self._client is None:
            from orchctl.client import Client

            self._client = Client(self.server, context=self.context)
        return self._client

    @property
    def now(self) -> datetime:
        """The local clock, for ages."""
        return datetime.now().astimezone()

    @property
    def for_people(self) -> bool:
        """Whether the result is a table, not data for a program."""
        return self.output in (Format.TABLE, Format.WIDE)

    def say(self, message: str) -> None:
        """A message to stderr."""
        sys.stderr.write(message + "\n")

    def print(self, text: str) -> None:
        """A result to stdout."""
        sys.stdout.write(text + "\n")

    def rows(self, values: Iterable[object], columns: Sequence[Column], *, key: str) -> None:
        """Print a listing in the chosen format; `key` is the field that names a row."""
        rows = [_plain(value) for value in values]
        if self.output is Format.NAME:
            sys.stdout.write("".join(f"{row[key]}\n" for row in rows))
        elif self.for_people:
            self._table(rows, columns)
        else:
            self.print(self._data(rows))

    def one(self, value: object, columns: Sequence[Column], *, key: str) -> None:
        """Print a single thing: as a list of fields for people."""
        row = _plain(value)
        if self.output is Format.NAME:
            self.print(str(row[key]))
        elif self.for_people:
            pairs = [{"field": each.heading.lower(), "value": each.cell(row)} for each in columns]
            width = max(len(pair["field"]) for pair in pairs)
            self.print("\n".join(f"{p['field']:{width}}  {p['value']}".rstrip() for p in pairs))
        else:
            self.print(self._data(row))

    def done(self, sentence: str, value: object, *, key: str) -> None:
        """Print the outcome of an action: a sentence for people, the thing itself for programs."""
        if self.for_people:
            self.print(sentence)
        else:
            self.one(value, (), key=key)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Ask on a terminal. Raises `InvalidInput` where nobody can answer."""
        if yes:
            return True
        if not sys.stdin.isatty():
            raise InvalidInput(
                "this needs a yes, and there is no terminal to ask on",
                fix="pass --yes to go on without a question",
            )
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def close(self) -> None:
        """Let go of the server."""
        if self._client is not None:
            self._client.close()

    def _table(self, rows: Sequence[Row], columns: Sequence[Column]) -> None:
        if not rows:
            self.say("nothing to show")
            return
        shown = [each for each in columns if self.output is Format.WIDE or not each.wide]
        color = output.color_wanted(sys.stdout, self.color)
        self.print(output.as_table(rows, shown, color=color))

    def _data(self, value: object) -> str:
        return output.as_yaml(value) if self.output is Format.YAML else output.as_json(value)


class Group(TyperGroup):
    """A group of commands whose help stays cheap.

    typer reads an unset flag (None) through pydantic, which costs more than everything else in
    `--help` together; a flag that is False needs no reading. All options of groups are flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)
        for param in params:
            if param.default is None:
                param.default = False
        return params


def group(help_line: str) -> typer.Typer:
    """An empty group of commands."""
    return typer.Typer(
        cls=Group,
        help=help_line,
        add_completion=False,
        rich_markup_mode=None,
    )


Function = Callable[..., None]


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str,
    **settings: Any,
) -> Callable[[Function], Function]:
    """Register a command. `example` is one or more command lines, shown in its help and tested."""
    epilog = "Example:\n\n\b\n" + "\n".join(f"$ {line}" for line in example.splitlines())

    def register(function: Function) -> Function:
        needs = next(iter(inspect.signature(function).parameters)) == "session"
        ready = _with_session(function) if needs else function
        app.command(name, epilog=epilog, **settings)(ready)
        return function

    return register


def _with_session(function: Function) -> Function:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    taken = {each.name for each in own}
    common = inspect.signature(_shared, eval_str=True).parameters.values()
    shared = [each for each in common if each.name not in taken]
    names = [each.name for each in shared]

    @functools.wraps(function)
    def call(**arguments: Any) -> None:
        session = Session(**{name: arguments.pop(name) for name in names})
        try:
            function(session, **arguments)
        finally:
            session.close()

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *shared)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _shared(
    *,
    output: OutputOption = Format.TABLE,
    context: ContextOption = "",
    server: ServerOption = "",
    color: ColorOption = ColorChoice.AUTO,
) -> None:
    """The options of every command."""


@contextmanager
def server_errors() -> Iterator[None]:
    """Where a command uses the server's own code: its errors become the SDK's."""
    from control_plane.config.errors import ConfigError
    from control_plane.errors import OrchctlError

    try:
        yield
    except ConfigError as error:
        raise _config_error(error) from error
    except OrchctlError as error:
        raise BY_CODE[error.code](error.message, fix=error.fix) from error


def _config_error(error: ServerConfigError) -> ConfigError:
    return ConfigError(
        f"{error.problems[0].file} has {output.count(len(error.problems), 'mistake')}",
        details=[
            Detail(
                pointer="  ".join((each.place, each.path)).strip(), text="\n".join(each.sentences)
            )
            for each in error.problems
        ],
        fix="correct the file, then check it with `orchctl autoscaler validate`",
    )


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    from control_plane.core.codec import to_json

    row: dict[str, Any] = to_json(value)
    return row
