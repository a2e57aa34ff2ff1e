"""procrastinate on PostgreSQL: its job manager as its worker calls it, one job at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.schema import SchemaManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from bench.peers import postgres
from bench.peers.servers import Servers
from bench.peers.work import DEPTH, PAYLOAD_BYTES, Kind


class Procrastinate:
    """Its own schema, filled by its own bulk call."""

    kind: Kind = "processes"

    def __init__(self, servers: Servers) -> None:
        self._where = servers.postgres("procrastinate")
        connector = SyncPsycopgConnector(conninfo=self._where)
        connector.open()
        SchemaManager(connector).apply_schema()
        connector.close()

    def ready(self) -> None:
        postgres.run(self._where, "truncate procrastinate_jobs restart identity cascade")
        connector = SyncPsycopgConnector(conninfo=self._where)
        connector.open()
        JobManager(connector).batch_defer_jobs([_job(number) for number in range(DEPTH)])
        connector.close()
        postgres.settle(self._where)

    def opener(self) -> Callable[[int], ProcrastinateWorker]:
        return partial(ProcrastinateWorker, self._where)

    def ended(self) -> int:
        return postgres.count(
            self._where, "select count(*) from procrastinate_jobs where status = 'succeeded'"
        )

    def rest(self) -> None:
        """The next phase truncates."""


class ProcrastinateWorker:
    """One registered worker with one connection."""

    def __init__(self, where: str, number: int) -> None:  # noqa: ARG002 - it gets its own
        self._loop = asyncio.new_event_loop()
        self._run = self._loop.run_until_complete
        self._connector = PsycopgConnector(conninfo=where, min_size=1, max_size=1)
        self._manager = JobManager(self._connector)
        self._run(self._connector.open_async())
        self._id = self._run(self._manager.register_worker())

    def claim(self) -> Job | None:
        return self._run(self._manager.fetch_job(["bench"], self._id))

    def finish(self, job: Job) -> None:
        self._run(self._manager.finish_job(job, Status.SUCCEEDED, delete_job=False))

    def close(self) -> None:
        self._run(self._connector.close_async())
        self._loop.close()


def _job(number: int) -> Job:
    return Job(
        id=None,
        queue="bench",
        lock=None,
        queueing_lock=None,
        task_name="bench",
        task_kwargs={"payload": f"{number}-".ljust(PAYLOAD_BYTES, "x")},
    )
