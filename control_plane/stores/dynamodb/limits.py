"""The limits of a queue: who counts against them, in sets that a condition keeps small enough.

A lease is entered before it is taken and struck out when it ends, one write each; an item of forty
entries is 1 KB. What a crash leaves behind is found when a limit seems to be reached: entries whose
lease is over, or never came to be, are struck out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from control_plane.core.model import QueueRecord
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.client import Key
from control_plane.stores.dynamodb.expressions import expr
from control_plane.stores.dynamodb.parts import Parts
from control_plane.stores.limits import Room, room

REQUEST_S = 60
"""No request lives longer: what it has announced and not done by then, it never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit that a lease counts against."""

    key: Key
    most: int
    flag: int


def limits_for(record: QueueRecord, owner: str) -> list[Limit]:
    """The limits that a job of this owner counts against in a queue."""
    given = (
        (None, record.max_running, at.OF_QUEUE),
        (owner, record.max_running_per_owner, at.OF_OWNER),
    )
    return [
        Limit(key=at.limit_key(record.name, whose), most=most, flag=flag)
        for whose, most, flag in given
        if most is not None
    ]


def limits_value(mark: int, flags: int) -> int | None:
    """The limits a lease counts against, with the mark of its entries."""
    return mark * 4 + flags if flags else None


def limits_parts(value: int) -> tuple[int, int]:
    """The mark and the flags of a `limits_value`."""
    return divmod(value, 4)


class Limits(Parts):
    """Counting against limits."""

    def _room(self, record: QueueRecord) -> Room:
        """What a queue's limits leave room for, by the leases that really are."""
        if record.max_running is None and record.max_running_per_owner is None:
            return room(record, {})
        items = self._table.query(at.limits_of(record.name), consistent=True)
        tokens = {token for item in items for token in item.get(at.MEMBERS, ())}
        return room(record, self._running(tokens))

    def _running(self, tokens: Iterable[str]) -> Mapping[str, int]:
        """How many of these leases each owner has."""
        wanted = {at.token_parts(token)[:2] for token in tokens}
        jobs = self._read_many({job_id for job_id, _ in wanted})
        return Counter(
            jobs[job_id].job.owner
            for job_id, epoch in wanted
            if job_id in jobs and jobs[job_id].held and jobs[job_id].job.epoch == epoch
        )

    def _enter(self, record: QueueRecord, owner: str, token: str) -> int | None:
        """Enter a lease under all its limits and return their flags; None when one is reached."""
        entered = 0
        for limit in limits_for(record, owner):
            if not self._add(limit, token):
                self._strike(record.name, owner, entered, token)
                return None
            entered |= limit.flag
        return entered

    def _add(self, limit: Limit, token: str) -> bool:
        if limit.most <= 0:
            return False
        free = expr(
            f"attribute_not_exists({at.MEMBERS}) OR size({at.MEMBERS}) < :most", most=limit.most
        )
        for _ in range(2):
            try:
                self._table.update(*limit.key, add={at.MEMBERS: frozenset({token})}, condition=free)
                return True
            except ConditionFailed as failure:
                members = (failure.old or {}).get(at.MEMBERS, frozenset())
                if token in members:
                    return True
                over = self._over(members)
                if not over:
                    return False
                self._table.update(*limit.key, discard={at.MEMBERS: over})
        return False

    def _over(self, tokens: Iterable[str]) -> frozenset[str]:
        """Those whose lease has ended, or was announced so long ago that it never came to be."""
        parts = {token: at.token_parts(token) for token in tokens}
        jobs = self._read_many({job_id for job_id, _, _ in parts.values()})
        latest = self._clock.now().timestamp() - REQUEST_S
        return frozenset(
            token
            for token, (job_id, epoch, mark) in parts.items()
            if job_id not in jobs
            or (jobs[job_id].job.epoch < epoch and at.entry_second(mark) < latest)
            or jobs[job_id].job.epoch > epoch
            or (jobs[job_id].job.epoch == epoch and not jobs[job_id].held)
        )

    def _strike(self, queue: str, owner: str, flags: int, token: str) -> None:
        """Take a lease out of the limits it was entered under. Repeating it changes nothing."""
        for flag, key in (
            (at.OF_QUEUE, at.limit_key(queue)),
            (at.OF_OWNER, at.limit_key(queue, owner)),
        ):
            if flags & flag:
                with suppress(ConditionFailed):
                    self._table.update(*key, discard={at.MEMBERS: frozenset({token})})
