"""beanstalkd with its binlog synced at every write. Only the delete is a write: a reservation is
kept in memory, so per job it syncs once where the others sync twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import greenstalk

from bench.peers.servers import Servers
from bench.peers.work import DEPTH, PAYLOAD_BYTES, Kind


class Beanstalkd:
    """One tube, topped up before each phase: it syncs every single put."""

    kind: Kind = "processes"

    def __init__(self, servers: Servers) -> None:
        self._port = servers.beanstalkd()
        self._client = _client(self._port)

    def ready(self) -> None:
        for number in range(DEPTH - self._left()):
            self._client.put(f"{number}-".ljust(PAYLOAD_BYTES, "x"))

    def opener(self) -> Callable[[int], BeanstalkdWorker]:
        return partial(BeanstalkdWorker, self._port)

    def ended(self) -> int:
        return DEPTH - self._left()

    def rest(self) -> None:
        """The next phase tops it up."""

    def _left(self) -> int:
        found = self._client.stats()
        return int(found["current-jobs-ready"]) + int(found["current-jobs-reserved"])


class BeanstalkdWorker:
    """One connection."""

    def __init__(self, port: int, number: int) -> None:  # noqa: ARG002 - all are alike
        self._client = _client(port)

    def claim(self) -> greenstalk.Job[str]:
        return self._client.reserve(timeout=0)

    def finish(self, job: greenstalk.Job[str]) -> None:
        self._client.delete(job)

    def close(self) -> None:
        self._client.close()


def _client(port: int) -> greenstalk.Client[str]:
    return greenstalk.Client(("127.0.0.1", port))
