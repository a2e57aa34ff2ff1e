"""Runs ministack until standard input ends, which it does when whoever holds the other end dies.

Started by `ministack.py` with the Python that has it installed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _die_with_the_holder() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)  # the group: its functions are processes of their own


if __name__ == "__main__":
    threading.Thread(target=_die_with_the_holder, daemon=True).start()
    from ministack.app import main

    sys.argv = ["ministack"]
    main()
