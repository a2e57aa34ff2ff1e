"""What `instances.insert` refuses beyond the schema, as the real API does."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from tests.fakes.gcp.discovery import ApiError, Json, invalid
from tests.fakes.gcp.stock import HYPERDISK_ONLY, SPOT_ONLY, Kind, region_of

_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_IMAGE = re.compile(r"(.*/)?projects/[^/]+/global/images/(family/)?[a-z][-a-z0-9]*")
_METADATA_VALUE, _METADATA_ALL = 262_144, 512 * 1024
_SHORTEST, _LONGEST = timedelta(seconds=30), timedelta(days=120)


def check_request_id(text: str) -> None:
    """A request id is a UUID other than zero."""
    try:
        valid = uuid.UUID(text).int != 0
    except ValueError:
        valid = False
    if not valid:
        raise invalid("requestId", text, "It must be a valid UUID other than zero.")


def check_insert(
    body: Json, zone: str, kinds: Mapping[str, Kind], added: frozenset[str], now: datetime
) -> None:
    """Raise 400 or 404 for an instance that cannot be made in this zone."""
    kind = _kind(body, zone, kinds)
    _check_accelerators(body, kind, added)
    _check_disks(body, kind)
    _check_network(body, zone)
    _check_labels(body.get("labels", {}))
    _check_labels(body["disks"][0].get("initializeParams", {}).get("labels", {}))
    _check_metadata(body)
    _check_accounts(body)
    _check_scheduling(body, kind, now)


def _kind(body: Json, zone: str, kinds: Mapping[str, Kind]) -> Kind:
    link = body.get("machineType", "")
    found = re.fullmatch(r"(?:.*/)?zones/([^/]+)/machineTypes/([^/]+)", link)
    if found is None or found[1] != zone:
        raise invalid("resource.machineType", link, "It must be a URL in the instance's zone.")
    if found[2] not in kinds:
        why = f"Machine type with name '{found[2]}' does not exist in zone '{zone}'."
        raise invalid("resource.machineType", link, why)
    return kinds[found[2]]


def _check_accelerators(body: Json, kind: Kind, added: frozenset[str]) -> None:
    asked = body.get("guestAccelerators", [])
    if asked and not kind.name.startswith("n1-"):
        raise invalid("resource.guestAccelerators", asked, f"{kind.name} has its GPUs already.")
    for each in asked:
        name = each["acceleratorType"].rpartition("/")[2]
        if name not in added:
            raise ApiError(404, "notFound", f"The resource acceleratorTypes/{name} was not found")
        if each.get("acceleratorCount") not in (1, 2, 4, 8):
            raise invalid("resource.guestAccelerators", each, "The count is not supported.")


def _check_disks(body: Json, kind: Kind) -> None:
    disks = body.get("disks", [])
    if len(disks) != 1 or not disks[0].get("boot"):
        raise invalid("resource.disks", disks, "This fake knows one boot disk.")
    asked = disks[0].get("initializeParams", {})
    if not _IMAGE.fullmatch(asked.get("sourceImage", "")):
        raise invalid("resource.disks[0].initializeParams.sourceImage", asked, "Not an image URL.")
    if int(asked.get("diskSizeGb", "10")) < 10:
        raise invalid("resource.disks[0].initializeParams.diskSizeGb", asked, "Too small.")
    disk_type = asked.get("diskType", "pd-standard").rpartition("/")[2]
    if kind.name.startswith(HYPERDISK_ONLY) and not disk_type.startswith("hyperdisk-"):
        why = f"[{disk_type}] features are not compatible for creating instance."
        raise ApiError(400, "badRequest", why)


def _check_network(body: Json, zone: str) -> None:
    interfaces = body.get("networkInterfaces", [])
    if not interfaces:
        raise invalid("resource.networkInterfaces", "[]", "At least one is required.")
    for each in interfaces:
        subnet = re.search(r"regions/([^/]+)/subnetworks/", each.get("subnetwork", ""))
        if subnet and subnet[1] != region_of(zone):
            raise invalid("resource.networkInterfaces", each, "The subnetwork is elsewhere.")
        if not subnet and not re.search(r"global/networks/[a-z]", each.get("network", "")):
            raise invalid("resource.networkInterfaces", each, "No network is named.")


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise invalid("resource.labels", len(labels), "At most 64 labels.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise invalid("resource.labels", f"{key}={value}", "Not a label.")


def _check_metadata(body: Json) -> None:
    items = body.get("metadata", {}).get("items", [])
    if len({each["key"] for each in items}) < len(items):
        raise invalid("resource.metadata", "items", "Metadata has duplicate keys.")
    sizes = [len(each["value"].encode()) for each in items]
    if any(size > _METADATA_VALUE for size in sizes) or sum(sizes) > _METADATA_ALL:
        raise invalid("resource.metadata", max(sizes), "Value is too large.")


def _check_accounts(body: Json) -> None:
    accounts = body.get("serviceAccounts", [])
    if len(accounts) > 1 or any(not each.get("scopes") for each in accounts):
        raise invalid("resource.serviceAccounts", accounts, "One account, with scopes.")
    for each in accounts:
        if each["email"] != "default" and "@" not in each["email"]:
            raise invalid("resource.serviceAccounts[0].email", each["email"], "Not an account.")


def _check_scheduling(body: Json, kind: Kind, now: datetime) -> None:
    scheduling = body.get("scheduling", {})
    spot = scheduling.get("provisioningModel") == "SPOT"
    gpus = kind.accelerators or body.get("guestAccelerators")
    if kind.name.startswith(SPOT_ONLY) and not spot:
        raise ApiError(400, "invalid", f"{kind.name} cannot be used with STANDARD provisioning.")
    if (gpus or spot) and scheduling.get("onHostMaintenance") != "TERMINATE":
        why = "Instances with guest accelerators do not support live migration."
        raise ApiError(400, "badRequest", why)
    if spot and scheduling.get("automaticRestart", True):
        raise invalid("resource.scheduling", "automaticRestart", "Spot VMs cannot restart.")
    limited = "terminationTime" in scheduling or "maxRunDuration" in scheduling
    if "instanceTerminationAction" in scheduling and not (spot or limited):
        raise invalid("resource.scheduling", "instanceTerminationAction", "Nothing to act on.")
    _check_limit(scheduling, now)


def _check_limit(scheduling: Json, now: datetime) -> None:
    if "terminationTime" in scheduling and "maxRunDuration" in scheduling:
        raise invalid("resource.scheduling", "both limits", "Only one of them.")
    if "terminationTime" in scheduling:
        span = datetime.fromisoformat(scheduling["terminationTime"]) - now
    elif "maxRunDuration" in scheduling:
        span = timedelta(seconds=int(scheduling["maxRunDuration"]["seconds"]))
    else:
        return
    if not _SHORTEST <= span <= _LONGEST:
        raise invalid("resource.scheduling", span, "Between 30 seconds and 120 days.")
