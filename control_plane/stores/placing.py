"""Where a moved job stands: priority and position, worked out once for every store.

A position is a float between its neighbours'. Halving a gap runs out of floats after some fifty
moves into the same one; then that priority of the queue is numbered anew.
"""

from __future__ import annotations

from typing import Protocol

from control_plane.core.model import Job
from control_plane.errors import InvalidInput, NotFound, Refused
from control_plane.ports import Place


class Line(Protocol):
    """One queue as an ordered line, inside a store's own atomic step.

    Jobs that a machine has and blocked ones keep their place in the line: they may come to it."""

    def waiting(self, job_id: str) -> Job | None:
        """A job that waits in this queue."""

    def priorities(self) -> tuple[int, int] | None:
        """Lowest and highest priority of the waiting jobs; None when nothing waits."""

    def first(self, priority: int) -> float | None:
        """The lowest position in a priority."""

    def beside(self, job: Job, *, before: bool) -> float | None:
        """Position of the next job before or after this one in its priority."""

    def fresh(self) -> float:
        """A position behind every other; never the same twice."""

    def respace(self, priority: int) -> None:
        """Give the jobs of a priority fresh positions, in their order."""


def spot(line: Line, job: Job, place: Place) -> tuple[int, float]:
    """Priority and position of `job` at `place` in `line`.

    Raises `InvalidInput` for an unknown place, `NotFound` when the neighbour does not wait in this
    queue, `Refused` when it is the job itself."""
    if place.where == "top":
        return _top(line, job.priority)
    if place.where == "bottom":
        lowest, _ = line.priorities() or (job.priority, job.priority)
        return min(lowest, job.priority), line.fresh()
    if place.where not in ("before", "after"):
        raise InvalidInput(f"a place is top, bottom, before or after, not {place.where!r}")
    if place.job_id == job.id:
        raise Refused(f"job {job.id} cannot be put {place.where} itself")
    return _beside(line, place)


def _top(line: Line, priority: int) -> tuple[int, float]:
    _, highest = line.priorities() or (priority, priority)
    top = max(highest, priority)
    first = line.first(top)
    return top, line.fresh() if first is None else first - 1


def _beside(line: Line, place: Place) -> tuple[int, float]:
    neighbour = _neighbour(line, place)
    position = _between(line, neighbour, place)
    if position is None:
        line.respace(neighbour.priority)
        neighbour = _neighbour(line, place)
        position = _between(line, neighbour, place)
    assert position is not None, "fresh positions are whole numbers, there is room between them"
    return neighbour.priority, position


def _neighbour(line: Line, place: Place) -> Job:
    neighbour = line.waiting(place.job_id)
    if neighbour is None:
        raise NotFound(f"no job {place.job_id} waits in this queue")
    return neighbour


def _between(line: Line, neighbour: Job, place: Place) -> float | None:
    """A position next to the neighbour; None when no float is left there."""
    before = place.where == "before"
    other = line.beside(neighbour, before=before)
    if other is None:
        return neighbour.position - 1 if before else line.fresh()
    middle = (neighbour.position + other) / 2
    return middle if middle not in (neighbour.position, other) else None
