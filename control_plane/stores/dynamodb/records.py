"""Between records and items: whole values as compressed JSON without what is default, a job
attribute by attribute."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, TypeVar

from control_plane.core.codec import from_json, to_json
from control_plane.core.lifecycle import DEAD_LETTERS, JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Job, JobSpec, JobState, Need, Reason
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.client import Key
from control_plane.stores.dynamodb.items import Item, Value

T = TypeVar("T")


# ----------------------------------------------------------------------------- whole values


def pack(value: object) -> bytes:
    """A record as compressed JSON."""
    return zlib.compress(_json(_plain(value)).encode())


def unpack(kind: type[T], data: bytes) -> T:
    """The record that `pack` wrote."""
    return from_json(kind, json.loads(zlib.decompress(data)))


def text(value: object) -> str:
    """A small record as JSON, which compression would only make longer."""
    return _json(_plain(value))


def from_text(kind: type[T], data: str) -> T:
    """The record that `text` wrote."""
    return from_json(kind, json.loads(data))


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _plain(value: object) -> Any:
    """JSON values without fields that have their default: the codec fills them in again."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if not is_dataclass(value) or isinstance(value, type):
        return to_json(value)
    usual = _defaults(type(value))
    return {
        field.name: _plain(content)
        for field in fields(value)
        if (content := getattr(value, field.name)) != usual.get(field.name, MISSING)
    }


@cache
def _defaults(kind: Any) -> Mapping[str, object]:
    found = {}
    for field in fields(kind):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


# ------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A job with what only the store knows of it."""

    job: Job
    key: str = ""
    """The idempotency key."""
    promoted_at: datetime | None = None
    outcome: str = ""
    """How the attempt ended that ended the job."""
    kept_reason: bool = False
    """The job's reason is its cancellation's; the attempt has none."""
    previous: Attempt | None = None
    """The attempt that ended last before the current one."""
    artifacts: Sequence[Artifact] = ()
    """What the last ended attempt left, when it is kept here."""
    artifacts_at: int | None = None
    """The epoch under which it is kept beside the job."""
    spec_at: str = ""
    """Where the spec is kept beside the job."""
    limits: int = 0
    """The limits that its lease counts against."""
    expires: int | None = None
    """The second after which it is forgotten."""
    dependents: frozenset[str] = frozenset()
    """Ids of jobs that wait for it. They are added one by one and written by nobody else."""
    parked: bool = False
    """It is held back until a time."""

    @property
    def held(self) -> bool:
        """Whether a machine has it."""
        return self.job.state in transitions.HELD

    @property
    def attempt(self) -> Attempt | None:
        """Its current attempt, or the one that ended it; None when that is over."""
        job = self.job
        if not job.machine_id:
            return None
        ended = job.state in JOB_ENDED
        return Attempt(
            job_id=job.id,
            number=job.attempt,
            epoch=job.epoch,
            queue=job.queue,
            owner=job.owner,
            machine_id=job.machine_id,
            need=job.spec.need,
            queued_at=transitions.waited_since(job),
            leased_at=job.leased_at or job.queued_at,
            started_at=job.started_at,
            ended_at=job.finished_at,
            outcome=self.outcome,
            exit_code=job.exit_code,
            reason=job.reason if ended and not self.kept_reason else None,
        )

    def attempt_of(self, epoch: int) -> Attempt | None:
        """The attempt of an epoch, when the job's item still has it."""
        for attempt in (self.attempt, self.previous):
            if attempt is not None and attempt.epoch == epoch:
                return attempt
        return None


