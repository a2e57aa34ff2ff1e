"""A Compute Engine in memory, on any clock: its state, a surface for trouble, and the truth.

Nothing runs in the background: a VM's life is a set of times. The methods of the API are in
`api.py`; each runs under this cloud's lock.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tests.fakes.clock import FakesClock
from tests.fakes.gcp.discovery import ApiError, Json
from tests.fakes.gcp.machines import NOTICE_S, ROOT, STOP_S, Vm, stamp
from tests.fakes.gcp.operations import Operation, Refusal
from tests.fakes.gcp.stock import Stock, region_of, stock
from tests.fakes.holds import Holds

CONTROLLER = "controller@acme-ml.iam.gserviceaccount.com"
SYSTEM = "system"
COMPUTE_ITSELF = "service-1234567890@compute-system.iam.gserviceaccount.com"
HTTP_STATUS: Mapping[str, int] = {
    "authError": 401,
    "accessNotConfigured": 403,
    "billingNotEnabled": 403,
    "forbidden": 403,
    "IAM_PERMISSION_DENIED": 403,
    "PERMISSION_DENIED": 403,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "userRateLimitExceeded": 403,
    "notFound": 404,
    "alreadyExists": 409,
    "conditionNotMet": 412,
    "RESOURCE_EXHAUSTED": 429,
    "tooManyRequests": 429,
    "internalError": 500,
    "backendError": 503,
    "insufficientCapacity": 503,
}
"""Reasons that come at once, with their status; any other lower-case one is a 400. Upper-case codes
come inside the operation of an insert."""


@dataclass(slots=True)
class Fault:
    """What the next calls of one name meet."""

    call: str
    code: str
    message: str
    times: int
    status: int
    """Of the HTTP answer; 0 = it comes inside the operation of an insert."""
    retry_after_s: int


@dataclass(slots=True, kw_only=True)
class Disk:
    """A disk that no VM holds (any more)."""

    project: str
    zone: str
    name: str
    labels: Mapping[str, str]
    size_gb: int
    created_at: datetime
    kind: str = "pd-balanced"
    gone_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Address:
    """A reserved address, which costs money while nothing uses it."""

    project: str
    region: str
    name: str
    labels: Mapping[str, str]
    created_at: datetime
    in_use: bool = False


class GcpCloud:
    """All projects of one cloud."""

    def __init__(self, clock: FakesClock) -> None:
        self.clock = clock
        self.stock: Stock = stock()
        self.lock = threading.RLock()
        self.holds = Holds()
        self.vms: dict[tuple[str, str, str], Vm] = {}
        self.past: list[Vm] = []
        self.operations: dict[str, Operation] = {}
        self.requests: dict[tuple[str, str], tuple[str, Operation, datetime]] = {}
        self.disks: dict[tuple[str, str, str], Disk] = {}
        self.addresses: dict[tuple[str, str, str], Address] = {}
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self.lag_s = 0.0
        self.latency_s = 0.0
        self.operation_s = 0.0
        self.silent: set[str] = set()
        self.forbidden: set[str] = set()
        self.withdrawn: set[tuple[str, str]] = set()
        self.missing: set[str] = set()
        self.quotas: dict[tuple[str, str], float] = {}
        self.spot_usd: dict[tuple[str, str], str] = {}
        self.skus: list[Json] | None = None
        self.skus_at_once = 50
        self.quota_in_operation = False
        self.slow_inserts: list[tuple[float, str]] = []
        self.leaving_disks = 0
        self._capacity: dict[tuple[str, str, str], int] = {}
        self._faults: list[Fault] = []
        self._drops: Counter[str] = Counter()
        self._numbers = itertools.count(1_000_000_000_000_000_001)

    def number(self) -> int:
        """A new id: decimal, as the API's are."""
        return next(self._numbers)

    # ------------------------------------------------------------------------- trouble

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def set_capacity(
        self, machines: int | None, machine_type: str = "", zone: str = "", market: str = ""
    ) -> None:
        """How many VMs of a type a zone can hold on a market; None = as many as wanted. Empty
        words stand for all."""
        if machines is None:
            self._capacity.pop((zone, machine_type, market), None)
        else:
            self._capacity[zone, machine_type, market] = machines

    def set_price(self, usd_hour: str, machine_type: str, zone: str) -> None:
        """The spot price of a whole machine from now on."""
        self.spot_usd[zone, machine_type] = usd_hour

    def set_quota(self, metric: str, limit: float, region: str = "") -> None:
        """A limit of one region, or of the whole project (`GPUS_ALL_REGIONS`)."""
        self.quotas[region, metric] = limit

    def withdraw(self, machine_type: str, zone: str) -> None:
        """A zone no longer sells a machine type or a GPU."""
        self.withdrawn.add((zone, machine_type))

    def lose(self, path: str) -> None:
        """There is no such image, network or subnetwork, by its full path; all others exist."""
        self.missing.add(path)

    def fail_next(
        self,
        code: str,
        times: int = 1,
        call: str = "",
        message: str = "",
        status: int = 0,
        retry_after_s: int = 0,
    ) -> None:
        """The next calls (`instances.insert`; empty = any) fail with this reason. An upper-case
        code without a status comes in the operation of the next inserts."""
        status = status or HTTP_STATUS.get(code, 0 if code.isupper() else 400)
        text = message or f"{code} by script"
        self._faults.append(Fault(call, code, text, times, status, retry_after_s))

    def drop_next_answer(self, call: str, times: int = 1) -> None:
        """The next calls act, and the connection closes without an answer."""
        self._drops[call] += times

    def slow_next_insert(self, seconds: float, code: str = "") -> None:
        """The operation of the next insert takes this long, and may end in a refusal."""
        self.slow_inserts.append((seconds, code))

    def leave_disk_next(self, times: int = 1) -> None:
        """The next inserts that are refused leave their disk behind."""
        self.leaving_disks += times

    def forbid(self, project: str) -> None:
        """The caller has no rights in a project (any more)."""
        self.forbidden.add(project)

    def partial(self, place: str) -> None:
        """A zone or a region answers neither listings nor look-ups until `readable`."""
        self.silent.add(place)

    def readable(self, place: str) -> None:
        """It answers again."""
        self.silent.discard(place)

    def forget_operations(self) -> None:
        """All operations and request ids are older than the cloud remembers."""
        with self.lock:
            self.operations.clear()
            self.requests.clear()

    def latency(self, seconds: float) -> None:
        """Every answer comes this late, in real time."""
        self.latency_s = seconds

    def listing_lag(self, seconds: float) -> None:
        """New VMs are missing from listings for this long."""
        self.lag_s = seconds

    def preempt(self, name: str) -> None:
        """The cloud takes a VM back."""
        vm = self.vm(name)
        self._end(vm, "compute.instances.preempted", SYSTEM, NOTICE_S, vm.deletes_itself())

    def host_error(self, name: str) -> None:
        """The host dies under a VM; without automatic restart it stays as `TERMINATED`."""
        self._end(self.vm(name), "compute.instances.hostError", SYSTEM, 0, False)

    def guest_shutdown(self, name: str) -> None:
        """`shutdown` inside the VM, which only stops it."""
        self._end(self.vm(name), "compute.instances.guestTerminate", SYSTEM, STOP_S, False)

    def self_delete(self, name: str) -> None:
        """The VM deletes itself with its own service account."""
        vm = self.vm(name)
        self._end(vm, "delete", vm.body["serviceAccounts"][0]["email"], STOP_S, True)

    def leave_disk(
        self,
        project: str,
        zone: str,
        name: str,
        labels: Mapping[str, str],
        size_gb: int = 50,
        kind: str = "pd-balanced",
    ) -> None:
        """A disk that no VM holds."""
        self._keep_disk(project, zone, name, labels, size_gb, kind)

    def reserve_address(
        self, project: str, region: str, name: str, labels: Mapping[str, str], in_use: bool = False
    ) -> None:
        """A static address."""
        self.addresses[project, region, name] = Address(
            project=project,
            region=region,
            name=name,
            labels=labels,
            created_at=self.clock.now(),
            in_use=in_use,
        )

    # ----------------------------------------------------------------------- the truth

    def machines(self) -> list[Json]:
        """Every VM that exists and costs money, with its start-up text."""
        with self.lock:
            now = self.settle()
            return [self._machine(vm, now) for vm in self.vms.values()]

    def resources(self) -> Json:
        """Everything that exists and costs money, by full id."""
        with self.lock:
            now = self.settle()
            disks = [f"projects/{p}/zones/{z}/disks/{n}" for p, z, n in sorted(self.disks)]
            addresses = sorted(self.addresses)
            return {
                "machines": [vm.link.removeprefix(ROOT) for vm in self.vms.values()],
                "stopped": [vm.name for vm in self.vms.values() if vm.status(now) == "TERMINATED"],
                "disks": disks,
                "addresses": [f"projects/{p}/regions/{r}/addresses/{n}" for p, r, n in addresses],
            }

    def vm(self, name: str) -> Vm:
        """A VM by name or full id. Raises `KeyError`."""
        short = name.rpartition("/")[2]
        with self.lock:
            self.settle()
            return next(vm for key, vm in self.vms.items() if key[2] == short)

    # ------------------------------------------------------------------- for the methods

    def settle(self) -> datetime:
        """Let happen what is due, and forget what is gone."""
        now = self.clock.now()
        for vm in list(self.vms.values()):
            self._meet_limit(vm, now)
            if not vm.status(now):
                self._forget(vm)
        for key, disk in list(self.disks.items()):
            if disk.gone_at is not None and disk.gone_at <= now:
                del self.disks[key]
        return now

    def begin(self, call: str, project: str) -> Fault | None:
        """Count a call; raise what was scripted for it, or return what its operation ends in."""
        self.calls[call] += 1
        if project in self.forbidden:
            raise ApiError(403, "forbidden", f"No rights on 'projects/{project}'")
        for fault in self._faults:
            fits = fault.status or call.endswith("nsert")
            if fault.times and fault.call in ("", call) and fits:
                fault.times -= 1
                if not fault.status:
                    return fault
                wait = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}
                raise ApiError(fault.status, fault.code, fault.message, headers=wait)
        return None

    def answer_is_lost(self, call: str) -> bool:
        """Whether the answer of a call that has acted goes nowhere."""
        with self.lock:
            if self._drops[call]:
                self._drops[call] -= 1
                return True
            return False

    def heard(self, place: str) -> None:
        """Raise 503 when a zone or region is silent."""
        if {place, region_of(place)} & self.silent:
            raise ApiError(503, "backendError", f"{place} does not answer")

    def operate(
        self, project: str, place: str, kind: str, target: str, user: str, takes_s: float
    ) -> Operation:
        """Note a change that ends after a while."""
        now = self.clock.now()
        made = Operation(
            number=self.number(),
            project=project,
            place=place,
            kind=kind,
            target=target,
            user=user,
            inserted_at=now,
            done_at=now + timedelta(seconds=takes_s),
        )
        self.operations[made.name] = made
        return made

    def refuse(self, operation: Operation, refusal: Refusal) -> Operation:
        """Let an operation end in an error."""
        refused = replace(operation, refusal=refusal)
        self.operations[refused.name] = refused
        return refused

    def room(self, vm: Vm) -> bool:
        """Whether the zone can hold one more like it."""
        market = "spot" if vm.spot else "on-demand"
        limits = [
            limit
            for (zone, kind, bought), limit in self._capacity.items()
            if zone in ("", vm.zone) and kind in ("", vm.kind) and bought in ("", market)
        ]
        same = (
            each
            for each in self.vms.values()
            if (each.zone, each.kind, each.spot) == (vm.zone, vm.kind, vm.spot)
        )
        return not limits or sum(1 for _ in same) < min(limits)

    def delete(self, vm: Vm, user: str) -> Operation:
        """Begin to delete a VM."""
        return self._end(vm, "delete", user, STOP_S, True)

    def stop(self, vm: Vm, user: str) -> Operation:
        """Begin to stop a VM."""
        return self._end(vm, "stop", user, STOP_S, False)

    # -------------------------------------------------------------------------- inside

    def _end(
        self,
        vm: Vm,
        kind: str,
        user: str,
        takes_s: float,
        deletes: bool,
        *,
        at: datetime | None = None,
    ) -> Operation:
        with self.lock:
            ending = vm.end(at or self.clock.now(), takes_s=takes_s, deletes=deletes)
            place = f"zones/{vm.zone}"
            made = self.operate(vm.project, place, kind, vm.link, user, takes_s)
            made = replace(made, done_at=max(ending.done_at, made.inserted_at))
            self.operations[made.name] = made
            return made

    def _meet_limit(self, vm: Vm, now: datetime) -> None:
        limit = vm.limit_at()
        if limit is None or limit > now or (vm.ending and vm.ending.deletes):
            return
        self._end(vm, "delete", COMPUTE_ITSELF, STOP_S, vm.deletes_itself(), at=limit)

    def _forget(self, vm: Vm) -> None:
        del self.vms[vm.project, vm.zone, vm.name]
        self.past.append(vm)
        if vm.leaves_disk or not vm.body["disks"][0].get("autoDelete"):
            self._leave_disk_of(vm)

    def _leave_disk_of(self, vm: Vm) -> None:
        """Its disk outlives it."""
        params = vm.body["disks"][0].get("initializeParams", {})
        size = int(params.get("diskSizeGb", 10))
        labels, kind = params.get("labels", {}), params.get("diskType", "").rpartition("/")[2]
        self._keep_disk(vm.project, vm.zone, vm.disk_name, labels, size, kind or "pd-standard")

    def _keep_disk(
        self,
        project: str,
        zone: str,
        name: str,
        labels: Mapping[str, str],
        size_gb: int,
        kind: str = "pd-balanced",
    ) -> None:
        self.disks[project, zone, name] = Disk(
            project=project,
            zone=zone,
            name=name,
            labels=dict(labels),
            size_gb=size_gb,
            created_at=self.clock.now(),
            kind=kind,
        )

    def _machine(self, vm: Vm, now: datetime) -> Json:
        items = vm.body.get("metadata", {}).get("items", [])
        metadata = {each["key"]: each["value"] for each in items}
        return {
            "id": vm.link.removeprefix(ROOT),
            "name": vm.name,
            "zone": vm.zone,
            "status": vm.status(now),
            "created_at": stamp(vm.created_at),
            "labels": vm.body.get("labels", {}),
            "startup": metadata.get("startup-script", ""),
            "request": vm.body,
        }


_CONTROLS = """
advance set_capacity set_price set_quota withdraw lose fail_next drop_next_answer slow_next_insert
leave_disk_next forbid partial readable forget_operations latency listing_lag preempt host_error
guest_shutdown self_delete leave_disk reserve_address machines resources
"""
CONTROLS: Mapping[str, Callable[..., object]] = {
    name: getattr(GcpCloud, name) for name in _CONTROLS.split()
}
"""What a test in another process may call, by name."""
