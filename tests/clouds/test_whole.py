"""Proves the main job on each cloud: a queue fills, the loop buys a virtual machine through the
real SDK, it boots the text it was given, proves who it is, runs the job and goes; nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.core.model import JobState, MachineState
from tests.clouds.world import CLOUDS, Land

BACK_WITHIN_S = 5.0
"""A job waits again so soon after the metadata service says that its machine is taken."""


@pytest.fixture(params=sorted(CLOUDS))
def land(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Land]:
    land = Land(CLOUDS[request.param](), tmp_path)
    yield land
    land.close()


def gone(land: Land) -> bool:
    return all(each.state is MachineState.TERMINATED for each in land.machines())


def test_a_job_brings_a_machine_and_the_machine_goes(land: Land) -> None:
    job = land.submit("echo done")
    land.until(lambda: land.job(job).state is JobState.SUCCEEDED, "the job runs")
    land.until(lambda: gone(land), "the machine goes")
    (machine,) = land.machines()
    assert machine.registered_at
    assert machine.reason
    assert machine.reason.code == "idle"
    assert land.cloud.left() == []
    assert land.cloud.violations() == []
    (paid,) = land.plane.store.prices_between(machine.planned_at, land.plane.service.clock.now())
    assert (paid.machine_id, paid.ended_at) == (machine.id, machine.ended_at)


def test_a_machine_that_is_taken_away_gives_its_job_to_the_next_one(land: Land) -> None:
    # The first attempt waits to be told; the second one is done at once.
    command = '[ "$ORCHCTL_ATTEMPT" -gt 1 ] || { trap "exit 9" TERM; sleep 60 & wait; }'
    job = land.submit(command, grace_s=10)
    land.until(lambda: land.job(job).state is JobState.RUNNING, "the job runs")
    (first,) = land.machines()
    flipped_at = land.plane.service.clock.now()
    land.interrupt(first.id)
    land.until(lambda: land.job(job).state is JobState.SUCCEEDED, "it runs elsewhere")
    land.until(lambda: gone(land), "both machines go")
    one, two = land.plane.store.job_attempts(job.id)
    assert (one.outcome, one.machine_id) == ("interrupted", first.id)
    assert one.ended_at
    back_after_s = (one.ended_at - flipped_at).total_seconds()
    assert back_after_s < BACK_WITHIN_S
    assert (two.outcome, two.machine_id != first.id) == ("succeeded", True)
    assert land.cloud.left() == []
    assert land.cloud.violations() == []
