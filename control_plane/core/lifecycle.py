"""The allowed moves of machines and jobs, as data. An edge outside the table is refused."""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.core.model import JobState, MachineState

_M = MachineState
_J = JobState

MACHINE_EDGES: Mapping[MachineState, frozenset[MachineState]] = {
    _M.PLANNED: frozenset({_M.LAUNCHING, _M.LAUNCH_FAILED}),
    # launching -> launching is the next offer after a refusal, with the attempt counted up.
    # launching -> terminating ends a launch that is no longer wanted while its answer is unclear.
    _M.LAUNCHING: frozenset({_M.LAUNCHING, _M.BOOTING, _M.LAUNCH_FAILED, _M.TERMINATING}),
    # booting -> interrupted is a spot machine taken back before its agent spoke.
    _M.BOOTING: frozenset(
        {_M.READY, _M.BOOT_FAILED, _M.INTERRUPTED, _M.LOST, _M.TERMINATING, _M.TERMINATED}
    ),
    _M.READY: frozenset({_M.DRAINING, _M.INTERRUPTED, _M.LOST, _M.TERMINATING, _M.TERMINATED}),
    # draining -> ready is a cordon taken back because work came.
    _M.DRAINING: frozenset({_M.READY, _M.INTERRUPTED, _M.LOST, _M.TERMINATING, _M.TERMINATED}),
    _M.BOOT_FAILED: frozenset({_M.TERMINATING, _M.TERMINATED}),
    _M.INTERRUPTED: frozenset({_M.TERMINATING, _M.TERMINATED}),
    _M.LOST: frozenset({_M.TERMINATING, _M.TERMINATED}),
    _M.TERMINATING: frozenset({_M.TERMINATED}),
    _M.TERMINATED: frozenset(),
    _M.LAUNCH_FAILED: frozenset(),
}
"""From a machine's state to the states it may enter next."""

JOB_EDGES: Mapping[JobState, frozenset[JobState]] = {
    _J.DRAFT: frozenset({_J.QUEUED, _J.CANCELLED}),
    # blocked -> cancelled also follows from the end of a job it depends on.
    _J.BLOCKED: frozenset({_J.QUEUED, _J.CANCELLED}),
    _J.QUEUED: frozenset({_J.LEASED, _J.CANCELLED, _J.FAILED}),
    # leased or running -> queued is a job given back with its place kept.
    _J.LEASED: frozenset(
        {_J.RUNNING, _J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.EXHAUSTED}
    ),
    _J.RUNNING: frozenset({_J.QUEUED, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED, _J.EXHAUSTED}),
    _J.SUCCEEDED: frozenset(),
    _J.FAILED: frozenset(),
    _J.CANCELLED: frozenset(),
    _J.EXHAUSTED: frozenset(),
}
"""From a job's state to the states it may enter next."""

DEAD_LETTERS = frozenset({_J.FAILED, _J.EXHAUSTED})
"""Job states that ask for somebody's attention: their jobs are kept with the reason."""

JOB_ENDED = frozenset(state for state, edges in JOB_EDGES.items() if not edges)
"""Final job states."""

MACHINE_ENDED = frozenset(state for state, edges in MACHINE_EDGES.items() if not edges)
"""Machine states in which nothing exists and nothing is billed."""

IN_FLIGHT = frozenset({_M.PLANNED, _M.LAUNCHING, _M.BOOTING})
"""Bought or being bought, not serving yet: counts as supply, so nothing is bought twice."""

COUNTED = frozenset(MACHINE_EDGES) - MACHINE_ENDED
"""Machines that may exist at the provider: all count against every cap."""


class IllegalTransition(ValueError):
    """A move that the lifecycle does not allow; only the row concerned is refused."""


def check_machine(old: MachineState, new: MachineState) -> None:
    """Raise `IllegalTransition` unless a machine may go from `old` to `new` (or stays)."""
    if new is not old and new not in MACHINE_EDGES[old]:
        raise IllegalTransition(f"a machine may not go from {old} to {new}")


def check_job(old: JobState, new: JobState) -> None:
    """Raise `IllegalTransition` unless a job may go from `old` to `new` (or stays)."""
    if new is not old and new not in JOB_EDGES[old]:
        raise IllegalTransition(f"a job may not go from {old} to {new}")
