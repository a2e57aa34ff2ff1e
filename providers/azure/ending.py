"""Ending machines, and finding what they have left behind.

Disk, network interface and address go with their machine (`deleteOption: Delete`). Where that did
not happen they cost money without serving anybody. Their names tell whose they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.model import Leftover
from providers.azure.body import FLEET, LAUNCHED, fleet_prefix, machine_of, owner_of
from providers.azure.client import COMPUTE_API, Clients, Place, parse_id
from providers.azure.errors import is_gone, told
from providers.azure.listing import machines
from providers.catalog.leftovers import usd_hour

MARK = "launch-mark"
MARK_KEPT = timedelta(days=1)
"""No launch is repeated after so long: its machine would be past its time to boot."""

_KINDS = {
    "disk": ("Microsoft.Compute/disks", "2026-03-02"),
    "network-interface": ("Microsoft.Network/networkInterfaces", "2025-09-01"),
    "address": ("Microsoft.Network/publicIPAddresses", "2025-09-01"),
    MARK: ("Microsoft.Compute/sshPublicKeys", COMPUTE_API),
}
"""What is made for a machine: where the resource manager has it, and which API that speaks. An
interface comes before the address that hangs on it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A resource that may have been made for a machine."""

    kind: str
    shown: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.shown["name"])

    @property
    def tags(self) -> Mapping[str, str]:
        return self.shown.get("tags") or {}

    @property
    def about(self) -> Mapping[str, Any]:
        return self.shown.get("properties") or {}

    @property
    def owner(self) -> str:
        """The virtual machine it was made for; empty = not one of ours."""
        return self.name if self.kind == MARK else owner_of(self.name)

    @property
    def attached(self) -> bool:
        hangs_on = self.about.get("virtualMachine") or self.about.get("ipConfiguration")
        return bool(self.shown.get("managedBy") or hangs_on)

    @property
    def created_at(self) -> datetime | None:
        if LAUNCHED in self.tags:
            return datetime.fromtimestamp(int(self.tags[LAUNCHED]), UTC)
        written = self.about.get("timeCreated")
        return datetime.fromisoformat(written) if written else None

    @property
    def size(self) -> str:
        return f"{self.gib} GiB" if self.gib else str(self.about.get("ipAddress", ""))

    @property
    def gib(self) -> int | None:
        return self.about.get("diskSizeGB")

    @property
    def usd_hour(self) -> Decimal | None:
        if self.kind == MARK:
            return Decimal(0)
        sort = str((self.shown.get("sku") or {}).get("name", ""))
        return usd_hour("azure", self.kind, sort, self.gib)


def end(clients: Clients, place: Place, name: str) -> bool:
    """Begin to end a machine at once, without its system's consent; True = it is gone already."""
    from azure.core.exceptions import HttpResponseError

    vms = clients.compute(place.subscription).virtual_machines
    try:
        answer = vms.begin_delete(
            place.group,
            name,
            force_deletion=True,
            polling=False,
            cls=lambda response, _body, _headers: response.http_response.status_code,
        )
    except HttpResponseError as error:
        if is_gone(error):
            return True
        raise
    return bool(answer.result() == 204)


def clear(clients: Clients, place: Place, name: str) -> None:
    """End a machine that could not be made, with what was made for it. Best effort: what still
    hangs together goes with the machine, or is found as a leftover."""
    from azure.core.exceptions import AzureError

    with suppress(AzureError):
        end(clients, place, name)
        sweep(clients, place, name)


def sweep(clients: Clients, place: Place, name: str) -> None:
    """Remove what a machine has left behind, as far as that is possible now."""
    from azure.core.exceptions import AzureError

    with suppress(AzureError):
        for part in list(_parts(clients, place)):
            if part.owner == name and part.kind != MARK and not part.attached:
                with suppress(AzureError):
                    _remove(clients, place, part.kind, part.name)


def leftovers(clients: Clients, place: Place, fleet: str, *, now: datetime) -> list[Leftover]:
    """What machines of a fleet have left in a resource group. Parts are listed before machines: a
    machine that is being made at this moment is then in the second list."""
    prefix = fleet_prefix(fleet)
    with told():
        parts = [part for part in _parts(clients, place) if part.name.startswith(prefix)]
        living = {vm["name"].lower() for vm in machines(clients, place)}
    return [
        _leftover(place, part, fleet)
        for part in parts
        if part.owner and part.owner not in living and not part.attached and _is_due(part, now)
    ]


def remove(clients: Clients, leftover: Leftover) -> None:
    """Remove a leftover; nothing happens when it is gone."""
    found = parse_id(leftover.id)
    if found is not None:
        with told():
            _remove(clients, found[0], leftover.kind, found[1])


# ------------------------------------------------------------------------------------ inside


def _parts(clients: Clients, place: Place) -> Iterator[_Part]:
    """All that could have been made for a machine in a resource group, ours or not."""
    for kind, (path, version) in _KINDS.items():
        for shown in clients.pages(place.subscription, f"{place.path}/{path}", version):
            yield _Part(kind, shown)


def _is_due(part: _Part, now: datetime) -> bool:
    """Marks are there to stay for a while."""
    return part.kind != MARK or (part.created_at is not None and now - part.created_at > MARK_KEPT)


def _leftover(place: Place, part: _Part, fleet: str) -> Leftover:
    return Leftover(
        provider="azure",
        region=part.shown.get("location", ""),
        zone=(part.shown.get("zones") or [""])[0],
        kind=part.kind,
        id=_path(place, part.kind, part.name),
        fleet=part.tags.get(FLEET, fleet),
        machine_id=machine_of(part.owner),
        created_at=part.created_at,
        size="free of charge" if part.kind == MARK else part.size,
        usd_hour=part.usd_hour,
    )


def _path(place: Place, kind: str, name: str) -> str:
    return f"{place.path}/{_KINDS[kind][0]}/{name}"


def _remove(clients: Clients, place: Place, kind: str, name: str) -> None:
    from azure.core.exceptions import HttpResponseError

    url = f"{_path(place, kind, name)}?api-version={_KINDS[kind][1]}"
    try:
        clients.call(place.subscription, "DELETE", url)
    except HttpResponseError as error:
        if not is_gone(error):
            raise
