"""Run the fake by hand: `python -m tests.fakes.gcp`. Time is the computer's, and is moved on by
`POST /_control/advance`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.server import GcpServer


class MovedClock:
    """The computer's time and what was added to it."""

    def __init__(self) -> None:
        self._added = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._added

    def advance(self, seconds: float) -> None:
        self._added += timedelta(seconds=seconds)


def main() -> None:
    """Serve until the program is interrupted; its address is the first line of output."""
    with GcpServer(GcpCloud(MovedClock())) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        server.wait()


if __name__ == "__main__":
    main()
