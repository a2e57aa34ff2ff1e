"""Job records with what is derived from them: the lane a job stands in, and what waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.core.model import Job, JobState
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows

GET = f"select {rows.JOB_COLUMNS} from jobs where id = ?"


def find(tx: sqlite3.Connection, job_id: str) -> Job | None:
    found = tx.execute(GET, (job_id,)).fetchone()
    return None if found is None else rows.job(found)


def get(tx: sqlite3.Connection, job_id: str) -> Job:
    """Raises `NotFound`."""
    found = find(tx, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return found


def insert(
    tx: sqlite3.Connection, new: Job, *, idempotency_key: str = "", promoted_at: str | None = None
) -> None:
    """Write a job that is not stored yet."""
    values = rows.job_values(new)
    values["lane"] = _lane(tx, new)
    values["promoted_at"] = promoted_at
    values["idempotency_key"] = idempotency_key or None
    marks = ", ".join("?" * len(values))
    tx.execute(f"insert into jobs ({', '.join(values)}) values ({marks})", tuple(values.values()))
    if new.state is JobState.BLOCKED:
        tx.executemany(
            "insert or ignore into dependencies values (?, ?)",
            [(dependency, new.id) for dependency in new.depends_on],
        )


def save(tx: sqlite3.Connection, old: Job, new: Job) -> None:
    """Write the columns in which a job changed, and no others."""
    names = [name for name in rows.FIELDS if getattr(old, name) is not getattr(new, name)]
    if not names:
        return
    values = rows.job_values(new, names)
    sets = [f"{name} = ?" for name in values]
    if old.state is not JobState.QUEUED or new.state is not JobState.QUEUED:
        sets.append("lane = ?")
        values["lane"] = _lane(tx, new)
    elif old.queue != new.queue:
        # One that stands apart until its time comes goes on doing so.
        sets.append("lane = case when lane is null then null else ? end")
        values["lane"] = lane(new, by_owner=limits_owners(tx, new.queue))
    tx.execute(f"update jobs set {', '.join(sets)} where id = ?", (*values.values(), new.id))
    if old.state is JobState.BLOCKED and new.state is not JobState.BLOCKED:
        # It waits for no other any more.
        tx.execute("delete from dependencies where dependent = ?", (new.id,))


def dependencies(tx: sqlite3.Connection, job: Job) -> Sequence[Job]:
    """The jobs it depends on. One that is forgotten by now is left out: it has succeeded, else this
    job would not wait any more."""
    found = (find(tx, job_id) for job_id in job.depends_on)
    return [each for each in found if each is not None]


def limits_owners(tx: sqlite3.Connection, queue: str) -> bool:
    """Whether the queue limits each owner, so that owners have lanes of their own."""
    row = tx.execute(
        "select max_running_per_owner is not null from queues where name = ?", (queue,)
    ).fetchone()
    return row is not None and bool(row[0])


def lane(job: Job, *, by_owner: bool) -> str:
    """The lane of a job that may be claimed."""
    return rows.need_text(job.spec.need) + (job.owner if by_owner else "")


def _lane(tx: sqlite3.Connection, job: Job) -> str | None:
    if job.state is not JobState.QUEUED or transitions.held_back(job):
        return None
    return lane(job, by_owner=limits_owners(tx, job.queue))
