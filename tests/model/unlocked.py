"""The rules for a store that does not lock its line: what the port allows simultaneous callers to
see there, and what the adapter's own texts say of them. All else is judged as in `linear`.

- A claim takes its jobs one by one, each up to a window's places ahead of its turn in its priority,
  or goes away empty-handed.
- A claim under way while its queue is paused may still take what comes.
- What is held for another claim counts against a limit: one of a lower priority may be taken there.
- A move that overlaps another change of its queue may end in any place of its priority.
- Places may be numbered anew at any time, which counts up versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tests.model import reads, spec
from tests.model.linear import BUDGET, NEVER, Call, NotLinearizable, check, touched
from tests.model.world import Answer, Operation, Refusal, Seen, World, agrees, step


def check_unlocked(
    calls: Sequence[Call], world: World, *, window: int, budget: int = BUDGET
) -> None:
    """Raise `NotLinearizable` unless the calls, begun in `world`, could have been made one after
    another by the rules above. Raises `Undecided`."""
    _check_pauses(calls, world)
    moved = [_loosened(call, calls) for call in calls]
    parts = [part for call in moved for part in _parts(call)]
    check(parts, world, accept=partial(_about, window), budget=budget)


def _about(window: int, world: World, operation: Operation, answer: Answer) -> World | None:
    """As `linear.exactly`, but by these rules."""
    if isinstance(operation, spec.Claim) and isinstance(answer, tuple):
        return _claimed_about(world, operation, answer, window)
    move = operation.move if isinstance(operation, spec.LooseMove) else operation
    if isinstance(move, spec.Move) and move.expected_version is not None:
        if answer == Refusal(frozenset({"Conflict"})):
            return world  # its place may have been numbered anew
        if move.job in world.jobs and move.expected_version >= world.jobs[move.job].version:
            operation = _unversioned(operation)
    after, expected = step(world, operation)
    return _agreeing(after, expected, answer)


def _unversioned(operation: Operation) -> Operation:
    if isinstance(operation, spec.LooseMove):
        return replace(operation, move=replace(operation.move, expected_version=None))
    assert isinstance(operation, spec.Move)
    return replace(operation, expected_version=None)


def _agreeing(after: World, expected: Answer, answer: Answer) -> World | None:
    """The world if the answer is right but for a version that may be larger, with that version."""
    seen = answer[0] if isinstance(answer, tuple) and len(answer) == 2 else answer
    if isinstance(seen, Seen) and seen.id in after.jobs:
        job = after.jobs[seen.id]
        if seen.version < job.version:
            return None
        expected = _with_version(expected, seen.version)
        job = replace(job, version=seen.version)
        after = replace(after, jobs={**after.jobs, job.id: job})
    return after if agrees(expected, answer) else None


def _with_version(answer: Answer, version: int) -> Answer:
    if isinstance(answer, Seen):
        return answer._replace(version=version)
    if isinstance(answer, tuple):
        return (answer[0]._replace(version=version), *answer[1:])
    return answer


def _parts(call: Call) -> list[Call]:
    """A claim as one claim for each job it got: not one step, but one step each."""
    if not isinstance(call.operation, spec.Claim) or not isinstance(call.answer, tuple):
        return [call]
    assert call.returned != NEVER, "what it took cannot be told: ask for the machine's leases"
    parts: list[Call] = []
    free = call.operation.free
    for got in call.answer:
        operation = replace(call.operation, queues=(got.queue,), free=free, limit=1)
        parts.append(replace(call, operation=operation, answer=(got,)))
        free = free.less(got.need)
    return parts


def _claimed_about(
    world: World, claim: spec.Claim, answer: tuple[Seen, ...], window: int
) -> World | None:
    [got] = answer
    going_on = replace(world.queues[got.queue], paused=False)
    world_ = replace(world, queues={**world.queues, got.queue: going_on})
    able = claim.able(world_, got.queue, claim.free)
    limited = going_on.max_running is not None or going_on.max_running_per_owner is not None
    job = next((job for job in able if job.id == got.id), None)
    if job is None or (job.priority != able[0].priority and not limited):
        return None
    ahead = sum(other.priority == job.priority for other in able[: able.index(job)])
    after = claim.lease(world, job)
    return _agreeing(after, after.jobs[job.id].seen, got) if ahead < window else None


def _loosened(call: Call, calls: Sequence[Call]) -> Call:
    if not isinstance(call.operation, spec.Move) or call.returned == NEVER:
        return call
    names = touched(call.operation, machines=False)
    for other in calls:
        overlaps = other.invoked <= call.returned and call.invoked <= other.returned
        if other is not call and overlaps and _changes(other, names):
            return replace(call, operation=spec.LooseMove(move=call.operation))
    return call


def _changes(call: Call, names: Sequence[str]) -> bool:
    """Whether a call may change the line of one of these queues or jobs."""
    if isinstance(call.operation, (reads.Get, reads.Order)):
        return False
    return bool({*touched(call.operation, machines=False)} & {*names})


def _check_pauses(calls: Sequence[Call], world: World) -> None:
    """Refuse what a claim took of a queue that was paused from its beginning to its end."""
    for name, queue in world.queues.items():
        spans = _open_spans(name, queue.paused, calls)
        for call in calls:
            took = isinstance(call.operation, spec.Claim) and isinstance(call.answer, tuple)
            if took and any(got.queue == name for got in call.answer):
                began, ended = call.invoked, call.returned
                if not any(start <= ended and began <= end for start, end in spans):
                    raise NotLinearizable(f"{name} is paused, but {call}")


def _open_spans(name: str, paused: bool, calls: Sequence[Call]) -> list[tuple[int, int]]:
    """When a queue may have been open: from the start of the call that opened it to the return of
    the one that came next."""
    puts = [
        (call.operation, call)
        for call in calls
        if isinstance(call.operation, spec.PutQueue)
        and (call.operation.queue, call.answer) == (name, None)
    ]
    puts.sort(key=lambda put: put[0].expected_version)
    starts = [(0, paused), *((call.invoked, put.paused) for put, call in puts)]
    ends = [*(call.returned for _, call in puts), NEVER]
    return [(start, end) for (start, shut), end in zip(starts, ends, strict=True) if not shut]
