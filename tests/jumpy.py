"""Threads that take turns after every few instructions, so that a missing lock shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def jumpy_threads() -> Iterator[None]:
    """While inside."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
