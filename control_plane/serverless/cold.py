"""A cold start: imported first of all by a function, and told when it can answer.

What is loaded meanwhile stays for good. Looking through all of it for garbage, again and again
while it grows, took a third of the time that a function starts in."""

from __future__ import annotations

import gc

gc.disable()


def over() -> None:
    """All is loaded."""
    gc.freeze()
    gc.enable()
