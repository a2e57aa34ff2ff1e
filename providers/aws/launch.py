"""What one RunInstances call says, and where its image and subnet come from. What it has in common
with a launch template is here too.

Idempotency ("Ensuring idempotency in Amazon EC2 API requests"): EC2 keeps a token for each Region,
or for each zone where the call names a subnet. So a call for a zone always names a subnet of that
zone, and one for a whole region names none unless the settings ask for it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

from control_plane.core.model import Market, Offer
from control_plane.ports import LaunchRequest
from providers.aws import labels
from providers.aws.client import Clients
from providers.aws.errors import refusal
from providers.aws.listing import launched_at

DEFAULT_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64"
    "/base-{driver}-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
"""Public SSM parameter of the Deep Learning Base image: driver, CUDA, Docker and container toolkit
("Find the ID of a DLAMI")."""
_CLOSED_DRIVER = "V100"
"""GPUs of this name, of any memory, are not driven by the open kernel module."""

_REPLAY_AGE = timedelta(minutes=1)
_IMAGE_KEPT_S = 3600.0
_SUBNETS_KEPT_S = 600.0

T = TypeVar("T")

INSTANCE_PROFILE = "orchctl-machine"
"""The instance profile of machines whose document names none: without one they could not prove who
they are."""


def client_token(request: LaunchRequest, call: str = "") -> str:
    """The idempotency token of a launch key: 64 characters, the most that EC2 takes. The fleet is
    in it, so two installations in one account never share one; calls of another kind have tokens
    of their own."""
    text = "\n".join((request.boot.fleet, request.key, *filter(None, [call])))
    return hashlib.sha256(text.encode()).hexdigest()


def is_replay(answer: Mapping[str, Any]) -> bool:
    """Whether an answer may repeat that of an earlier call: then it shows the instance as it was.
    Both times are those of AWS."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(date) - launched_at(answer["Instances"][0]) > _REPLAY_AGE
    except (TypeError, ValueError):
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a machine starts from."""

    id: str
    root_device: str
    size_gib: int
    """The root disk cannot be smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """Where a machine's network interface is."""

    id: str
    zone: str
    """The id of its zone."""


class Kept(Generic[T]):
    """Answers that change rarely, remembered for a while."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._found: dict[tuple[str, ...], tuple[float, T]] = {}

    def get(self, key: tuple[str, ...], ask: Callable[[], T]) -> T:
        """The answer for a key, asked for when there is none or it is old."""
        with self._lock:
            found = self._found.get(key)
        if found and time.monotonic() - found[0] < self._keep_s:
            return found[1]
        fresh = ask()
        with self._lock:
            self._found[key] = (time.monotonic(), fresh)
        return fresh


class Places:
    """Images, subnets and security groups of each region."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._images: Kept[Image] = Kept(_IMAGE_KEPT_S)
        self._subnets: Kept[Sequence[Subnet]] = Kept(_SUBNETS_KEPT_S)
        self._sold: Kept[frozenset[str]] = Kept(_SUBNETS_KEPT_S)
        self._groups: Kept[Sequence[str]] = Kept(_SUBNETS_KEPT_S)

    def image(self, request: LaunchRequest) -> Image:
        """The image of the settings, an id or an SSM parameter, or else one with drivers."""
        gpu, region = request.offer.capacity.gpu_name, request.offer.region
        driver = "proprietary" if gpu.startswith(_CLOSED_DRIVER) else "oss"
        name = request.cloud.options.get("image") or DEFAULT_IMAGE.format(driver=driver)
        return self._images.get((region, name), lambda: self._ask_image(region, name))

    def subnet(self, request: LaunchRequest, token: str) -> str:
        """The subnet to name; empty = AWS takes a default one, in a zone that has the type."""
        offer, options = request.offer, request.cloud.options
        if not (offer.zone or options.get("subnets") or options.get("public_ip")):
            return ""
        wanted = listed(options, "subnets")
        key = (offer.region, *wanted)
        subnets = self._subnets.get(key, lambda: self._ask_subnets(offer.region, wanted))
        fitting = [each.id for each in subnets if self._fits(each, offer)]
        if not fitting:
            place = offer.zone or offer.region
            raise refusal("InvalidSubnetID.NotFound", f"no subnet in {place} may be used")
        # The same key takes the same one; others spread.
        return fitting[int(token, 16) % len(fitting)]

    def groups(self, request: LaunchRequest) -> Sequence[str]:
        """The security groups of the settings that are in this region; none = the VPC's own."""
        region, wanted = request.offer.region, listed(request.cloud.options, "security_groups")
        if not wanted:
            return ()
        found = self._groups.get((region, *wanted), lambda: self._ask_groups(region, wanted))
        if not found:
            raise refusal("InvalidGroup.NotFound", f"none of {', '.join(wanted)} is in {region}")
        return found

    def _fits(self, subnet: Subnet, offer: Offer) -> bool:
        if offer.zone:
            return subnet.zone == offer.zone
        return subnet.zone in self._sold.get(
            (offer.region, offer.instance_type), lambda: self._ask_zones(offer)
        )

    def _ask_image(self, region: str, name: str) -> Image:
        image_id = name
        if not name.startswith("ami-"):
            ssm = self._clients.get("ssm", region)
            image_id = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        found = self._clients.get("ec2", region).describe_images(ImageIds=[image_id])["Images"]
        if not found:
            raise refusal("InvalidAMIID.NotFound", f"there is no image {image_id} in {region}")
        return _image(found[0])

    def _ask_subnets(self, region: str, wanted: Sequence[str]) -> Sequence[Subnet]:
        only = {"Name": "subnet-id", "Values": list(wanted)}
        default = {"Name": "default-for-az", "Values": ["true"]}
        pages = (
            self._clients.get("ec2", region)
            .get_paginator("describe_subnets")
            .paginate(Filters=[only if wanted else default])
        )
        found = [_subnet(each) for page in pages for each in page["Subnets"]]
        return sorted(found, key=lambda each: each.id)

    def _ask_groups(self, region: str, wanted: Sequence[str]) -> Sequence[str]:
        only = {"Name": "group-id", "Values": list(wanted)}
        answer = self._clients.get("ec2", region).describe_security_groups(Filters=[only])
        return sorted(each["GroupId"] for each in answer["SecurityGroups"])

    def _ask_zones(self, offer: Offer) -> frozenset[str]:
        answer = self._clients.get("ec2", offer.region).describe_instance_type_offerings(
            LocationType="availability-zone-id",
            Filters=[{"Name": "instance-type", "Values": [offer.instance_type]}],
        )
        return frozenset(each["Location"] for each in answer["InstanceTypeOfferings"])


