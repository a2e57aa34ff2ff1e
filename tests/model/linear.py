"""Whether what several clients saw could have come from one call after another.

The search of Wing and Gong ("Testing and verifying concurrent objects", 1993): a call may take
effect at any instant between its start and its answer; look for an order of those instants in which
the spec gives the very answers seen. Positions that were reached before are not searched again
(Lowe, "Testing for linearizability", 2017), and calls that touch nothing in common are searched
apart from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from tests.model import spec
from tests.model.telling import brief, lines
from tests.model.world import Answer, Choice, Operation, World, agrees, step

NEVER = 1 << 63
"""When a call returned whose answer was lost: it may have taken effect since, or not at all."""

BUDGET = 500_000
"""Steps before a search gives up."""

PATIENCE = 1_000
"""Steps before it begins anew, times `_luby`."""


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


Accept: TypeAlias = Callable[[World, Operation, Answer], World | None]


def exactly(world: World, operation: Operation, answer: Answer) -> World | None:
    """The world after an operation that was answered so; None when it cannot have been."""
    after, expected = step(world, operation)
    return after if agrees(expected, answer) else None


def check(
    calls: Sequence[Call], world: World, *, accept: Accept = exactly, budget: int = BUDGET
) -> None:
    """Raise `NotLinearizable` unless the calls, begun in `world`, could have been made one after
    another. Raises `Undecided`."""
    for part in partitions(calls):
        _Search(part, world, accept, budget).run()


def world_after(calls: Sequence[Call], world: World) -> World:
    """A world that the calls may have led to. Raises as `check` does."""
    return _Search(calls, world, exactly, BUDGET).run()


# ---------------------------------------------------------------------------------- the search


class _Search:
    def __init__(self, calls: Sequence[Call], world: World, accept: Accept, budget: int) -> None:
        self.calls = sorted(calls, key=lambda call: call.invoked)
        self.world = world
        self.accept = accept
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
        guess, mostly soon; what was found dead stays dead."""
        spent = tries = 0
        random = Random(0)
        while spent < self.budget:
            tries += 1
            patience = PATIENCE * _luby(tries)
            share = random.choice((0.0, 1.0, random.random()))
            guesses = [_guess(call, share, random) for call in self.calls]
            after = self._explained(guesses, patience)
            if after is not None:
                return after
            spent += patience
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
            after = self._after(world, self.calls[index])
            if after is None:
                continue
            done |= 1 << index
            position = (done, after.fingerprint())
            if position not in self.dead:
                path.append((done, after, self._next(done, guesses)))
                positions.append(position)
                self.deepest = max(self.deepest, (done, after), key=lambda at: at[0].bit_count())
        return None

    def _after(self, world: World, call: Call) -> World | None:
        if call.returned == NEVER:
            after, _ = step(world, call.operation)
            # Without an effect it need not be looked for.
            return None if after is world else after
        if isinstance(call.operation, Choice):
            return self.accept(world, replace(call.operation, heard=call.answer), call.answer)
        return self.accept(world, call.operation, call.answer)

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


def _luby(number: int) -> int:
    """1, 1, 2, 1, 1, 2, 4, 1, …: how long to try for the n-th time, where nobody knows how long a
    lucky try takes (Luby, Sinclair and Zuckerman, "Optimal speedup of Las Vegas algorithms", 1993).
    """
    whole = number.bit_length()
    if number == (1 << whole) - 1:
        return 1 << (whole - 1)
    return _luby(number - (1 << (whole - 1)) + 1)


def _guess(call: Call, share: float, random: Random) -> float:
    """When a call took effect; one that nobody heard of has had none as often as not."""
    ended = min(call.returned, call.ended)
    if ended == NEVER or (call.returned == NEVER and random.random() < 0.5):
        return NEVER
    return call.invoked + share * (ended - call.invoked)


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
