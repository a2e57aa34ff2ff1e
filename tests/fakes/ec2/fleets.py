"""Launch templates, and fleets of the type `instant`, as far as machines are bought by them.

A fleet tries every override on its own: what stands in the way of one is an entry of `Errors` in an
answer that is an HTTP 200 all the same, also when another one was bought. Facts: "CreateFleet" and
"CreateLaunchTemplate" of the EC2 API reference, "EC2 Fleet limitations" of the EC2 user guide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from moto.ec2.exceptions import EC2ClientError

NAME = re.compile(r"[A-Za-z0-9()./_-]{3,128}")
TAGGED = {"fleet", "instance", "volume"}
"""The reference names the first two; the third is what others are known to use."""
_METADATA_KEY = re.compile(r"(?!(?:\.|\.\.|_index)$)[A-Za-z0-9+\-=.,_:@]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One launch template, of one version."""

    id: str
    name: str
    region: str
    data: Mapping[str, Any]
    tags: Mapping[str, str]
    created_at: datetime

    def shown(self, account: str) -> Mapping[str, Any]:
        """It as EC2 describes it."""
        return {
            "LaunchTemplateId": self.id,
            "LaunchTemplateName": self.name,
            "CreateTime": self.created_at,
            "CreatedBy": f"arn:aws:iam::{account}:user/controller",
            "DefaultVersionNumber": 1,
            "LatestVersionNumber": 1,
            "Tags": [{"Key": key, "Value": value} for key, value in self.tags.items()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One override: the RunInstances call that it stands for."""

    said: Mapping[str, Any]
    """Template and override, as answers repeat them."""
    asked: Mapping[str, Any]
    zone: str
    room: float
    price: Decimal


def pools_of(
    asked: Mapping[str, Any],
    template: Callable[[str], Template | None],
    zone: Callable[[str], str],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """Of each override: itself, the RunInstances call it stands for, and the id of its zone."""
    seen: dict[str, str] = {}
    for config in asked["LaunchTemplateConfigs"]:
        spec = config["LaunchTemplateSpecification"]
        found = template(spec.get("LaunchTemplateName", ""))
        if found is None or spec["Version"] != "1":
            raise EC2ClientError(
                "InvalidLaunchTemplateName.NotFoundException",
                "At least one of the launch templates specified in the request does not exist.",
            )
        if "InstanceMarketOptions" in found.data:
            raise _wrong("a launch template with market options is not for a fleet")
        for override in config["Overrides"]:
            place = zone(override["SubnetId"]) if "SubnetId" in override else ""
            if seen.setdefault(place, override.get("SubnetId", "")) != override.get("SubnetId", ""):
                raise _wrong(f"two subnets of the zone {place}")
            yield (
                {"LaunchTemplateSpecification": spec, "Overrides": override},
                _merged(found.data, override, asked),
                place,
            )


def refuse_wrong_fleet(asked: Mapping[str, Any]) -> None:
    """What a fleet must be here: one spot machine, now, of pools that are named once."""
    target = asked["TargetCapacitySpecification"]
    spot = asked.get("SpotOptions", {})
    if asked.get("Type") != "instant" or target["TotalTargetCapacity"] != 1:
        raise EC2ClientError("UnsupportedOperation", "this fake makes instant fleets of one")
    if target.get("DefaultTargetCapacityType") != "spot":
        raise EC2ClientError("UnsupportedOperation", "this fake makes fleets of spot instances")
    if spot.get("AllocationStrategy") != "price-capacity-optimized":
        raise EC2ClientError("UnsupportedOperation", "this fake knows one strategy")
    if spot.get("InstanceInterruptionBehavior", "terminate") != "terminate":
        raise _wrong("an instant fleet terminates what is interrupted")
    for spec in asked.get("TagSpecifications", []):
        if spec["ResourceType"] not in TAGGED:
            raise EC2ClientError("InvalidParameterValue", f"no tags on {spec['ResourceType']}")
    overrides = [
        (override.get("InstanceType"), override.get("SubnetId"))
        for config in asked["LaunchTemplateConfigs"]
        for override in config["Overrides"]
    ]
    if len(overrides) > len(set(overrides)):
        raise _wrong("an override stands twice")


def refuse_hidden_keys(asked: Mapping[str, Any]) -> None:
    """Tags that an instance shows in its metadata have plainer keys than others."""
    if asked.get("MetadataOptions", {}).get("InstanceMetadataTags") != "enabled":
        return
    for spec in asked.get("TagSpecifications", []):
        for tag in spec["Tags"] if spec["ResourceType"] == "instance" else ():
            if not _METADATA_KEY.fullmatch(tag["Key"]):
                raise EC2ClientError("InvalidParameterValue", f"not in metadata: {tag['Key']}")


def best(pools: list[Pool]) -> Pool | None:
    """The one with the most room, and of those the cheapest."""
    return min(pools, key=lambda pool: (-pool.room, pool.price), default=None)


def _merged(
    data: Mapping[str, Any], override: Mapping[str, Any], asked: Mapping[str, Any]
) -> Mapping[str, Any]:
    subnet = {"SubnetId": override["SubnetId"]} if "SubnetId" in override else {}
    cards = [{**card, **subnet} for card in data.get("NetworkInterfaces", [])]
    tags = [
        *(spec for spec in asked.get("TagSpecifications", []) if spec["ResourceType"] != "fleet"),
        *data.get("TagSpecifications", []),
    ]
    return {
        **data,
        **({"NetworkInterfaces": cards} if cards else subnet),
        "MinCount": 1,
        "MaxCount": 1,
        "InstanceType": override["InstanceType"],
        "InstanceMarketOptions": {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        },
        "TagSpecifications": tags,
    }


def _wrong(text: str) -> EC2ClientError:
    return EC2ClientError("InvalidFleetConfig", text)
