"""One at a time on a server's directory: a server, a restore, an import."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.errors import Unavailable

LOCK = "lock"
"""The file that holds the lock, for as long as its process lives."""


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Keep everybody else off a server's directory; freed by the system at a crash. Raises
    `Unavailable` when it is in use."""
    descriptor = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unavailable(
            f"another control plane uses {state_dir}", fix="end it, or choose another --state-dir"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
