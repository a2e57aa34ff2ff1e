"""Between records and rows: times as sortable text, whole values as JSON, a job column by column.

A job has a column for each field, because claims, beats and endings change only a few of them and
must not write the others (nor their indexes) again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar, cast

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import (
    Attempt,
    Job,
    JobSpec,
    JobState,
    Lease,
    Machine,
    Need,
    Reason,
    Source,
)

T = TypeVar("T")
Value = str | int | float | None

FIELDS = tuple(field.name for field in fields(Job))
"""Of a job; each has a column of its name, and `spec` has two: the need stands apart."""
_JOB_COLUMNS = (*FIELDS, "need")
JOB_COLUMNS = ", ".join(_JOB_COLUMNS)
"""What `job` expects, in this order."""
_ATTEMPT_COLUMNS = tuple(field.name for field in fields(Attempt))
ATTEMPT_COLUMNS = ", ".join(_ATTEMPT_COLUMNS)
"""What `attempt` expects, in this order."""


HELD = "state in ('leased', 'running')"
"""In the words of the index `jobs_held`: only then does SQLite use it."""
DELAYED = "state = 'queued' and lane is null"
"""In the words of the index `jobs_delayed`."""

_PLAIN_SPEC = JobSpec(command="")
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


# `Job` and `JobSpec` are frozen: made by their own constructors they would take four times as long,
# and a claim spends most of its time on that. So their fields are set in these, which have the same
# slots, and then become what they are a draft of.
class _JobDraft:
    __slots__ = Job.__slots__


class _SpecDraft:
    __slots__ = JobSpec.__slots__


class _MachineDraft:
    __slots__ = Machine.__slots__


_machine_values = attrgetter(*Machine.__slots__)


# A job is read again and again while people look at it, and a sweep's jobs share their text.
@lru_cache(maxsize=256)
def _spec(data: str, need: str) -> JobSpec:
    stated, _ = _parse(data)
    get, plain = stated.get, _PLAIN_SPEC
    made: Any = _SpecDraft()
    made.command = stated["command"]
    made.need = need_of(need)
    made.env = get("env", plain.env)
    source = get("source")
    made.source = source and from_json(Source, source)
    made.python = get("python", plain.python)
    made.requirements = tuple(get("requirements", ()))
    made.artifacts = tuple(get("artifacts", ()))
    made.timeout_s = get("timeout_s", plain.timeout_s)
    made.grace_s = get("grace_s", plain.grace_s)
    made.max_attempts = get("max_attempts", plain.max_attempts)
    made.max_machine_losses = get("max_machine_losses", plain.max_machine_losses)
    made.__class__ = JobSpec
    return cast("JobSpec", made)


def job(row: Iterable[Any]) -> Job:
    """The job of a row that was selected as `JOB_COLUMNS`."""
    made: Any = _JobDraft()
    (
        made.id, made.queue, spec, state, made.version, made.name, made.owner, labels,
        made.priority, made.position, made.epoch, made.attempt, made.failures,
        made.machine_losses, made.machine_id, submitted_at, queued_at, not_before, depends_on,
        leased_at, started_at, finished_at, made.exit_code, reason, cancel_requested,
        made.cloned_from, need,
    ) = row  # fmt: skip
    made.spec = _spec(spec, need)
    made.state = _STATES[state]
    made.labels = {} if labels == "{}" else json.loads(labels)
    made.submitted_at = _moment(submitted_at)
    made.queued_at = _moment(queued_at)
    made.not_before = not_before and _moment(not_before)
    made.depends_on = tuple(json.loads(depends_on)) if depends_on else ()
    made.leased_at = leased_at and _moment(leased_at)
    made.started_at = started_at and _moment(started_at)
    made.finished_at = finished_at and _moment(finished_at)
    made.reason = reason and loads(Reason, reason)
    made.cancel_requested = bool(cancel_requested)
    made.__class__ = Job
    return cast("Job", made)


def between_beats(kept: Machine, last_beat_at: str | None, idle_since: str | None) -> Machine:
    """The same machine with these columns of its row: `replace` would take ten times as long."""
    made: Any = _MachineDraft()
    (
        made.id, made.autoscaler, made.pool, made.state, made.offers, made.attempt, made.version,
        made.provider_id, made.operation, made.options, made.identity, made.instance,
        made.capacity, made.planned_at, made.launched_at, made.registered_at, _, _,
        made.hold_until, made.interruption_at, made.terminating_at, made.ended_at, made.protected,
        made.reason, made.launch_reason,
    ) = _machine_values(kept)  # fmt: skip
    made.last_beat_at = last_beat_at and _moment(last_beat_at)
    made.idle_since = idle_since and _moment(idle_since)
    made.__class__ = Machine
    return cast("Machine", made)


def lease(
    job_id: str,
    epoch: int,
    machine_id: str,
    queue: str,
    need: str,
    leased_at: str,
    cancel_requested: int,
) -> Lease:
    """The lease of the columns of a held job."""
    return Lease(
        job_id=job_id,
        epoch=epoch,
        machine_id=machine_id,
        queue=queue,
        need=need_of(need),
        leased_at=_moment(leased_at),
        cancel_requested=bool(cancel_requested),
    )


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
    if value is None:
        return None
    if isinstance(value, JobState):
        return value.value
    if isinstance(value, (str, int, float)):
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
