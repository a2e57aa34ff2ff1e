"""One local machine's directory, and how its first process is started exactly once.

<root>/<key>/            0700; the key of a launch is `<machine id>.<attempt>`
    machine.json         its card: who it is, written whole before anything starts
    startup.sh           the start-up text, without any secret
    token                the one-time token, 0600; taken away when the machine has ended
    console.log          all that its processes print
    started              made by the machine's own first process, once: its right to run
    ending               terminate was asked for
    ended                when nothing of it was left
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from control_plane.core.codec import from_json, to_json

_RUN_ONCE = "set -C; echo $$ >started || exit 0; set +C; exec /bin/sh startup.sh"
"""Creating `started` is atomic and possible once, so a start that is repeated after a crash runs
nothing twice, whatever the crash left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A machine's labels: in `machine.json`, and in the environment of its processes."""

    home: str
    """Names the root it lives below, so that control planes on one computer stay apart."""
    machine_id: str
    fleet: str
    key: str
    offer: str
    created_at: datetime
    deadline: datetime


def label(card: Card) -> str:
    """A card as one word: some systems show an environment as one line of text."""
    return json.dumps(to_json(card), separators=(",", ":")).replace(" ", "\\u0020")


@lru_cache
def read_label(text: str) -> Card | None:
    """The card of a label; None when it is none: a process may set what it likes."""
    try:
        return from_json(Card, json.loads(text))
    except ValueError:
        return None


class MachineDirectory:
    """The files of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path.name
        self.token_file = path / "token"
        self.console_log = path / "console.log"

    def prepare(self, card: Card, startup: str, token: str) -> None:
        """Write all that the first process needs; a repeat replaces it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.token_file, token)
        write_private(self.path / "startup.sh", startup)
        write_private(self.path / "machine.json", json.dumps(to_json(card), indent=2) + "\n")

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the first process in a session of its own; it outlives this program."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with open(os.open(self.console_log, flags, 0o600), "ab") as console:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _RUN_ONCE],
                cwd=self.path,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                umask=0o077,
            )
        # Waiting for it is what keeps it from staying a zombie.
        threading.Thread(target=child.wait, name=f"reap {self.key}", daemon=True).start()

    def card(self) -> Card | None:
        """Who it is; None while nothing was prepared, or when the file is damaged."""
        try:
            return read_label((self.path / "machine.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def begun(self) -> bool:
        """Whether it may not be started any more: it ran, or was ended before it could."""
        return (self.path / "started").exists() or self.ending()

    def ending(self) -> bool:
        """Whether terminate was asked for."""
        return (self.path / "ending").exists()

    def mark_ending(self) -> None:
        """Note that terminate was asked for; nothing happens when there is no such machine."""
        if self.path.is_dir():
            (self.path / "ending").touch(mode=0o600)

    def ended_at(self) -> datetime | None:
        """When nothing of it was left any more."""
        try:
            return datetime.fromisoformat((self.path / "ended").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def mark_ended(self, at: datetime) -> None:
        """Note that nothing of it is left, once, and take its token away."""
        if self.path.is_dir() and self.ended_at() is None:
            self.token_file.unlink(missing_ok=True)
            write_private(self.path / "ended", at.isoformat())

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read; a reader sees the whole of it or none."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
