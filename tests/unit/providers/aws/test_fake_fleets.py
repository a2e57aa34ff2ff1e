"""The fake's launch templates and fleets refuse what EC2 refuses."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.unit.providers.aws.test_fake import WANTED, code, ec2
from tests.unit.providers.aws.world import World, an_offer

HERE, THERE = an_offer(), an_offer(zone="use1-az2")
FLEET: dict[str, Any] = {
    "Type": "instant",
    "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "spot"},
    "SpotOptions": {"AllocationStrategy": "price-capacity-optimized"},
}


def subnet(world: World, zone: str = HERE.zone) -> str:
    wish = {"Name": "availability-zone-id", "Values": [zone]}
    found: str = ec2(world).describe_subnets(Filters=[wish])["Subnets"][0]["SubnetId"]
    return found


def make(world: World, name: str = "small", **data: Any) -> str:
    wanted = {"ImageId": WANTED["ImageId"], **data}
    made = ec2(world).create_launch_template(LaunchTemplateName=name, LaunchTemplateData=wanted)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def configs(*subnets: str, name: str = "small", version: str = "1") -> list[dict[str, Any]]:
    spec = {"LaunchTemplateName": name, "Version": version}
    pools = [{"InstanceType": "g4dn.xlarge", "SubnetId": each} for each in subnets]
    return [{"LaunchTemplateSpecification": spec, "Overrides": pools}]


def test_fleet_is_made_once_for_each_token(world: World) -> None:
    make(world)
    pools = configs(subnet(world))
    create = ec2(world).create_fleet
    first = create(**FLEET, LaunchTemplateConfigs=pools, ClientToken="a")
    again = create(**FLEET, LaunchTemplateConfigs=pools, ClientToken="a")
    assert again["Instances"] == first["Instances"]
    assert create(**FLEET, LaunchTemplateConfigs=pools)["Instances"] != first["Instances"]
    other = configs(subnet(world, THERE.zone))
    assert code(create, **FLEET, LaunchTemplateConfigs=other, ClientToken="a") == (
        "IdempotentParameterMismatch"
    )
    assert len(list(world.account.living())) == 2


def test_token_of_a_fleet_that_bought_nothing_is_used_up(world: World) -> None:
    make(world)
    world.account.set_capacity(0)
    pools = configs(subnet(world))
    create = ec2(world).create_fleet
    errors = create(**FLEET, LaunchTemplateConfigs=pools, ClientToken="a")["Errors"]
    world.account.set_capacity(None)
    answer = create(**FLEET, LaunchTemplateConfigs=pools, ClientToken="a")
    assert answer["Errors"] == errors
    assert "Instances" not in answer or not answer["Instances"]


def test_instance_of_a_fleet_is_one_time_spot_without_the_token(world: World) -> None:
    make(world, UserData=base64.b64encode(b"#!/bin/sh\n").decode())
    answer = ec2(world).create_fleet(
        **FLEET, LaunchTemplateConfigs=configs(subnet(world)), ClientToken="a"
    )
    (launched,) = answer["Instances"]
    assert (launched["Lifecycle"], launched["InstanceType"]) == ("spot", "g4dn.xlarge")
    by_token = {"Name": "client-token", "Values": ["a"]}
    assert not ec2(world).describe_instances(Filters=[by_token])["Reservations"]
    (vm,) = world.account.machines()
    assert (vm["spot"], vm["user_data"], vm["zone"]) == (True, "#!/bin/sh\n", HERE.zone)
    world.account.interrupt(vm["id"])
    assert not world.account.machines()


def test_override_that_cannot_be_had_is_an_error_of_its_own(world: World) -> None:
    make(world)
    world.account.set_capacity(0, zone=HERE.zone)
    pools = configs(subnet(world), subnet(world, THERE.zone))
    answer = ec2(world).create_fleet(**FLEET, LaunchTemplateConfigs=pools)
    (error,) = answer["Errors"]
    assert error["ErrorCode"] == "InsufficientInstanceCapacity"
    assert error["LaunchTemplateAndOverrides"]["Overrides"]["SubnetId"] == subnet(world)
    assert len(answer["Instances"]) == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"Type": "maintain"}, "UnsupportedOperation"),
        (
            {"TargetCapacitySpecification": {"TotalTargetCapacity": 2}},
            "UnsupportedOperation",
        ),
        (
            {"TargetCapacitySpecification": {"TotalTargetCapacity": 1}},
            "UnsupportedOperation",
        ),
        ({"SpotOptions": {"AllocationStrategy": "lowest-price"}}, "UnsupportedOperation"),
        (
            {"TagSpecifications": [{"ResourceType": "spot-instances-request", "Tags": []}]},
            "InvalidParameterValue",
        ),
    ],
)
def test_wrong_fleet_is_refused(world: World, more: dict[str, Any], expected: str) -> None:
    make(world)
    asked = {**FLEET, "LaunchTemplateConfigs": configs(subnet(world)), **more}
    assert code(ec2(world).create_fleet, **asked) == expected
    assert not list(world.account.living())


@pytest.mark.parametrize("wrong", [{"name": "none"}, {"version": "2"}])
def test_fleet_of_no_template_is_refused(world: World, wrong: dict[str, str]) -> None:
    make(world)
    pools = configs(subnet(world), **wrong)
    assert code(ec2(world).create_fleet, **FLEET, LaunchTemplateConfigs=pools) == (
        "InvalidLaunchTemplateName.NotFoundException"
    )


def test_pool_that_stands_twice_is_refused(world: World) -> None:
    make(world)
    twice = configs(subnet(world), subnet(world))
    assert code(ec2(world).create_fleet, **FLEET, LaunchTemplateConfigs=twice) == (
        "InvalidFleetConfig"
    )


def test_several_subnets_of_one_zone_are_refused(world: World) -> None:
    make(world)
    found = ec2(world).describe_subnets(SubnetIds=[subnet(world)])["Subnets"][0]
    extra = ec2(world).create_subnet(
        VpcId=found["VpcId"],
        CidrBlock="172.31.240.0/24",
        AvailabilityZone=found["AvailabilityZone"],
    )["Subnet"]["SubnetId"]
    pools = configs(subnet(world), extra)
    assert code(ec2(world).create_fleet, **FLEET, LaunchTemplateConfigs=pools) == (
        "InvalidFleetConfig"
    )


def test_template_for_one_market_is_no_template_for_a_fleet(world: World) -> None:
    make(world, InstanceMarketOptions={"MarketType": "spot"})
    pools = configs(subnet(world))
    assert code(ec2(world).create_fleet, **FLEET, LaunchTemplateConfigs=pools) == (
        "InvalidFleetConfig"
    )


def test_template_has_a_name_of_its_own(world: World) -> None:
    template = make(world)
    create, data = ec2(world).create_launch_template, {"ImageId": WANTED["ImageId"]}
    taken = code(create, LaunchTemplateName="small", LaunchTemplateData=data)
    assert taken == "InvalidLaunchTemplateName.AlreadyExistsException"
    wrong = code(create, LaunchTemplateName="no spaces", LaunchTemplateData=data)
    assert wrong == "InvalidLaunchTemplateName.MalformedException"
    large = {"UserData": base64.b64encode(b"x" * 16_385).decode()}
    assert code(create, LaunchTemplateName="large", LaunchTemplateData=large) == (
        "InvalidParameterValue"
    )
    ec2(world).delete_launch_template(LaunchTemplateId=template)
    gone = code(ec2(world).delete_launch_template, LaunchTemplateId=template)
    assert gone == "InvalidLaunchTemplateId.NotFound"


def test_tag_that_metadata_cannot_show_is_refused(world: World) -> None:
    asked = {**WANTED, "MetadataOptions": {"InstanceMetadataTags": "enabled"}}
    for key, expected in (("a/b", True), ("a b", True), ("_index", True), ("orchctl-x", False)):
        tags = [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": "1"}]}]
        if expected:
            refused = code(ec2(world).run_instances, **asked, TagSpecifications=tags)
            assert refused == "InvalidParameterValue"
        else:
            ec2(world).run_instances(**asked, TagSpecifications=tags)
    (vm,) = world.account.living()
    assert world.account.metadata_tags(vm.id) == {"orchctl-x": "1"}


def test_dry_runs_make_nothing(world: World) -> None:
    data = {"ImageId": WANTED["ImageId"]}
    asked = {"LaunchTemplateName": "small", "LaunchTemplateData": data, "DryRun": True}
    assert code(ec2(world).create_launch_template, **asked) == "DryRunOperation"
    assert not world.account.templates
    make(world)
    pools = configs(subnet(world))
    tried = code(ec2(world).create_fleet, **FLEET, LaunchTemplateConfigs=pools, DryRun=True)
    assert tried == "DryRunOperation"
    assert not list(world.account.living())
