"""Run the fake by hand: `python -m tests.fakes.gcp`. Time is the computer's, and is moved on by
`POST /_control/advance`."""

from __future__ import annotations

import sys

from tests.fakes.clock import RunningClock
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.server import GcpServer


def main() -> None:
    """Serve until the program is interrupted; its address is the first line of output."""
    with GcpServer(GcpCloud(RunningClock())) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        server.wait()


if __name__ == "__main__":
    main()
