"""PgQueuer on PostgreSQL: its queries as its queue manager calls them, one job at a time, with
asyncpg, the quicker of its drivers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import asyncpg  # type: ignore[import-untyped]
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId

from bench.peers import postgres
from bench.peers.servers import Servers
from bench.peers.work import DEPTH, PAYLOAD_BYTES, Kind

T = TypeVar("T")
_ENTRYPOINTS = {QueueEntrypoint("bench"): EntrypointExecutionParameter(concurrency_limit=0)}
_HEARTBEAT = timedelta(seconds=30)


class PgQueuer:
    """Its own schema, all tables logged, filled by its own bulk call."""

    kind: Kind = "processes"

    def __init__(self, servers: Servers) -> None:
        self._where = servers.postgres("pgqueuer")
        asyncio.run(_with_queries(self._where, lambda queries: queries.install()))

    def ready(self) -> None:
        postgres.run(self._where, "truncate pgqueuer, pgqueuer_log restart identity")
        payloads: list[bytes | None] = [
            f"{number}-".ljust(PAYLOAD_BYTES, "x").encode() for number in range(DEPTH)
        ]
        names, zeros = ["bench"] * DEPTH, [0] * DEPTH
        asyncio.run(
            _with_queries(self._where, lambda queries: queries.enqueue(names, payloads, zeros))
        )
        postgres.settle(self._where)

    def opener(self) -> Callable[[int], PgQueuerWorker]:
        return partial(PgQueuerWorker, self._where)

    def ended(self) -> int:
        return postgres.count(
            self._where, "select count(*) from pgqueuer_log where status = 'successful'"
        )

    def rest(self) -> None:
        """The next phase truncates."""


class PgQueuerWorker:
    """One queue manager with one connection."""

    def __init__(self, where: str, number: int) -> None:  # noqa: ARG002 - it makes its own id
        self._loop = asyncio.new_event_loop()
        self._run = self._loop.run_until_complete
        self._connection = self._run(_connect(where))
        self._queries = self._run(_queries(self._connection))
        self._id = QueueManagerId(uuid.uuid4())

    def claim(self) -> Job | None:
        jobs = self._run(
            self._queries.dequeue(
                batch_size=1,
                entrypoints=_ENTRYPOINTS,
                queue_manager_id=self._id,
                global_concurrency_limit=None,
                heartbeat_timeout=_HEARTBEAT,
            )
        )
        return jobs[0] if jobs else None

    def finish(self, job: Job) -> None:
        self._run(self._queries.log_jobs([(job, "successful", None)]))

    def close(self) -> None:
        self._run(self._connection.close())
        self._loop.close()


async def _connect(where: str) -> asyncpg.Connection:
    # Its own words for it: asyncpg reads no connection string of this form.
    values = dict(pair.split("=", 1) for pair in where.split())
    values["database"] = values.pop("dbname")
    return await asyncpg.connect(**values)


async def _queries(connection: asyncpg.Connection) -> Queries:
    return Queries(AsyncpgDriver(connection))


async def _with_queries(where: str, use: Callable[[Queries], Awaitable[T]]) -> T:
    connection = await _connect(where)
    try:
        return await use(await _queries(connection))
    finally:
        await connection.close()
