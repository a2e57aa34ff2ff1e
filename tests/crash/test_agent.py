"""A machine is killed at any point of a job's life: the job runs again and ends exactly once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from control_plane.core.model import JobState
from orchctl import Client
from tests.crash.world import World, kill

COMMAND = "echo began; sleep 0.7; echo worked > result; echo done; sleep 0.3"


def _starts(world: World, client: Client, job: str) -> bool:
    return bool(world.look())


def _registers(world: World, client: Client, job: str) -> bool:
    return any(machine.registered_at for machine in client.machines.list())


def _leased(world: World, client: Client, job: str) -> bool:
    return client.jobs.get(job).state in (JobState.LEASED, JobState.RUNNING)


def _running(world: World, client: Client, job: str) -> bool:
    return client.jobs.get(job).state is JobState.RUNNING


def _says_done(world: World, client: Client, job: str) -> bool:
    return b"done" in client.jobs.log(job).data


def _has_ended(world: World, client: Client, job: str) -> bool:
    return client.jobs.get(job).ended


@pytest.mark.parametrize("point", [_starts, _registers, _leased, _running, _says_done, _has_ended])
def test_machine_killed(world: World, point: Callable[[World, Client, str], bool]) -> None:
    """SIGKILL to every process of the machine at this point."""
    world.start()
    client = world.prepare()
    job = client.jobs.submit(command=COMMAND, queue="work", artifacts=["result"]).id
    world.until(lambda: point(world, client, job))
    for pids in world.local.alive().values():
        for pid in pids:
            kill(pid)
    world.all_succeed_once(client, [job])
    assert client.jobs.artifact(job, "result") == b"worked\n"
