"""Records as rows and back: nothing is lost, and what is equal is written alike."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.codec import to_json
from control_plane.core.model import Job, JobSpec, JobState, Need, Reason, Source
from control_plane.stores.sqlite import rows
from tests.conformance.builders import NOW, at

MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - the zone is drawn beside it
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
)
EVERYTHING = JobSpec(
    command="train 'ü'",
    need=Need(gpus=1, gpu_name="L4", on_demand_only=True),
    env={"LR": "1e-3", "EMPTY": ""},
    source=Source(kind="git", remote="r", commit="c"),
    python="3.12",
    requirements=("numpy",),
    artifacts=("out/*", "log"),
    timeout_s=5,
    grace_s=0,
    max_attempts=3,
    max_machine_losses=1,
)
JOBS = [
    Job(id="j", queue="q", spec=JobSpec(command="x"), submitted_at=NOW, queued_at=NOW),
    Job(
        id="j",
        queue="q",
        spec=EVERYTHING,
        state=JobState.CANCELLED,
        version=3,
        name="n",
        owner="ann",
        labels={"team": "vision"},
        priority=-2,
        position=1.5,
        epoch=2,
        attempt=2,
        failures=1,
        machine_losses=1,
        machine_id="m",
        submitted_at=NOW,
        queued_at=at(1),
        not_before=at(2.5),
        depends_on=("a", "b"),
        leased_at=at(3),
        started_at=at(4),
        finished_at=at(5),
        exit_code=0,
        reason=Reason(code="c", sentence="s", numbers={"n": "1"}),
        cancel_requested=True,
        cloned_from="i",
    ),
]


@given(MOMENTS)
def test_a_time_is_written_as_isoformat_does_and_read_again(moment: datetime) -> None:
    written = rows.text(moment)
    assert written == moment.astimezone(UTC).isoformat(timespec="microseconds")
    assert rows.moment(written) == moment


@given(MOMENTS, MOMENTS)
def test_times_sort_as_their_texts(one: datetime, other: datetime) -> None:
    assert (rows.text(one) < rows.text(other)) == (one < other)


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_read_as_it_was_written(job: Job) -> None:
    columns = rows.job_values(job)
    names = rows.JOB_COLUMNS.split(", ")
    assert set(names) == {field.name for field in fields(Job)} | {"need"}
    assert rows.job([columns[name] for name in names]) == job


def test_a_job_that_was_read_is_as_frozen_as_any_other() -> None:
    columns = rows.job_values(JOBS[1])
    read = rows.job([columns[name] for name in rows.JOB_COLUMNS.split(", ")])
    assert (type(read), type(read.spec)) == (Job, JobSpec)
    assert replace(read, name="other") == replace(JOBS[1], name="other")
    assert pickle.loads(pickle.dumps(read)) == JOBS[1]
    with pytest.raises(FrozenInstanceError):
        read.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        read.spec.command = "other"  # type: ignore[misc]


def test_a_spec_holds_what_is_stated_and_nothing_else() -> None:
    plain, full = (rows.job_values(job)["spec"] for job in JOBS)
    assert plain == '{"command":"x"}'
    stated = json.loads(str(full))
    assert "need" not in stated
    assert stated.keys() == {field.name for field in fields(JobSpec)} - {"need"}


def test_a_spec_that_an_older_or_newer_program_wrote_is_read() -> None:
    older = json.dumps(to_json(EVERYTHING))
    newer = json.dumps({"command": "x", "not_yet_known": 1})
    columns = rows.job_values(JOBS[1])
    names = rows.JOB_COLUMNS.split(", ")
    assert rows.job([{**columns, "spec": older}[name] for name in names]) == JOBS[1]
    spec = rows.job([{**columns, "spec": newer}[name] for name in names]).spec
    assert spec == JobSpec(command="x", need=EVERYTHING.need)


def test_equal_needs_have_equal_texts() -> None:
    assert rows.need_text(Need()) == "{}"
    need = Need(cpus=4, gpus=2, on_demand_only=True)
    assert rows.need_text(need) == '{"gpus":2,"cpus":4,"on_demand_only":true}'
    assert rows.need_of(rows.need_text(need)) == need
    older = json.dumps(to_json(need))
    assert rows.need_of(older) == need


def test_a_value_without_a_column_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="no column for set"):
        rows.column({1})
