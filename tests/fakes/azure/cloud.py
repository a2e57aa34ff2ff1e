"""The fake's state: resource groups and what is in them, what there is room for, and trouble.

*The control surface* (`set_capacity`, `fail_next`, `interrupt` …) is for tests; the same methods
can be called over HTTP (`/_control`). *The truth* (`alive`, `resources` …) is what really exists,
to compare the provider's words with.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.model import Market
from providers.simulated.clock import SimulatedClock
from tests.fakes.azure import stock
from tests.fakes.azure.machines import Part, Vm
from tests.fakes.clock import FakesClock
from tests.fakes.holds import Holds

SUBSCRIPTION = "5f3c1d2e-0000-4000-8000-000000000001"
GPU_IMAGE = "microsoft-dsvm:ubuntu-hpc:2204:latest"
PLAIN_IMAGE = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest"


class ArmError(Exception):
    """A refusal, as the resource manager writes it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        *,
        details: list[Mapping[str, Any]] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.retry_after_s = retry_after_s
        self.error: dict[str, Any] = {"code": code, "message": message or f"{code} as ordered"}
        if details:
            self.error["details"] = details


class Dropped(Exception):
    """The connection ends without an answer."""


class Garbled(Exception):
    """Somebody in between answers with a page for people."""


@dataclass(slots=True)
class Group:
    """A resource group; names in it are lower-case."""

    id: str
    location: str
    machines: dict[str, Vm] = field(default_factory=dict)
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    subnets: set[str] = field(default_factory=set)
    security_groups: set[str] = field(default_factory=set)

    def remove_part(self, part: Part) -> None:
        """It goes, and what hung on it hangs on nothing."""
        self.parts.pop((part.kind, part.name.lower()), None)
        for other in self.parts.values():
            other.owner = "" if other.owner == part.name else other.owner


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """What happens to the next calls of an operation (empty = any)."""

    call: str
    times: int
    error: ArmError | None = None
    lost: str = ""
    """`call` = it never arrives, `answer` = its answer does not, `meaning` = something else comes
    in its place, from somebody in between."""


@dataclass(slots=True, kw_only=True)
class _Room:
    """How many machines the matching pools can hold."""

    capacity: int
    size: str
    region: str
    zone: str
    market: str

    def covers(self, vm: Vm) -> bool:
        return (
            self.size.lower() in ("", vm.size.lower())
            and self.region in ("", vm.location)
            and self.zone in ("", vm.zone)
            and self.market in ("", vm.market)
        )


