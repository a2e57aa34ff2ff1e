"""Proves the way of a job through it all: a machine of each cloud boots its start-up text, proves
to a real control plane who it is, runs the job, is taken away, and the job waits again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_bootstrap.bundle import bundle
from control_plane.agents import log_key
from control_plane.core.model import Job, JobSpec, JobState, MachineState
from control_plane.service import Submission
from tests.agent.server import eventually
from tests.agent.test_clouds import DELETED, NOTICE_S, SAVES, clouds
from tests.agent.vm import ProcessVm, startup
from tests.api.world import DOCUMENT, World, policy
from tests.unit.identity.test_registering import MACHINES, Running, launched


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    deps = World.deps
    monkeypatch.setattr(World, "deps", lambda world: replace(deps(world), bundle=bundle))
    running = Running(tmp_path)
    yield running
    running.close()


@clouds
def test_a_job_of_a_machine_that_is_taken_away_waits_again(
    running: Running, cloud: str, tmp_path: Path
) -> None:
    world, store = running.world, running.world.store
    machine = replace(MACHINES[cloud], id="m-" + uuid.uuid4().hex[:8])
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    launched(world, machine)
    submitted, _ = world.service.submit(Submission(spec=JobSpec(command=SAVES, grace_s=60)))

    def job() -> Job:
        return store.job_get(submitted.id)

    def log() -> bytes:
        key = log_key(submitted.id, 1)
        return world.blobs.get(key) if world.blobs.size(key) else b""

    text = startup(cloud, running.url, running.metadata, machine_id=machine.id)
    vm = ProcessVm(tmp_path / "vm", text)
    vm.boot()
    try:
        eventually(lambda: job().state is JobState.RUNNING and b"ready" in log(), "it runs")
        running.metadata.preempt(NOTICE_S[cloud])
        taken_at = time.monotonic()
        eventually(lambda: job().state is JobState.QUEUED, "the job waits again")
        assert time.monotonic() - taken_at < 5.0
        vm.boots[0].wait(30)
    finally:
        vm.cut()
    (attempt,) = store.job_attempts(submitted.id)
    assert (attempt.outcome, attempt.exit_code) == ("interrupted", 9)
    assert log().endswith(b"saved\n")
    assert store.machine_get(machine.id).state is MachineState.TERMINATING
    assert store.machine_get(machine.id).interruption_at is not None
    assert running.metadata.deleted == DELETED[cloud]
