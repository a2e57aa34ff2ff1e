"""Whether what several clients saw could have come from one call after another.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993): a call may take
effect at any instant between its start and its answer; look for an order of those instants in which
the spec gives the very answers seen. Positions that were reached before are not searched again
(Lowe, "Testing for linearizability", 2017), and calls that touch nothing in common are searched
apart from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.model import spec
from tests.model.spec import Answer, Operation, Refusal, Seen, World, agrees, step
from tests.model.telling import brief, lines

NEVER = 1 << 63
"""When a call returned whose answer was lost: it may have taken effect since, or not at all."""

BUDGET = 500_000
"""Steps before a search gives up."""

PATIENCE = 2_000
"""Steps before it begins anew for the first time; then twice as many each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as its client saw it; times of one clock, in nanoseconds."""

    client: int
    operation: Operation
    invoked: int
    returned: int
    answer: Answer
    ended: int = NEVER
    """When it was over at the latest, where that is known of a call whose answer was lost: it took
    effect before, or never."""

    def __str__(self) -> str:
        answer = "no answer" if self.returned == NEVER else f"{self.returned}: {brief(self.answer)}"
        return f"client {self.client}: {brief(self.operation)}\n    {self.invoked} .. {answer}"


class NotLinearizable(AssertionError):
    """No order of the calls explains their answers."""


class Undecided(Exception):
    """The search was given up."""


def check(calls: Sequence[Call], world: World, *, window: int = 1, budget: int = BUDGET) -> None:
    """Raise `NotLinearizable` unless the calls, begun in `world`, could have been made one after
    another. Raises `Undecided`.

    A window above 1 stands for a store that does not lock its line: a claim takes its jobs one by
    one, each up to that many places ahead of its turn in its priority, or goes away empty-handed; a
    claim under way while its queue is paused may still take what comes; a place that is held for
    another claim counts against a limit, so that one of a lower priority is taken there; a move
    that overlaps another change of its queue may end in any place of its priority; and places may
    be numbered anew at any time, which counts up versions."""
    if window > 1:
        _check_pauses(calls, world)
        moved = [_loosened(call, calls) for call in calls]
        calls = [part for call in moved for part in _parts(call)]
    for part in partitions(calls):
        _Search(part, world, window, budget).run()


def world_after(calls: Sequence[Call], world: World) -> World:
    """A world that the calls may have led to. Raises as `check` does."""
    return _Search(calls, world, window=1, budget=BUDGET).run()


# ---------------------------------------------------------------------------------- the search


class _Search:
    def __init__(self, calls: Sequence[Call], world: World, window: int, budget: int) -> None:
        self.calls = sorted(calls, key=lambda call: call.invoked)
        self.world = world
        self.window = window
        self.budget = budget
        self.answered = sum(
            1 << index for index, call in enumerate(self.calls) if call.returned != NEVER
        )
        self.dead: set[object] = set()
        """Positions from which the rest cannot be explained."""
        self.deepest = (0, world)

    def run(self) -> World:
        """The world after all calls.

        Guess when each call took effect, and try that order first. A wrong guess early in a long
        history can keep a search busy with what comes after it, so it begins anew with another
        guess now and then; what was found dead stays dead."""
        spent, patience = 0, PATIENCE
        random = Random(0)
        while spent < self.budget:
            share = random.choice((0.0, 1.0, random.random()))
            after = self._explained([_guess(call, share) for call in self.calls], patience)
            if after is not None:
                return after
            spent, patience = spent + patience, patience * 3 // 2
        raise Undecided(f"{spent} steps, and no end; at best {self._story()}")

    def _explained(self, guesses: Sequence[float], patience: int) -> World | None:
        """The world after a right order; None when patience was at an end before."""
        path = [(0, self.world, self._next(0, guesses))]
        positions: list[object] = [None]
        for _ in range(patience):
            done, world, choices = path[-1]
            if done & self.answered == self.answered:
                return world
            index = next(choices, None)
            if index is None:
                path.pop()
                self.dead.add(positions.pop())
                if not path:
                    raise NotLinearizable(self._story())
                continue
            after = accepted(world, self.calls[index], self.window)
            if after is None:
                continue
            done |= 1 << index
            position = (done, after.fingerprint())
            if position not in self.dead:
                path.append((done, after, self._next(done, guesses)))
                positions.append(position)
                self.deepest = max(self.deepest, (done, after), key=lambda at: at[0].bit_count())
        return None

    def _next(self, done: int, guesses: Sequence[float]) -> Iterator[int]:
        """Calls that may take effect next: begun before any that is left has returned."""
        found: list[int] = []
        horizon = NEVER
        begun = self.calls[done.bit_length() - 1].invoked if done else 0
        for index, call in enumerate(self.calls):
            if done >> index & 1 or (call.returned == NEVER and call.ended < begun):
                continue
            if call.invoked > horizon:
                break
            horizon = min(horizon, call.returned)
            found.append(index)
        return iter(sorted(found, key=guesses.__getitem__))

    def _story(self) -> str:
        done, world = self.deepest
        told = [f"{done.bit_count()} of {len(self.calls)} calls explained, then in"]
        told += [f"  {line}" for line in lines(world)]
        told.append("none of these can come next:")
        for index in self._next(done, range(len(self.calls))):
            call = self.calls[index]
            told += [f"  {call}", f"    should say {brief(step(world, call.operation)[1])}"]
        return "\n".join(told)


def _guess(call: Call, share: float) -> float:
    ended = min(call.returned, call.ended)
    return ended if ended == NEVER else call.invoked + share * (ended - call.invoked)


def accepted(world: World, call: Call, window: int) -> World | None:
    """The world after a call with this answer; None when it cannot have got that."""
    operation = call.operation
    if call.returned == NEVER:
        after, _ = step(world, operation)
        # Without an effect it need not be looked for.
        return None if after is world else after
    if isinstance(operation, spec.Choice):
        operation = replace(operation, heard=call.answer)
    if window > 1:
        return _accepted_about(world, operation, call.answer, window)
    after, expected = step(world, operation)
    return after if agrees(expected, call.answer) else None


# ------------------------------------------------------------------- a store without a lock


def _accepted_about(
    world: World, operation: Operation, answer: Answer, window: int
) -> World | None:
    """As `accepted`, by the rules for a window above 1."""
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
    if isinstance(call.operation, (spec.Get, spec.Order)):
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


# ----------------------------------------------------------------------------------- partitions


def partitions(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls in groups that have no queue, job, key or changing machine in common."""
    changing = any(isinstance(call.operation, spec.PutMachine) for call in calls)
    group: dict[str, str] = {}

    def find(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    names = [touched(call.operation, machines=changing) for call in calls]
    for together in names:
        for name in together:
            group[find(name)] = find(together[0])
    parts: dict[str, list[Call]] = {}
    for call, together in zip(calls, names, strict=True):
        parts.setdefault(find(together[0]), []).append(call)
    return list(parts.values())


def touched(operation: Operation, *, machines: bool) -> list[str]:
    """What an operation looks at or changes."""
    if isinstance(operation, spec.LooseMove):
        return touched(operation.move, machines=machines)
    names: list[str] = []
    for kind in ("queue", "queues", "job", "neighbour", "depends_on", "key"):
        value = getattr(operation, kind, ())
        values = (value,) if isinstance(value, str) else value
        names += [f"{_KINDS.get(kind, kind)} {each}" for each in values if each]
    if machines and hasattr(operation, "machine"):
        names.append("machines")
    return names


_KINDS = {"queues": "queue", "neighbour": "job", "depends_on": "job"}
