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
from tests.model.spec import Answer, Operation, Seen, World, agrees, step
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
    """When it ended in truth, where that is known although its answer was lost: no evidence, only
    the order in which things are tried."""

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

    A window above 1 lets a claim take its jobs one by one, each up to that many places ahead of its
    turn in its priority, or go away empty-handed; and a claim under way while its queue is paused
    may still take what comes."""
    if window > 1:
        _check_pauses(calls, world)
        calls = [part for call in calls for part in _parts(call)]
    for part in partitions(calls):
        _Search(part, world, window, budget).run()


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

    def run(self) -> None:
        """Guess when each call took effect, and try that order first. A wrong guess early in a long
        history can keep a search busy with what comes after it, so it begins anew with another
        guess now and then; what was found dead stays dead."""
        spent, patience = 0, PATIENCE
        random = Random(0)
        while spent < self.budget:
            share = random.choice((0.0, 1.0, random.random()))
            if self._explained([_guess(call, share) for call in self.calls], patience):
                return
            spent, patience = spent + patience, patience * 3 // 2
        raise Undecided(f"{spent} steps, and no end; at best {self._story()}")

    def _explained(self, guesses: Sequence[float], patience: int) -> bool:
        """Whether a right order was found; False when patience was at an end before."""
        path = [(0, self.world, self._next(0, guesses))]
        positions: list[object] = [None]
        for _ in range(patience):
            done, world, choices = path[-1]
            if done & self.answered == self.answered:
                return True
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
        return False

    def _next(self, done: int, guesses: Sequence[float]) -> Iterator[int]:
        """Calls that may take effect next: begun before any that is left has returned."""
        found: list[int] = []
        horizon = NEVER
        for index, call in enumerate(self.calls):
            if done >> index & 1:
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
    if window > 1 and isinstance(call.operation, spec.Claim) and isinstance(call.answer, tuple):
        return _claimed_about(world, call.operation, call.answer, window)
    after, expected = step(world, call.operation)
    if call.returned == NEVER:
        # Without an effect it need not be looked for.
        return None if after is world else after
    return after if agrees(expected, call.answer) else None


# ------------------------------------------------------------------------- claims within a window


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
    near = [job for job in able if job.priority == able[0].priority][:window]
    for job in near:
        if job.id == got.id:
            after = claim.lease(world, job)
            return after if after.jobs[job.id].seen == got else None
    return None


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
    names: list[str] = []
    for kind in ("queue", "queues", "job", "neighbour", "depends_on", "key"):
        value = getattr(operation, kind, ())
        values = (value,) if isinstance(value, str) else value
        names += [f"{_KINDS.get(kind, kind)} {each}" for each in values if each]
    if machines and hasattr(operation, "machine"):
        names.append("machines")
    return names


_KINDS = {"queues": "queue", "neighbour": "job", "depends_on": "job"}
