"""The tables of allowed moves are complete, and everything outside them is refused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product

import pytest

from control_plane.core.lifecycle import (
    COUNTED,
    DEAD_LETTERS,
    IN_FLIGHT,
    JOB_EDGES,
    JOB_ENDED,
    MACHINE_EDGES,
    MACHINE_ENDED,
    IllegalTransition,
    check_job,
    check_machine,
)
from control_plane.core.model import JobState, MachineState


def reachable(edges: Mapping[StrEnum, frozenset[StrEnum]], start: StrEnum) -> set[StrEnum]:
    found, waiting = {start}, [start]
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def test_every_machine_state_can_be_reached_from_the_intent() -> None:
    """No state is dead text."""
    assert reachable(MACHINE_EDGES, MachineState.PLANNED) == set(MachineState)


def test_every_job_state_can_be_reached_from_where_jobs_begin() -> None:
    """No state is dead text. A job begins as a draft, or blocked when it depends on others."""
    draft, blocked = (reachable(JOB_EDGES, start) for start in (JobState.DRAFT, JobState.BLOCKED))
    assert draft | blocked == set(JobState)
    assert blocked - {JobState.BLOCKED} == draft - {JobState.DRAFT}


@pytest.mark.parametrize("state", sorted(set(MachineState) - MACHINE_ENDED))
def test_every_open_machine_can_still_end(state: MachineState) -> None:
    """There is no state in which a machine, and its bill, could stay for ever."""
    assert reachable(MACHINE_EDGES, state) & MACHINE_ENDED


@pytest.mark.parametrize("state", sorted(set(JobState) - JOB_ENDED))
def test_every_open_job_can_still_end(state: JobState) -> None:
    """There is no state in which a job could stay for ever."""
    assert reachable(JOB_EDGES, state) & JOB_ENDED


def test_the_ended_states_are_these() -> None:
    """Nothing leaves them; the sets are what store, API and planner decide by."""
    assert {MachineState.TERMINATED, MachineState.LAUNCH_FAILED} == MACHINE_ENDED
    assert {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXHAUSTED,
    } == JOB_ENDED
    assert set(MachineState) - MACHINE_ENDED == COUNTED
    assert {MachineState.PLANNED, MachineState.LAUNCHING, MachineState.BOOTING} == IN_FLIGHT


def test_dead_letters_are_the_ends_that_nobody_wanted() -> None:
    """What succeeded and what somebody cancelled asks for no attention."""
    assert {JobState.FAILED, JobState.EXHAUSTED} == DEAD_LETTERS
    assert DEAD_LETTERS < JOB_ENDED


def test_a_blocked_job_waits_or_is_cancelled_next() -> None:
    """It can neither be given to a machine nor fail before it has waited its turn, and none that
    waits once is ever blocked again."""
    assert JOB_EDGES[JobState.BLOCKED] == {JobState.QUEUED, JobState.CANCELLED}
    assert [old for old, news in JOB_EDGES.items() if JobState.BLOCKED in news] == []


@pytest.mark.parametrize(("old", "new"), list(product(MachineState, MachineState)))
def test_a_machine_moves_along_its_edges_only(old: MachineState, new: MachineState) -> None:
    """Each of the 11 x 11 moves is allowed or raises; staying is always allowed."""
    if new is old or new in MACHINE_EDGES[old]:
        check_machine(old, new)
        return
    with pytest.raises(IllegalTransition, match=f"a machine may not go from {old} to {new}"):
        check_machine(old, new)


@pytest.mark.parametrize(("old", "new"), list(product(JobState, JobState)))
def test_a_job_moves_along_its_edges_only(old: JobState, new: JobState) -> None:
    """Each of the 9 x 9 moves is allowed or raises; staying is always allowed."""
    if new is old or new in JOB_EDGES[old]:
        check_job(old, new)
        return
    with pytest.raises(IllegalTransition, match=f"a job may not go from {old} to {new}"):
        check_job(old, new)
