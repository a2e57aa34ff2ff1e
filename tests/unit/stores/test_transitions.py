"""What a store's operations make of one record, where it is easier to see than through a store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from control_plane.core.codec import to_json
from control_plane.core.model import Job, JobState
from control_plane.errors import InvalidInput, Refused
from control_plane.ports import Ending
from control_plane.stores import transitions
from tests.conformance.builders import BECAUSE, DONE, NOW, at, job

WAITING = job("j", depends_on=("a", "b"), state=JobState.BLOCKED)


def each(*states: JobState) -> list[Job]:
    return [job(f"d-{number}", state=state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "after"),
    [
        ((), JobState.QUEUED),
        ((JobState.SUCCEEDED, JobState.SUCCEEDED), JobState.QUEUED),
        ((JobState.SUCCEEDED, JobState.QUEUED), JobState.BLOCKED),
        ((JobState.SUCCEEDED, JobState.RUNNING), JobState.BLOCKED),
        ((JobState.BLOCKED,), JobState.BLOCKED),
        ((JobState.SUCCEEDED, JobState.FAILED), JobState.CANCELLED),
        ((JobState.RUNNING, JobState.EXHAUSTED), JobState.CANCELLED),
        ((JobState.CANCELLED, JobState.SUCCEEDED), JobState.CANCELLED),
    ],
)
def test_what_a_blocked_job_becomes_follows_from_what_it_depends_on(
    states: tuple[JobState, ...], after: JobState
) -> None:
    result = transitions.unblocked(WAITING, each(*states), at(5))
    assert result.state is after
    if after is JobState.BLOCKED:
        assert result is WAITING
    else:
        assert result.version == WAITING.version + 1


def test_a_job_that_is_not_blocked_is_left_alone() -> None:
    queued = replace(WAITING, state=JobState.QUEUED)
    assert transitions.unblocked(queued, each(JobState.FAILED), at(5)) is queued


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.EXHAUSTED])
def test_a_hopeless_job_is_refused_with_the_state_that_makes_it_so(state: JobState) -> None:
    with pytest.raises(Refused, match=f"d-0 ended as {state}") as refusal:
        transitions.enqueued(WAITING, each(state), 1.0)
    assert "orchctl job retry d-0" in refusal.value.fix


@pytest.mark.parametrize(
    ("not_before", "attempt", "held_back"),
    [
        (None, 0, False),
        (at(-1), 0, False),
        (NOW, 0, False),
        (at(1), 0, True),
        (at(1), 1, False),  # a machine had it: its time had come
    ],
)
def test_a_job_stands_apart_while_its_time_lies_ahead(
    not_before: object, attempt: int, held_back: bool
) -> None:
    waiting = job("j", not_before=not_before, attempt=attempt)
    assert transitions.held_back(waiting) is held_back


def test_a_job_ages_from_the_last_thing_that_made_it_wait() -> None:
    assert transitions.ages_since(job("j"), None) == NOW
    assert transitions.ages_since(job("j", not_before=at(9)), None) == at(9)
    assert transitions.ages_since(job("j", not_before=at(9)), at(5)) == at(9)
    assert transitions.ages_since(job("j", not_before=at(-9)), at(5)) == at(5)


def test_the_wait_of_a_first_attempt_is_never_less_than_nought() -> None:
    leased = transitions.leased(job("j", not_before=at(10)), "m", at(25))
    attempt = transitions.attempt_of(leased, at(25))
    assert transitions.wait_s(attempt) == 15.0
    assert transitions.wait_s(replace(attempt, leased_at=at(3))) == 0.0
    assert transitions.wait_s(replace(attempt, number=2)) is None
    assert transitions.wait_s(replace(attempt, queued_at=None)) is None, "of an older program"


def test_nothing_happens_to_an_attempt_before_it_began() -> None:
    held = transitions.leased(job("j"), "m", at(100))
    attempt = transitions.attempt_of(held, at(100))
    started = transitions.started(held, 1, at(50))
    ended = transitions.finished(started, 1, DONE, JobState.SUCCEEDED, at(60))
    assert (started.started_at, ended.finished_at) == (at(100), at(100))
    assert transitions.ended(attempt, DONE, at(60)).ended_at == at(100)
    assert transitions.ended(attempt, DONE, at(160)).ended_at == at(160)


def test_the_largest_job_is_taken_and_one_byte_more_is_not() -> None:
    def sized(extra: int) -> Job:
        room = transitions.JOB_BYTES_MAX - len(
            json.dumps(to_json(job("j", name="")), separators=(",", ":"))
        )
        return job("j", name="x" * (room + extra))

    transitions.check_new(sized(0))
    with pytest.raises(InvalidInput, match="262,145 bytes"):
        transitions.check_new(sized(1))


def test_a_character_counts_as_the_bytes_it_takes() -> None:
    transitions.check_new(job("j", name="x" * 200_000))
    with pytest.raises(InvalidInput, match="large"):
        transitions.check_new(job("j", name="ü" * 200_000))


def test_a_cancelled_job_keeps_who_asked_for_it() -> None:
    held = transitions.leased(job("j"), "m", NOW)
    asked = transitions.cancelled(held, BECAUSE, at(1))
    assert transitions.cancelled(asked, replace(BECAUSE, code="again"), at(2)) is asked
    ending = Ending(outcome="cancelled")
    assert transitions.finished(asked, 1, ending, JobState.CANCELLED, at(3)).reason == BECAUSE
