"""Between records and rows: times as sortable text, whole values as JSON, a job column by column.

A job has a column for each field, because claims, beats and endings change only a few of them and
must not write the others (nor their indexes) again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import Attempt, Job, JobSpec, JobState, Need, Reason

T = TypeVar("T")
Value = str | int | float | None

_NAMES = tuple(field.name for field in fields(Job))
_NEED_NAMES = tuple(field.name for field in fields(Need))
_ATTEMPT_NAMES = tuple(field.name for field in fields(Attempt))
JOB_COLUMNS = ", ".join(_NAMES)
"""What `job` expects, in this order."""
NEED_COLUMNS = ", ".join(_NEED_NAMES)
"""What `need_of` expects, in this order."""
ATTEMPT_COLUMNS = ", ".join(_ATTEMPT_NAMES)
"""What `attempt` expects, in this order."""

HELD = "state in ('leased', 'running')"
"""In the words of the index `jobs_held`: only then does SQLite use it."""


def text(at: datetime) -> str:
    """A time as text of fixed width in UTC, which sorts like the time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def text_or_none(at: datetime | None) -> str | None:
    return None if at is None else text(at)


def moment(stored: str | None) -> datetime | None:
    """The time that `text` wrote."""
    return None if stored is None else datetime.fromisoformat(stored)


def dumps(value: object) -> str:
    """A record as compact JSON text."""
    return json.dumps(to_json(value), separators=(",", ":"), ensure_ascii=False)


def loads(kind: type[T], data: str) -> T:
    """The record that `dumps` wrote."""
    return from_json(kind, json.loads(data))


# One job's text is read at its claim, start and finish, and a sweep's jobs share theirs.
@lru_cache(maxsize=1024)
def _spec(data: str) -> JobSpec:
    return loads(JobSpec, data)


# Needs are few, and every claim writes one.
@lru_cache(maxsize=1024)
def _need_text(need: Need) -> str:
    return dumps(need)


def job(row: sqlite3.Row | tuple[Any, ...]) -> Job:
    """The job of a row that was selected as `JOB_COLUMNS`."""
    values = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        if values[name] is not None:
            values[name] = datetime.fromisoformat(values[name])
    values["spec"] = _spec(values["spec"])
    values["state"] = JobState(values["state"])
    values["labels"] = json.loads(values["labels"])
    values["reason"] = None if values["reason"] is None else loads(Reason, values["reason"])
    values["cancel_requested"] = bool(values["cancel_requested"])
    return Job(**values)


def job_get(tx: sqlite3.Connection, job_id: str) -> Job | None:
    row = tx.execute(f"select {JOB_COLUMNS} from jobs where id = ?", (job_id,)).fetchone()
    return None if row is None else job(row)


def job_insert(tx: sqlite3.Connection, new: Job, idempotency_key: str) -> None:
    """Write a job that is not stored yet."""
    values = _job_values(new, _NAMES)
    values["idempotency_key"] = idempotency_key or None
    marks = ", ".join("?" * len(values))
    tx.execute(f"insert into jobs ({', '.join(values)}) values ({marks})", tuple(values.values()))


def job_update(tx: sqlite3.Connection, old: Job, new: Job) -> None:
    """Write the columns in which the job changed, and no others."""
    changed = [name for name in _NAMES if getattr(old, name) is not getattr(new, name)]
    if not changed:
        return
    values = _job_values(new, changed)
    sets = ", ".join(f"{name} = ?" for name in values)
    tx.execute(f"update jobs set {sets} where id = ?", (*values.values(), new.id))


def need_of(values: Iterable[Any]) -> Need:
    """The need of a row that was selected as `NEED_COLUMNS`."""
    named = dict(zip(_NEED_NAMES, values, strict=True))
    return Need(**{**named, "on_demand_only": bool(named["on_demand_only"])})


def attempt(row: tuple[Any, ...]) -> Attempt:
    """The attempt of a row that was selected as `ATTEMPT_COLUMNS`."""
    values = dict(zip(_ATTEMPT_NAMES, row, strict=True))
    for name in ("leased_at", "started_at", "ended_at"):
        values[name] = moment(values[name])
    values["need"] = loads(Need, values["need"])
    values["reason"] = None if values["reason"] is None else loads(Reason, values["reason"])
    return Attempt(**values)


def attempt_insert(tx: sqlite3.Connection, new: Attempt) -> None:
    marks = ", ".join("?" * len(_ATTEMPT_NAMES))
    tx.execute(
        f"insert into attempts ({ATTEMPT_COLUMNS}) values ({marks})",
        tuple(_column(getattr(new, name)) for name in _ATTEMPT_NAMES),
    )


_TIMES = ("submitted_at", "queued_at", "not_before", "leased_at", "started_at", "finished_at")


def _job_values(record: Job, names: Iterable[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name in names:
        values[name] = _column(getattr(record, name))
        if name == "spec":
            values.update({each: _column(getattr(record.spec.need, each)) for each in _NEED_NAMES})
    return values


def _column(value: Any) -> Value:
    if isinstance(value, JobState):
        return value.value
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return text(value)
    if isinstance(value, Need):
        return _need_text(value)
    if isinstance(value, (JobSpec, Reason, Mapping)):
        return dumps(value)
    raise TypeError(f"no column for {type(value).__name__}")