def stored(item: Item, spec: bytes | None = None) -> Stored:
    """The job of an item; `spec` is what is kept beside it."""
    get = item.get
    need = _need(item[at.NEED])
    return Stored(
        job=Job(
            id=item["sk"],
            queue=item[at.QUEUE],
            spec=_spec(spec if spec is not None else item[at.SPEC], need),
            state=JobState(item[at.STATE]),
            version=item[at.VERSION],
            name=get(at.NAME, ""),
            owner=get(at.OWNER, ""),
            labels=get(at.LABELS, {}),
            priority=get(at.PRIORITY, 0),
            position=float(item[at.POSITION]),
            epoch=get(at.EPOCH, 0),
            attempt=get(at.ATTEMPT, 0),
            failures=get(at.FAILURES, 0),
            machine_losses=get(at.LOSSES, 0),
            machine_id=get(at.MACHINE, ""),
            submitted_at=at.moment(item[at.SUBMITTED_AT]),
            queued_at=at.moment(item[at.QUEUED_AT]),
            not_before=at.moment_or_none(get(at.NOT_BEFORE)),
            depends_on=tuple(get(at.DEPENDS_ON, ())),
            leased_at=at.moment_or_none(get(at.LEASED_AT)),
            started_at=at.moment_or_none(get(at.STARTED_AT)),
            finished_at=at.moment_or_none(get(at.FINISHED_AT)),
            exit_code=get(at.EXIT_CODE),
            reason=from_text(Reason, item[at.REASON]) if at.REASON in item else None,
            cancel_requested=get(at.CANCEL, False),
            cloned_from=get(at.CLONED_FROM, ""),
        ),
        key=get(at.KEY, ""),
        promoted_at=at.moment_or_none(get(at.PROMOTED_AT)),
        outcome=get(at.OUTCOME, ""),
        kept_reason=get(at.KEPT_REASON, False),
        previous=unpack(Attempt, item[at.PREVIOUS]) if at.PREVIOUS in item else None,
        artifacts=unpack(tuple[Artifact, ...], item[at.ARTIFACTS]) if at.ARTIFACTS in item else (),
        artifacts_at=get(at.ARTIFACTS_AT),
        spec_at=get(at.SPEC_AT, ""),
        limits=get(at.LIMITS, 0),
        expires=get(at.TTL),
        dependents=get(at.DEPENDENTS, frozenset()),
        parked=get(at.INDEX_PARTITION) == at.PARKED,
    )


def attributes(record: Stored) -> dict[str, Value]:
    """All attributes of a job but its keys, spec and dependents; None = it has no such one."""
    job = record.job
    return {
        at.STATE: job.state.value,
        at.VERSION: job.version,
        at.QUEUE: job.queue,
        at.NAME: job.name or None,
        at.OWNER: job.owner or None,
        at.LABELS: dict(job.labels) or None,
        at.PRIORITY: job.priority or None,
        at.POSITION: job.position,
        at.EPOCH: job.epoch,
        at.ATTEMPT: job.attempt or None,
        at.FAILURES: job.failures or None,
        at.LOSSES: job.machine_losses or None,
        at.MACHINE: job.machine_id or None,
        at.SUBMITTED_AT: at.stamp(job.submitted_at),
        at.QUEUED_AT: at.stamp(job.queued_at),
        at.NOT_BEFORE: at.stamp_or_none(job.not_before),
        at.DEPENDS_ON: list(job.depends_on) or None,
        at.LEASED_AT: at.stamp_or_none(job.leased_at),
        at.STARTED_AT: at.stamp_or_none(job.started_at),
        at.FINISHED_AT: at.stamp_or_none(job.finished_at),
        at.EXIT_CODE: job.exit_code,
        at.REASON: text(job.reason) if job.reason else None,
        at.CANCEL: job.cancel_requested or None,
        at.CLONED_FROM: job.cloned_from or None,
        at.NEED: text(job.spec.need),
        at.KEY: record.key or None,
        at.PROMOTED_AT: at.stamp_or_none(record.promoted_at),
        at.OUTCOME: record.outcome or None,
        at.KEPT_REASON: record.kept_reason or None,
        at.PREVIOUS: pack(record.previous) if record.previous else None,
        at.ARTIFACTS: pack(list(record.artifacts)) if record.artifacts else None,
        at.ARTIFACTS_AT: record.artifacts_at,
        at.SPEC_AT: record.spec_at or None,
        at.LIMITS: record.limits or None,
        at.TTL: record.expires,
    }


def is_letter(job: Job) -> bool:
    """Whether it is kept as a dead letter."""
    return job.state in DEAD_LETTERS


def spec_key(item: Item) -> Key | None:
    """Where the spec of an item is when it is not in it."""
    return at.spec_key(item["sk"], item[at.SPEC_AT]) if at.SPEC_AT in item else None


def pack_spec(spec: JobSpec) -> bytes:
    """A spec without its need, which is kept apart: it changes when a job is given back."""
    data = _plain(spec)
    data.pop("need", None)
    return zlib.compress(_json(data).encode())


# One job's spec is read at its claim, start and finish, and a sweep's jobs share theirs.
@lru_cache(maxsize=1024)
def _spec(data: bytes, need: Need) -> JobSpec:
    plain = json.loads(zlib.decompress(data))
    return from_json(JobSpec, {**plain, "need": to_json(need)})


@lru_cache(maxsize=1024)
def _need(data: str) -> Need:
    return from_text(Need, data)
