"""What controllers share: one look at all small records, the lease, cool-downs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.model import Cooldown
from control_plane.core.pacing import Bucket
from control_plane.core.policy import AutoscalerRecord
from control_plane.errors import Conflict
from control_plane.ports import Fence, HeldFence, Shared
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.deliveries import delivery
from control_plane.stores.dynamodb.expressions import ABSENT, Expression, expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.parts import TRIES
from control_plane.stores.dynamodb.shapes import Shapes, entry

COOLDOWN_KEPT = timedelta(days=7)
"""A cool-down is remembered so long after its end: the next refusal counts on from it."""

BUCKET_KEPT = timedelta(days=1)
"""Unused for so long, it is full."""


class Control(Shapes):
    """The part of `ports.ControlStore` that every look of a controller needs."""

    def shared_read(self) -> Shared:
        found = [item for item in self._table.query(at.CONTROL) if not self._expired(item)]

        def of(prefix: str) -> list[Item]:
            return [item for item in found if item["sk"].startswith(prefix)]

        queues = [entry(item) for item in of(at.QUEUE_PREFIX)]
        leases = {each.fence.name: each for each in map(held_fence, of(at.LEASE_PREFIX))}
        self._remember(queues)
        self._memory.leases = dict(leases)
        return Shared(
            autoscalers=tuple(map(document, of(at.AUTOSCALER_PREFIX))),
            queues=tuple(each.record for each in queues),
            leases=leases,
            cooldowns=tuple(map(cooldown, of(at.COOLDOWN_PREFIX))),
            deliveries=tuple(map(delivery, of(at.WAITING_PREFIX))),
        )

    # ---------------------------------------------------------------------------- the lease

    def lease_take(
        self,
        name: str,
        owner: str,
        *,
        ttl_s: float,
        now: datetime,
        expected_generation: int | None = None,
    ) -> Fence | None:
        until = now + timedelta(seconds=ttl_s)
        # What the last look saw is tried first: then taking costs one write and no read.
        seen, sure = self._memory.leases.get(name), False
        for _ in range(TRIES):
            fence = _next(seen, name, owner, now)
            expected = expected_generation in (None, seen.fence.generation if seen else 0)
            if fence is None or not expected:
                if sure:
                    return None
                seen, sure = self._held_fence(name), True
                continue
            try:
                self._table.update(
                    *at.lease_key(name), assign=_lease_attributes(fence, until), condition=_as(seen)
                )
            except ConditionFailed as failure:
                seen, sure = held_fence(failure.old) if failure.old else None, True
            else:
                self._memory.leases[name] = HeldFence(fence=fence, until=until)
                return fence
        return None

    def _held_fence(self, name: str) -> HeldFence | None:
        item = self._table.get(*at.lease_key(name))
        return held_fence(item) if item else None

    def lease_release(self, fence: Fence) -> None:
        held = self._memory.leases.get(fence.name)
        if held is not None and held.fence == fence:
            # The generation stays: whoever comes next counts on from it.
            self._memory.leases[fence.name] = replace(held, fence=replace(fence, owner=""))
        with suppress(ConditionFailed):
            self._table.update(
                *at.lease_key(fence.name), assign={at.OWNER: ""}, condition=is_current(fence)
            )

    # --------------------------------------------------------------------------- cool-downs

    def cooldown_put(self, cooldown: Cooldown) -> None:
        self._table.put(self._cooldown_item(cooldown))

    def cooldown_list(self) -> Sequence[Cooldown]:
        found = self._table.query(at.CONTROL, sk_prefix=at.COOLDOWN_PREFIX, consistent=True)
        return tuple(cooldown(item) for item in found if not self._expired(item))

    def bucket_get(self, key: str) -> Bucket | None:
        item = self._table.get(*at.bucket_key(key))
        return records.from_text(Bucket, item[at.PACKED]) if item else None

    def bucket_put(self, bucket: Bucket) -> None:
        pk, sk = at.bucket_key(bucket.key)
        item: Item = {
            "pk": pk,
            "sk": sk,
            at.VERSION: bucket.version,
            at.PACKED: records.text(bucket),
            at.TTL: int((max(bucket.at, self._clock.now()) + BUCKET_KEPT).timestamp()),
        }
        before = bucket.version - 1
        condition = expr(f"{at.VERSION} = :before", before=before) if before else ABSENT
        try:
            self._table.put(item, condition=condition)
        except ConditionFailed:
            raise Conflict(f"bucket {bucket.key} was changed by somebody else") from None

    def _cooldown_item(self, given: Cooldown) -> Item:
        pk, sk = at.cooldown_key(given.key)
        until = max(given.until, self._clock.now()) + COOLDOWN_KEPT
        return {
            "pk": pk,
            "sk": sk,
            at.PACKED: records.text(given),
            at.TTL: int(until.timestamp()),
        }


def document(item: Item) -> AutoscalerRecord:
    """The declared document of an item."""
    return records.unpack(AutoscalerRecord, item[at.PACKED])


def cooldown(item: Item) -> Cooldown:
    """The cool-down of an item."""
    return records.from_text(Cooldown, item[at.PACKED])


def held_fence(item: Item) -> HeldFence:
    """The controller lease of an item."""
    name = item["sk"].removeprefix(at.LEASE_PREFIX)
    fence = Fence(name=name, owner=item[at.OWNER], generation=item[at.GENERATION])
    return HeldFence(fence=fence, until=at.moment(item[at.UNTIL]))


def lease_item(held: HeldFence) -> Item:
    """The item of a controller lease."""
    pk, sk = at.lease_key(held.fence.name)
    return {"pk": pk, "sk": sk, **_lease_attributes(held.fence, held.until)}


def is_current(fence: Fence) -> Expression:
    """The condition, on the item of its lease, that this fence is the current one."""
    return expr(
        f"{at.OWNER} = :owner AND {at.GENERATION} = :generation",
        owner=fence.owner,
        generation=fence.generation,
    )


def _lease_attributes(fence: Fence, until: datetime) -> Mapping[str, Value]:
    return {
        at.OWNER: fence.owner,
        at.GENERATION: fence.generation,
        at.UNTIL: at.stamp(until),
    }


def _next(seen: HeldFence | None, name: str, owner: str, now: datetime) -> Fence | None:
    """The fence that taking a lease would give; None while somebody else holds it."""
    if seen is None:
        return Fence(name=name, owner=owner, generation=1)
    if seen.fence.owner not in ("", owner) and seen.until > now:
        return None
    taken = 0 if seen.fence.owner == owner else 1
    return Fence(name=name, owner=owner, generation=seen.fence.generation + taken)


def _as(seen: HeldFence | None) -> Expression:
    """The condition that a lease is as it was seen."""
    if seen is None:
        return ABSENT
    current = is_current(seen.fence)
    until = at.stamp(seen.until)
    return expr(f"{current.text} AND {at.UNTIL} = :until", **current.values, until=until)
