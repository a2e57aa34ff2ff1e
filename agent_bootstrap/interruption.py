"""How a machine learns that it is being taken away.

A watcher is asked again and again and answers once. For a local machine the notice is a file named
`interrupt` in the machine's directory (or the signal SIGUSR1, which the worker takes itself); the
clouds announce it through their metadata services (`notices`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

from agent_bootstrap.wire import Notice

DEFAULT_SECONDS_LEFT = 30.0
"""When a notice does not say: the shortest warning any of the three clouds gives."""

METADATA_URL = "http://169.254.169.254"
"""Where all three clouds answer questions about a machine, to that machine alone. By address: no
name has to be resolved, so none can be forged."""

CLOUDS = ("local", "aws", "gcp", "azure")

HINTS = ("rebalance",)
"""Kinds that only announce that a notice may come: reported, but nothing is stopped."""


class Watcher:
    """Where notices come from."""

    poll_s = 1.0
    """Between two calls of `poll`."""

    shutdown_s = 10.0
    """After SIGTERM: what init systems and container runtimes commonly leave a process."""

    def poll(self) -> Optional[Notice]:
        """The notice, once; None while there is none. Never raises."""
        raise NotImplementedError

    def drained(self) -> None:
        """What the notice asked for is done: nothing runs here any more. Never raises."""


def watcher(cloud: str, directory: Path, metadata_url: str = METADATA_URL) -> Watcher:
    """The watcher for a machine of this cloud; `directory` is the local machine's own."""
    if cloud == "local":
        return FileWatcher(directory)
    # A local machine does not pay for reading what only clouds need.
    from agent_bootstrap.notices import WATCHERS

    return WATCHERS[cloud](metadata_url)


class FileWatcher(Watcher):
    """The file `interrupt`, written whole (renamed into place): empty, a number of seconds, or JSON
    with the fields of `Notice`."""

    poll_s = 0.2

    def __init__(self, directory: Path) -> None:
        self._path = directory / "interrupt"
        self._seen = False

    def poll(self) -> Optional[Notice]:
        if self._seen:
            return None
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        self._seen = True
        return read_notice(text)


def read_notice(text: str) -> Notice:
    """A notice from the text of an `interrupt` file; what is unreadable takes its default, because
    to overlook a notice is worse than to be wrong about its details."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    fields = data if isinstance(data, dict) else {"seconds_left": data}
    seconds = fields.get("seconds_left")
    return Notice(
        kind=str(fields.get("kind", "spot")),
        seconds_left=float(seconds) if isinstance(seconds, (int, float)) else DEFAULT_SECONDS_LEFT,
    )
