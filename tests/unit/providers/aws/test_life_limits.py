"""The schedule that ends a machine at its deadline when nobody else does."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.ports import Launched
from providers.aws import labels
from providers.aws.provider import AwsProvider
from tests.unit.providers.aws.world import FLEET, REGION, ROLE, World


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


# ------------------------------------------------------------ machines that were only found


def found(world: World, provider: AwsProvider | None = None, **options: str) -> None:
    (provider or world.provider).observe(FLEET, world.clouds(**options))


def without_schedule(world: World, machine_id: str = "m-1") -> Launched:
    """As a control plane leaves one that is killed between the answer and the schedule."""
    return world.open(life_limit_role="").launch(world.request(machine_id))


def test_machine_that_was_only_found_is_ended_at_its_deadline(world: World) -> None:
    launched = without_schedule(world)
    assert not schedules(world)
    found(world)
    assert schedules(world) == [launched.provider_id]
    world.account.advance(24 * 3600 + 60)
    assert not any(world.account.resources().values())


def test_machine_that_has_one_is_not_asked_about_again(world: World) -> None:
    launched = world.running()
    for _ in range(3):
        found(world)
    assert world.account.called()["CreateSchedule"] == 1
    restarted = world.open()
    for _ in range(3):
        found(world, restarted)
    assert world.account.called()["CreateSchedule"] == 2
    assert schedules(world) == [launched.provider_id]


def test_schedule_that_could_not_be_made_is_tried_again_after_ten_minutes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.account.fail_next("AccessDeniedException", operation="CreateSchedule", status=403)
    launched = world.launch()
    for wait_s in (1, 590):
        world.account.advance(wait_s)
        found(world)
    assert not schedules(world)
    assert len(caplog.records) == 1
    world.account.advance(10)
    found(world)
    assert schedules(world) == [launched.provider_id]


def test_look_makes_few_schedules_and_the_next_one_goes_on(world: World) -> None:
    for number in range(23):
        without_schedule(world, f"m-{number}")
    found(world)
    assert len(schedules(world)) == 20
    found(world)
    assert len(schedules(world)) == 23


def test_machine_that_ends_gets_none(world: World) -> None:
    launched = without_schedule(world)
    world.account.advance(60)
    world.account.shut_down(launched.provider_id)
    found(world)
    assert not schedules(world)


def test_machine_with_no_deadline_of_ours_gets_none(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": labels.FLEET, "Value": FLEET}]}]
    ec2.run_instances(
        MinCount=1,
        MaxCount=1,
        ImageId="ami-0d1a0000000000000",
        InstanceType="g4dn.xlarge",
        TagSpecifications=tags,
    )
    found(world)
    assert not schedules(world)


def test_document_may_name_the_role(world: World) -> None:
    plain = world.open(life_limit_role="")
    request = world.request(options={"life_limit_role": ROLE})
    launched = plain.launch(request)
    assert schedules(world) == [launched.provider_id]
    ref = replace(world.ref(launched), options=request.cloud.options)
    plain.terminate(ref)
    assert not schedules(world)
    other = without_schedule(world, "m-2")
    found(world, plain, life_limit_role=ROLE)
    assert schedules(world) == [other.provider_id]
