"""One AWS account: what it has, what tests may do to it, and what really happened in it.

moto gives networks, disks, images, the catalogue of types and the wire format. What it lacks is
here and in `api.py`: idempotency tokens, states that take time, capacity by type, zone and market,
quotas, spot prices, interruptions, listings that lag, and the other services an adapter needs.

Everything public but `serve` is also an HTTP control: `POST /_control/NAME` with the keyword
arguments as JSON.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from moto.core.base_backend import BackendDict
from moto.ec2.models import ec2_backends
from moto.scheduler.models import scheduler_backends

from tests.fakes.ec2.faults import Fault, Faults
from tests.fakes.ec2.fleets import Template
from tests.fakes.ec2.instances import Vm
from tests.fakes.ec2.stock import Stock
from tests.fakes.holds import Holds

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""Where a fake's time begins unless it follows the real one."""

# moto makes 1,300 images in each region of each account, in half a second; ours are in `images`.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

_ACCOUNTS = itertools.count(100_000_000_001)
_AT = re.compile(r"at\((.*)\)")


class Account:
    """One account with all its regions. Any number of threads may use it."""

    def __init__(self, *, start: datetime | None = START) -> None:
        """`start`: where its time stands until `advance`; None = it follows the real time."""
        self.id = str(next(_ACCOUNTS))
        self.lock = threading.RLock()
        self.stock = Stock()
        self.faults = Faults()
        self.holds = Holds()
        self.profiles = {"orchctl-machine"}
        """Instance profiles that exist."""
        self.images: dict[str, int] = {}
        """Public images and the size of their root disks in GiB."""
        self.parameters: dict[str, str] = {}
        """Of SSM: the public ones, and those of the account."""
        self.start_s, self.stop_s, self.lag_s = 15.0, 20.0, 0.0
        """How long starting and ending take, and how long listings do not know of a new one."""
        self.page = 1000
        """The most instances in one answer."""
        self.shown_s = 3600.0
        """How long an ended instance is still described."""
        self.violations: list[str] = []
        """Requests and answers that the service models do not allow."""
        self.tokens: dict[tuple[str, str, str], tuple[str, str]] = {}
        """By region, zone and token: what was asked, and the answer."""
        self.templates: dict[str, Template] = {}
        """Launch templates by id."""
        self.fleet_error = ""
        """What stands in the way of each override of a fleet."""
        self._vms: dict[str, Vm] = {}
        self._start = start
        self._passed = timedelta()
        self._agenda: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._looked_at = self.now()
        self._add_images()

    def _add_images(self) -> None:
        for at, variant in enumerate(("base-oss", "base-proprietary")):
            image = f"ami-0d1a{at:013x}"
            self.images[image] = 65
            self.parameters[
                f"/aws/service/deeplearning/ami/x86_64/{variant}-nvidia-driver-gpu-ubuntu-22.04"
                "/latest/ami-id"
            ] = image

    # ------------------------------------------------------------------------------------ time

    def now(self) -> datetime:
        """The account's time."""
        return (self._start or datetime.now(UTC)) + self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self.lock:
            until = self.now() + timedelta(seconds=seconds)
            for due in self._due(until):
                self._passed += max(due - self.now(), timedelta())
                self._run_schedules()
                self._run_agenda()
            self._passed += max(until - self.now(), timedelta())
            self.catch_up()

    def _due(self, until: datetime) -> Iterator[datetime]:
        while True:
            times = [*(at for at, *_ in self._agenda[:1]), *(at for at, _ in self._schedules())]
            if not times or min(times) > until:
                return
            yield min(times)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something when its time has come."""
        due = self.now() + timedelta(seconds=seconds)
        heapq.heappush(self._agenda, (due, next(self._order), act))

    def catch_up(self) -> None:
        """Do what is due; before each call and after time has passed."""
        with self.lock:
            # Thousands of schedules would slow down each call of a clock that stands still.
            if self._looked_at < self.now():
                self._run_schedules()
            self._run_agenda()

    def _run_agenda(self) -> None:
        while self._agenda and self._agenda[0][0] <= self.now():
            heapq.heappop(self._agenda)[2]()

    def _run_schedules(self) -> None:
        self._looked_at = self.now()
        for due, fire in self._schedules():
            if due <= self._looked_at:
                fire()

    def _schedules(self) -> list[tuple[datetime, Callable[[], None]]]:
        """The one-time schedules of EventBridge Scheduler: when, and what they do."""
        return [
            (at, partial(self._fire, region, group, name))
            for region, backend in self._backends(scheduler_backends)
            for group in backend.schedule_groups.values()
            for name, schedule in list(group.schedules.items())
            if (at := _at(schedule.schedule_expression)) is not None
        ]

    def _fire(self, region: str, group: Any, name: str) -> None:
        schedule = group.schedules.pop(name)
        for instance_id in json.loads(schedule.target["Input"])["InstanceIds"]:
            vm = self._vms.get(instance_id)
            if vm is not None and vm.region == region:
                self.end(vm, "Client.UserInitiatedShutdown", "User initiated shutdown")

    # ------------------------------------------------------------------------------- instances

    def add(self, vm: Vm) -> None:
        """A new instance, which will be running in a while."""
        self._vms[vm.id] = vm
        self.later(self.start_s, lambda: vm.move("running") if vm.state == "pending" else None)

    def known(self, region: str) -> Iterator[Vm]:
        """What listings of a region show, oldest first."""
        now = self.now()
        return (vm for vm in self._vms.values() if vm.region == region and vm.visible(now))

    def find(self, region: str, instance_id: str) -> Vm | None:
        """One of them."""
        vm = self._vms.get(instance_id)
        return vm if vm and vm.region == region and vm.visible(self.now()) else None

    def living(self) -> Iterator[Vm]:
        """Everything that exists, shown or not."""
        return (vm for vm in self._vms.values() if vm.alive)

    def end(self, vm: Vm, reason: str, text: str, *, takes_s: float | None = None) -> None:
        """Begin to end an instance; nothing happens when it is ending."""
        if not vm.ending:
            vm.move("shutting-down", reason, text)
            self.later(self.stop_s if takes_s is None else takes_s, lambda: self._ended(vm))

    def _ended(self, vm: Vm) -> None:
        vm.release()
        vm.move("terminated")
        vm.forgotten_at = self.now() + timedelta(seconds=self.shown_s)

    def _backends(self, of: BackendDict[Any]) -> Iterator[tuple[str, Any]]:
        return iter(list(of[self.id].items())) if self.id in of else iter(())

    # -------------------------------------------------------------------------------- controls

    def machines(self) -> list[Mapping[str, Any]]:
        """Every instance that exists, with its labels and its start-up text."""
        with self.lock:
            self.catch_up()
            return [
                {
                    "id": vm.id,
                    "region": vm.region,
                    "zone": vm.zone,
                    "instance_type": vm.instance_type,
                    "spot": vm.spot,
                    "state": vm.state,
                    "tags": dict(vm.tags),
                    "user_data": vm.user_data,
                }
                for vm in self.living()
            ]

    def metadata_tags(self, instance_id: str) -> Mapping[str, str]:
        """What an instance is told of its tags: nothing, unless they are to be shown."""
        vm = self._vms[instance_id]
        return dict(vm.tags) if vm.shows_tags else {}

    def resources(self) -> Mapping[str, list[str]]:
        """All that exists and can cost money, by kind."""
        with self.lock:
            self.catch_up()
            ec2 = [backend for _, backend in self._backends(ec2_backends)]
            scheduler = [backend for _, backend in self._backends(scheduler_backends)]
            return {
                "instance": [vm.id for vm in self.living()],
                "volume": [each for backend in ec2 for each in backend.volumes],
                "network-interface": [each for backend in ec2 for each in backend.enis],
                "address": [each.allocation_id for backend in ec2 for each in backend.addresses],
                "schedule": [
                    name
                    for backend in scheduler
                    for group in backend.schedule_groups.values()
                    for name in group.schedules
                ],
            }

    def set_capacity(
        self, count: int | None, *, instance_type: str = "*", zone: str = "*", market: str = "*"
    ) -> None:
        """How many instances of a kind there can be at a time; None = as many as wanted."""
        self.stock.set_room(count, instance_type, zone, market)

    def set_price(self, instance_type: str, zone: str, usd_hour: str) -> None:
        """The spot price in a zone, by its id."""
        self.stock.set_price(instance_type, zone, usd_hour)

    def set_quota(self, region: str, code: str, cpus: float) -> None:
        """How many virtual CPUs the account may have."""
        self.stock.set_quota(region, code, cpus)

    def set_lag(self, seconds: float) -> None:
        """How long listings do not know of a new instance."""
        self.lag_s = seconds

    def set_latency(self, seconds: float, *, region: str = "*") -> None:
        """How long answers take, in real time."""
        self.faults.latency_s[region] = seconds

    def silence(self, region: str) -> None:
        """A region closes every connection without an answer."""
        self.faults.silent.add(region)

    def unsilence(self, region: str) -> None:
        """It answers again."""
        self.faults.silent.discard(region)

    def fail_next(
        self,
        code: str,
        *,
        operation: str = "",
        region: str = "",
        message: str = "",
        status: int = 0,
        retry_after_s: int = 0,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """The next calls, of one operation or any of EC2, fail before they act; `skip` of them go
        through first."""
        self.faults.planned.append(
            Fault(
                operation=operation,
                region=region,
                code=code,
                message=message or f"{code} on purpose",
                status=status,
                retry_after_s=retry_after_s,
                times=times,
                skip=skip,
            )
        )

    def drop_next(self, operation: str, *, before: bool = False) -> None:
        """The next call of an operation loses its answer, or never arrives."""
        self.faults.planned.append(
            Fault(operation=operation, answer_lost=not before, call_lost=before)
        )

    def garble_next(self, operation: str, text: str) -> None:
        """Something in front of AWS answers the next call of an operation, as if all were well."""
        self.faults.planned.append(Fault(operation=operation, garbled=text))

    def interrupt(self, instance_id: str, *, notice_s: float = 0.0) -> None:
        """AWS takes a spot instance back, after this long. Refuses one that is not spot."""
        with self.lock:
            vm = self._vms[instance_id]
            if not vm.spot:
                raise ValueError(f"{instance_id} is on demand: AWS does not take it back")
            text = "Instance terminated due to spot interruption"
            self.later(
                notice_s,
                lambda: self.end(vm, "Server.SpotInstanceTermination", text, takes_s=0),
            )
            self._run_agenda()

    def shut_down(self, instance_id: str) -> None:
        """The machine shuts down from within: it ends, or stays stopped where nobody has told EC2
        to end it."""
        with self.lock:
            vm = self._vms[instance_id]
            if vm.ends_on_shutdown:
                self.end(vm, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            else:
                vm.move("stopped", "Client.InstanceInitiatedShutdown")

    def break_down(self, instance_id: str) -> None:
        """EC2 finds no capacity after all: an instance ends while it starts."""
        with self.lock:
            self.end(
                self._vms[instance_id],
                "Server.InsufficientInstanceCapacity",
                "Insufficient capacity to satisfy the request",
                takes_s=0,
            )
            self._run_agenda()

    def forget_tokens(self) -> None:
        """Idempotency tokens are not kept for ever."""
        self.tokens.clear()

    def called(self) -> Mapping[str, int]:
        """How often each operation was called."""
        return dict(self.faults.calls)


@lru_cache(maxsize=10_000)
def _at(expression: str) -> datetime | None:
    found = _AT.fullmatch(expression)
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC) if found else None
