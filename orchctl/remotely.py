"""`execute_remotely()`: a script that submits itself and ends here."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from orchctl.errors import InvalidInput

JOB_VARIABLE = "ORCHCTL_JOB_ID"
"""Set by the agent for every job it runs."""


def execute_remotely(queue: str = "default", **options: Any) -> None:
    """Enqueue the running script with its arguments and exit with code 0; on the machine that then
    runs it, do nothing, so that the script goes on from here.

    `options` are those of `Client.jobs.submit`, such as `gpu="L4:1"`. The script's directory (its
    git checkout, where there is one) travels with it, and so does its `requirements.txt`. Prints
    the job's id. Raises `InvalidInput` when there is no script, as in an interactive session."""
    if os.environ.get(JOB_VARIABLE):
        return
    from orchctl.capture import capture, found_in
    from orchctl.client import Client

    script = _script()
    source = capture(script.parent)
    packages = found_in(script.parent)
    command = shlex.join(["python", script.name, *sys.argv[1:]])
    defaults = {"requirements": packages.lines, "name": script.stem}
    with Client() as client:
        job = client.jobs.submit(
            command=source.at(command), queue=queue, source=source, **{**defaults, **options}
        )
    sys.stdout.write(f"{job.id}\n")
    sys.stdout.flush()
    raise SystemExit(0)


def _script() -> Path:
    path = getattr(sys.modules["__main__"], "__file__", None)
    if not path:
        raise InvalidInput(
            "there is no script to send",
            fix="call execute_remotely() from a file that is run as `python FILE`",
        )
    return Path(path).resolve()