def _image(found: Mapping[str, Any]) -> Image:
    root = found["RootDeviceName"]
    disks = {each["DeviceName"]: each.get("Ebs", {}) for each in found["BlockDeviceMappings"]}
    size_gib = disks.get(root, {}).get("VolumeSize", 0)
    return Image(id=found["ImageId"], root_device=root, size_gib=size_gib)


def _subnet(found: Mapping[str, Any]) -> Subnet:
    return Subnet(id=found["SubnetId"], zone=found["AvailabilityZoneId"])


def listed(options: Mapping[str, str], name: str) -> list[str]:
    """An option that is a list."""
    return [each.strip() for each in options.get(name, "").split(",") if each.strip()]


def parameters(
    request: LaunchRequest,
    *,
    token: str,
    image: Image,
    subnet: str,
    groups: Sequence[str],
    user_data: str,
) -> Mapping[str, Any]:
    """The RunInstances call: one machine that takes all it has with it when it ends."""
    kinds = ["instance", "volume", "network-interface"]
    if request.offer.market is Market.SPOT:
        kinds.append("spot-instances-request")
    return {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "InstanceType": request.offer.instance_type,
        "UserData": user_data,
        "TagSpecifications": tagged(request, *kinds),
        **machine(request, image=image, subnet=subnet, groups=groups),
        **_market(request.offer),
    }


def machine(
    request: LaunchRequest, *, image: Image, subnet: str, groups: Sequence[str]
) -> dict[str, Any]:
    """What a call and a launch template say in the same words."""
    disk = {
        "DeleteOnTermination": True,
        "VolumeSize": max(request.disk_gib, image.size_gib),
        "VolumeType": "gp3",
    }
    return {
        "ImageId": image.id,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "BlockDeviceMappings": [{"DeviceName": image.root_device, "Ebs": disk}],
        # One hop: a container on the machine cannot speak for it.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        **_network(request.cloud.options, subnet, groups),
        **_identity(request.cloud.options),
    }


def tagged(request: LaunchRequest, *kinds: str) -> list[Mapping[str, Any]]:
    """The tags of a machine, for all of these kinds that its launch makes."""
    return [{"ResourceType": kind, "Tags": labels.tags(request)} for kind in kinds]


def _network(options: Mapping[str, str], subnet: str, groups: Sequence[str]) -> Mapping[str, Any]:
    place = {"SubnetId": subnet} if subnet else {}
    if "public_ip" not in options:
        return {**place, **({"SecurityGroupIds": [*groups]} if groups else {})}
    card = {
        "DeviceIndex": 0,
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": options["public_ip"] == "true",
        **place,
        **({"Groups": [*groups]} if groups else {}),
    }
    return {"NetworkInterfaces": [card]}


def _identity(options: Mapping[str, str]) -> Mapping[str, Any]:
    profile = options.get("instance_profile", INSTANCE_PROFILE)
    return {"IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile}}


def _market(offer: Offer) -> Mapping[str, Any]:
    """Spot without a price of our own: a maximum below the on-demand price only brings more
    interruptions."""
    if offer.market is not Market.SPOT:
        return {}
    terms = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": terms}}
