"""Redis with an append-only file synced before every answer, as a reliable queue: a claim moves
the job to the list of those at work, a finish removes it there. It counts no attempts, keeps no
history and has no leases: this is the least that loses no job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import redis

from bench.peers.servers import Servers
from bench.peers.work import DEPTH, PAYLOAD_BYTES, Kind

WAITING, AT_WORK = "waiting", "at-work"


class Redis:
    """Two lists."""

    kind: Kind = "threads"  # its clients wait more than they compute

    def __init__(self, servers: Servers) -> None:
        self._port = servers.redis()
        self._client = redis.Redis(port=self._port)

    def ready(self) -> None:
        self._client.delete(WAITING, AT_WORK)
        jobs = [f"{number}-".ljust(PAYLOAD_BYTES, "x") for number in range(DEPTH)]
        self._client.rpush(WAITING, *jobs)

    def opener(self) -> Callable[[int], RedisWorker]:
        return partial(RedisWorker, self._port)

    def ended(self) -> int:
        left: int = self._client.llen(WAITING) + self._client.llen(AT_WORK)
        return DEPTH - left

    def rest(self) -> None:
        """The next phase begins with empty lists."""


class RedisWorker:
    """One connection."""

    def __init__(self, port: int, number: int) -> None:  # noqa: ARG002 - all are alike
        self._client = redis.Redis(port=port, decode_responses=True)

    def claim(self) -> str | None:
        job = self._client.lmove(WAITING, AT_WORK, "LEFT", "RIGHT")
        return None if job is None else str(job)

    def finish(self, job: str) -> None:
        self._client.lrem(AT_WORK, 1, job)

    def close(self) -> None:
        self._client.close()
