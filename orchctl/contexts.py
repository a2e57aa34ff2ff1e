"""Which server, and as whom: a flag wins, then the environment, then the contexts file.

The file is `contexts.json` in the user's configuration directory (`ORCHCTL_CONFIG_DIR` overrides
the directory), readable by its owner only because it holds tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchctl.errors import InvalidInput, NotFound

SERVER_VARIABLE = "ORCHCTL_SERVER"
TOKEN_VARIABLE = "ORCHCTL_TOKEN"
CONTEXT_VARIABLE = "ORCHCTL_CONTEXT"
DIRECTORY_VARIABLE = "ORCHCTL_CONFIG_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One server and the token for it."""

    server: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """All known servers and which of them is in use."""

    current: str = ""
    by_name: Mapping[str, Context] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value and where it came from."""

    value: str = field(repr=False)
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server to talk to, with the origin of each setting."""

    context: Setting
    server: Setting
    token: Setting


def directory() -> Path:
    """Where the contexts file lives."""
    if chosen := os.environ.get(DIRECTORY_VARIABLE):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_config_dir("orchctl", appauthor=False))


def path() -> Path:
    """The contexts file; it may not exist."""
    return directory() / "contexts.json"


def load() -> Contexts:
    """Read the file; no file means no contexts. Raises `InvalidInput` for a damaged one."""
    try:
        text = path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return Contexts()
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f"{path()} is not a contexts file",
            why=str(error),
            fix="repair it, or remove it and add your servers again with `orchctl context add`",
        ) from error


def save(contexts: Contexts) -> None:
    """Write the file at once and whole, readable by its owner only."""
    data = {
        "current": contexts.current,
        "contexts": {
            name: {"server": context.server, "token": context.token}
            for name, context in sorted(contexts.by_name.items())
        },
    }
    directory().mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path().with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(data, indent=2) + "\n")
    draft.replace(path())


def add(name: str, *, server: str, token: str = "", use: bool = True) -> None:
    """Remember a server under a name, replacing one of that name."""
    known = load()
    by_name = {**known.by_name, name: Context(server=_address(server), token=token)}
    save(Contexts(current=name if use or not known.current else known.current, by_name=by_name))


def use(name: str) -> None:
    """Make a known context the current one. Raises `NotFound`."""
    known = load()
    _known(known, name)
    save(Contexts(current=name, by_name=known.by_name))


def remove(name: str) -> None:
    """Forget a context. Raises `NotFound`."""
    known = load()
    _known(known, name)
    rest = {each: context for each, context in known.by_name.items() if each != name}
    save(Contexts(current="" if known.current == name else known.current, by_name=rest))


def resolve(*, context: str = "", server: str = "", token: str = "") -> Target:
    """Settle server and token; the arguments are the flags (a token is never one: others can read
    the arguments of a process, so only programs pass it here). Raises `InvalidInput` when no server
    is chosen and `NotFound` for an unknown context."""
    known = load()
    chosen = _first(
        (context, "--context"),
        (os.environ.get(CONTEXT_VARIABLE, ""), CONTEXT_VARIABLE),
        (known.current, str(path())),
    )
    stored = _known(known, chosen.value) if chosen.value else Context(server="")
    origin = f"context {chosen.value}, from {chosen.origin}"
    settled = _first(
        (server, "--server"),
        (os.environ.get(SERVER_VARIABLE, ""), SERVER_VARIABLE),
        (stored.server, origin),
    )
    if not settled.value:
        raise InvalidInput(
            "no server is chosen",
            fix="start one here with `orchctl up`, or name one with "
            "`orchctl context add NAME --server https://…`",
        )
    address = _address(settled.value)
    # A stored token belongs to the stored server: it is never sent to another one.
    theirs = stored.token if address == stored.server else ""
    return Target(
        context=chosen,
        server=Setting(value=address, origin=settled.origin),
        token=_first(
            (token, "the program"),
            (os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE),
            (theirs, origin),
        ),
    )


def _address(server: str) -> str:
    if not server.startswith(("http://", "https://")):
        raise InvalidInput(
            f"{server} is not a server address",
            fix="write it with its scheme, such as https://orchctl.example.com",
        )
    return server.rstrip("/")


def _first(*candidates: tuple[str, str]) -> Setting:
    for value, origin in candidates:
        if value:
            return Setting(value=value, origin=origin)
    return Setting(value="", origin="not set")


def _known(contexts: Contexts, name: str) -> Context:
    if name not in contexts.by_name:
        names = ", ".join(sorted(contexts.by_name)) or "none"
        raise NotFound(
            f"there is no context {name}",
            why=f"known contexts: {names}",
            fix=f"add it with `orchctl context add {name} --server https://…`",
        )
    return contexts.by_name[name]


def _parse(data: Any) -> Contexts:
    return Contexts(
        current=str(data.get("current", "")),
        by_name={
            name: Context(server=each["server"], token=each.get("token", ""))
            for name, each in data["contexts"].items()
        },
    )
