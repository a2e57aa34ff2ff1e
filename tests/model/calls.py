"""The operations of the spec, called on a real store; answers in the spec's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from control_plane.core import model
from control_plane.core.model import JobState, MachineState, QueueRecord
from control_plane.errors import NotFound, OrchctlError
from control_plane.ports import Ending, Place, Store
from tests.conformance.builders import BECAUSE, NOW, QUEUED, job, machine_record
from tests.model import reads, spec
from tests.model.world import Answer, Operation, Refusal, Seen


def perform(store: Store, operation: Operation) -> Answer:
    """What the store answers."""
    try:
        return _CALLS[type(operation)](store, operation)
    except OrchctlError as error:
        return Refusal(frozenset({type(error).__name__}))


def seen(stored: model.Job) -> Seen:
    return Seen(
        id=stored.id,
        queue=stored.queue,
        state=stored.state,
        version=stored.version,
        priority=stored.priority,
        epoch=stored.epoch,
        attempt=stored.attempt,
        failures=stored.failures,
        losses=stored.machine_losses,
        machine=stored.machine_id,
        cancel_requested=stored.cancel_requested,
        need=stored.spec.need,
        queued_at=stored.queued_at,
    )


def all_jobs(store: Store, *, page_size: int = 20, **which: Any) -> list[model.Job]:
    """Every job a listing has, page by page."""
    jobs: list[model.Job] = []
    cursor = ""
    while True:
        page = store.job_list(cursor=cursor, limit=page_size, **which)
        jobs += page.items
        cursor = page.cursor
        if not cursor:
            return jobs


def _put_queue(store: Store, op: spec.PutQueue) -> None:
    record = QueueRecord(
        name=op.queue,
        paused=op.paused,
        max_running=op.max_running,
        max_running_per_owner=op.max_running_per_owner,
        version=op.expected_version + 1,
        created_at=NOW,
    )
    store.queue_put(record, expected_version=op.expected_version)


def _put_machine(store: Store, op: spec.PutMachine) -> None:
    state = MachineState.READY if op.ready else MachineState.DRAINING
    try:
        stored = store.machine_get(op.machine)
    except NotFound:
        record = machine_record(op.machine, state=state, idle_since=op.now)
        store.machine_put(record, expected_version=0, fence=None)
    else:
        changed = replace(stored, state=state, version=stored.version + 1)
        store.machine_put(changed, expected_version=stored.version, fence=None)


def _enqueue(store: Store, op: spec.Enqueue) -> Answer:
    record = job(
        op.job,
        op.queue,
        need=op.need,
        submitted_at=op.now,
        priority=op.priority,
        owner=op.owner,
        not_before=op.not_before,
        depends_on=op.depends_on,
    )
    stored, fresh = store.job_enqueue(record, idempotency_key=op.key)
    return seen(stored), fresh


def _claim(store: Store, op: spec.Claim) -> Answer:
    claimed = store.job_claim(op.machine, op.queues, op.free, limit=op.limit, now=op.now)
    return tuple(map(seen, claimed))


def _finish(store: Store, op: spec.Finish) -> None:
    ending = Ending(outcome=op.state.value)
    store.job_finish(op.job, op.epoch, ending, state=op.state, now=op.now)


def _requeue(store: Store, op: spec.Requeue) -> Answer:
    ending = Ending(outcome=op.outcome)
    return seen(store.job_requeue(op.job, op.epoch, ending, need=op.need, now=op.now))


def _move(store: Store, op: spec.Move) -> Answer:
    moved = store.job_move(
        op.job,
        queue=op.queue,
        place=Place(where=op.where, job_id=op.neighbour),
        expected_version=op.expected_version,
        now=op.now,
    )
    return seen(moved)


def _release(store: Store, op: spec.Release) -> None:
    store.job_release(now=op.now)


def _promote(store: Store, op: spec.Promote) -> Answer:
    return store.queue_promote(op.queue, waiting_since=op.waiting_since, now=op.now)


def _clear(store: Store, op: spec.Clear) -> Answer:
    return tuple(store.queue_clear(op.queue, now=op.now, reason=BECAUSE))


def _order(store: Store, op: reads.Order) -> Answer:
    # In one page: only that is one look.
    waiting = all_jobs(store, page_size=1000, queue=op.queue, states=QUEUED)
    return tuple(each.id for each in waiting)


def _places(store: Store, op: reads.Places) -> Answer:
    waiting = all_jobs(store, page_size=1000, queue=op.queue, states=QUEUED | {JobState.BLOCKED})
    in_line = sorted(waiting, key=lambda job: (-job.priority, job.position, job.id))
    return tuple(each.id for each in in_line)


def _leases(store: Store, op: reads.Leases) -> Answer:
    leases = store.job_leases()
    held = [(each.machine_id, each.job_id, each.epoch, each.queue) for each in leases]
    assert len(held) == len(set(held)), held
    return frozenset(held)


def _depths(store: Store, op: reads.Depths) -> Answer:
    stats = store.queue_stats()
    return {name: (each.waiting, each.running, each.blocked) for name, each in stats.items()}


def _groups(store: Store, op: reads.Groups) -> Answer:
    ripe_before = dict.fromkeys(op.queues, op.ripe_before)
    groups = store.waiting_groups(op.queues, ripe_before=ripe_before, now=op.now)
    return tuple((each.queue, each.priority, each.need, each.count, each.ripe) for each in groups)


def _attempts(store: Store, op: reads.Attempts) -> Answer:
    attempts = store.job_attempts(op.job)
    numbers = [(each.number, each.epoch) for each in attempts]
    assert numbers == [(number, number) for number in range(1, len(attempts) + 1)], attempts
    return tuple((each.machine_id, each.outcome, each.queue, each.leased_at) for each in attempts)


def _heads(store: Store, op: reads.Heads) -> Answer:
    return dict(store.queue_heads([queue.name for queue in store.queue_list()]))


_CALLS: Mapping[type[Operation], Callable[[Store, Any], Answer]] = {
    spec.PutQueue: _put_queue,
    spec.RemoveQueue: lambda store, op: store.queue_remove(op.queue),
    spec.Clear: _clear,
    spec.Promote: _promote,
    spec.PutMachine: _put_machine,
    spec.Enqueue: _enqueue,
    spec.Claim: _claim,
    spec.Start: lambda store, op: store.job_start(op.job, op.epoch, now=op.now),
    spec.Finish: _finish,
    spec.Requeue: _requeue,
    spec.Cancel: lambda store, op: seen(store.job_cancel(op.job, reason=BECAUSE, now=op.now)),
    spec.Move: _move,
    spec.Release: _release,
    reads.Get: lambda store, op: seen(store.job_get(op.job)),
    reads.Everything: lambda store, op: tuple(map(seen, all_jobs(store))),
    reads.Order: _order,
    reads.Places: _places,
    reads.Leases: _leases,
    reads.Depths: _depths,
    reads.Groups: _groups,
    reads.Attempts: _attempts,
    reads.Waits: lambda store, op: tuple(store.queue_waits(op.queue)),
    reads.Heads: _heads,
    reads.Idle: lambda store, op: store.machine_get(op.machine).idle_since,
}
