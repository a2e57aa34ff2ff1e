"""What the real API refuses in the body of a machine, beyond its schema."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

_VM_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
_SSH_KEY = re.compile(r"(ssh-rsa|ssh-ed25519) ([A-Za-z0-9+/]+=*)( .*)?")
_TAG_NAME = re.compile(r"[^<>%&\\?/]{1,512}")
_CUSTOM_DATA_BYTES = 65_535


def wrong_values(name: str, body: Mapping[str, Any]) -> str:
    """What is wrong with the values of a machine's PUT; empty = nothing."""
    return next(_wrong(name, body), "")


def _wrong(name: str, body: Mapping[str, Any]) -> Iterator[str]:
    properties = body["properties"]
    if not _VM_NAME.fullmatch(name):
        yield f"vmName {name!r} is not valid"
    yield from _wrong_tags("", body.get("tags") or {})
    yield from _wrong_system(properties["osProfile"])
    yield from _wrong_market(properties)
    yield from _wrong_network(properties["networkProfile"])
    disk = properties["storageProfile"]["osDisk"]
    if not _NAME.fullmatch(disk.get("name", "os")):
        yield f"disk name {disk['name']!r} is not valid"
    if not 30 <= disk.get("diskSizeGB", 30) <= 4095:
        yield "osDisk.diskSizeGB is out of range"
    if any(zone not in ("1", "2", "3") for zone in body.get("zones") or ()):
        yield "zones: no such zone"


def _wrong_tags(where: str, tags: Mapping[str, str]) -> Iterator[str]:
    if len(tags) > 50:
        yield f"{where}tags: more than 50"
    for name, value in tags.items():
        if not _TAG_NAME.fullmatch(name) or len(value) > 256:
            yield f"{where}tags: {name!r} is not valid"


def _wrong_system(profile: Mapping[str, Any]) -> Iterator[str]:
    if not HOST_NAME.fullmatch(profile.get("computerName", "")):
        yield "osProfile.computerName is not valid"
    if not profile.get("adminUsername"):
        yield "osProfile.adminUsername is missing"
    try:
        if len(base64.b64decode(profile.get("customData", ""), validate=True)) > _CUSTOM_DATA_BYTES:
            yield "osProfile.customData is too long"
    except binascii.Error:
        yield "osProfile.customData is not base64"
    linux = profile.get("linuxConfiguration", {})
    keys = linux.get("ssh", {}).get("publicKeys", [])
    if not keys and not profile.get("adminPassword"):
        yield "osProfile.linuxConfiguration: neither an SSH key nor a password"
    for key in keys:
        if not _SSH_KEY.fullmatch(key.get("keyData", "")):
            yield "osProfile.linuxConfiguration.ssh: keyData is no public key"
        if key.get("path") != f"/home/{profile.get('adminUsername')}/.ssh/authorized_keys":
            yield "osProfile.linuxConfiguration.ssh: path is not the user's"


def _wrong_market(properties: Mapping[str, Any]) -> Iterator[str]:
    spot = properties.get("priority") == "Spot"
    if not spot and ("evictionPolicy" in properties or "billingProfile" in properties):
        yield "evictionPolicy and billingProfile are for priority Spot only"
    if properties.get("evictionPolicy", "Delete") not in ("Delete", "Deallocate"):
        yield "evictionPolicy is not valid"


def _wrong_network(profile: Mapping[str, Any]) -> Iterator[str]:
    interfaces = profile.get("networkInterfaceConfigurations", [])
    if interfaces and "networkApiVersion" not in profile:
        yield "networkProfile.networkApiVersion is missing"
    if not interfaces and not profile.get("networkInterfaces"):
        yield "networkProfile: no network interface"
    for interface in interfaces:
        yield from _wrong_tags("interface: ", interface.get("tags") or {})
        if not _NAME.fullmatch(interface["name"]):
            yield "networkProfile: the interface's name is not valid"
        for inside in interface["properties"]["ipConfigurations"]:
            address = inside["properties"].get("publicIPAddressConfiguration")
            if address and not _NAME.fullmatch(address["name"]):
                yield "networkProfile: the address's name is not valid"
            if "subnet" not in inside["properties"]:
                yield "networkProfile: an IP configuration has no subnet"
