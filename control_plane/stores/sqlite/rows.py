"""Between records and rows: times as sortable text, whole values as JSON, a job column by column.

A job has a column for each field, because claims, beats and endings change only a few of them and
must not write the others (nor their indexes) again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar, cast

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import Attempt, Job, JobSpec, JobState, Need, Reason, Source

T = TypeVar("T")
Value = str | int | float | None

FIELDS = tuple(field.name for field in fields(Job))
"""Of a job; each has a column of its name, and `spec` has two: the need stands apart."""
_STEADY = (
    *("id", "queue", "spec", "need", "name", "owner", "labels", "priority", "position"),
    *("failures", "machine_losses", "submitted_at", "queued_at", "not_before", "depends_on"),
    *("cancel_requested", "cloned_from", "version", "epoch", "attempt"),
)
_LEASED = ("state", "machine_id", "leased_at", "started_at", "finished_at", "exit_code", "reason")
_JOB_COLUMNS = (*_STEADY, *_LEASED)
_ATTEMPT_COLUMNS = tuple(field.name for field in fields(Attempt))
ATTEMPT_COLUMNS = ", ".join(_ATTEMPT_COLUMNS)
"""What `attempt` expects, in this order."""


def job_columns(changed: Mapping[str, str] | None = None) -> str:
    """What `job` expects, in this order; `changed` has SQL for columns that are to be read as they
    will be."""
    return ", ".join((changed or {}).get(name, name) for name in _JOB_COLUMNS)


def assignments(names: Iterable[str]) -> str:
    """What an update sets, each to a value that is bound."""
    return ", ".join(f"{name} = ?" for name in names)


def pick(*names: str) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Takes these columns from a row that was selected as `JOB_COLUMNS`."""
    return itemgetter(*map(_JOB_COLUMNS.index, names))


JOB_COLUMNS = job_columns()
STEADY_COLUMNS = ", ".join(_STEADY)
"""What `leased` expects, in this order."""
HELD = "state in ('leased', 'running')"
"""In the words of the index `jobs_held`: only then does SQLite use it."""
DELAYED = "state = 'queued' and lane is null"
"""In the words of the index `jobs_delayed`."""

_SPEC_FIELDS = frozenset(field.name for field in fields(JobSpec))
_STATES = {state.value: state for state in JobState}
_NUMBERS = tuple(f"{number:03}" for number in range(1000))
_moment = datetime.fromisoformat
_parse = json.JSONDecoder().raw_decode
_ATTEMPT_TIMES = tuple(name for name in _ATTEMPT_COLUMNS if name.endswith("_at"))


