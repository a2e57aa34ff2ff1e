"""What a launch asks Azure for: names, labels and the one body that makes machine, disk, network
interface and address together, and lets all of them go together."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

from agent_bootstrap.user_data import AZURE_BYTES_MAX
from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import LaunchRequest
from providers.azure.client import Place

GPU_IMAGE = "microsoft-dsvm:ubuntu-hpc:2204:latest"
"""NVIDIA driver, CUDA and Docker are in it."""
PLAIN_IMAGE = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest"
NETWORK_PROFILE_API = "2022-11-01"
"""The network API that Azure makes the inline interface with."""

FLEET, MACHINE, KEY = "orchctl-fleet", "orchctl-machine", "orchctl-key"
POOL, DEADLINE, VERSION = "orchctl-pool", "orchctl-deadline", "orchctl-version"
LAUNCHED = "orchctl-launched"
"""On a launch mark: when its machine was made, in epoch seconds."""

_ORDINARY_KEY = re.compile(r"[a-z0-9-]{1,40}\.[0-9]{1,4}")
_OWNED = re.compile(r"(orchctl-[0-9a-f]{6}-.+?)-(?:os|nic|ip)(?:[-_].*)?")
_DEFAULT_SUBNET = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Network"
    "/virtualNetworks/orchctl-{region}/subnets/default"
)


def fleet_prefix(fleet: str) -> str:
    """What the names of all resources of a fleet begin with. Azure labels no disk, so a leftover
    one can be told by its name alone."""
    return f"orchctl-{hashlib.sha256(fleet.encode()).hexdigest()[:6]}-"


def vm_name(fleet: str, key: str) -> str:
    """The name of a launch: the same for the same key, at most 64 characters, which is what Azure
    takes as a host name too."""
    ordinary = _ORDINARY_KEY.fullmatch(key)
    return fleet_prefix(fleet) + (
        key.replace(".", "-") if ordinary else hashlib.sha256(key.encode()).hexdigest()[:40]
    )


def machine_of(name: str) -> str:
    """The machine id in the name of a virtual machine; empty when the key was not ordinary."""
    key = name.split("-", 2)[-1]
    machine, _, attempt = key.rpartition("-")
    return machine if attempt.isdecimal() else ""


def owner_of(name: str) -> str:
    """The virtual machine that a disk, interface or address was made with; empty = not ours."""
    found = _OWNED.fullmatch(name)
    return found.group(1) if found else ""


def labels(request: LaunchRequest) -> dict[str, str]:
    """What machine, interface and address are labelled with. There is no life limit in Azure: it
    is the controller that keeps the deadline."""
    return {
        FLEET: request.boot.fleet,
        MACHINE: request.machine_id,
        KEY: request.key,
        POOL: request.boot.pool,
        DEADLINE: str(int(request.deadline.timestamp())),
        VERSION: request.boot.agent_sha256[:12],
    }


def is_of(tags: Mapping[str, str], request: LaunchRequest) -> bool:
    """Whether a virtual machine is the one of this request."""
    return (tags.get(FLEET), tags.get(KEY)) == (request.boot.fleet, request.key)


def vm_body(request: LaunchRequest, place: Place, startup: str) -> dict[str, Any]:
    """The body of the one PUT. Raises `ProviderError` when the start-up text is too long."""
    name = vm_name(request.boot.fleet, request.key)
    body: dict[str, Any] = {
        "location": request.offer.region,
        "tags": labels(request),
        "properties": {
            "hardwareProfile": {"vmSize": request.offer.instance_type},
            "storageProfile": _storage(request, name),
            "osProfile": _system(name, startup),
            "networkProfile": _network(request, place, name),
            **_market(request.offer.market),
        },
    }
    if request.offer.zone:
        body["zones"] = [request.offer.zone]
    if identity := request.cloud.options.get("identity"):
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
    return body


# ------------------------------------------------------------------------------------ inside


def _market(market: Market) -> dict[str, Any]:
    """Spot: deleted, not stopped, when it is taken back; never taken back for its price."""
    if market is Market.ON_DEMAND:
        return {}
    return {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}


def _storage(request: LaunchRequest, name: str) -> dict[str, Any]:
    default = GPU_IMAGE if request.offer.capacity.gpus else PLAIN_IMAGE
    return {
        "imageReference": _image(request.cloud.options.get("image") or default),
        "osDisk": {
            "name": f"{name}-os",
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "diskSizeGB": request.disk_gib,
            "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
        },
    }


def _image(text: str) -> dict[str, str]:
    """`publisher:offer:sku:version`, or the resource id of an image."""
    parts = text.split(":")
    if len(parts) == 4:
        return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))
    return {"id": text}


def _system(name: str, startup: str) -> dict[str, Any]:
    text = startup.encode()
    if len(text) > AZURE_BYTES_MAX:
        raise ProviderError(
            f"the start-up text has {len(text)} bytes; Azure takes {AZURE_BYTES_MAX}",
            error_class=ErrorClass.INVALID,
            raw_code="CustomDataTooLong",
        )
    user = "orchctl"
    key = {"path": f"/home/{user}/.ssh/authorized_keys", "keyData": _nobodys_key()}
    return {
        "computerName": name,
        "adminUsername": user,
        "customData": base64.b64encode(text).decode(),
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {"publicKeys": [key]},
        },
    }


def _nobodys_key() -> str:
    """Azure asks for a login. This Ed25519 public key is a hash, so nobody has its private half."""
    parts = b"ssh-ed25519", hashlib.sha256(b"orchctl: nobody logs in").digest()
    wire = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ssh-ed25519 {base64.b64encode(wire).decode()} nobody"


def _network(request: LaunchRequest, place: Place, name: str) -> dict[str, Any]:
    options, tags = request.cloud.options, labels(request)
    region = request.offer.region
    inside: dict[str, Any] = {"subnet": {"id": resource(options, place, region, "subnet")}}
    if options.get("public_ip", "true") == "true":
        # Standard: closed from outside unless a security group opens it.
        inside["publicIPAddressConfiguration"] = {
            "name": f"{name}-ip",
            "tags": tags,
            "sku": {"name": "Standard"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    interface: dict[str, Any] = {
        "primary": True,
        "deleteOption": "Delete",
        "ipConfigurations": [{"name": f"{name}-ipconfig", "properties": inside}],
    }
    if options.get("network_security_group"):
        group = resource(options, place, region, "network_security_group")
        interface["networkSecurityGroup"] = {"id": group}
    return {
        "networkApiVersion": NETWORK_PROFILE_API,
        "networkInterfaceConfigurations": [
            {"name": f"{name}-nic", "tags": tags, "properties": interface}
        ],
    }


def resource(options: Mapping[str, str], place: Place, region: str, option: str) -> str:
    """A resource id of the document, with the region filled in; without a subnet, the one that
    `orchctl-REGION/default` names in the machines' own group."""
    written = options.get(option) or _DEFAULT_SUBNET
    filled = written.replace("{region}", region)
    return filled.replace("{subscription}", place.subscription).replace("{group}", place.group)
