"""One virtual machine of the fake: its life as a set of times, and how the API shows it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from control_plane.core.model import Market


@dataclass(slots=True, kw_only=True)
class Part:
    """A disk, a network interface or a public address."""

    kind: str
    """`disks`, `networkInterfaces` or `publicIPAddresses`."""
    name: str
    location: str
    tags: Mapping[str, str]
    created_at: datetime
    owner: str
    """Id of the machine, or name of the interface, it is attached to; empty = none."""
    goes_along: bool
    """`deleteOption: Delete`."""
    size_gib: int = 0
    sku: str = ""


@dataclass(slots=True, kw_only=True)
class Vm:
    """A machine from its PUT to its end."""

    id: str
    name: str
    number: int
    body: dict[str, Any]
    created_at: datetime
    ready_at: datetime
    error: Mapping[str, Any] | None = None
    """Why it never came up: an ARM error, told when it was to be ready."""
    taken_at: datetime | None = None
    """When the cloud takes it back."""
    power: str = ""
    """`stopped` or `deallocated`, once it is."""
    gone_at: datetime | None = None
    """When its deletion is through."""
    parts: list[Part] = field(default_factory=list)

    @property
    def location(self) -> str:
        return str(self.body["location"])

    @property
    def zone(self) -> str:
        return str((self.body.get("zones") or [""])[0])

    @property
    def size(self) -> str:
        return str(self.body["properties"]["hardwareProfile"]["vmSize"])

    @property
    def market(self) -> Market:
        spot = self.body["properties"].get("priority") == "Spot"
        return Market.SPOT if spot else Market.ON_DEMAND

    @property
    def tags(self) -> Mapping[str, str]:
        return dict(self.body.get("tags") or {})

    @property
    def startup(self) -> str:
        """What it runs first."""
        return base64.b64decode(self.body["properties"]["osProfile"]["customData"]).decode()

    def provisioning(self, now: datetime) -> str:
        """`Creating`, `Succeeded`, `Failed` or `Deleting`."""
        if self.gone_at is not None:
            return "Deleting"
        if now < self.ready_at:
            return "Creating"
        return "Failed" if self.error else "Succeeded"

    def failed(self, now: datetime) -> bool:
        """Whether it could not be made."""
        return self.error is not None and now >= self.ready_at

    def holds_capacity(self, now: datetime) -> bool:
        """Whether it takes room, and costs money."""
        return not self.failed(now) and self.power != "deallocated"

    def power_state(self, now: datetime) -> str:
        if self.power:
            return self.power
        state = self.provisioning(now)
        return {"Creating": "starting", "Failed": "", "Deleting": "stopping"}.get(state, "running")

    def shown(self, now: datetime, *, view: bool = False, shouting: bool = False) -> dict[str, Any]:
        """As GET shows it; listings write the resource group in capital letters."""
        properties = deepcopy(self.body["properties"])
        properties["osProfile"].pop("customData", None)
        properties |= {
            "vmId": f"00000000-0000-4000-8000-{self.number:012x}",
            "provisioningState": self.provisioning(now),
            "timeCreated": self.created_at.isoformat().replace("+00:00", "Z"),
        }
        properties["networkProfile"] = {
            "networkInterfaces": [
                {"id": _id_of(self.id, part), "properties": {"primary": True}}
                for part in self.parts
                if part.kind == "networkInterfaces"
            ]
        }
        if view:
            properties["instanceView"] = self.view(now)
        return {
            **{key: value for key, value in self.body.items() if key != "properties"},
            "id": _shouted(self.id) if shouting else self.id,
            "name": self.name,
            "type": "Microsoft.Compute/virtualMachines",
            "properties": properties,
        }

    def status(self, now: datetime) -> dict[str, Any]:
        """As the listing of power states shows it: no labels, no properties to speak of."""
        return {
            "id": _shouted(self.id),
            "name": self.name,
            "location": self.location,
            "type": "Microsoft.Compute/virtualMachines",
            "properties": {
                "provisioningState": self.provisioning(now),
                "instanceView": {"statuses": self.view(now)["statuses"]},
            },
        }

    def view(self, now: datetime) -> dict[str, Any]:
        """The instance view."""
        state, power = self.provisioning(now), self.power_state(now)
        statuses = [{"code": f"ProvisioningState/{state.lower()}", "level": "Info"}]
        if state == "Failed" and self.error:
            inner = _innermost(self.error)
            statuses = [
                {
                    "code": f"ProvisioningState/failed/{inner['code']}",
                    "level": "Error",
                    "displayStatus": "Provisioning failed",
                    "message": inner["message"],
                }
            ]
        if power:
            statuses.append({"code": f"PowerState/{power}", "level": "Info"})
        return {"statuses": statuses}


def part_shown(group_id: str, part: Part) -> dict[str, Any]:
    """A disk, interface or address as its listing shows it."""
    compute = part.kind == "disks"
    shown: dict[str, Any] = {
        "id": f"{group_id}/providers/Microsoft.{'Compute' if compute else 'Network'}"
        f"/{part.kind}/{part.name}",
        "name": part.name,
        "location": part.location,
        "tags": dict(part.tags),
        "properties": {"provisioningState": "Succeeded"},
    }
    if compute:
        shown["properties"] |= {
            "timeCreated": part.created_at.isoformat().replace("+00:00", "Z"),
            "diskSizeGB": part.size_gib,
            "diskState": "Attached" if part.owner else "Unattached",
        }
        shown["sku"] = {"name": part.sku}
        return shown | ({"managedBy": part.owner} if part.owner else {})
    if part.sku:
        shown["sku"] = {"name": part.sku}
    if part.owner:
        attachment = "virtualMachine" if part.kind == "networkInterfaces" else "ipConfiguration"
        shown["properties"][attachment] = {"id": part.owner}
    return shown


def _id_of(vm_id: str, part: Part) -> str:
    return vm_id.split("/providers/")[0] + f"/providers/Microsoft.Network/{part.kind}/{part.name}"


def _shouted(resource_id: str) -> str:
    head, group, tail = (
        resource_id.split("/")[:4],
        resource_id.split("/")[4],
        resource_id.split("/")[5:],
    )
    return "/".join([*head, group.upper(), *tail])


def _innermost(error: Mapping[str, Any]) -> Mapping[str, Any]:
    while error.get("details"):
        error = error["details"][0]
    return error
