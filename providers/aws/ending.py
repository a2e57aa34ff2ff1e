"""Ends: why a machine ended, how one is ended, and what may be left of it.

A machine made by `launch.py` takes its disk and network interface with it. What can still be left:
a disk or interface that somebody detached, an address that somebody gave our tag, and the launch
templates that fleets were made from, which are in `fleets.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from control_plane.core.model import Leftover
from providers.aws import labels
from providers.aws.client import Client
from providers.aws.errors import NO_SUCH_INSTANCE, code_of
from providers.catalog.leftovers import usd_hour

END_REASONS: Mapping[str, str] = {
    "Server.SpotInstanceShutdown": "interrupted",
    "Server.SpotInstanceTermination": "interrupted",
    "Client.InstanceInitiatedShutdown": "self",
    "Client.UserInitiatedShutdown": "user",
}
"""From `StateReason.Code` (StateReason in the EC2 API reference) to what a sighting says. Others,
such as `Server.InsufficientInstanceCapacity`, are an end that nobody of these brought about."""

_GONE = frozenset(
    {
        "InvalidAddressID.NotFound",
        "InvalidAllocationID.NotFound",
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateId.NotFoundException",
        "InvalidNetworkInterfaceID.NotFound",
        "InvalidVolume.NotFound",
    }
)


def end_reason(instance: Mapping[str, Any]) -> str:
    """Why an instance ended or is ending; empty when AWS does not say or it is alive."""
    return END_REASONS.get(instance.get("StateReason", {}).get("Code", ""), "")


def terminate(ec2: Client, instance_id: str) -> bool:
    """Begin to end one instance; whether EC2 knows it. One id for each call: with several, a single
    bad one makes the whole call fail."""
    from botocore.exceptions import ClientError

    try:
        ec2.terminate_instances(InstanceIds=[instance_id])
    except ClientError as error:
        if code_of(error) in NO_SUCH_INSTANCE:
            return False
        raise
    return True


def leftovers(ec2: Client, fleet: str, region: str, zones: Mapping[str, str]) -> Iterator[Leftover]:
    """What carries a fleet's tag and is attached to nothing."""

    def left(resource: Mapping[str, Any], kind: str, resource_id: str, **more: Any) -> Leftover:
        texts = labels.read(resource)
        zone = resource.get("AvailabilityZone", "")
        return Leftover(
            provider="aws",
            region=region,
            zone=zones.get(zone, zone),
            kind=kind,
            id=resource_id,
            fleet=texts.get(labels.FLEET, ""),
            machine_id=texts.get(labels.MACHINE, ""),
            **more,
        )

    ours = labels.fleet_filter(fleet)
    loose = [ours, {"Name": "status", "Values": ["available"]}]
    for volume in _all(ec2, "describe_volumes", "Volumes", loose):
        size = volume["Size"]
        yield left(
            volume,
            "disk",
            volume["VolumeId"],
            created_at=volume["CreateTime"].astimezone(UTC),
            size=f"{size} GiB",
            usd_hour=usd_hour("aws", "disk", volume["VolumeType"], size, region=region),
        )
    for card in _all(ec2, "describe_network_interfaces", "NetworkInterfaces", loose):
        tagged = {**card, "Tags": card.get("TagSet", ())}
        yield left(
            tagged,
            "network-interface",
            card["NetworkInterfaceId"],
            usd_hour=usd_hour("aws", "network-interface"),
        )
    for address in ec2.describe_addresses(Filters=[ours])["Addresses"]:
        if not address.get("AssociationId"):
            price = usd_hour("aws", "address")
            yield left(address, "address", address["AllocationId"], usd_hour=price)


def _all(
    ec2: Client, operation: str, key: str, filters: list[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    for page in ec2.get_paginator(operation).paginate(Filters=filters):
        yield from page[key]


def remove(ec2: Client, leftover: Leftover) -> None:
    """Delete what is left; nothing happens when it is gone."""
    from botocore.exceptions import ClientError

    try:
        if leftover.kind == "disk":
            ec2.delete_volume(VolumeId=leftover.id)
        elif leftover.kind == "network-interface":
            ec2.delete_network_interface(NetworkInterfaceId=leftover.id)
        elif leftover.kind == "launch-template":
            ec2.delete_launch_template(LaunchTemplateId=leftover.id)
        else:
            ec2.release_address(AllocationId=leftover.id)
    except ClientError as error:
        if code_of(error) not in _GONE:
            raise
