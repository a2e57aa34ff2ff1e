"""What a RunInstances call says, and where the machine goes."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import replace

import pytest

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.ports import Launched
from providers.aws import launch
from providers.startup import agent_startup
from tests.unit.providers.aws.world import (
    REGION,
    World,
    an_offer,
    refused,
)

REGIONAL = an_offer(market=Market.ON_DEMAND)


def test_spot_launch_says_all_that_it_must(world: World) -> None:
    request = world.request()
    asked = dict(world.asked(world.provider.launch(request)))
    tags = asked.pop("TagSpecifications")
    subnet = asked.pop("SubnetId")
    asked.pop("UserData")
    assert asked == {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": launch.client_token(request),
        "ImageId": "ami-0d1a0000000000000",
        "InstanceType": "g4dn.xlarge",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "IamInstanceProfile": {"Name": "orchctl-machine"},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"DeleteOnTermination": True, "VolumeSize": 100, "VolumeType": "gp3"},
            }
        ],
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "InstanceMarketOptions": {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        },
    }
    assert subnet
    assert {spec["ResourceType"] for spec in tags} == {
        "instance",
        "volume",
        "network-interface",
        "spot-instances-request",
    }
    labels = {
        "orchctl-fleet": "fleet-a",
        "orchctl-machine": "m-1",
        "orchctl-key": "m-1.1",
        "orchctl-pool": "gpu",
        "orchctl-deadline": str(int(request.deadline.timestamp())),
    }
    for spec in tags:
        found = {tag["Key"]: tag["Value"] for tag in spec["Tags"]}
        assert found.pop("orchctl-version")
        assert found == labels


def test_on_demand_launch_says_nothing_of_spot(world: World) -> None:
    asked = world.asked(world.launch(offer=REGIONAL))
    assert "InstanceMarketOptions" not in asked
    assert {spec["ResourceType"] for spec in asked["TagSpecifications"]} == {
        "instance",
        "volume",
        "network-interface",
    }


def test_start_up_text_arrives_as_it_was_rendered(world: World) -> None:
    request = world.request()
    with_token = replace(request, boot=replace(request.boot, one_time_token="one-time-4c1f0a"))
    world.provider.launch(with_token)
    (machine,) = world.account.machines()
    text = machine["user_data"]
    assert text == agent_startup(request)
    assert text.startswith("#!")
    assert "https://orchctl.example" in text
    assert "one-time-4c1f0a" not in text
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_tags_are_on_the_disk_and_the_interface_too(world: World) -> None:
    world.launch()
    ec2 = world.provider._clients.get("ec2", REGION)
    (disk,) = ec2.describe_volumes()["Volumes"]
    (card,) = ec2.describe_network_interfaces()["NetworkInterfaces"]
    for tags in (disk["Tags"], card["TagSet"]):
        assert {"Key": "orchctl-machine", "Value": "m-1"} in tags


def test_disk_is_never_smaller_than_its_image(world: World) -> None:
    request = replace(world.request(), disk_gib=10)
    asked = world.asked(world.provider.launch(request))
    assert asked["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 65


def test_old_cards_get_the_closed_driver(world: World) -> None:
    offer = an_offer("p3dn.24xlarge", market=Market.ON_DEMAND)
    assert world.asked(world.launch(offer=offer))["ImageId"] == "ami-0d1a0000000000001"


def test_image_of_the_settings_by_id_and_by_parameter(world: World) -> None:
    world.account.images["ami-0123456789abcdef0"] = 200
    world.account.parameters["/acme/gpu"] = "ami-0123456789abcdef0"
    by_id = world.launch("m-1", options={"image": "ami-0123456789abcdef0"})
    by_name = world.launch("m-2", options={"image": "/acme/gpu"})
    for launched in (by_id, by_name):
        assert world.asked(launched)["ImageId"] == "ami-0123456789abcdef0"
        assert world.asked(launched)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 200


def test_zone_of_the_offer_is_where_the_machine_goes(world: World) -> None:
    for at, zone in enumerate(("use1-az1", "use1-az2", "use1-az4")):
        launched = world.running(f"m-{at}", offer=an_offer(zone=zone))
        assert world.look(launched).zone == zone


def test_zone_without_a_subnet_is_an_invalid_place(world: World) -> None:
    offer = replace(an_offer(), zone="use1-az99")
    error = refused(lambda: world.launch(offer=offer))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "InvalidSubnetID.NotFound")
    assert "use1-az99" in str(error)


def test_whole_region_leaves_the_zone_to_aws(world: World) -> None:
    zones = ("use1-az1", "use1-az2", "use1-az4", "use1-az5")
    for zone in zones:
        world.account.set_capacity(0, instance_type="g4dn.xlarge", zone=zone)
    launched = world.running(offer=REGIONAL)
    asked = world.asked(launched)
    assert "SubnetId" not in asked
    assert "NetworkInterfaces" not in asked
    assert world.look(launched).zone == "use1-az6"


def subnets(world: World) -> dict[str, str]:
    ec2 = world.provider._clients.get("ec2", REGION)
    return {
        each["AvailabilityZoneId"]: each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]
    }


def test_subnets_of_the_settings_are_used_and_no_other(world: World) -> None:
    known = subnets(world)
    options = {"subnets": f"{known['use1-az1']},{known['use1-az2']},subnet-of-elsewhere"}
    launched = world.launch("m-1", options=options)
    assert world.asked(launched)["SubnetId"] == known["use1-az1"]
    wrong = replace(an_offer(), zone="use1-az4")
    assert refused(lambda: world.launch("m-2", offer=wrong, options=options)).error_class is (
        ErrorClass.INVALID
    )


def test_whole_region_spreads_over_the_subnets_of_the_settings(world: World) -> None:
    known = subnets(world)
    two = {known["use1-az1"], known["use1-az2"]}
    options = {"subnets": ",".join(two)}
    used = {
        world.asked(world.launch(f"m-{at}", offer=REGIONAL, options=options))["SubnetId"]
        for at in range(12)
    }
    assert used == two


def test_whole_region_takes_no_subnet_whose_zone_lacks_the_type(world: World) -> None:
    """g4dn is sold in five of the six zones of us-east-1."""
    known = subnets(world)
    options = {"subnets": f"{known['use1-az3']},{known['use1-az1']}"}
    for at in range(6):
        launched = world.launch(f"m-{at}", offer=REGIONAL, options=options)
        assert world.asked(launched)["SubnetId"] == known["use1-az1"]


@pytest.mark.parametrize("public", ["true", "false"])
def test_public_address_as_the_settings_say(world: World, public: str) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    options = {"public_ip": public, "security_groups": group}
    launched = world.launch(options=options)
    (card,) = world.asked(launched)["NetworkInterfaces"]
    assert card["AssociatePublicIpAddress"] is (public == "true")
    assert card["Groups"] == [group]
    assert card["DeleteOnTermination"] is True
    found = ec2.describe_instances(InstanceIds=[launched.provider_id])
    assert ("PublicIpAddress" in found["Reservations"][0]["Instances"][0]) is (public == "true")


def test_security_groups_of_all_regions_may_be_named_together(world: World) -> None:
    here, there = (
        world.provider._clients.get("ec2", region).describe_security_groups()["SecurityGroups"][0]
        for region in ("us-east-1", "eu-west-1")
    )
    named = f"{there['GroupId']}, {here['GroupId']}"
    launched = world.launch(options={"security_groups": named})
    assert world.asked(launched)["SecurityGroupIds"] == [here["GroupId"]]


@pytest.mark.parametrize(
    ("profile", "field"),
    [("orchctl-machine", "Name"), ("arn:aws:iam::1:instance-profile/orchctl-machine", "Arn")],
)
def test_instance_profile_by_name_or_arn(world: World, profile: str, field: str) -> None:
    launched = world.launch(options={"instance_profile": profile})
    assert world.asked(launched)["IamInstanceProfile"] == {field: profile}


def test_a_machine_always_has_a_profile_to_prove_itself_by(world: World) -> None:
    asked = world.asked(world.launch())
    assert asked["IamInstanceProfile"] == {"Name": "orchctl-machine"}


def test_too_long_a_start_up_text_is_refused_and_makes_nothing(world: World) -> None:
    world.provider._render = lambda request: "#" * 16_385
    assert refused(world.launch).error_class is ErrorClass.INVALID
    assert not list(world.account.living())


def test_images_and_subnets_are_asked_for_once(world: World) -> None:
    for at in range(3):
        world.launch(f"m-{at}")
    called = world.account.called()
    assert (called["GetParameter"], called["DescribeImages"], called["DescribeSubnets"]) == (
        1,
        1,
        1,
    )
    assert called["RunInstances"] == 3


def test_tokens_differ_by_fleet_and_by_attempt(world: World) -> None:
    requests = [
        world.request("m-1"),
        world.request("m-1", attempt=2),
        world.request("m-1", fleet="fleet-b"),
    ]
    tokens = {launch.client_token(each) for each in requests}
    assert len(tokens) == 3
    assert {len(token) for token in tokens} == {64}


@pytest.mark.parametrize("offer", [an_offer(), REGIONAL], ids=["zone", "region"])
def test_eight_threads_with_one_key_make_one_machine(world: World, offer: Offer) -> None:
    world.account.set_lag(30)
    providers = [world.open() for _ in range(8)]
    answers: list[Launched] = []
    barrier = threading.Barrier(8)

    def start(at: int) -> None:
        barrier.wait()
        answers.append(providers[at].launch(world.request(offer=offer)))

    threads = [threading.Thread(target=start, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    assert len(list(world.account.living())) == 1
    assert answers[0].provider_id


def test_launch_says_whose_account_must_be_proven(world: World) -> None:
    launched = world.launch()
    assert launched.identity == {"account": world.account.id}
    assert world.look(launched).identity == launched.identity
