"""At each call of a launch and of an end: the call is lost, or its answer. Afterwards there is
exactly one machine or none, and in the end nothing is left."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace

import pytest

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import LaunchRequest, MachineRef
from providers.aws.provider import AwsProvider
from tests.unit.providers.aws.world import FLEET, World, an_offer, refused

REGIONAL = an_offer(market=Market.ON_DEMAND)
LAUNCH = [
    "DescribeInstances",
    "DescribeSubnets",
    "GetParameter",
    "DescribeImages",
    "RunInstances",
    "CreateSchedule",
]
FLEET_LAUNCH = ["CreateLaunchTemplate", "CreateFleet"]
END = ["DescribeInstances", "TerminateInstances", "DeleteSchedule"]
LOST = pytest.mark.parametrize("before", [True, False], ids=["call-lost", "answer-lost"])
LAG_S = 30.0
"""Longer than a crash and a restart."""


def attempt(provider: AwsProvider, request: LaunchRequest) -> str:
    """The id of the machine, empty when the launch failed."""
    try:
        return provider.launch(request).provider_id
    except ProviderError as error:
        if error.error_class is not ErrorClass.TRANSIENT:
            raise
        return ""


def end_once(world: World, ref: MachineRef) -> None:
    """As the executor does it in one tick."""
    world.provider.terminate(ref)
    world.provider.sighting(ref)


def end_all(world: World, provider: AwsProvider) -> None:
    """As a control plane ends a machine whose launch has never answered."""
    for _ in range(20):
        provider.terminate(world.ref())
        world.account.advance(10)
    seen = provider.sighting(world.ref())
    assert seen is None or seen.state == "gone"


def assert_nothing_is_left(world: World) -> None:
    world.account.advance(86_400)
    assert not any(world.account.resources().values()), world.account.resources()


@LOST
@pytest.mark.parametrize("operation", LAUNCH)
def test_launch_repeated_after_a_crash_is_one_machine(
    world: World, operation: str, before: bool
) -> None:
    world.account.set_lag(LAG_S)
    world.account.drop_next(operation, before=before)
    first = attempt(world.provider, world.request())
    assert bool(first) == (operation == "CreateSchedule")
    restarted = world.open()
    second = restarted.launch(world.request()).provider_id
    assert first in ("", second)
    assert [vm.id for vm in world.account.living()] == [second]
    assert world.account.resources()["schedule"] == [second]
    world.account.advance(60)
    assert [each.provider_id for each in restarted.observe(FLEET, world.clouds()).sightings] == [
        second
    ]
    end_all(world, restarted)
    assert_nothing_is_left(world)


@LOST
@pytest.mark.parametrize("operation", LAUNCH)
def test_launch_never_repeated_is_found_by_its_label(
    world: World, operation: str, before: bool
) -> None:
    world.account.set_lag(LAG_S)
    world.account.drop_next(operation, before=before)
    attempt(world.provider, world.request())
    made = [vm.id for vm in world.account.living()]
    assert bool(made) == (
        operation == "CreateSchedule" or (operation, before) == ("RunInstances", False)
    )
    world.account.advance(60)
    restarted = world.open()
    assert [s.provider_id for s in restarted.observe(FLEET, world.clouds()).sightings] == made
    end_all(world, restarted)
    assert_nothing_is_left(world)


@LOST
@pytest.mark.parametrize("operation", END)
def test_end_repeated_after_a_crash_leaves_nothing(
    world: World, operation: str, before: bool
) -> None:
    launched = world.running()
    world.account.drop_next(operation, before=before)
    ref = world.ref(launched)
    if operation == "DeleteSchedule":
        world.provider.terminate(ref)
    else:
        error = refused(lambda: end_once(world, ref))
        assert error.error_class is ErrorClass.TRANSIENT
    restarted = world.open()
    restarted.terminate(ref)
    world.account.advance(60)
    seen = restarted.sighting(ref)
    assert seen is not None
    assert (seen.state, seen.end_reason) == ("gone", "user")
    assert_nothing_is_left(world)


def test_machine_of_a_lost_answer_is_found_when_the_token_is_forgotten(world: World) -> None:
    world.account.drop_next("RunInstances")
    refused(world.launch)
    world.account.advance(3600)
    world.account.forget_tokens()
    assert world.launch().provider_id == next(world.account.living()).id
    assert len(list(world.account.living())) == 1


def test_changed_settings_return_the_machine_that_exists(world: World) -> None:
    first = world.launch()
    newer = world.request(options={"image": "ami-0d1a0000000000001"})
    newer = replace(newer, boot=replace(newer.boot, agent_sha256="1" * 64))
    assert world.open().launch(newer) == first
    assert len(list(world.account.living())) == 1


def test_changed_settings_before_any_listing_shows_it_wait(world: World) -> None:
    world.account.set_lag(LAG_S)
    first = world.launch()
    request = world.request()
    newer = replace(request, boot=replace(request.boot, agent_sha256="1" * 64))
    error = refused(lambda: world.open().launch(newer))
    assert (error.error_class, error.raw_code) == (
        ErrorClass.TRANSIENT,
        "IdempotentParameterMismatch",
    )
    world.account.advance(LAG_S)
    assert world.open().launch(newer) == first
    assert len(list(world.account.living())) == 1


def test_subnets_that_are_set_later_do_not_buy_a_second_machine(world: World) -> None:
    """A subnet moves the token from the scope of the region to that of a zone."""
    first = world.running(offer=REGIONAL)
    ec2 = world.provider._clients.get("ec2", "us-east-1")
    subnet = ec2.describe_subnets()["Subnets"][-1]["SubnetId"]
    again = world.launch(offer=REGIONAL, options={"subnets": subnet})
    assert again == first
    assert len(list(world.account.living())) == 1


def test_replayed_answer_of_an_ended_machine_is_no_machine(world: World) -> None:
    """EC2 repeats the first answer, which says `pending`, long after the machine has ended and no
    listing knows it any more."""
    request = world.request()
    launched = world.provider.launch(request)
    world.account.shut_down(launched.provider_id)
    for wait_s in (1, 60, 7200):
        world.account.advance(wait_s)
        error = refused(lambda: world.open().launch(request))
        assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "Ended")
    assert world.account.called()["RunInstances"] == 2
    assert not list(world.account.living())


def test_machine_that_ec2_could_not_start_is_gone_and_frees_its_key(world: World) -> None:
    launched = world.launch()
    world.account.break_down(launched.provider_id)
    seen = world.look(launched)
    assert (seen.state, seen.end_reason) == ("gone", "")
    assert refused(world.launch).raw_code == "Ended"
    second = world.launch(attempt=2)
    assert [vm.id for vm in world.account.living()] == [second.provider_id]


class Storm:
    """Four machines, launched and ended by control planes that crash, while calls and answers get
    lost. Nobody looks at the fake but to count."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.requests = [
            world.request(f"m-{at}", offer=offer)
            for at, offer in enumerate((an_offer(), an_offer(zone="use1-az2"), REGIONAL))
        ]
        others = (an_offer(zone="use1-az4"), an_offer("g5.xlarge"))
        self.requests.append(replace(world.request("m-3"), alternatives=others))

    def step(self) -> None:
        if self.chance.random() < 0.5:
            operation = self.chance.choice([*LAUNCH, *FLEET_LAUNCH, *END])
            self.world.account.drop_next(operation, before=self.chance.random() < 0.5)
        with suppress(ProviderError):
            self.act(self.chance.choice(self.requests))

    def act(self, request: LaunchRequest) -> None:
        world, provider = self.world, self.world.provider
        match self.chance.choice(("launch", "launch", "look", "restart", "wait")):
            case "launch":
                provider.launch(request)
            case "look":
                provider.observe(FLEET, world.clouds())
            case "restart":
                world.provider = world.open()
            case "wait":
                world.account.advance(self.chance.choice((1, 20, 60)))

    def living(self) -> list[str]:
        return sorted(vm.tags["orchctl-key"] for vm in self.world.account.living())

    def calm(self) -> None:
        self.world.account.faults.planned.clear()


@pytest.mark.parametrize("seed", range(12))
def test_storm_of_lost_calls_buys_each_machine_once_and_leaves_none(
    world: World, seed: int
) -> None:
    world.account.set_lag(10)
    storm = Storm(world, seed)
    for _ in range(25):
        storm.step()
        assert len(storm.living()) == len(set(storm.living()))
    storm.calm()
    ids = [world.provider.launch(each).provider_id for each in storm.requests]
    assert storm.living() == ["m-0.1", "m-1.1", "m-2.1", "m-3.1"]
    world.account.advance(60)
    seen = world.provider.observe(FLEET, world.clouds()).sightings
    assert sorted(each.provider_id for each in seen) == sorted(ids)
    for operation in END:
        world.account.drop_next(operation, before=storm.chance.random() < 0.5)
    for _ in range(6):
        for request in storm.requests:
            with suppress(ProviderError):
                world.provider.terminate(world.ref(machine_id=request.machine_id))
        world.account.advance(30)
    assert storm.living() == []
    assert_nothing_is_left(world)
