"""Proves what follows when a cloud says from outside alone that it takes a machine: its metadata
service stays silent, or nobody is there any more to ask it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.core.model import Attempt, Job, JobState, Machine, MachineState
from tests.clouds.world import CLOUDS, Aws, Azure, Land

WITHIN_S = 5.0
WAITS = '[ "$ORCHCTL_ATTEMPT" -gt 1 ] || { trap "exit 9" TERM; echo ready; sleep 60 & wait; }'
"""The first attempt waits to be told; the second one is done at once."""


@pytest.fixture(params=sorted(CLOUDS))
def land(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Land]:
    # By itself the loop would look again after the test: whatever happens, an event has begun it.
    land = Land(CLOUDS[request.param](), tmp_path, at_least_s=600)
    yield land
    land.close()


def working(land: Land) -> tuple[Job, Machine]:
    """A job that runs, and the machine that runs it."""
    job = land.submit(WAITS, grace_s=10)
    land.until(lambda: land.job(job).state is JobState.RUNNING, "the job runs")
    (machine,) = land.machines()
    return job, machine


def first(land: Land, job: Job) -> Attempt:
    return land.plane.store.job_attempts(job.id)[0]


def back(land: Land, job: Job) -> bool:
    """Whether the first attempt is over, and the job waits for the next or has begun it."""
    return first(land, job).ended_at is not None


def test_the_job_is_told_and_is_back_within_seconds(land: Land) -> None:
    job, machine = working(land)
    cloud_id = land.ids[machine.id]
    land.cloud.interrupt(cloud_id)
    told_at = land.plane.service.clock.now()
    for _ in range(2):
        assert land.tell(land.cloud.taken(cloud_id)) == [machine.id]
    land.until(lambda: back(land, job), "the job is back", WITHIN_S)
    attempt = first(land, job)
    assert attempt.ended_at
    assert (attempt.ended_at - told_at).total_seconds() < WITHIN_S
    assert (attempt.outcome, attempt.exit_code) == ("interrupted", 9), "it was told, not killed"
    land.until(lambda: land.job(job).state is JobState.SUCCEEDED, "it runs elsewhere")
    ended = land.plane.store.machine_get(machine.id)
    assert ended.reason
    assert ended.reason.code == "interrupted"
    assert land.cloud.violations() == []


def test_where_no_agent_is_left_the_job_is_back_when_the_machine_is_gone(land: Land) -> None:
    job, machine = working(land)
    cloud_id = land.ids[machine.id]
    land.vms[machine.id].cut()
    land.cloud.interrupt(cloud_id)
    land.tell(land.cloud.taken(cloud_id))
    assert land.plane.store.machine_get(machine.id).state is MachineState.DRAINING
    assert not back(land, job), "it may still run there"
    land.cloud.take(cloud_id)
    land.until(lambda: back(land, job), "the job is back", WITHIN_S)
    assert first(land, job).outcome == "interrupted"


def test_a_machine_that_still_boots_is_not_waited_for(land: Land) -> None:
    job = land.submit("echo done")
    deadline = time.monotonic() + 30
    # It is bought, and not booted yet: nobody lets the cloud live.
    while not any(each.state is MachineState.BOOTING for each in land.machines()):
        assert time.monotonic() < deadline, land.story()
        time.sleep(0.02)
    (machine,) = land.machines()
    assert land.tell(land.cloud.taken(machine.provider_id)) == [machine.id]
    land.until(lambda: land.job(job).state is JobState.SUCCEEDED, "another one does it")
    ended = land.plane.store.machine_get(machine.id)
    assert ended.registered_at is None
    assert ended.reason
    assert ended.reason.code == "interrupted"
    assert [each.machine_id for each in land.plane.store.job_attempts(job.id)] != [machine.id]


@pytest.mark.parametrize("land", ["aws", "azure"], indirect=True)
def test_the_end_of_a_machine_is_looked_at_once_it_is_told(land: Land) -> None:
    assert isinstance(land.cloud, Aws | Azure)
    job, machine = working(land)
    cloud_id = land.ids[machine.id]
    land.vms[machine.id].cut()
    land.cloud.take(cloud_id)
    assert land.tell(land.cloud.ending(cloud_id)) == [machine.id]
    land.until(lambda: back(land, job), "the job is back", WITHIN_S)
