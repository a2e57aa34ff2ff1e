"""Our own SQLite store, called through its port by threads of one process, or as our server does it
for agents: by coroutines, those of one moment together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.peers import files
from bench.peers.work import Kind, Opener
from control_plane.api.together import Together
from control_plane.core.model import Job, JobState
from control_plane.ports import Ending, JobStore
from control_plane.stores.sqlite import Durability, SqliteStore

_SUCCEEDED = Ending(outcome="succeeded", exit_code=0)


class Orchctl:
    """A fresh copy of `template` for each phase."""

    kind: Kind = "threads"

    def __init__(self, template: Path, durability: Durability) -> None:
        self._template = template
        self._path = template.with_name(f"orchctl-{durability}.db")
        self._durability = durability

    def ready(self) -> None:
        files.copy(self._template, self._path)
        self._store = SqliteStore(self._path, durability=self._durability)

    def opener(self) -> Opener:
        return partial(OrchctlWorker, self._store)

    def ended(self) -> int:
        return files.ended(self._path)

    def rest(self) -> None:
        self._store.close()
        files.remove(self._path)


class Served(Orchctl):
    """The same as requests of agents reach it."""

    kind: Kind = "tasks"

    def opener(self) -> Opener:
        return partial(ServedWorker, self._store, Together(self._store))


class DeepOrchctl:
    """One deep file for all phases: they take next to nothing of it, and a copy takes long."""

    kind: Kind = "threads"

    def __init__(self, path: Path, durability: Durability) -> None:
        self._path = path
        self._store = SqliteStore(path, durability=durability)
        self._before = 0

    def ready(self) -> None:
        self._before = files.ended(self._path)

    def opener(self) -> Callable[[int], OrchctlWorker]:
        return partial(OrchctlWorker, self._store)

    def ended(self) -> int:
        return files.ended(self._path) - self._before

    def rest(self) -> None:
        """It stays open."""

    def close(self) -> None:
        self._store.close()


class OrchctlWorker:
    """One agent, asking for one job at a time."""

    def __init__(self, store: JobStore, number: int) -> None:
        self._store = store
        self._machine_id = files.machine_id(number)

    def claim(self) -> Job | None:
        claimed = self._store.job_claim(
            self._machine_id, (files.QUEUE,), files.FREE, limit=1, now=datetime.now(UTC)
        )
        return claimed[0] if claimed else None

    def finish(self, job: Job) -> None:
        self._store.job_finish(
            job.id, job.epoch, _SUCCEEDED, state=JobState.SUCCEEDED, now=datetime.now(UTC)
        )

    def close(self) -> None:
        """The store is closed after the phase."""


class ServedWorker:
    """One agent, as a coroutine."""

    def __init__(self, store: SqliteStore, together: Together, number: int) -> None:
        self._agent = OrchctlWorker(store, number)
        self._together = together

    async def claim(self) -> Job | None:
        return await self._together.do(self._agent.claim)

    async def finish(self, job: Job) -> None:
        await self._together.do(partial(self._agent.finish, job))

    def close(self) -> None:
        """The store is closed after the phase."""
