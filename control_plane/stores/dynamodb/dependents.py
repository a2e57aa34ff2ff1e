"""Jobs that wait for other jobs: hung on to those when they are submitted, let go when those end.

A job's item lists who waits for it, so its end costs nothing where nobody does. A crash between an
end and what follows from it is found by `job_release`: every blocked job is looked at again by
itself, at the next look and then at doubling intervals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Job, JobState
from control_plane.errors import NotFound, Refused
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.expressions import expr
from control_plane.stores.dynamodb.items import Value
from control_plane.stores.dynamodb.line import Lines, ParkedRow
from control_plane.stores.dynamodb.parts import TRIES, too_busy
from control_plane.stores.dynamodb.records import Stored
from control_plane.stores.dynamodb.shapes import blocked_until

DEPENDENTS_MAX = 5_000
"""They are kept in the item of the job they wait for, which must have room for its end."""
_LOOK_SOONEST = timedelta(minutes=1)
_LOOK_LATEST = timedelta(hours=1)
_ALL = 1 << 62
_ENDED = {f"state{number}": state.value for number, state in enumerate(sorted(JOB_ENDED))}
_OPEN = expr(
    f"attribute_exists(pk) AND NOT {at.STATE} IN ({', '.join(f':{name}' for name in _ENDED)}) "
    f"AND (attribute_not_exists({at.DEPENDENTS}) OR size({at.DEPENDENTS}) < :most)",
    **_ENDED,
    most=DEPENDENTS_MAX,
)
"""The job has not ended and can hold one dependent more."""


class Dependents(Lines):
    """Blocking and letting go."""

    def _dependencies(self, job: Job) -> list[Job]:
        """The jobs that a new one depends on. Raises `NotFound`."""
        found = self._read_many(job.depends_on)
        for job_id in job.depends_on:
            if job_id not in found:
                raise NotFound(f"there is no job {job_id}")
        return [found[job_id].job for job_id in job.depends_on]

    def _hung_on(self, job: Job, position: float) -> Job:
        """A new job as it is to be stored, after it was noted with all that it has to wait for.
        Raises `NotFound`, `Refused`."""
        for _ in range(TRIES):
            dependencies = self._dependencies(job)
            new = transitions.enqueued(job, dependencies, position)
            awaited = [each.id for each in dependencies if each.state not in JOB_ENDED]
            # One that ends in this very moment would not tell the new job: look at all again.
            if all(self._note_dependent(job_id, new.id) for job_id in awaited):
                return new
        raise too_busy(f"a dependency of job {job.id}")

    def _note_dependent(self, job_id: str, dependent: str) -> bool:
        """Let a job know who waits for it; False when it has ended. Raises `Refused` when too many
        wait for it already."""
        try:
            self._table.update(
                *at.job_key(job_id),
                add={at.DEPENDENTS: frozenset({dependent})},
                condition=_OPEN,
            )
        except ConditionFailed as failure:
            there = failure.old and self._stored(failure.old)
            if there and there.job.state not in JOB_ENDED:
                raise Refused(
                    f"{DEPENDENTS_MAX:,} jobs wait for job {job_id} already, more than it can tell",
                    fix="Put a job in between that waits for it, and let the others wait for that.",
                ) from None
            return False
        return True

    def _tell_dependents(self, ended: Stored, now: datetime) -> None:
        """Let go, or cancel, what waits for a job that has ended, and so on down the line."""
        if ended.job.state in JOB_ENDED:
            self._look_at(sorted(ended.dependents), now)

    def _look_at(self, job_ids: Iterable[str], now: datetime, limit: int = _ALL) -> list[str]:
        """Let go, or cancel, the blocked ones of these jobs that need not wait any longer, and what
        follows from it. Returns what has changed, `limit` at most."""
        left = deque(job_ids)
        changed: list[str] = []
        while left and len(changed) < limit:
            job_id = left.popleft()
            looked = self._resolved(job_id, now)
            if looked is not None:
                changed.append(job_id)
                if looked.job.state in JOB_ENDED:
                    left.extend(sorted(looked.dependents))
        return changed

    def _resolved(self, job_id: str, now: datetime) -> Stored | None:
        """A blocked job after its dependencies were looked at; None when nothing has changed."""
        before: list[Stored] = []

        def transition(old: Stored) -> tuple[Stored, Mapping[str, Value]]:
            before[:] = [old]
            found = self._read_many(old.job.depends_on) if old.job.depends_on else {}
            job = transitions.unblocked(old.job, [each.job for each in found.values()], now)
            if job is old.job:
                return old, {}
            expires = self._expiry() if job.state in JOB_ENDED else None
            return replace(old, job=job, expires=expires), self._place(job)

        with suppress(NotFound):  # noted, but a crash came before it was stored
            new = self._change(job_id, transition)
            return new if new is not before[0] else None
        return None

    def _look_at_parked(self, rows: Sequence[ParkedRow], now: datetime, limit: int) -> int:
        """Look at blocked jobs that nobody has told anything."""
        moved: list[str] = []
        for row in rows:
            if len(moved) >= limit:
                break
            changed = self._look_at([row.job_id], now, limit - len(moved))
            moved += changed
            if not changed and row.job_id not in moved:
                self._look_later(row, now)
        return len(moved)

    def _look_later(self, row: ParkedRow, now: datetime) -> None:
        """After as long as it has waited, within bounds, so that the time between looks doubles."""
        waited = min(max(now - row.queued_at, _LOOK_SOONEST), _LOOK_LATEST)
        place = blocked_until(now + waited, row.queue, row.place)
        still = expr(
            f"{at.INDEX_SORT} = :sort AND {at.STATE} = :blocked",
            sort=row.sort,
            blocked=JobState.BLOCKED.value,
        )
        with suppress(ConditionFailed):
            self._table.update(*row.key, assign=place, condition=still)
