"""The embedded control plane as a process that kills itself at one boundary of its loop.

    python -m tests.crash.server STATE_DIR PORT CONTACT_TIMEOUT_S [BOUNDARY NTH]

At the NTH time the loop passes BOUNDARY the process gets SIGKILL from itself: nothing is flushed,
closed or told, as when the machine under it dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from control_plane.agents import AgentSettings
from control_plane.core.snapshot import Timing
from control_plane.local import serving
from control_plane.loop import Pace

TIMING = Timing(lease_s=6, terminate_repeat_s=1)
PACE = Pace(at_least_s=1.0, unsettled_s=0.2, settle_s=0.02)


def main() -> None:
    state_dir, port, contact_timeout_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    boundary, nth = (sys.argv[4], int(sys.argv[5])) if len(sys.argv) > 4 else ("", 0)
    agents = AgentSettings(wait_s=2.0, poll_s=0.5, contact_timeout_s=contact_timeout_s)
    passed = 0

    def checkpoint(name: str) -> None:
        nonlocal passed
        if name == boundary:
            passed += 1
            if passed == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with serving(
        state_dir, port=port, timing=TIMING, agents=agents, pace=PACE, checkpoint=checkpoint
    ):
        ended.wait()


if __name__ == "__main__":
    main()
