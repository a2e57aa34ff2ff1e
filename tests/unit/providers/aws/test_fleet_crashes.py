"""The crash matrix of launches by a fleet: at each call, the call is lost or its answer. Listings
lag behind, so that nothing but what was kept can tell of a machine that was made."""

from __future__ import annotations

from contextlib import suppress

import pytest

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.aws.provider import AwsProvider
from tests.unit.providers.aws.test_crashes import LAG_S, LOST, assert_nothing_is_left, end_all
from tests.unit.providers.aws.test_fleets import several
from tests.unit.providers.aws.world import FLEET, World

LAUNCH = [
    "DescribeAvailabilityZones",
    "DescribeInstances",
    "DescribeSubnets",
    "GetParameter",
    "DescribeImages",
    "CreateLaunchTemplate",
    "CreateFleet",
]


def attempt(provider: AwsProvider, request: LaunchRequest) -> Launched | None:
    """As far as a launch has come; None when nobody can tell."""
    try:
        return provider.launch(request)
    except ProviderError as error:
        if error.error_class is not ErrorClass.TRANSIENT:
            raise
        return None


def ids(world: World) -> list[str]:
    return [vm.id for vm in world.account.living()]


@LOST
@pytest.mark.parametrize("lag_s", [0, LAG_S], ids=["shown", "not-shown-yet"])
@pytest.mark.parametrize("operation", LAUNCH)
def test_launch_repeated_after_a_crash_is_one_machine(
    world: World, operation: str, lag_s: float, before: bool
) -> None:
    request = several(world)
    world.account.set_lag(lag_s)
    world.account.drop_next(operation, before=before)
    assert attempt(world.provider, request) is None
    assert bool(ids(world)) == ((operation, before) == ("CreateFleet", False))
    restarted = world.open()
    second = restarted.launch(request)
    assert ids(world) == [second.provider_id]
    assert bool(second.operation) == bool(lag_s)
    world.account.advance(60)
    done = restarted.launch_result(request, second.operation) if lag_s else second
    assert (done.operation, done.provider_id) == ("", second.provider_id)
    assert world.account.resources()["schedule"] == ids(world)
    assert len(world.account.templates) == 1
    end_all(world, restarted)
    assert_nothing_is_left(world)


@LOST
@pytest.mark.parametrize("operation", LAUNCH)
def test_launch_never_repeated_is_found_by_its_label(
    world: World, operation: str, before: bool
) -> None:
    world.account.set_lag(LAG_S)
    world.account.drop_next(operation, before=before)
    attempt(world.provider, several(world))
    made = ids(world)
    world.account.advance(60)
    restarted = world.open()
    seen = restarted.observe(FLEET, world.clouds()).sightings
    assert [(each.provider_id, each.machine_id) for each in seen] == [(id_, "m-1") for id_ in made]
    end_all(world, restarted)
    assert_nothing_is_left(world)


@LOST
@pytest.mark.parametrize("operation", ["DescribeInstances", "CreateSchedule"])
def test_result_of_a_launch_asked_for_again_after_a_crash(
    world: World, operation: str, before: bool
) -> None:
    """The answer of the fleet was recorded, the machine is not."""
    request = several(world)
    world.account.set_lag(LAG_S)
    begun = world.provider.launch(request)
    world.account.advance(60)
    world.account.drop_next(operation, before=before)
    with suppress(ProviderError):
        world.open().launch_result(request, begun.operation)
    restarted = world.open()
    assert restarted.launch_result(request, begun.operation).provider_id == begun.provider_id
    assert ids(world) == world.account.resources()["schedule"] == [begun.provider_id]
    end_all(world, restarted)
    assert_nothing_is_left(world)


@LOST
def test_lost_answer_of_a_machine_bought_without_the_right_to_fleets(
    world: World, before: bool
) -> None:
    """Neither does the repeat try a fleet, nor does another program make a second machine."""
    request = several(world)
    world.account.set_lag(LAG_S)
    world.account.fleet_error = "UnauthorizedOperation"
    world.account.drop_next("RunInstances", before=before)
    assert attempt(world.provider, request) is None
    first = world.provider.launch(request)
    assert ids(world) == [first.provider_id]
    assert world.account.called()["CreateFleet"] == 1
    assert world.open().launch(request).provider_id == first.provider_id
    assert ids(world) == [first.provider_id]


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "RequestLimitExceeded", "InternalError"])
def test_look_that_fails_after_the_purchase_does_not_hide_it(world: World, code: str) -> None:
    """To a control plane that was refused, nothing is bought, and it would buy elsewhere."""
    request = several(world)
    world.account.fail_next(code, operation="DescribeInstances", skip=1)
    begun = world.provider.launch(request)
    assert [begun.provider_id] == ids(world)
    assert begun.operation
    assert "RunInstances" not in world.account.called()
    done = world.open().launch_result(request, begun.operation)
    assert (done.provider_id, done.operation) == (begun.provider_id, "")
