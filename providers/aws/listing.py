"""Instances as EC2 describes them, and as sightings.

Listings lag behind a launch ("Eventual consistency in the Amazon EC2 API"): a new instance can be
missing, or be answered with `InvalidInstanceID.NotFound`. One that has ended is shown for about an
hour, then EC2 knows nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from control_plane.core.model import Market, Sighting
from providers.aws import labels
from providers.aws.client import Client, Clients
from providers.aws.ending import end_reason
from providers.aws.errors import NO_SUCH_INSTANCE, code_of

Instance: TypeAlias = Mapping[str, Any]
"""One instance in an answer of EC2, with the account that owns it."""

STATES: Mapping[str, str] = {
    "pending": "pending",
    "running": "running",
    "shutting-down": "stopping",
    "stopping": "stopping",
    "stopped": "stopping",
    "terminated": "gone",
}
"""From EC2's word to ours. We never stop a machine; one that somebody else has stopped still costs
its disk, so it is not gone."""

_PAGE = 1000
"""The most that EC2 gives in one answer."""


class Zones:
    """The zones of each region, read once: their ids by the names that this account has for
    them."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._lock = threading.Lock()
        self._known: dict[str, Mapping[str, str]] = {}

    def of(self, region: str) -> Mapping[str, str]:
        """From name (`us-east-1a`) to id (`use1-az4`)."""
        with self._lock:
            if known := self._known.get(region):
                return known
        answer = self._clients.get("ec2", region).describe_availability_zones()
        found = {zone["ZoneName"]: zone["ZoneId"] for zone in answer["AvailabilityZones"]}
        with self._lock:
            self._known[region] = found
        return found


def find(ec2: Client, *filters: Mapping[str, Any]) -> Iterator[Instance]:
    """All instances that match, those that have ended included."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=list(filters), PaginationConfig={"PageSize": _PAGE}
    )
    for page in pages:
        yield from _instances(page)


def by_id(ec2: Client, instance_id: str) -> Instance | None:
    """One instance; None when EC2 knows none of that id (yet, or any more)."""
    from botocore.exceptions import ClientError

    try:
        answer = ec2.describe_instances(InstanceIds=[instance_id])
    except ClientError as error:
        if code_of(error) in NO_SUCH_INSTANCE:
            return None
        raise
    return next(_instances(answer), None)


def _instances(answer: Mapping[str, Any]) -> Iterator[Instance]:
    for reservation in answer["Reservations"]:
        for instance in reservation["Instances"]:
            yield {**instance, "OwnerId": reservation["OwnerId"]}


def liveliest(instances: Iterator[Instance] | Sequence[Instance]) -> Instance | None:
    """The one that exists, if any does: an earlier attempt may have ended under the same name."""
    order = ("running", "pending", "stopping", "gone")
    return min(instances, key=lambda each: order.index(state(each)), default=None)


def state(instance: Instance) -> str:
    """Our word for where an instance stands; in a state that we do not know it exists."""
    return STATES.get(instance["State"]["Name"], "running")


def identity(instance: Instance) -> Mapping[str, str]:
    """What a proof of the machine must show; the instance id is its provider id."""
    return {"account": instance["OwnerId"]}


def is_shown(instance: Instance) -> bool:
    """Whether EC2 has described it."""
    return "LaunchTime" in instance


def zone(instance: Instance, zones: Mapping[str, str]) -> str:
    """The id of its zone."""
    name = instance["Placement"]["AvailabilityZone"]
    return zones.get(name, name)


def launched_at(instance: Instance) -> datetime:
    """When it began to cost money, to the second."""
    when: datetime = instance["LaunchTime"].astimezone(UTC)
    return when


def sighting(instance: Instance, region: str, zones: Mapping[str, str]) -> Sighting:
    """An instance as the control plane sees it; its zone is the zone's id."""
    texts = labels.read(instance)
    return Sighting(
        machine_id=texts.get(labels.MACHINE, ""),
        provider_id=instance["InstanceId"],
        provider="aws",
        region=region,
        zone=zone(instance, zones),
        state=state(instance),
        fleet=texts.get(labels.FLEET, ""),
        created_at=launched_at(instance),
        end_reason=end_reason(instance),
        identity=identity(instance),
        instance_type=instance.get("InstanceType", ""),
        market=Market.SPOT if instance.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
    )
