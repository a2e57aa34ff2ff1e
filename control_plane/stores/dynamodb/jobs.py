"""Jobs: submitting, starting, ending, and what is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain

from control_plane.core.job_ids import id_for
from control_plane.core.model import Artifact, Attempt, Job, JobState
from control_plane.errors import Conflict
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.claims import Claims
from control_plane.stores.dynamodb.endings import INLINE_BYTES
from control_plane.stores.dynamodb.expressions import ABSENT, expr
from control_plane.stores.dynamodb.listing import Listing
from control_plane.stores.dynamodb.moves import Moves
from control_plane.stores.dynamodb.parts import Entry
from control_plane.stores.dynamodb.records import Stored


class Jobs(Claims, Moves, Listing):
    """`ports.JobStore`."""

    # ------------------------------------------------------------------------- submitting

    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        own_id = not idempotency_key or id_for(idempotency_key) == job.id
        queue = self._entry(job.queue)
        known = None
        if not own_id:
            known = self._pointed_at(idempotency_key)
        elif idempotency_key and (queue is None or job.depends_on):
            known = self._known(job.id, idempotency_key)
        if known is not None:
            return known.job, False
        transitions.check_new(job)
        queue = queue or self._queue(job.queue)
        if not own_id:
            job = replace(job, id=self._agreed_id(idempotency_key, job.id))
        record, spec = self._with_spec(
            Stored(job=self._hung_on(job, self._positions.fresh()), key=idempotency_key)
        )
        stored, fresh = self._insert(record, spec, queue)
        if fresh and stored.job.state is JobState.BLOCKED:
            # What it waits for may have ended before it was there to be told.
            stored = self._resolved(job.id, job.queued_at) or stored
        return stored.job, fresh

    def _known(self, job_id: str, key: str) -> Stored | None:
        """The job of this id, if it was submitted under this key."""
        found = self._read_many([job_id]).get(job_id)
        return found if found is not None and found.key == key else None

    def _pointed_at(self, key: str) -> Stored | None:
        """The job of a key that does not carry the job's id."""
        pointer = self._table.get(*at.pointer_key(key))
        return self._known(pointer[at.JOB], key) if pointer else None

    def _agreed_id(self, key: str, job_id: str) -> str:
        """The id for the job of a key: the one that the first who came with it has reserved."""
        pk, sk = at.pointer_key(key)
        pointer = {"pk": pk, "sk": sk, at.JOB: job_id, at.TTL: self._expiry_beside()}
        try:
            self._table.put(pointer, condition=ABSENT)
        except ConditionFailed as failure:
            return str((failure.old or pointer)[at.JOB])
        return job_id

    def _with_spec(self, record: Stored) -> tuple[Stored, bytes]:
        """A record with its packed spec, which is put beside it when it is large."""
        spec = records.pack_spec(record.job.spec)
        if len(spec) <= INLINE_BYTES:
            return record, spec
        digest = at.short_hash(spec.hex(), 16)
        pk, sk = at.spec_key(record.job.id, digest)
        # Its name says what is in it, so nothing is ever put over another job's.
        self._table.put({"pk": pk, "sk": sk, at.PACKED: spec, at.TTL: record.expires})
        return replace(record, spec_at=digest), b""

    def _insert(self, record: Stored, spec: bytes, queue: Entry) -> tuple[Stored, bool]:
        """Store a job that is not there, and say whether it was not."""
        job = record.job
        self._note_day(at.PACKED, at.job_day(job.id))
        pk, sk = at.job_key(job.id)
        item = {
            **records.attributes(record),
            **self._place(job, queue),
            "pk": pk,
            "sk": sk,
            at.SPEC: spec or None,
        }
        now = int(self._clock.now().timestamp())
        free = expr(f"attribute_not_exists(pk) OR {at.TTL} < :now", now=now)
        try:
            self._table.put(item, condition=free)
        except ConditionFailed as failure:
            # Being there already is an answer; where it is a conflict, that is raised and counted.
            self._figures.add(conflicts=-1)
            there = failure.old and self._stored(failure.old)
            if there and record.key and there.key == record.key:
                return there, False
            if there and failure.unclear and there.job.submitted_at == job.submitted_at:
                return there, True  # our own, from a try whose answer was lost; changed since
            raise Conflict(f"there is a job {job.id} already") from None
        return record, True

    # ---------------------------------------------------------------------------- the look

    def job_release(self, *, now: datetime, limit: int = 1000) -> int:
        # The next look goes on where this one stops: what it has looked at is no longer due.
        due = self._due(now, limit)
        moved = self._let_rows_go([row for row in due if row.kind == at.DELAYED_ROW])
        blocked = [row for row in due if row.kind == at.BLOCKED_ROW]
        moved += self._look_at_parked(blocked, now, limit - moved)
        self._retire_shapes(now)
        return moved

    # ----------------------------------------------------------------------------- reading

    def job_get(self, job_id: str) -> Job:
        return self._read(job_id).job

    def job_attempts(self, job_id: str) -> Sequence[Attempt]:
        job = self._read_many([job_id]).get(job_id)
        if job is None:
            return ()
        items = self._table.query(at.beside_job(job_id), sk_prefix="A#", consistent=True)
        aside = [records.unpack(Attempt, item[at.PACKED]) for item in items]
        found = {attempt.epoch: attempt for attempt in aside}
        found.update({each.epoch: each for each in (job.previous, job.attempt) if each})
        return tuple(found[epoch] for epoch in sorted(found))

    def job_artifacts(self, job_id: str) -> Sequence[Artifact]:
        job = self._read_many([job_id]).get(job_id)
        if job is None:
            return ()
        if job.artifacts_at is None:
            return tuple(job.artifacts)
        item = self._table.get(*at.artifacts_key(job_id, job.artifacts_at))
        return records.unpack(tuple[Artifact, ...], item[at.PACKED]) if item else ()

    def attempts_between(self, start: datetime, end: datetime) -> Sequence[Attempt]:
        # The lists first: what is booked in between is then seen twice, not missed.
        unbooked = self._unbooked(self._all_runs()[1])
        days = [day for day in self._days(at.BOOKED_DAYS) if day >= at.day(start)]
        found = {
            (each.job_id, each.epoch): each
            for each in chain(unbooked, self._booked(days))
            if each.leased_at < end and (each.ended_at is None or each.ended_at > start)
        }
        return tuple(
            sorted(found.values(), key=lambda each: (each.leased_at, each.job_id, each.number))
        )
