"""Machine records: an open machine is its record and its run item side by side, which agents and
jobs write without touching the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from control_plane.core.lifecycle import IN_FLIGHT, MACHINE_ENDED
from control_plane.core.model import Lease, Machine, MachineState
from control_plane.errors import FencedOut, NotFound
from control_plane.ports import Fence
from control_plane.stores import transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed, TransactionRefused
from control_plane.stores.dynamodb.client import Check, Delete, Operation, Put, Update
from control_plane.stores.dynamodb.expressions import ABSENT, Change, Expression, expr
from control_plane.stores.dynamodb.items import Item, Value
from control_plane.stores.dynamodb.parts import TRIES, too_busy
from control_plane.stores.dynamodb.runs import Books, Run, Runs, idle_since, leases, run

KEPT = timedelta(days=400)
"""How long an ended machine is known: reports look back a year."""
_READY = MachineState.READY


class Machines(Runs):
    """`ports.MachineStore`."""

    def machine_put(
        self, machine: Machine, *, expected_version: int, fence: Fence | None
    ) -> Machine:
        for _ in range(TRIES):
            stored, run_ = self._find(machine.id)
            if fence is not None:
                self._check_fence(fence)
            merged = transitions.merged(stored, machine, expected_version)
            changes = self._changes(stored, merged, run_)
            try:
                self._carry_out(changes, fence)
            except (ConditionFailed, TransactionRefused) as failure:
                _refuse_a_lost_fence(failure, fence)
                continue
            if merged.state in MACHINE_ENDED and run_ is not None:
                self._settle_if_over(machine.id)
            return merged
        raise too_busy(f"machine {machine.id}")

    def machine_get(self, machine_id: str) -> Machine:
        found, _ = self._find(machine_id)
        if found is None:
            raise NotFound(f"there is no machine {machine_id}")
        return found

    def machine_list(
        self, *, autoscaler: str = "", open_only: bool = True, limit: int = 10_000
    ) -> Sequence[Machine]:
        machines, _ = self._fleet(consistent=True)
        found: Iterable[Machine] = machines
        if not open_only:
            ended = self._table.query(at.ENDED_MACHINES, consistent=True)
            alive = (record(item) for item in ended if not self._expired(item))
            # One that ends between the two reads is seen twice, not missed.
            found = {each.id: each for each in chain(machines, alive)}.values()
        mine = [each for each in found if autoscaler in ("", each.autoscaler)]
        return tuple(sorted(mine, key=lambda each: (each.planned_at, each.id))[:limit])

    def fleet_read(self, *, sure: bool = True) -> tuple[Sequence[Machine], Sequence[Lease]]:
        return self._fleet(consistent=sure)

    def machine_beat(self, machine_id: str, *, now: datetime) -> None:
        newer = expr(f"attribute_exists(pk) AND NOT {at.BEAT} >= :now", now=at.stamp(now))
        try:
            self._table.update(
                *at.run_key(machine_id), assign={at.BEAT: at.stamp(now)}, condition=newer
            )
        except ConditionFailed:
            # A newer one is there, the machine has ended, or it never was.
            self.machine_get(machine_id)

    # ---------------------------------------------------------------------------- reading

    def _find(self, machine_id: str) -> tuple[Machine | None, Run | None]:
        """A machine as it is, and its run if it has one."""
        keys = (at.machine_key(machine_id), at.run_key(machine_id))
        items = self._table.batch_get(keys)
        item, run_item = (items.get(key) for key in keys)
        run_ = run(run_item) if run_item else None
        if item is None:
            # It only ever moves from there to here, so nothing is missed in between.
            ended = self._table.get(*at.ended_machine_key(machine_id))
            return (record(ended) if ended else None), run_
        books = self._books([run_])[machine_id] if run_ else Books()
        return _machine(item, run_, books), run_

    def _fleet(self, *, consistent: bool) -> tuple[tuple[Machine, ...], tuple[Lease, ...]]:
        """Open machines, oldest first, and all leases."""
        records_, runs = self._all_runs(consistent=consistent)
        books = self._books(runs, consistent=consistent)
        by_id = {each.machine_id: each for each in runs}
        machines = [
            _machine(item, by_id.get(machine_id), books.get(machine_id, Books()))
            for machine_id, item in records_.items()
        ]
        for machine_id in by_id.keys() - records_.keys():
            if not books[machine_id].held:
                self._settle_if_over(machine_id)
        return (
            tuple(sorted(machines, key=lambda each: (each.planned_at, each.id))),
            leases(books.values()),
        )

    def _settle_if_over(self, machine_id: str) -> None:
        """Forget the run of a machine that has ended, once nothing of it is held."""
        run_ = self._run(machine_id)
        if run_ is not None and self._table.get(*at.machine_key(machine_id)) is None:
            self._settle(run_)

    # ---------------------------------------------------------------------------- writing

    def _check_fence(self, fence: Fence) -> None:
        item = self._table.get(*at.lease_key(fence.name)) or {}
        if (item.get(at.OWNER), item.get(at.GENERATION)) != (fence.owner, fence.generation):
            raise _fenced_out(fence)

    def _changes(
        self, stored: Machine | None, merged: Machine, run_: Run | None
    ) -> list[Operation]:
        """What makes `merged` of `stored`. One that becomes ready is opened to claims in the same
        step, one that stops being ready is closed."""
        unchanged = ABSENT if stored is None else expr(f"{at.VERSION} = :v", v=stored.version)
        if merged.state in MACHINE_ENDED:
            return self._ending(stored, merged, unchanged)
        changes: list[Operation] = [
            Put(
                item={**attributes(merged), **_key(*at.machine_key(merged.id))}, condition=unchanged
            )
        ]
        if stored is None:
            changes.append(Put(item=new_run(merged)))
            return changes
        change = _run_change(stored, merged, run_)
        if change:
            changes.append(Update(key=at.run_key(merged.id), change=Change(assign=change)))
        return changes

    def _ending(
        self, stored: Machine | None, merged: Machine, unchanged: Expression
    ) -> list[Operation]:
        expires = int((self._clock.now() + KEPT).timestamp())
        key = _key(*at.ended_machine_key(merged.id))
        item = {**attributes(merged), **key, at.TTL: expires}
        if stored is None or stored.state in MACHINE_ENDED:
            return [Put(item=item, condition=unchanged)]
        closed = Change(assign={at.CLOSED: True})
        return [
            Put(item=item, condition=ABSENT),
            Delete(key=at.machine_key(merged.id), condition=unchanged),
            Update(key=at.run_key(merged.id), change=closed),
        ]

    def _carry_out(self, changes: Sequence[Operation], fence: Fence | None) -> None:
        """Write all or nothing. Raises `ConditionFailed`, `TransactionRefused`."""
        if fence is not None:
            held = expr(
                f"{at.OWNER} = :owner AND {at.GENERATION} = :generation",
                owner=fence.owner,
                generation=fence.generation,
            )
            changes = [Check(key=at.lease_key(fence.name), condition=held), *changes]
        only = changes[0]
        if len(changes) == 1 and isinstance(only, Put):
            self._table.put(only.item, condition=only.condition)
        else:
            self._table.transact(*changes)


def _refuse_a_lost_fence(
    failure: ConditionFailed | TransactionRefused, fence: Fence | None
) -> None:
    if fence is not None and isinstance(failure, TransactionRefused) and 0 in failure.failed:
        raise _fenced_out(fence) from None


def _fenced_out(fence: Fence) -> FencedOut:
    return FencedOut(
        f"{fence.owner} no longer controls {fence.name}: generation {fence.generation} is over"
    )


def _key(pk: str, sk: str) -> Mapping[str, Value]:
    return {"pk": pk, "sk": sk}


def attributes(machine: Machine) -> Mapping[str, Value]:
    """A record as attributes, without its keys."""
    return {at.VERSION: machine.version, at.PACKED: records.pack(machine)}


def record(item: Item) -> Machine:
    """The record of an item, as it was last written."""
    return records.unpack(Machine, item[at.PACKED])


def _machine(item: Item, run_: Run | None, books: Books) -> Machine:
    """A record with what its agent and its jobs have made of it since."""
    machine = record(item)
    if run_ is None:
        return machine
    beats = [each for each in (machine.last_beat_at, run_.beat) if each is not None]
    machine = replace(machine, last_beat_at=max(beats, default=None))
    return replace(machine, idle_since=idle_since(run_, books)) if run_.served else machine


def new_run(machine: Machine) -> Mapping[str, Value]:
    """The run item of a machine that holds nothing."""
    ready = machine.state is _READY
    served = machine.state not in IN_FLIGHT
    return {
        **_key(*at.run_key(machine.id)),
        at.CLOSED: None if ready else True,
        at.SERVED: served or None,
        at.IDLE_SINCE: at.stamp_or_none(machine.idle_since) if served else None,
        at.RUN_VERSION: 0,
    }


def _run_change(stored: Machine, merged: Machine, run_: Run | None) -> Mapping[str, Value]:
    """What a write of the record changes in the run. Nobody else writes these attributes of it."""
    change: dict[str, Value] = {}
    if (stored.state is _READY) != (merged.state is _READY):
        change[at.CLOSED] = None if merged.state is _READY else True
    if run_ is None or not run_.served:
        served = merged.state not in IN_FLIGHT
        if served:
            change[at.SERVED] = True
            change[at.IDLE_SINCE] = at.stamp_or_none(merged.idle_since)
    return change
