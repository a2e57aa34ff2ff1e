"""A job's log: a file that its processes write and a thread that sends it on, in order.

The file takes any speed, so a slow control plane never slows the job. What was not acknowledged is
sent again from the same offset; what the server knows already it skips.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Callable

from agent_bootstrap.client import FIRST_PAUSE_S, LONGEST_PAUSE_S, Refusal, Stale, Unanswered

PAUSE_S = 0.5
"""Between two chunks while the log grows slowly: a reader does not notice, the server does."""

LOOK_S = 0.1
"""Between two looks at a log that does not grow: the first line after a silence goes at once."""

CHUNK_BYTES = 256 * 1024
"""Fits with room to spare into the 6 MB that a serverless API takes in one request."""

UNSENT_BYTES_MAX = 64 * 1024 * 1024
"""When more than this waits, the older half is left out: a job that prints faster than the network
carries would otherwise be hours from its end when it ends."""

log = logging.getLogger(__name__)


class JobLog:
    """Sends a growing file with `send(offset, data) -> size there`.

    A failing upload never fails the job. `on_stale` is called when the lease is somebody else's."""

    def __init__(
        self, path: Path, send: Callable[[int, bytes], int], on_stale: Callable[[], None]
    ) -> None:
        self.path = path
        self._send = send
        self._on_stale = on_stale
        self._read = 0
        """How far the file was read."""
        self._offset = 0
        """How much the server has."""
        self._unsent = b""
        """Read, and not acknowledged."""
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._may_end: Callable[[], bool] = lambda: True
        path.touch()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note(self, line: str) -> None:
        """Add a line of the agent's own."""
        with self.path.open("ab") as file:
            file.write(b"[orchctl] " + line.encode("utf-8", "replace") + b"\n")

    def size(self) -> int:
        """Of the file, in bytes."""
        return self.path.stat().st_size

    def tail(self, since: int, lines: int = 15) -> str:
        """The last lines written after a position."""
        with self.path.open("rb") as file:
            file.seek(max(since, self.size() - 16 * 1024))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(text.strip().splitlines()[-lines:])

    def close(self, patience_s: float, may_end: Callable[[], bool] = lambda: True) -> None:
        """Send the rest; the file must not grow any more. Gives up after `patience_s` of failing,
        but only while `may_end` agrees."""
        self._may_end = may_end
        self._deadline = time.monotonic() + patience_s
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        # Nothing is there yet, and the job is to start first.
        self._closing.wait(LOOK_S)
        try:
            self._send_all()
        except Stale:
            self._on_stale()
        except Refusal as error:
            log.warning("log of %s is refused: %s", self.path.parent.name, error)

    def _send_all(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            last = self._closing.is_set()
            try:
                sent = self._send_chunk()
            except Unanswered as error:
                if time.monotonic() >= self._deadline and self._may_end():
                    log.warning("log of %s stays incomplete: %s", self.path.parent.name, error)
                    return
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            pause = FIRST_PAUSE_S
            if sent >= CHUNK_BYTES:
                continue
            if last:
                return
            self._closing.wait(PAUSE_S if sent else LOOK_S)

    def _send_chunk(self) -> int:
        """Send what there is, at most one chunk; returns its size."""
        self._unsent = self._unsent or self._next_chunk()
        sent = len(self._unsent)
        if sent:
            self._send(self._offset, self._unsent)
        self._offset += sent
        self._unsent = b""
        return sent

    def _next_chunk(self) -> bytes:
        skipped = self._skip()
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read(CHUNK_BYTES)
        self._read += len(data)
        return skipped + data

    def _skip(self) -> bytes:
        """Leave out the older half of too large a backlog; the note that stands for it."""
        waiting = self.size() - self._read
        if waiting <= UNSENT_BYTES_MAX:
            return b""
        left_out = waiting - UNSENT_BYTES_MAX // 2
        self._read += left_out
        return b"\n[orchctl] %d bytes of the log were left out here\n" % left_out
