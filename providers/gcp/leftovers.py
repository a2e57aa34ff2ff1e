"""Disks, addresses and stopped machines of ours that cost money and serve nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from control_plane.core.model import Leftover
from providers.catalog.leftovers import usd_hour
from providers.gcp import names
from providers.gcp.client import Client
from providers.gcp.errors import refusal
from providers.gcp.launch import disk_kind
from providers.gcp.listing import PROVIDER, everywhere, fleet_filter, last, status
from providers.gcp.names import moment, region_of

_STOPPED = frozenset({"TERMINATED", "STOPPED", "SUSPENDED"})
_SERVICES: Mapping[str, tuple[str, str]] = {
    "instances": ("Instances", "instance"),
    "disks": ("Disks", "disk"),
    "addresses": ("Addresses", "address"),
}


def leftovers(
    client: Client, project: str, fleet: str, regions: Sequence[str]
) -> Iterator[Leftover]:
    """All in one project. The disk of a machine that is being made may be among them for a moment,
    so mind `created_at`. Raises `ProviderError` also when a place of these regions is silent."""

    def found(service: str, word: str) -> Iterator[tuple[str, Any]]:
        listing = everywhere(client, service, word, project, fleet_filter(fleet))
        if silent := listing.silent(regions):
            raise refusal("NoAnswer", f"{', '.join(silent)} did not tell its {word}")
        yield from listing.found

    for zone, disk in found("Disks", "disks"):
        if not disk.users:
            price = usd_hour(PROVIDER, "disk", last(disk.type_), disk.size_gb)
            size = f"{disk.size_gb} GiB"
            yield _leftover(disk, fleet, f"zones/{zone}/disks", "disk", size, price)
    for region, address in found("Addresses", "addresses"):
        if status(address) != "IN_USE":
            price = usd_hour(PROVIDER, "address", address.address_type or "EXTERNAL")
            yield _leftover(address, fleet, f"regions/{region}/addresses", "address", "", price)
    for zone, instance in found("Instances", "instances"):
        if status(instance) in _STOPPED:
            kind = last(instance.machine_type)
            price = _disks_usd_hour(instance, kind)
            yield _leftover(instance, fleet, f"zones/{zone}/instances", "machine", kind, price)


def _disks_usd_hour(instance: Any, kind: str) -> Decimal | None:
    """A stopped machine costs its disks. The listing tells their size, and their kind is that of
    our launches."""
    sizes = [disk.disk_size_gb for disk in instance.disks]
    return usd_hour(PROVIDER, "disk", disk_kind(kind), sum(sizes)) if all(sizes) else None


def _leftover(
    thing: Any, fleet: str, where: str, kind: str, size: str, price: Decimal | None
) -> Leftover:
    scope, place, _ = where.split("/")
    project = thing.self_link.partition("/projects/")[2].partition("/")[0]
    zonal = scope == "zones"
    return Leftover(
        provider=PROVIDER,
        region=region_of(place) if zonal else place,
        zone=place if zonal else "",
        kind=kind,
        id=f"projects/{project}/{where}/{thing.name}",
        fleet=fleet,
        machine_id=names.text_of(dict(thing.labels).get(names.MACHINE, "")),
        created_at=moment(thing.creation_timestamp),
        size=size,
        usd_hour=price,
    )


def remove(client: Client, leftover_id: str) -> None:
    """Delete one by its full id; nothing happens when it is gone. What is in use again stays: the
    cloud refuses."""
    parts = leftover_id.split("/")
    if len(parts) != 6 or parts[0] != "projects" or parts[4] not in _SERVICES:
        raise refusal("invalid", f"{leftover_id} is not the id of something of Google Cloud's")
    service, word = _SERVICES[parts[4]]
    place = {parts[2].removesuffix("s"): parts[3]}
    name = parts[5]
    client.find(service, "delete_unary", name, project=parts[1], **place, **{word: name})
