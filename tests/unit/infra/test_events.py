"""What wakes a deployment may come twice, late or never: nothing is lost by it, nor done twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.serverless.shared import RUNG
from tests.emulators.ministack import Ministack
from tests.fakes import notices
from tests.unit.infra import history
from tests.unit.infra.plane import BUCKET, Agent, Plane, running

pytestmark = pytest.mark.xdist_group("permissions")

NAMES = itertools.count()
"""No two accounts have a bucket of the same name."""


class World:
    """A deployment with an autoscaler of spot machines, and the jobs given to it."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        history.apply(plane, "research", "spot")

    def submit(self) -> str:
        job = {"command": "true", "queue": "research", "cpu": 1}
        return str(self.plane.ask("POST", "/v1/jobs", job)["id"])

    def tick(self) -> None:
        """What the schedule does each minute."""
        self.plane.account.advance(1)
        self.plane.invoke("reconcile", {})

    def instances(self) -> list[str]:
        return [str(vm["id"]) for vm in self.plane.account.machines()]

    def boot(self) -> tuple[str, Agent]:
        """The agent of the machine that was bought last."""
        vm = self.plane.account.machines()[-1]
        return str(vm["id"]), Agent(self.plane, vm["tags"]["orchctl-machine"], vm["id"])

    def take(self, agent: Agent) -> dict[str, Any]:
        (work,) = agent.say("claim", {"running": [], "limit": 1})["jobs"]
        agent.say(f"jobs/{work['job_id']}/start", {"epoch": work["epoch"]})
        return dict(work)

    def finish(self, agent: Agent, work: dict[str, Any]) -> None:
        told = {"epoch": work["epoch"], "outcome": "succeeded", "exit_code": 0}
        agent.say(f"jobs/{work['job_id']}/finish", told)

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.plane.ask("GET", f"/v1/jobs/{job_id}"))

    def attempts(self, job_id: str) -> list[str]:
        found = self.plane.ask("GET", f"/v1/jobs/{job_id}/attempts")["items"]
        return [str(each["outcome"]) for each in found]


@pytest.fixture
def world(ministack: Ministack) -> Iterator[World]:
    with running(ministack, bucket=f"{BUCKET}-events-{next(NAMES)}") as plane:
        yield World(plane)


def test_a_warning_that_comes_three_times_gives_the_job_back_once(world: World) -> None:
    job_id = world.submit()
    world.tick()
    instance, agent = world.boot()
    work = world.take(agent)
    gone = notices.aws_state(instance, "terminated", datetime.now(UTC))
    world.plane.account.interrupt(instance)
    for event in (notices.aws_warning(instance, datetime.now(UTC)), gone, gone, gone):
        world.plane.invoke("interruption", event)
        world.plane.invoke("interruption", event)
    for _ in range(3):
        world.tick()
    assert world.attempts(job_id) == ["interrupted"]
    assert len(world.instances()) == 1
    _, second = world.boot()
    again = world.take(second)
    assert (again["job_id"], again["epoch"]) == (job_id, work["epoch"] + 1)
    world.finish(second, again)
    assert world.job(job_id)["state"] == "succeeded"


def test_a_warning_that_never_comes_loses_no_job(world: World) -> None:
    job_id = world.submit()
    world.tick()
    instance, agent = world.boot()
    world.take(agent)
    world.plane.account.interrupt(instance)
    for _ in range(3):
        world.tick()
    assert world.attempts(job_id) == ["interrupted"]
    _, second = world.boot()
    world.finish(second, world.take(second))
    assert world.job(job_id)["state"] == "succeeded"


def test_a_warning_that_comes_an_hour_late_takes_nothing_from_the_next_machine(
    world: World,
) -> None:
    job_id = world.submit()
    world.tick()
    instance, agent = world.boot()
    world.take(agent)
    at = datetime.now(UTC)
    world.plane.account.interrupt(instance)
    for _ in range(3):
        world.tick()
    other, second = world.boot()
    work = world.take(second)
    assert other != instance
    for event in (notices.aws_warning(instance, at), notices.aws_state(instance, "terminated", at)):
        world.plane.invoke("interruption", event)
    world.tick()
    assert world.instances() == [other]
    world.finish(second, work)
    assert world.job(job_id)["state"] == "succeeded"
    assert world.attempts(job_id) == ["interrupted", "succeeded"]


def test_a_wake_that_is_lost_is_made_up_for_by_the_schedule(world: World) -> None:
    """The account has no function to wake here: every call to it fails."""
    job_id = world.submit()
    assert world.instances() == []
    world.tick()
    (bought,) = world.instances()
    # Whoever was woken has died: the bell is still rung, and later changes wake nobody for a while.
    world.plane.advance(RUNG + timedelta(seconds=1))
    world.submit()
    world.tick()
    assert bought in world.instances()
    _, agent = world.boot()
    assert world.take(agent)["job_id"] == job_id


def test_a_wake_that_comes_ten_times_buys_once(world: World) -> None:
    world.submit()
    for _ in range(10):
        world.plane.invoke("reconcile", {"woken": True})
    world.plane.account.advance(1)
    assert len(world.instances()) == 1


def test_events_of_machines_that_are_nobodys_do_nothing(world: World) -> None:
    world.submit()
    world.tick()
    before = world.instances()
    stranger = "i-0123456789abcdef0"
    for event in (
        notices.aws_warning(stranger, datetime.now(UTC)),
        notices.aws_state(stranger, "terminated", datetime.now(UTC)),
        notices.aws_rebalance(stranger, datetime.now(UTC)),
    ):
        assert world.plane.invoke("interruption", event) == {"machines": []}
    world.tick()
    assert world.instances() == before
