"""One CreateFleet call: a spot machine of whichever of several offers EC2 has most of.

A fleet of the type `instant` answers at once, with the machine or with what stood in the way of
each offer, and is nothing but a record afterwards. All but type and subnet is in a launch template,
one for each content, not for each machine: its start-up text names no machine, which finds its id
among its own tags. Sources: "CreateFleet" and "CreateLaunchTemplate" in the EC2 API reference, "EC2
Fleet limitations" and "View tags for your EC2 instances using instance metadata" in the user guide.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.core.model import ErrorClass, Leftover, Market, Offer
from control_plane.errors import ProviderError
from control_plane.ports import LaunchRequest
from providers.aws import labels, launch
from providers.aws.client import Client
from providers.aws.errors import code_of, refusal
from providers.catalog.leftovers import usd_hour

DENIED = frozenset({"UnauthorizedOperation", "AccessDenied"})
"""Without the right to buy so, a machine can still be bought by RunInstances."""
TEMPLATE_KEPT = timedelta(days=1)
"""A launch template that was not used for so long is not needed."""

_NO_TEMPLATE = "InvalidLaunchTemplate"
"""What the codes of one that is gone begin with."""
_TEMPLATE_EXISTS = "InvalidLaunchTemplateName.AlreadyExistsException"
_OFFERS_MAX = 300
"""Of one fleet."""
_TAGGED_HERE = ("network-interface", "spot-instances-request")

Override = Mapping[str, str]
"""Type and subnet of one offer."""


def serves(request: LaunchRequest) -> bool:
    """Whether a fleet does better than a call for one offer. It depends on the request alone: a
    repeat that changed from one kind of call to the other could make a second machine."""
    return bool(request.alternatives) and request.offer.market is Market.SPOT


def choices(request: LaunchRequest) -> Sequence[Offer]:
    """All that one call may buy, what was asked for first."""
    return (request.offer, *request.alternatives)[:_OFFERS_MAX]


def bought(request: LaunchRequest, instance_type: str, zone: str) -> Offer | None:
    """Which alternative a machine is; None when it is what was asked for, or none of them."""
    found = (
        offer
        for offer in choices(request)
        if offer.instance_type == instance_type and offer.zone in ("", zone)
    )
    offer = next(found, request.offer)
    return None if offer == request.offer else offer


def template(
    request: LaunchRequest, *, image: launch.Image, groups: Sequence[str], user_data: str
) -> Mapping[str, Any]:
    """The content of a launch template: nothing of it differs from machine to machine."""
    machine = launch.machine(request, image=image, subnet="", groups=groups)
    shared = labels.shared_tags(request.boot.fleet)
    return {
        **machine,
        "MetadataOptions": {**machine["MetadataOptions"], "InstanceMetadataTags": "enabled"},
        "UserData": base64.b64encode(user_data.encode()).decode(),
        # What CreateFleet itself puts no tags on.
        "TagSpecifications": [{"ResourceType": kind, "Tags": shared} for kind in _TAGGED_HERE],
    }


def nameless(request: LaunchRequest) -> LaunchRequest:
    """The request as a text for any machine of its kind is rendered from it."""
    return replace(request, machine_id="", boot=replace(request.boot, machine_id=""))


def parameters(
    request: LaunchRequest, *, token: str, overrides: Mapping[str, Sequence[Override]]
) -> Mapping[str, Any]:
    """The CreateFleet call for one machine; `overrides` by the name of their launch template."""
    return {
        "Type": "instant",
        "ClientToken": token,
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": "spot",
        },
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
        },
        "LaunchTemplateConfigs": [
            {
                # The first version, which nobody can change.
                "LaunchTemplateSpecification": {"LaunchTemplateName": name, "Version": "1"},
                "Overrides": list(pools),
            }
            for name, pools in overrides.items()
        ],
        "TagSpecifications": launch.tagged(request, "instance", "volume", "fleet"),
    }


def instance_id(answer: Mapping[str, Any]) -> str:
    """The machine of an answer, also of one that has errors beside it; empty when there is none."""
    found = (each for group in answer.get("Instances", ()) for each in group["InstanceIds"])
    return str(next(found, ""))


def refused(request: LaunchRequest, own: Override, answer: Mapping[str, Any]) -> ProviderError:
    """What an answer without a machine means for the offer that was asked for, whose override is
    `own`.

    It is clear that nothing was made, and a repeat with the same token would be told the same: so
    what would otherwise call for a repeat is taken for a lack. Where its type was tried in other
    zones too, the lack is one of the region."""
    errors: Sequence[Mapping[str, Any]] = answer.get("Errors", ())
    said = next((each for each in errors if _is_of(each, own)), {})
    tried = [each for each in choices(request) if each.instance_type == own["InstanceType"]]
    counted = Counter(str(each.get("ErrorCode", "")) for each in errors)
    others = ", ".join(f"{code} ({count})" for code, count in sorted(counted.items()))
    error = refusal(
        str(said.get("ErrorCode") or "UnfulfillableCapacity"),
        f"CreateFleet: {said.get('ErrorMessage', 'no machine')}; in all: {others or 'no reason'}",
        whole_region=len(tried) > 1,
    )
    if not error.known or error.error_class not in (ErrorClass.TRANSIENT, ErrorClass.THROTTLE):
        return error
    return refusal(error.raw_code, str(error), means=ErrorClass.CAPACITY_ZONE)


def _is_of(error: Mapping[str, Any], own: Override) -> bool:
    said = error.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    return all(said.get(name, value) == value for name, value in own.items())


def is_denied(error: ProviderError) -> bool:
    """Whether a refusal says that fleets or templates may not be made; then nothing was."""
    return error.raw_code in DENIED


def lacks_template(error: ProviderError) -> bool:
    """Whether somebody has removed a launch template."""
    return error.raw_code.startswith(_NO_TEMPLATE)


class Templates:
    """Launch templates, each made when it is needed first. Any number of threads may ask."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._used: dict[tuple[str, str], datetime] = {}
        """When each was used last, by region and name."""

    def name(self, ec2: Client, region: str, fleet: str, data: Mapping[str, Any]) -> str:
        """The template of this content, which is there when this returns."""
        text = json.dumps([fleet, data], sort_keys=True)
        name = f"orchctl-{hashlib.sha256(text.encode()).hexdigest()}"
        with self._lock:
            known = (region, name) in self._used
        if not known:
            _make(ec2, name, fleet, data)
        with self._lock:
            self._used[region, name] = self._now()
        return name

    def forget(self, region: str) -> None:
        """Some of a region are not there any more: look after all of them again."""
        with self._lock:
            self._used = {key: at for key, at in self._used.items() if key[0] != region}

    def unused(self, ec2: Client, fleet: str, region: str) -> Iterator[Leftover]:
        """A fleet's templates that are old and that nobody here has used for long."""
        since = self._now() - TEMPLATE_KEPT
        with self._lock:
            used = {key for key, at in self._used.items() if at > since}
        pages = ec2.get_paginator("describe_launch_templates").paginate(
            Filters=[labels.fleet_filter(fleet)]
        )
        for found in (each for page in pages for each in page["LaunchTemplates"]):
            made = found["CreateTime"].astimezone(UTC)
            if made <= since and (region, found["LaunchTemplateName"]) not in used:
                yield _leftover(found, fleet, region, made)


def _leftover(found: Mapping[str, Any], fleet: str, region: str, made: datetime) -> Leftover:
    return Leftover(
        provider="aws",
        region=region,
        zone="",
        kind="launch-template",
        id=found["LaunchTemplateId"],
        fleet=fleet,
        machine_id="",
        created_at=made,
        usd_hour=usd_hour("aws", "launch-template"),
    )


def _make(ec2: Client, name: str, fleet: str, data: Mapping[str, Any]) -> None:
    from botocore.exceptions import ClientError

    tags = {"ResourceType": "launch-template", "Tags": labels.shared_tags(fleet)}
    try:
        ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=[tags]
        )
    except ClientError as error:
        if code_of(error) != _TEMPLATE_EXISTS:
            raise
