"""The schedule that ends a machine at its deadline when nobody else does."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.providers.aws.world import REGION, ROLE, World


def schedules(world: World) -> list[str]:
    return list(world.account.resources()["schedule"])


def test_schedule_says_when_and_what(world: World) -> None:
    launched = world.launch()
    scheduler = world.provider._clients.get("scheduler", REGION)
    found = scheduler.get_schedule(Name=launched.provider_id)
    assert found["ScheduleExpression"] == "at(2026-01-06T08:00:00)"
    assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["Target"]["Arn"] == "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
    assert found["Target"]["RoleArn"] == ROLE
    assert json.loads(found["Target"]["Input"]) == {"InstanceIds": [launched.provider_id]}


def test_machine_that_nobody_ends_is_ended_at_its_deadline(world: World) -> None:
    launched = world.running()
    world.account.advance(24 * 3600 - 61)
    assert world.look(launched).state == "running"
    world.account.advance(120)
    assert not any(world.account.resources().values())
    assert world.look(launched).state == "gone"


def test_deadline_that_has_passed_ends_the_machine_at_once(world: World) -> None:
    request = world.request()
    world.provider.launch(replace(request, deadline=request.deadline - timedelta(days=2)))
    world.account.advance(60)
    assert not any(world.account.resources().values())


def test_repeated_launch_makes_no_second_schedule(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    launched = world.launch()
    assert world.launch() == launched
    assert schedules(world) == [launched.provider_id]
    assert not caplog.records


def test_ended_machine_has_no_schedule(world: World, caplog: pytest.LogCaptureFixture) -> None:
    launched = world.running()
    world.provider.terminate(world.ref(launched))
    assert not schedules(world)
    world.provider.terminate(world.ref(launched))
    assert not caplog.records


def test_without_a_role_there_is_none(world: World) -> None:
    plain = world.open(life_limit_role="")
    launched = plain.launch(world.request())
    plain.terminate(world.ref(launched))
    called = world.account.called()
    assert not {"CreateSchedule", "DeleteSchedule"} & set(called)


def test_one_that_cannot_be_made_is_a_warning_and_the_machine_stays(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.account.fail_next("AccessDeniedException", operation="CreateSchedule", status=403)
    with caplog.at_level(logging.WARNING):
        launched = world.launch()
    assert launched.provider_id in caplog.text
    assert "AccessDenied" in caplog.text
    assert len(list(world.account.living())) == 1


def test_one_that_cannot_be_removed_is_a_warning_and_removes_itself(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    launched = world.running()
    world.account.fail_next("ThrottlingException", operation="DeleteSchedule", status=429)
    with caplog.at_level(logging.WARNING):
        world.provider.terminate(world.ref(launched))
    assert "could not remove the life limit" in caplog.text
    assert schedules(world)
    world.account.advance(86_400)
    assert not schedules(world)