class AzureCloud:
    """One subscription's cloud. Every method may be called from any thread."""

    def __init__(self, clock: FakesClock | None = None) -> None:
        self.clock: FakesClock = clock or SimulatedClock()
        self.lock = threading.RLock()
        self.holds = Holds()
        self.groups: dict[str, Group] = {}
        self.subscriptions = [SUBSCRIPTION]
        self.images = {GPU_IMAGE.lower(), PLAIN_IMAGE.lower()}
        self.calls: list[str] = []
        """Every call that arrived, by operation."""
        self.answers_checked = 0
        self.invalid: list[str] = []
        """Answers of the fake itself that break the published schemas; must stay empty."""
        self.operations: dict[str, Vm] = {}
        self.provision_s = 20.0
        """From PUT to running."""
        self.delete_s = 15.0
        self.clear_s = 0.0
        """How long it takes to delete a machine that never came up."""
        self.listing_lag_s = 0.0
        self.page_size = 500
        self.wrapped_errors = False
        """Whether the error of an operation comes inside another one."""
        self.status_allowed = True
        """Whether these credentials may list the whole subscription."""
        self.token = "token-of-the-fake"
        self._rooms: list[_Room] = []
        self._quotas: dict[tuple[str, str], int] = {}
        self.withheld: set[tuple[str, str]] = set()
        self.prices: dict[tuple[str, str, Market], Decimal] = {}
        self._silent: set[str] = set()
        self._troubles: list[_Trouble] = []
        self._slow: list[tuple[float, Mapping[str, Any] | None]] = []
        self._leaving: list[str] = []
        self._numbers = itertools.count(1)
        self._ending: set[str] = set()
        self.latency_s = 0.0

    # -------------------------------------------------------------------- the control surface

    def add_group(self, name: str, location: str = "eastus") -> None:
        """Make a resource group with the network of each region that launches look for."""
        group = Group(f"/subscriptions/{self.subscriptions[0]}/resourceGroups/{name}", location)
        network = f"{group.id}/providers/Microsoft.Network/virtualNetworks"
        group.subnets = {
            f"{network}/orchctl-{region}/subnets/default".lower() for region in stock.regions()
        }
        self.groups[name.lower()] = group

    def add_subnet(self, group: str, subnet: str) -> None:
        self.groups[group.lower()].subnets.add(subnet.lower())

    def remove_subnet(self, group: str, subnet: str) -> None:
        self.groups[group.lower()].subnets.remove(subnet.lower())

    def add_security_group(self, group: str, security_group: str) -> None:
        self.groups[group.lower()].security_groups.add(security_group.lower())

    def set_capacity(
        self,
        capacity: int | None,
        *,
        size: str = "",
        region: str = "",
        zone: str = "",
        market: str = "",
    ) -> None:
        """Hold how many machines the matching pools can take, those running included; None = any
        number again, for exactly these words."""
        with self.lock:
            same = size, region, zone, market
            self._rooms = [
                room
                for room in self._rooms
                if (room.size, room.region, room.zone, room.market) != same
            ]
            if capacity is not None:
                self._rooms.append(
                    _Room(capacity=capacity, size=size, region=region, zone=zone, market=market)
                )

    def set_quota(self, region: str, name: str, cores: int) -> None:
        """Limit the cores of a family, of `cores` (all) or of `lowPriorityCores` (spot)."""
        self._quotas[region, name.lower()] = cores

    def withhold(self, size: str, region: str) -> None:
        """This subscription may not start a size in a region."""
        self.withheld.add((region, size.lower()))

    def set_price(self, region: str, size: str, market: str, price_usd_hour: str) -> None:
        self.prices[region, size, Market(market)] = Decimal(price_usd_hour)

    def fail_next(
        self,
        code: str,
        *,
        call: str = "",
        times: int = 1,
        status: int = 409,
        message: str = "",
        details: list[Mapping[str, Any]] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """The next calls of an operation fail before they act."""
        error = ArmError(status, code, message, details=details, retry_after_s=retry_after_s)
        self._troubles.append(_Trouble(call=call, times=times, error=error))

    def lose_next_call(self, call: str, times: int = 1) -> None:
        """The next calls of an operation never arrive."""
        self._troubles.append(_Trouble(call=call, times=times, lost="call"))

    def drop_next_answer(self, call: str, times: int = 1) -> None:
        """The next calls of an operation act, and the caller never hears of it."""
        self._troubles.append(_Trouble(call=call, times=times, lost="answer"))

    def garble_next_answer(self, call: str, times: int = 1) -> None:
        """The next calls of an operation act, and something in between answers with a web page."""
        self._troubles.append(_Trouble(call=call, times=times, lost="meaning"))

    def silence(self, group: str) -> None:
        """A resource group answers nothing until `speak`."""
        self._silent.add(group.lower())

    def speak(self, group: str) -> None:
        self._silent.discard(group.lower())

    def next_launch(self, *, takes_s: float, error: Mapping[str, Any] | None = None) -> None:
        """How the next machine is made: after so long it runs, or has failed."""
        self._slow.append((takes_s, error))

    def leave_behind(self, *kinds: str) -> None:
        """The next machine that goes leaves its parts of these kinds (empty = all)."""
        self._leaving = list(kinds or ("disks", "networkInterfaces", "publicIPAddresses"))

    def interrupt(self, name: str, *, notice_s: float = 30.0) -> None:
        """Take a spot machine back after a notice. Raises `KeyError`."""
        with self.lock:
            vm = self.machine(name)
            vm.taken_at = self.clock.now() + timedelta(seconds=notice_s)
            self._ending.add(vm.id)

    def shut_down(self, name: str) -> None:
        """What `shutdown` inside a machine does: it stops, and stays."""
        with self.lock:
            self.machine(name).power = "stopped"

    def delete_from_within(self, name: str) -> None:
        """What our agent does with the machine's own identity: it deletes itself, at once."""
        with self.lock:
            self._remove(self.machine(name))

    # ------------------------------------------------------------------------------ the truth

    def machine(self, name: str) -> Vm:
        """A machine by its name, resource id or machine label. Raises `KeyError`."""
        self.settle()
        wanted = name.lower()
        for vm in self.machines():
            if wanted in (vm.name.lower(), vm.id.lower(), vm.tags.get("orchctl-machine")):
                return vm
        raise KeyError(name)

    def machines(self) -> list[Vm]:
        """All machines that exist in any state."""
        with self.lock:
            self.settle()
            return [vm for group in self.groups.values() for vm in group.machines.values()]

    def alive(self) -> list[Vm]:
        """Machines that take room and cost money."""
        now = self.clock.now()
        return [vm for vm in self.machines() if vm.holds_capacity(now)]

    def resources(self) -> list[str]:
        """Everything that exists and costs money: machines and their parts, by name."""
        with self.lock:
            names = [vm.name for vm in self.machines()]
            parts = [part.name for group in self.groups.values() for part in group.parts.values()]
            return sorted([*names, *parts])

    def told(self) -> list[dict[str, Any]]:
        """For other processes: each machine with its labels, state and start-up text."""
        now = self.clock.now()
        return [
            {
                "id": vm.id,
                "name": vm.name,
                "tags": dict(vm.tags),
                "state": vm.provisioning(now),
                "power": vm.power_state(now),
                "market": vm.market,
                "startup": vm.startup,
                "taken_at": vm.taken_at.isoformat() if vm.taken_at else None,
            }
            for vm in self.machines()
        ]

    # --------------------------------------------------------------------------------- inside

    @contextmanager
    def troubled(self, call: str, group: str) -> Iterator[None]:
        """A call, with whatever was ordered for it."""
        with self.lock:
            self.calls.append(call)
            if group.lower() in self._silent:
                raise ArmError(503, "ServiceUnavailable", f"{group} does not answer")
            trouble = self._next_trouble(call)
        if trouble is not None and trouble.error is not None:
            raise trouble.error
        if trouble is not None and trouble.lost == "call":
            raise Dropped
        try:
            yield
        except ArmError:
            if trouble is None:
                raise
        if trouble is not None:
            raise Garbled if trouble.lost == "meaning" else Dropped

    def _next_trouble(self, call: str) -> _Trouble | None:
        for trouble in self._troubles:
            if trouble.call in ("", call) and trouble.times > 0:
                trouble.times -= 1
                return trouble
        return None

    def settle(self) -> None:
        """Let happen what is due."""
        with self.lock:
            now = self.clock.now()
            for group in self.groups.values():
                for vm in [vm for vm in group.machines.values() if vm.id in self._ending]:
                    self._settle_end(vm, now)

    def _settle_end(self, vm: Vm, now: datetime) -> None:
        if vm.taken_at is not None and vm.taken_at <= now:
            if vm.body["properties"].get("evictionPolicy") == "Delete":
                self._remove(vm)
                return
            vm.power = "deallocated"
        if vm.gone_at is not None and vm.gone_at <= now:
            self._remove(vm)

    def begin_delete(self, vm: Vm, *, forced: bool) -> None:
        """Unforced, the system is asked to shut down, and given its time."""
        now = self.clock.now()
        takes_s = self.clear_s if vm.failed(now) else self.delete_s * (1 if forced else 10)
        vm.gone_at = vm.gone_at or now + timedelta(seconds=takes_s)
        self._ending.add(vm.id)
        self.settle()

    def _remove(self, vm: Vm) -> None:
        group = self.group_of(vm.id)
        group.machines.pop(vm.name.lower(), None)
        self._ending.discard(vm.id)
        for part in vm.parts:
            part.owner = "" if part.owner == vm.id else part.owner
            if part.goes_along and part.kind not in self._leaving:
                group.remove_part(part)
        self._leaving = []

    def group_of(self, resource_id: str) -> Group:
        return self.groups[resource_id.split("/")[4].lower()]

    def make(self, group: Group, name: str, body: dict[str, Any]) -> Vm:
        """A machine and its parts. Raises `ArmError`."""
        now = self.clock.now()
        takes_s, error = self._slow.pop(0) if self._slow else (self.provision_s, None)
        vm = Vm(
            id=f"{group.id}/providers/Microsoft.Compute/virtualMachines/{name}",
            name=name,
            number=next(self._numbers),
            body=body,
            created_at=now,
            ready_at=now + timedelta(seconds=takes_s),
            error=error,
        )
        self._refuse_unsold(vm)
        self._refuse_beyond_quota(vm)
        if vm.error is None and self._is_full(vm):
            vm.error = self._no_room(vm)
        vm.parts = list(_parts(vm))
        group.machines[name.lower()] = vm
        group.parts |= {(part.kind, part.name.lower()): part for part in vm.parts}
        return vm

    def _refuse_unsold(self, vm: Vm) -> None:
        size = stock.sizes().get((vm.location, vm.size.lower()))
        if vm.location not in stock.regions():
            raise ArmError(400, "InvalidParameter", f"location {vm.location} is not valid")
        if size is None:
            raise ArmError(
                400,
                "InvalidParameter",
                f"The value {vm.size} provided for the VM size is not valid.",
            )
        if vm.market is Market.SPOT and vm.size.startswith("Standard_B"):
            raise ArmError(409, "AzureSpotIsNotSupportedForThisVMSize")
        if (vm.location, vm.size.lower()) in self.withheld:
            raise ArmError(409, "SkuNotAvailable", _not_available(vm))

    def _refuse_beyond_quota(self, vm: Vm) -> None:
        needed = stock.sizes()[vm.location, vm.size.lower()].cpus
        for name, text in self._quota_names(vm):
            limit, used = self.limit(vm.location, name), self.cores_used(vm.location, name)
            if used + needed > limit:
                raise ArmError(
                    409,
                    "OperationNotAllowed",
                    f"Operation could not be completed as it results in exceeding approved {text} "
                    "quota. Additional details - Deployment Model: Resource Manager, Location: "
                    f"{vm.location}, Current Limit: {limit}, Current Usage: {used}, Additional "
                    f"Required: {needed}, (Minimum) New Limit Required: {used + needed}.",
                )

    def _quota_names(self, vm: Vm) -> list[tuple[str, str]]:
        if vm.market is Market.SPOT:
            return [(stock.SPOT_CORES, "LowPriorityCores")]
        family = stock.sizes()[vm.location, vm.size.lower()].family
        return [(family, f"{family} Cores"), (stock.ALL_CORES, "Total Regional Cores")]

    def limit(self, region: str, name: str) -> int:
        return self._quotas.get((region, name.lower()), 1_000_000)

    def cores_used(self, region: str, name: str) -> int:
        now = self.clock.now()
        return sum(
            stock.sizes()[region, vm.size.lower()].cpus
            for vm in (self.machines() if (region, name.lower()) in self._quotas else ())
            if vm.location == region
            and vm.holds_capacity(now)
            and name in [each for each, _ in self._quota_names(vm)]
        )

    def _is_full(self, vm: Vm) -> bool:
        now = self.clock.now()
        for room in (room for room in self._rooms if room.covers(vm)):
            taken = [each for each in self.machines() if room.covers(each)]
            if sum(each.holds_capacity(now) for each in taken) >= room.capacity:
                return True
        return False

    def _no_room(self, vm: Vm) -> Mapping[str, Any]:
        """Spot says so at once, on-demand when it has tried."""
        if vm.market is Market.SPOT:
            raise ArmError(409, "SkuNotAvailable", _not_available(vm))
        code = "ZonalAllocationFailed" if vm.zone else "AllocationFailed"
        text = "We do not have sufficient capacity for the requested VM size in this region."
        inner = {"code": code, "message": f"Allocation failed. {text}"}
        if not self.wrapped_errors:
            return inner
        return {
            "code": "ResourceOperationFailure",
            "message": "The resource operation completed with provisioning state 'Failed'.",
            "details": [inner],
        }


def _not_available(vm: Vm) -> str:
    return (
        f"The requested VM size for resource 'Following SKUs have failed for Capacity "
        f"Restrictions: {vm.size}' is currently not available in location '{vm.location}'. Please "
        "try another size or deploy to a different location or different zone."
    )


def _parts(vm: Vm) -> Iterator[Part]:
    """What is made with a machine. An inline interface gets a name of its own, that begins with the
    one it was given; the address hangs on the interface, not on the machine."""
    properties, suffix = vm.body["properties"], f"{vm.number:08x}"

    def part(
        kind: str, name: str, about: Mapping[str, Any], owner: str, tags: Any = None, sku: str = ""
    ) -> Part:
        return Part(
            kind=kind,
            name=name,
            location=vm.location,
            tags=tags or {},
            created_at=vm.created_at,
            owner=owner,
            goes_along=about.get("deleteOption") == "Delete",
            size_gib=int(about.get("diskSizeGB", 30)),
            sku=sku,
        )

    disk = properties["storageProfile"]["osDisk"]
    sort = disk.get("managedDisk", {}).get("storageAccountType", "Premium_LRS")
    yield part("disks", disk.get("name", f"{vm.name}_OsDisk_1_{suffix}"), disk, vm.id, sku=sort)
    for interface in properties["networkProfile"]["networkInterfaceConfigurations"]:
        about, name = interface["properties"], f"{interface['name']}-{suffix}"
        yield part("networkInterfaces", name, about, vm.id, interface.get("tags"))
        for inside in about["ipConfigurations"]:
            if address := inside["properties"].get("publicIPAddressConfiguration"):
                option, own = address.get("properties", {}), f"{address['name']}-{suffix}"
                sort = address.get("sku", {}).get("name", "Basic")
                yield part("publicIPAddresses", own, option, name, address.get("tags"), sort)
