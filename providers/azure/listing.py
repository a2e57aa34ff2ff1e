"""What Azure shows of machines: virtual machines of a resource group, read as sightings.

A plain listing has no power states. They come from a second one, of the whole subscription, which
least-privilege credentials may not be allowed: without it a machine that is stopped looks as if it
ran, until its agent is missed.

Machines are read as plain JSON: to make models of two thousand costs the SDK a second of processor
time, in each of the two listings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from control_plane.core.model import Market, Sighting
from control_plane.core.policy import CloudPolicy
from providers.azure.body import FLEET, MACHINE, fleet_prefix, machine_of
from providers.azure.client import COMPUTE_API, Clients, Place
from providers.azure.errors import is_gone, told

Vm = Mapping[str, Any]
"""A virtual machine as the API writes it."""

_VMS = "Microsoft.Compute/virtualMachines"
_STOPPED = ("stopping", "stopped", "deallocating", "deallocated")


def places(clients: Clients, clouds: Sequence[CloudPolicy]) -> dict[Place, set[str]]:
    """The resource groups that settings name, each with the regions it is bought in; `*` = any."""
    found: dict[Place, set[str]] = {}
    with told():
        for cloud in clouds:
            place = clients.place(cloud.options)
            found.setdefault(place, set()).update(cloud.regions or ("*",))
    return found


def machines(clients: Clients, place: Place) -> list[Vm]:
    """All virtual machines of a resource group, ours or not."""
    with told():
        return list(clients.pages(place.subscription, f"{place.path}/{_VMS}", COMPUTE_API))


def powers(clients: Clients, subscription: str) -> dict[str, str]:
    """Power state by lower-case resource id of every machine of a subscription."""
    path = f"/subscriptions/{subscription}/providers/{_VMS}"
    with told():
        shown = clients.pages(subscription, path, COMPUTE_API, statusOnly="true")
        return {vm["id"].lower(): power(vm) for vm in shown}


def machine(clients: Clients, place: Place, name: str) -> Vm | None:
    """One virtual machine with its instance view; None = there is none, positively. Raises the
    SDK's errors."""
    from azure.core.exceptions import HttpResponseError

    vms = clients.compute(place.subscription).virtual_machines
    try:
        return vms.get(place.group, name, expand="instanceView").as_dict()
    except HttpResponseError as error:
        if is_gone(error):
            return None
        raise


def of_fleet(shown: Iterable[Vm], fleet: str) -> Iterator[Vm]:
    """Those of a fleet: by label, or by name where somebody has taken the labels off."""
    prefix = fleet_prefix(fleet)
    for vm in shown:
        named = fleet if vm["name"].startswith(prefix) else None
        if tags(vm).get(FLEET, named) == fleet:
            yield vm


def sighting(place: Place, vm: Vm, power_state: str, fleet: str, at: datetime) -> Sighting:
    """One machine; its id is written as a launch writes it, since listings answer in any case.
    `at` stands in for a time of making that is not shown."""
    return Sighting(
        machine_id=tags(vm).get(MACHINE) or machine_of(vm["name"]),
        provider_id=place.vm_id(vm["name"]),
        provider="azure",
        region=vm["location"].lower().replace(" ", ""),
        zone=(vm.get("zones") or [""])[0],
        state=_state(provisioning(vm), power_state),
        fleet=fleet,
        created_at=made_at(vm) or at,
        end_reason=_end_reason(vm, power_state),
        identity=identity(place, vm),
        instance_type=str(vm["properties"].get("hardwareProfile", {}).get("vmSize", "")),
        market=Market.SPOT if vm["properties"].get("priority") == "Spot" else Market.ON_DEMAND,
    )


def identity(place: Place, vm: Vm) -> Mapping[str, str]:
    """What a proof of the machine must show: Azure signs its number, not its resource id."""
    return {"account": place.subscription, "vm_id": str(vm["properties"].get("vmId", ""))}


def tags(vm: Vm) -> Mapping[str, str]:
    """Its labels."""
    return vm.get("tags") or {}


def provisioning(vm: Vm) -> str:
    """`Creating`, `Succeeded`, `Failed`, `Deleting` …: Azure promises no closed list."""
    return str(vm["properties"].get("provisioningState", ""))


def made_at(vm: Vm) -> datetime | None:
    """When Azure took up the launch."""
    written = vm["properties"].get("timeCreated")
    return datetime.fromisoformat(written) if written else None


def power(vm: Vm) -> str:
    """`running`, `stopped`, `deallocated` …; empty when it is not shown."""
    return next((code[1] for code, _ in _statuses(vm) if code[0] == "PowerState"), "")


def failure(vm: Vm) -> Mapping[str, Any]:
    """Why a machine could not be made, as an error: its status is
    `ProvisioningState/failed/CODE`."""
    for code, text in _statuses(vm):
        if code[0] == "ProvisioningState" and len(code) > 2:
            return {"code": code[2], "message": text}
    return {"code": "ProvisioningFailed", "message": "Azure does not say why"}


# ------------------------------------------------------------------------------------ inside


def _statuses(vm: Vm) -> Iterator[tuple[list[str], str]]:
    """Code, taken apart, and text of each status of the instance view."""
    for status in vm["properties"].get("instanceView", {}).get("statuses", ()):
        yield status.get("code", "").split("/"), status.get("message", "")


def _state(provisioned: str, power_state: str) -> str:
    """A machine that is stopped goes on costing money for its disk and, unless it is deallocated,
    for itself: it is on its way out, never gone."""
    if provisioned == "Deleting" or power_state in _STOPPED:
        return "stopping"
    if provisioned in ("Creating", "Failed", "Canceled") and power_state != "running":
        return "pending"
    return "running"


def _end_reason(vm: Vm, power_state: str) -> str:
    """Who stopped a machine that is still there. We never stop one, we delete it: so it is the
    machine itself that shut down, and Azure that deallocates on the spot market."""
    if provisioning(vm) == "Deleting":
        return ""
    if power_state in ("stopped", "stopping"):
        return "self"
    spot = vm["properties"].get("priority") == "Spot"
    return "interrupted" if spot and power_state in ("deallocating", "deallocated") else ""
