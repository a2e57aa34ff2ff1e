"""The document's settings for AWS, as the adapter gets them."""

from __future__ import annotations

import pytest

from control_plane.config.errors import ConfigError
from control_plane.config.load import load_text
from control_plane.core.policy import CloudPolicy
from tests.unit.providers.aws.world import World

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {pools: [t4]}
pools:
  t4:
    gpu: T4:1
    clouds:
      aws: {regions: [us-east-1], %s}
"""


def cloud(settings: str) -> CloudPolicy:
    (found,) = load_text(DOCUMENT % settings).pools["t4"].clouds
    return found


def test_all_settings_become_flat_texts() -> None:
    settings = (
        "subnets: [subnet-1, subnet-2], security_groups: [sg-1], public_ip: false, "
        "instance_profile: orchctl-machine, role: machines, image: /acme/gpu"
    )
    assert cloud(settings).options == {
        "subnets": "subnet-1,subnet-2",
        "security_groups": "sg-1",
        "public_ip": "false",
        "instance_profile": "orchctl-machine",
        "role": "machines",
        "image": "/acme/gpu",
    }


@pytest.mark.parametrize("image", ["ami-0abc1234def567890", "/aws/service/x/latest/ami-id"])
def test_image_is_an_id_or_a_parameter(image: str) -> None:
    assert cloud(f"image: {image}").options["image"] == image


@pytest.mark.parametrize(
    "wrong", ["image: ubuntu", "image: ami-xyz", "subnets: []", "public_ip: maybe", "colour: red"]
)
def test_wrong_settings_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cloud(wrong)
    assert wrong.split(":")[0] in str(caught.value)


def test_machine_is_launched_as_the_document_says(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", "us-east-1")
    subnets = ec2.describe_subnets(
        Filters=[{"Name": "availability-zone-id", "Values": ["use1-az1"]}]
    )
    subnet = subnets["Subnets"][0]["SubnetId"]
    options = cloud(f"subnets: [{subnet}], public_ip: false").options
    (card,) = world.asked(world.launch(options=options))["NetworkInterfaces"]
    assert card["SubnetId"] == subnet
    assert card["AssociatePublicIpAddress"] is False