def text(at: datetime) -> str:
    """A time as text of fixed width in UTC, which sorts like the time."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    # `isoformat` does the same, in four times the time.
    milli, micro = divmod(at.microsecond, 1000)
    minute = _minute(at.year, at.month, at.day, at.hour, at.minute)
    return f"{minute}{_NUMBERS[at.second][1:]}.{_NUMBERS[milli]}{_NUMBERS[micro]}+00:00"


@lru_cache(maxsize=64)
def _minute(year: int, month: int, day: int, hour: int, minute: int) -> str:
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:"


def text_or_none(at: datetime | None) -> str | None:
    return None if at is None else text(at)


def moment(stored: str | None) -> datetime | None:
    """The time that `text` wrote."""
    return None if stored is None else datetime.fromisoformat(stored)


def dumps(value: object) -> str:
    """A record as compact JSON text."""
    return _compact(to_json(value))


def loads(kind: type[T], data: str) -> T:
    """The record that `dumps` wrote."""
    return from_json(kind, json.loads(data))


def loads_again(kind: type[T], data: str) -> T:
    """As `loads`, for records that are read at every look and change seldom: who asks twice gets
    the same frozen value."""
    hashable: Any = kind
    return cast("T", _kept(hashable, data))


@lru_cache(maxsize=16_384)
def _kept(kind: Any, data: str) -> object:
    return loads(kind, data)


# Needs are few, and every job and lane has one.
@lru_cache(maxsize=4096)
def need_text(need: Need) -> str:
    """A need as JSON of what it states: equal needs have equal texts."""
    return _compact(_stated(need))


@lru_cache(maxsize=4096)
def need_of(stored: str) -> Need:
    """The need that `need_text` wrote."""
    return loads(Need, stored)


# One job's text is read at its claim, start and finish, and a sweep's jobs share theirs. This and
# `job` are written out, not left to the codec: a claim spends most of its time on them.
@lru_cache(maxsize=1024)
def _spec(data: str, need: str) -> JobSpec:
    stated, _ = _parse(data)
    if not stated.keys() <= _SPEC_FIELDS:
        stated = {name: value for name, value in stated.items() if name in _SPEC_FIELDS}
    for name in ("requirements", "artifacts"):
        if name in stated:
            stated[name] = tuple(stated[name])
    if stated.get("source"):
        stated["source"] = from_json(Source, stated["source"])
    stated["need"] = need_of(need)
    return JobSpec(**stated)


def job(row: Iterable[Any]) -> Job:
    """The job of a row that was selected as `JOB_COLUMNS`."""
    (
        job_id, queue, spec, need, name, owner, labels, priority, position, failures,
        machine_losses, submitted_at, queued_at, not_before, depends_on, cancel_requested,
        cloned_from, version, epoch, attempt, state, machine_id, leased_at, started_at,
        finished_at, exit_code, reason,
    ) = row  # fmt: skip
    return Job(
        id=job_id,
        queue=queue,
        spec=_spec(spec, need),
        state=_STATES[state],
        version=version,
        name=name,
        owner=owner,
        labels={} if labels == "{}" else json.loads(labels),
        priority=priority,
        position=position,
        epoch=epoch,
        attempt=attempt,
        failures=failures,
        machine_losses=machine_losses,
        machine_id=machine_id,
        submitted_at=_moment(submitted_at),
        queued_at=_moment(queued_at),
        not_before=not_before and _moment(not_before),
        depends_on=tuple(json.loads(depends_on)) if depends_on else (),
        leased_at=leased_at and _moment(leased_at),
        started_at=started_at and _moment(started_at),
        finished_at=finished_at and _moment(finished_at),
        exit_code=exit_code,
        reason=reason and loads(Reason, reason),
        cancel_requested=bool(cancel_requested),
        cloned_from=cloned_from,
    )


def leased(row: Sequence[Any], machine_id: str, now: str) -> tuple[Any, ...]:
    """A waiting job, selected as `STEADY_COLUMNS`, as the row of `JOB_COLUMNS` that a lease makes
    of it: `transitions.leased`."""
    *steady, version, epoch, attempt = row
    counted = (version + 1, epoch + 1, attempt + 1)
    return (*steady, *counted, "leased", machine_id, now, None, None, None, None)


def job_values(record: Job, names: Iterable[str] = FIELDS) -> dict[str, Value]:
    """The columns of these fields."""
    values: dict[str, Value] = {}
    for name in names:
        if name == "spec":
            values["spec"] = _compact(_stated(record.spec, without="need"))
            values["need"] = need_text(record.spec.need)
        else:
            values[name] = column(getattr(record, name))
    return values


def attempt(row: Iterable[Any]) -> Attempt:
    """The attempt of a row that was selected as `ATTEMPT_COLUMNS`."""
    values = dict(zip(_ATTEMPT_COLUMNS, row, strict=True))
    for name in _ATTEMPT_TIMES:
        values[name] = moment(values[name])
    values["need"] = need_of(values["need"])
    values["reason"] = None if values["reason"] is None else loads(Reason, values["reason"])
    return Attempt(**values)


def attempt_values(record: Attempt) -> tuple[Value, ...]:
    """Its columns, as `ATTEMPT_COLUMNS`."""
    return tuple(column(getattr(record, name)) for name in _ATTEMPT_COLUMNS)


def column(value: Any) -> Value:
    """A value of a field as its column holds it."""
    if isinstance(value, JobState):
        return value.value
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, datetime):
        return text(value)
    if isinstance(value, Need):
        return need_text(value)
    if isinstance(value, tuple):
        return dumps(value) if value else None
    if isinstance(value, (Reason, Mapping)):
        return dumps(value)
    raise TypeError(f"no column for {type(value).__name__}")


def _compact(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _stated(value: Any, *, without: str = "") -> dict[str, object]:
    """What is not as it is by default: `from_json` puts the rest back."""
    return {
        field.name: to_json(getattr(value, field.name))
        for field in fields(value)
        if field.name != without and getattr(value, field.name) != _default(field)
    }


def _default(field: Field[Any]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
