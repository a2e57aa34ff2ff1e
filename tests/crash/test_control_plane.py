"""The control plane is killed at every boundary of its loop and started again over the same files.

Whatever the instant: every job ends exactly once, the cap on machines holds at every moment (read
from the process table), and in the end no process is left.
"""

from __future__ import annotations

import os
import signal

import pytest

from control_plane.core.model import JobState
from orchctl import Client
from tests.crash.world import World

LAUNCHING = (
    ("observed", 1),
    ("planned", 2),
    ("intent-written", 2),
    ("intents-committed", 2),
    ("before-launch", 2),
    ("launch-answered", 2),
    ("launch-recorded", 1),
    ("executed", 2),
    *(
        pytest.param(boundary, 1, marks=pytest.mark.long)
        for boundary in ("leased", "intent-written", "before-launch", "launch-answered")
    ),
)
"""Boundaries on the way to a machine. The second passing of most comes with work in flight."""

ENDING = (("cordoned", 1), ("before-terminate", 1), ("terminate-called", 1))
"""Boundaries on the way to its end."""


@pytest.mark.parametrize(("boundary", "nth"), LAUNCHING)
def test_killed_on_the_way_to_a_machine(world: World, boundary: str, nth: int) -> None:
    """Killed between the intent, the call and the record, it finishes what it had begun."""
    world.start()
    client = world.prepare()
    client.autoscalers.pause("crash")
    jobs = _submit_four(client)
    world.kill()
    world.start(boundary, str(nth))
    world.tell(lambda: client.autoscalers.resume("crash"))
    world.wait_killed()
    world.start()
    client = world.client
    client.autoscalers.resume("crash")
    world.all_succeed_once(client, jobs)
    assert world.machines_seen >= 1


def test_killed_under_a_request(world: World) -> None:
    """Sent again with their keys after a crash, the same four jobs are the same four jobs."""
    world.start()
    client = world.prepare()
    world.kill()
    world.start("launch-answered", "1")
    world.tell(lambda: _submit_four(client))
    world.wait_killed()
    world.start()
    client = world.client
    jobs = _submit_four(client)
    world.all_succeed_once(client, jobs)
    assert sorted(job.id for job in client.jobs.list()) == sorted(jobs)


def _submit_four(client: Client) -> list[str]:
    """Four jobs, the same four however often they are sent."""
    return [
        client.jobs.submit(command="sleep 0.4", queue="work", idempotency_key=f"job-{number}").id
        for number in range(4)
    ]


@pytest.mark.parametrize(("boundary", "nth"), ENDING)
def test_killed_on_the_way_to_an_end(world: World, boundary: str, nth: int) -> None:
    """Killed while it ends a machine, it ends it for sure afterwards, and pays for it no longer."""
    world.start(boundary, str(nth))
    client = world.prepare()
    job = client.jobs.submit(command="true", queue="work").id
    world.until(lambda: client.jobs.get(job).ended)
    (machine,) = client.machines.list()
    # A stopped agent cannot leave by itself, so its end is the control plane's work alone.
    for pid in world.local.alive()[machine.id]:
        os.kill(pid, signal.SIGSTOP)
    client.machines.drain(machine.id)
    world.wait_killed()
    world.start()
    client = world.client
    world.until(lambda: not world.look() and not list(client.machines.list()))
    assert client.machines.get(machine.id).ended_at is not None


def test_machines_outlive_the_control_plane(world: World) -> None:
    """A control plane that is away while jobs run finds its machines again; no job runs twice."""
    world.start()
    client = world.prepare()
    jobs = [client.jobs.submit(command="sleep 3", queue="work").id for _ in range(2)]
    world.until(lambda: all(client.jobs.get(job).state == "running" for job in jobs))
    before = world.look()
    world.kill()
    world.start()
    client = world.client
    assert world.look() == before
    world.all_succeed_once(client, jobs)
    assert [client.jobs.get(job).attempt for job in jobs] == [1, 1]
    assert {machine.id for machine in client.machines.list(all=True)} == set(before)


def test_machines_end_when_the_control_plane_stays_away(world: World) -> None:
    """With the control plane dead for good, every machine ends by itself."""
    world.start(contact_timeout_s=5)
    client = world.prepare()
    job = client.jobs.submit(command="sleep 300", queue="work").id
    world.until(lambda: client.jobs.get(job).state is JobState.RUNNING)
    world.kill()
    world.until(lambda: not world.look(), 60)
