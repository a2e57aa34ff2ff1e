"""What a machine leaves behind: nothing by itself, and what somebody detached is found."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.model import ErrorClass
from providers.catalog.leftovers import usd_hour
from tests.unit.providers.aws.world import FLEET, REGION, World, refused

TAGS = [
    {"Key": "orchctl-fleet", "Value": FLEET},
    {"Key": "orchctl-machine", "Value": "m-7"},
]


def ec2(world: World) -> Any:
    return world.provider._clients.get("ec2", REGION)


def make_disk(world: World, tags: list[dict[str, str]] = TAGS, kind: str = "gp3") -> str:
    made = ec2(world).create_volume(
        Size=100,
        AvailabilityZone="us-east-1b",
        VolumeType=kind,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )
    return str(made["VolumeId"])


def make_card(world: World) -> str:
    subnet = ec2(world).describe_subnets()["Subnets"][0]["SubnetId"]
    made = ec2(world).create_network_interface(
        SubnetId=subnet,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": TAGS}],
    )
    return str(made["NetworkInterface"]["NetworkInterfaceId"])


def make_address(world: World) -> str:
    made = ec2(world).allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": TAGS}]
    )
    return str(made["AllocationId"])


MAKERS = {"disk": make_disk, "network-interface": make_card, "address": make_address}


def test_machine_takes_all_it_has_with_it(world: World) -> None:
    launched = world.running()
    assert not world.provider.strays(FLEET, world.clouds())
    assert len(world.account.resources()["volume"]) == 1
    assert len(world.account.resources()["network-interface"]) == 1
    world.provider.terminate(world.ref(launched))
    world.account.advance(60)
    assert not any(world.account.resources().values())


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_each_kind_is_found_and_removed(world: World, kind: str) -> None:
    made = MAKERS[kind](world)
    world.running()
    (left,) = world.provider.strays(FLEET, world.clouds())
    assert (left.kind, left.id, left.provider, left.region) == (kind, made, "aws", REGION)
    assert (left.fleet, left.machine_id) == (FLEET, "m-7")
    world.provider.remove(left)
    world.provider.remove(left)
    assert not world.provider.strays(FLEET, world.clouds())
    assert len(list(world.account.living())) == 1


def test_disk_tells_its_age_size_and_zone(world: World) -> None:
    make_disk(world)
    (left,) = world.provider.strays(FLEET, world.clouds())
    assert left.size == "100 GiB"
    assert left.created_at is not None
    assert left.created_at.utcoffset() is not None
    assert left.zone == "use1-az1"


def test_what_is_left_tells_what_it_costs(world: World) -> None:
    for make in MAKERS.values():
        make(world)
    left = {each.kind: each.usd_hour for each in world.provider.strays(FLEET, world.clouds())}
    assert left == {
        "disk": round(Decimal("0.08") * 100 / 730, 6),
        "network-interface": Decimal(0),
        "address": Decimal("0.005"),
    }


def test_price_that_nobody_has_told_is_not_known(world: World) -> None:
    make_disk(world, kind="st1")
    (left,) = world.provider.strays(FLEET, world.clouds())
    assert left.usd_hour is None
    assert usd_hour("aws", "disk", "gp3", 100, region="mx-central-1") is None
    assert usd_hour("aws", "disk", "gp3", 730, region="eu-central-1") == Decimal("0.0952")


def test_what_others_left_is_not_ours(world: World) -> None:
    make_disk(world, [{"Key": "orchctl-fleet", "Value": "fleet-b"}])
    make_disk(world, [{"Key": "Name", "Value": "precious"}])
    assert not world.provider.strays(FLEET, world.clouds())


def test_region_that_does_not_answer_is_an_error(world: World) -> None:
    make_disk(world)
    world.account.silence(REGION)
    error = refused(lambda: world.provider.strays(FLEET, world.clouds()))
    assert error.error_class is ErrorClass.TRANSIENT


@pytest.mark.parametrize(
    ("kind", "operation", "code"),
    [
        ("disk", "DeleteVolume", "VolumeInUse"),
        ("network-interface", "DeleteNetworkInterface", "InvalidNetworkInterface.InUse"),
        ("address", "ReleaseAddress", "UnauthorizedOperation"),
    ],
)
def test_what_cannot_be_removed_now_says_so(
    world: World, kind: str, operation: str, code: str
) -> None:
    MAKERS[kind](world)
    (left,) = world.provider.strays(FLEET, world.clouds())
    world.account.fail_next(code, operation=operation)
    assert refused(lambda: world.provider.remove(left)).raw_code == code
    world.provider.remove(left)
    assert not world.provider.strays(FLEET, world.clouds())
