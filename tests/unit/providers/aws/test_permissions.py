"""The calls of a whole life: what the controller's role must be allowed, and nothing beyond."""

from __future__ import annotations

from tests.unit.providers.aws.test_fleets import several
from tests.unit.providers.aws.test_leftovers import MAKERS
from tests.unit.providers.aws.world import FLEET, World, an_offer

ALLOWED = {
    "CreateFleet",
    "CreateLaunchTemplate",
    "CreateSchedule",
    "DeleteLaunchTemplate",
    "DeleteNetworkInterface",
    "DeleteSchedule",
    "DeleteVolume",
    "DescribeAddresses",
    "DescribeAvailabilityZones",
    "DescribeImages",
    "DescribeInstanceTypeOfferings",
    "DescribeInstances",
    "DescribeLaunchTemplates",
    "DescribeNetworkInterfaces",
    "DescribeSpotPriceHistory",
    "DescribeSubnets",
    "DescribeVolumes",
    "GetParameter",
    "GetServiceQuota",
    "ReleaseAddress",
    "RunInstances",
    "TerminateInstances",
}
"""Besides `ec2:CreateTags` at RunInstances, CreateFleet and CreateLaunchTemplate, and
`iam:PassRole` for the machines' and the scheduler's role."""


def test_whole_life_needs_these_calls(world: World) -> None:
    for make in MAKERS.values():
        make(world)
    world.account.faults.calls.clear()
    provider = world.open()
    provider.offers(world.clouds())
    provider.launch(several(world, "m-2"))
    world.account.advance(86_400)
    launched = provider.launch(world.request(offer=an_offer()))
    world.account.advance(60)
    provider.observe(FLEET, world.clouds())
    provider.terminate(world.ref(launched))
    provider.sighting(world.ref(launched))
    for left in provider.strays(FLEET, world.clouds()):
        provider.remove(left)
    assert set(world.account.called()) == ALLOWED
