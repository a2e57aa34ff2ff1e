"""Jobs, attempts and machines that come from another store, put where ours would have put them.

Nobody else uses the table meanwhile, so nothing here has a condition that decides. A machine comes
before what it holds, a job before its attempts, but maybe before a job that it depends on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from control_plane.core.job_ids import id_for
from control_plane.core.lifecycle import JOB_ENDED, MACHINE_ENDED
from control_plane.core.model import Attempt, Job, JobState, Machine
from control_plane.errors import InvalidInput, Refused
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import machines, records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.dependents import DEPENDENTS_MAX
from control_plane.stores.dynamodb.expressions import PRESENT
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.jobs import Jobs
from control_plane.stores.dynamodb.limits import limits_for, limits_value
from control_plane.stores.dynamodb.machines import Machines
from control_plane.stores.dynamodb.parts import Entry
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.transfer import AttemptRow, JobRow


class Arrivals(Machines, Jobs):
    """The part of `ports.TransferStore` that writes what is spread over many items."""

    def _put_all(self, items: Iterable[Mapping[str, Value]]) -> None:
        """Write many items; of those under one key, the last."""
        self._table.batch_put({(item["pk"], item["sk"]): item for item in items}.values())

    # --------------------------------------------------------------------------- machines

    def _machines_arrive(self, arriving: Sequence[Machine]) -> None:
        for machine in arriving:
            elsewhere = at.machine_key if _has_ended(machine) else at.ended_machine_key
            self._table.delete(*elsewhere(machine.id))
        self._put_all(item for each in arriving for item in self._machine_items(each))

    def _machine_items(self, machine: Machine) -> list[Mapping[str, Value]]:
        run = self._table.get(*at.run_key(machine.id)) or {}
        record = machines.attributes(machine)
        if _has_ended(machine):
            pk, sk = at.ended_machine_key(machine.id)
            expires = int((self._clock.now() + machines.KEPT).timestamp())
            ended = {"pk": pk, "sk": sk, **record, at.TTL: expires}
            return [ended, {**run, at.CLOSED: True}] if run else [ended]
        pk, sk = at.machine_key(machine.id)
        beat = {at.BEAT: at.stamp_or_none(machine.last_beat_at)}
        return [{"pk": pk, "sk": sk, **record}, {**run, **machines.new_run(machine), **beat}]

    # ------------------------------------------------------------------------------- jobs

    def _jobs_arrive(self, rows: Sequence[JobRow]) -> None:
        jobs = {row.job.id: row.job for row in rows}
        there = self._read_many(jobs)
        queues = self._entries({job.queue for job in jobs.values()})
        for day in {at.job_day(job_id) for job_id in jobs}:
            self._note_day(at.PACKED, day)
        awaited = self._awaited(jobs)
        items: list[Item] = []
        for row in rows:
            known, queue = there.get(row.job.id), queues.get(row.job.queue)
            items += self._pointers(row, known)
            record = replace(self._arrived(row, known), limits=self._held_there(row.job, queue))
            record, spec = self._with_spec(record)
            pk, sk = at.job_key(row.job.id)
            kept = {**records.attributes(record), at.SPEC: spec or None}
            place = self._place(row.job, queue)
            dependents = sorted(record.dependents | awaited[row.job.id])[:DEPENDENTS_MAX]
            told = {at.DEPENDENTS: frozenset(dependents)}
            items.append({"pk": pk, "sk": sk, **kept, **place, **told})
        self._put_all(items)
        for job in jobs.values():
            self._hang_on(job)

    def _arrived(self, row: JobRow, known: Stored | None) -> Stored:
        """What a job's item is to say. Its attempts have written to it already when it comes for
        the second time."""
        job = row.job
        same = known and (known.job.epoch, known.job.state) == (job.epoch, job.state)
        return replace(
            known if known and same else Stored(job=job),
            job=job,
            key=row.idempotency_key,
            promoted_at=row.promoted_at,
            expires=self._expiry() if _is_over(job) else None,
        )

    def _pointers(self, row: JobRow, known: Stored | None) -> list[Item]:
        """What leads from the idempotency key to the job, where the key does not by itself."""
        if known is not None and known.key and known.key != row.idempotency_key:
            self._table.delete(*at.pointer_key(known.key))
        if not row.idempotency_key or id_for(row.idempotency_key) == row.job.id:
            return []
        pk, sk = at.pointer_key(row.idempotency_key)
        return [{"pk": pk, "sk": sk, at.JOB: row.job.id, at.TTL: self._expiry_beside()}]

    def _held_there(self, job: Job, queue: Entry | None) -> int:
        """List a held job with its machine, count it against the limits of its queue, and return
        what its item says of those."""
        if not Stored(job=job).held or job.leased_at is None:
            return 0
        second = int(job.leased_at.timestamp())
        token = frozenset({at.token(job.id, job.epoch, second)})
        key = at.run_key(job.machine_id)
        try:
            self._table.update(*key, add={at.HELD: token}, condition=PRESENT)
        except ConditionFailed:  # the machine has ended: nothing is to be claimed for it
            orphan = {at.CLOSED: True, at.HELD: token, at.RUN_VERSION: 0}
            self._table.update(*key, assign=orphan)
        limits = limits_for(queue.record, job.owner) if queue else []
        mark = at.entry_mark(second, 0)
        for limit in limits:
            entry = frozenset({at.entry(job.id, job.epoch, mark)})
            self._table.update(*limit.key, add={at.MEMBERS: entry})
        return limits_value(mark, sum(limit.flag for limit in limits)) or 0

    # ----------------------------------------------------------------------- dependencies

    def _awaited(self, jobs: Mapping[str, Job]) -> Mapping[str, frozenset[str]]:
        """Who came before these jobs and waits for them."""
        keys = [at.waiting_key(job_id) for job_id, job in jobs.items() if not _is_over(job)]
        found = self._table.batch_get(keys)
        awaited: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
        for job_id in jobs:
            item = found.get(at.waiting_key(job_id), {})
            awaited[job_id] = item.get(at.DEPENDENTS, frozenset())
        return awaited

    def _hang_on(self, job: Job) -> None:
        """Note a blocked job with those it waits for, or where they will look when they come. One
        for which there is no room is found by the looks at all that is blocked."""
        if job.state is not JobState.BLOCKED:
            return
        known = self._read_many(job.depends_on)
        for job_id in job.depends_on:
            with suppress(Refused, InvalidInput):
                if job_id in known:
                    self._note_dependent(job_id, job.id)
                else:
                    self._table.update(
                        *at.waiting_key(job_id),
                        add={at.DEPENDENTS: frozenset({job.id})},
                        assign={at.TTL: self._expiry_beside()},
                    )

    # --------------------------------------------------------------------------- attempts

    def _attempts_arrive(self, rows: Sequence[AttemptRow]) -> None:
        keys = {at.job_key(row.attempt.job_id) for row in rows}
        items = {item["sk"]: item for item in self._table.batch_get(keys).values()}
        jobs = {record.job.id: record for record in self._stored_all(items.values())}
        before = dict(jobs)
        for row in rows:
            job = jobs.get(row.attempt.job_id)
            if job is not None and row.attempt.ended_at is not None:
                jobs[job.job.id] = self._with_attempt(job, row)
        self._put_all(
            {**items[job_id], **records.attributes(job)}
            for job_id, job in jobs.items()
            if job is not before[job_id]
        )
        self._put_all(self._booking(row.attempt) for row in rows if row.attempt.ended_at)

    def _with_attempt(self, old: Stored, row: AttemptRow) -> Stored:
        """A job with what became of one of its attempts: the last two that it had are kept in its
        item, with what the last that ended has left; the others beside it."""
        job, attempt = old.job, row.attempt
        if attempt.epoch == last_ended(old):
            old = self._with_artifacts(old, row.artifacts, attempt.epoch)
        elif row.artifacts:
            self._put_artifacts(job.id, attempt.epoch, records.pack(list(row.artifacts)))
        if job.machine_id and attempt.epoch == job.epoch:
            kept = job.reason is not None and attempt.reason is None
            return replace(old, outcome=attempt.outcome, kept_reason=kept)
        if attempt.epoch == before_current(job):
            return replace(old, previous=attempt)
        self._put_aside(attempt)
        return old

    def _booking(self, attempt: Attempt) -> Item:
        """One attempt in the ledger by itself."""
        assert attempt.ended_at is not None, "an open one is not booked"
        day = at.day(attempt.ended_at)
        self._note_day(at.BOOKED_DAYS, day)
        name = f"{attempt.machine_id}#{attempt.job_id}#{attempt.epoch}"
        return {
            "pk": at.bookings_of(day),
            "sk": f"{at.time_text(attempt.ended_at)}#{name}",
            at.PACKED: records.pack([attempt]),
        }


def before_current(job: Job) -> int:
    """The epoch of the attempt before the current one, or of the last one when there is none."""
    return job.epoch - 1 if job.machine_id else job.epoch


def last_ended(record: Stored) -> int:
    """The epoch of the attempt that ended last."""
    job = record.job
    return job.epoch if _is_over(job) and job.machine_id else before_current(job)


def _is_over(job: Job) -> bool:
    return job.state in JOB_ENDED


def _has_ended(machine: Machine) -> bool:
    return machine.state in MACHINE_ENDED
