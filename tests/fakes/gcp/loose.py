"""Disks and addresses: what may be left of a machine."""

from __future__ import annotations

from tests.fakes.gcp.cloud import Address, Disk, GcpCloud
from tests.fakes.gcp.discovery import ApiError, Json
from tests.fakes.gcp.instances import shown
from tests.fakes.gcp.listings import Call, Handler, everywhere, one
from tests.fakes.gcp.machines import ROOT, Vm, stamp


def _disks(cloud: GcpCloud, call: Call) -> list[Json]:
    now, project = cloud.settle(), call.path["project"]
    loose = [_disk_view(each) for each in cloud.disks.values() if each.project == project]
    held = [_held_disk(vm) for vm in shown(cloud, call, now) if vm.project == project]
    return [*loose, *held]


def _disk_view(disk: Disk) -> Json:
    base = f"{ROOT}projects/{disk.project}/zones/{disk.zone}"
    return {
        "kind": "compute#disk",
        "id": "5000",
        "name": disk.name,
        "status": "READY",
        "sizeGb": str(disk.size_gb),
        "type": f"{base}/diskTypes/{disk.kind}",
        "labels": dict(disk.labels),
        "zone": base,
        "selfLink": f"{base}/disks/{disk.name}",
        "creationTimestamp": stamp(disk.created_at),
    }


def _held_disk(vm: Vm) -> Json:
    params = vm.body["disks"][0].get("initializeParams", {})
    loose = Disk(
        project=vm.project,
        zone=vm.zone,
        name=vm.disk_name,
        labels=params.get("labels", {}),
        size_gb=int(params.get("diskSizeGb", 10)),
        created_at=vm.created_at,
    )
    return _disk_view(loose) | {"users": [vm.link]}


def _delete_disk(cloud: GcpCloud, call: Call) -> Json:
    cloud.heard(call.path["zone"])
    disk = one(_disks, "disk")(cloud, call)
    if disk.get("users"):
        raise ApiError(400, "resourceInUseByAnotherResource", f"{disk['name']} is already in use")
    project, zone = call.path["project"], call.path["zone"]
    del cloud.disks[project, zone, call.path["disk"]]
    place, link = f"zones/{zone}", disk["selfLink"]
    return cloud.operate(project, place, "delete", link, call.user, 0).view(cloud.clock.now())


def _addresses(cloud: GcpCloud, call: Call) -> list[Json]:
    return [
        _address_view(each)
        for each in cloud.addresses.values()
        if each.project == call.path["project"]
    ]


def _address_view(address: Address) -> Json:
    base = f"{ROOT}projects/{address.project}/regions/{address.region}"
    return {
        "kind": "compute#address",
        "id": "6000",
        "name": address.name,
        "address": "203.0.113.7",
        "addressType": "EXTERNAL",
        "status": "IN_USE" if address.in_use else "RESERVED",
        "labels": dict(address.labels),
        "region": base,
        "selfLink": f"{base}/addresses/{address.name}",
        "creationTimestamp": stamp(address.created_at),
    }


def _delete_address(cloud: GcpCloud, call: Call) -> Json:
    cloud.heard(call.path["region"])
    address = one(_addresses, "address")(cloud, call)
    project, region = call.path["project"], call.path["region"]
    if address["status"] == "IN_USE":
        raise ApiError(400, "resourceInUseByAnotherResource", f"{address['name']} is in use")
    del cloud.addresses[project, region, call.path["address"]]
    place, link = f"regions/{region}", address["selfLink"]
    return cloud.operate(project, place, "delete", link, call.user, 0).view(cloud.clock.now())


METHODS: dict[str, Handler] = {
    "disks.get": one(_disks, "disk"),
    "disks.aggregatedList": everywhere(_disks, "disks", "Disk"),
    "disks.delete": _delete_disk,
    "addresses.get": one(_addresses, "address"),
    "addresses.aggregatedList": everywhere(_addresses, "addresses", "Address"),
    "addresses.delete": _delete_address,
}
