"""How a machine ends: nothing of its jobs is left, then the agent exits with a code that says why.

A local machine is a set of processes, so that is all. A machine of a cloud is ended by its start-up
text, which waits for the agent and acts whatever the code is (`user_data`). The code is the agent's
only word to whoever started it.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from agent_bootstrap.processes import kill_marked

LEFT = 0
"""Idle, drained, told to end, or as old as it may become."""
UNREGISTERED = 3
"""The control plane never let it in."""
LOST_CONTACT = 4
"""The control plane was silent for too long."""
SESSION_OVER = 5
"""The control plane ended the session."""
INTERRUPTED = 6
"""The machine is being taken away. After a signal N the code is 128 + N instead."""


def kill_jobs(machine_id: str) -> None:
    """End every process of every job of this machine. Also for a provider that ends a machine whose
    agent was killed. Does nothing where there is no `/proc`."""
    # The agent and what started it may carry the first mark, only what a job started has both.
    kill_marked({"ORCHCTL_MACHINE": machine_id, "ORCHCTL_JOB_ID": ""})


def end_machine(machine_id: str, code: int) -> NoReturn:
    """Leave nothing running and exit."""
    kill_jobs(machine_id)
    logging.shutdown()
    sys.stderr.flush()
    # Threads may still wait for an answer that nobody needs any more.
    os._exit(code)
