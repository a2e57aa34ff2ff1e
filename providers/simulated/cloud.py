"""A whole cloud in memory: deterministic from a seed, on any clock, with a surface for trouble.

It has three faces. *The API* (`offers` … `terminate`) is what a provider adapter may use; it fails,
throttles and loses answers like a real one. *The control surface* (`set_capacity`, `fail_next`,
`interrupt` …) is for tests and demos. *The truth* (`alive`, `bill`, `violations` …) is what really
happened, to compare the books with; it never fails.

Nothing runs in the background: a VM's life is a set of times, and markets move when looked at.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.model import Market, Offer, Sighting
from control_plane.ports import Clock, Launched, LaunchRequest, MachineRef
from providers.simulated.errors import refusal
from providers.simulated.faults import ANY_CALL, Faults
from providers.simulated.machines import BillLine, InterruptionNotice, Vm
from providers.simulated.market import MarketPath, hours
from providers.simulated.spec import CloudSpec

OVERDUE_S = 600
"""How long after its deadline a VM may live before that is a violation: a tick, a terminate and its
repeat fit in."""

_Place = tuple[str, str, str, Market]


@dataclass(slots=True, kw_only=True)
class _Launch:
    """What the cloud remembers of an idempotency key."""

    machine_id: str
    offer_key: str
    vm: Vm | None
    """None = it ends in a refusal."""
    refused_code: str
    operation: str
    done_at: datetime


class SimulatedCloud:
    """One cloud account."""

    def __init__(self, seed: int, clock: Clock, spec: CloudSpec | None = None) -> None:
        self.clock = clock
        self.spec = spec or CloudSpec()
        self._seed = seed
        self._random = random.Random(f"{seed}/calls")
        self._started_at = clock.now()
        self._faults = Faults(self._random, self.spec, self._started_at)
        self._kinds = {kind.name: kind for kind in self.spec.types}
        self._markets = self._open_markets()
        self._launches: dict[str, _Launch] = {}
        self._vms: dict[str, Vm] = {}
        self._recent: list[Vm] = []
        self._numbers = itertools.count(1)
        self._unreadable: set[str] = set()
        self._boots_to_fail = 0
        self._operations_to_make: list[str] = []
        self._violations: list[str] = []
        self._lock = threading.RLock()

    def _open_markets(self) -> dict[_Place, MarketPath]:
        return {
            (region, zone, kind.name, market): MarketPath(
                f"{self._seed}/{zone}/{kind.name}/{market}",
                self.spec,
                kind,
                market,
                self._started_at,
            )
            for region, zone in self.spec.places()
            for kind in self.spec.types
            for market in self.spec.markets(kind)
        }

    # -------------------------------------------------------------------------------- the API

    def offers(self, provider: str) -> Sequence[Offer]:
        """All that is sold, sold out or not, at the prices of now."""
        with self._call("offers") as now:
            return [self._offer(provider, place, now) for place in self._markets]

    def launch(self, request: LaunchRequest) -> Launched:
        """Make a VM, or find the one that this key has made."""
        with self._call("launch") as now:
            if request.key not in self._launches:
                self._launches[request.key] = self._begin(request, now)
            return self._answer(request, now)

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """How a launch that answered with an operation goes on."""
        with self._call("launch_result") as now:
            known = self._launches.get(request.key)
            if known is None or known.operation != operation:
                raise refusal("InvalidParameterValue", f"no operation {operation}")
            return self._answer(request, now)

    def observe(self, provider: str, fleet: str) -> tuple[Sequence[Sighting], Sequence[str]]:
        """All VMs of a fleet that listings show, and the regions that did not answer."""
        with self._call("observe") as now:
            unknown = [region for region in self.spec.regions if self._silent(region)]
            if len(unknown) == len(self.spec.regions):
                raise refusal("ServiceUnavailable", "no region answers")
            shown = [
                _sighting(provider, vm, now)
                for vm in self._current(now)
                if vm.fleet == fleet and vm.offer.region not in unknown and vm.listed_at <= now
            ]
            return shown, unknown

    def sighting(self, provider: str, ref: MachineRef) -> Sighting | None:
        """One VM; None = it does not exist."""
        with self._call("sighting") as now:
            vm = self._find(ref)
            if (vm.offer.region if vm else ref.region) in self._unreadable:
                raise refusal("ServiceUnavailable", f"{ref.region} does not answer")
            if vm is None or not self._remembered(vm, now):
                return None
            if now < vm.listed_at:
                raise refusal("InvalidInstanceID.NotFound", f"no instance {ref.provider_id} yet")
            return _sighting(provider, vm, now)

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a VM; nothing happens when it is gone or ending."""
        with self._call("terminate") as now:
            vm = self._find(ref)
            if vm is not None and vm.alive(now):
                vm.stop(now, by="user", takes=timedelta(seconds=self.spec.stop_s))

    # -------------------------------------------------------------------- the control surface

    def set_capacity(
        self,
        capacity: int | None,
        *,
        instance_type: str = "",
        zone: str = "",
        market: Market | None = None,
    ) -> None:
        """Hold how many machines the matching markets can take, those running included; None gives
        them back to chance. Empty filters match all. Raises `KeyError` when nothing matches."""
        for path in self._matching(instance_type, zone, market):
            path.fix_capacity(self.clock.now(), capacity)

    def set_price(
        self,
        price_usd_hour: Decimal | None,
        *,
        instance_type: str = "",
        zone: str = "",
        market: Market | None = None,
    ) -> None:
        """Hold the price of the matching markets, as `set_capacity` does."""
        for path in self._matching(instance_type, zone, market):
            path.fix_price(self.clock.now(), price_usd_hour)

    def fail_next(self, code: str, times: int = 1, *, call: str = ANY_CALL) -> None:
        """The next calls fail with a raw code of `errors.ERROR_CLASSES` before they act."""
        self._faults.fail_next(code, times, call)

    def drop_next_answer(self, times: int = 1, *, call: str = ANY_CALL) -> None:
        """The next calls act, and the caller never hears of it."""
        self._faults.drop_next(times, call)

    def partial(self, region: str) -> None:
        """A region answers neither listings nor look-ups until `readable`."""
        self._unreadable.add(region)

    def readable(self, region: str) -> None:
        """A region answers again."""
        self._unreadable.discard(region)

    def never_boot(self, launches: int = 1) -> None:
        """The start-up text of the next VMs never works."""
        self._boots_to_fail += launches

    def slow_next_launch(self, *, refused_code: str = "") -> None:
        """The next launch answers with an operation, which ends in a VM or in this refusal."""
        self._operations_to_make.append(refused_code)

    def interrupt(self, name: str, *, notice_s: int | None = None) -> InterruptionNotice:
        """Take a VM back after a notice; `name` is a machine id or a provider id. With a notice of
        0 it simply dies. Raises `KeyError` when there is no such VM alive."""
        now = self.clock.now()
        vm = next((vm for vm in self.alive() if name in (vm.machine_id, vm.provider_id)), None)
        if vm is None:
            raise KeyError(name)
        notice = timedelta(seconds=self.spec.notice_s if notice_s is None else notice_s)
        vm.notice_at = min(vm.notice_at or now, now)
        vm.taken_at = min(vm.taken_at or now + notice, now + notice)
        return _notice(vm, vm.taken_at)

    def shut_down(self, provider_id: str) -> None:
        """What `shutdown` inside the VM does: it ends by itself. Raises `KeyError`."""
        vm = self._vms[provider_id]
        if vm.alive(self.clock.now()):
            vm.stop(self.clock.now(), by="self", takes=timedelta(seconds=self.spec.stop_s))

    # ------------------------------------------------------------------------------ the truth

    @property
    def vms(self) -> Sequence[Vm]:
        """Every VM ever made, in order."""
        return tuple(self._vms.values())

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each call of the API was made."""
        return Counter(self._faults.calls)

    @property
    def throttled(self) -> int:
        """How many calls met the rate limit."""
        return self._faults.throttled

    @property
    def violations(self) -> Sequence[str]:
        """What must never happen and did, one sentence each: two living VMs for one machine, one
        key for two things, a VM that outlived its deadline."""
        now = self.clock.now()
        overdue = [
            f"{vm.provider_id} ({vm.machine_id}) outlived its deadline {vm.deadline:%F %T}"
            for vm in self.vms
            if min(vm.gone_at() or now, now) > vm.deadline + timedelta(seconds=OVERDUE_S)
        ]
        return (*self._violations, *overdue)

    def alive(self, now: datetime | None = None) -> Sequence[Vm]:
        """VMs that exist and cost money."""
        return tuple(vm for vm in self._looked_at(now) if vm.alive(now or self.clock.now()))

    def guests(self, now: datetime | None = None) -> Sequence[Vm]:
        """VMs on which an agent would be running."""
        return tuple(vm for vm in self._looked_at(now) if vm.up(now or self.clock.now()))

    def notices(self, now: datetime | None = None) -> Sequence[InterruptionNotice]:
        """What living VMs can read of their own end."""
        when = now or self.clock.now()
        return tuple(
            _notice(vm, vm.taken_at)
            for vm in self.alive(now)
            if vm.notice_at is not None and vm.taken_at is not None and vm.notice_at <= when
        )

    def bill(self, now: datetime | None = None) -> Sequence[BillLine]:
        """What each VM has really cost until now, from launch to proof of its end."""
        when = now or self.clock.now()
        return tuple(self._bill_line(vm, min(vm.gone_at() or when, when)) for vm in self.vms)

    # --------------------------------------------------------------------------------- inside

    @contextmanager
    def _call(self, name: str) -> Iterator[datetime]:
        with self._lock:
            now = self.clock.now()
            self._faults.before(name, now)
            yield now
            self._faults.after(name)

    def _matching(
        self, instance_type: str, zone: str, market: Market | None
    ) -> Iterator[MarketPath]:
        found = [
            path
            for (_, in_zone, kind, sold_on), path in self._markets.items()
            if instance_type in ("", kind) and zone in ("", in_zone) and market in (None, sold_on)
        ]
        if not found:
            raise KeyError(f"no market {instance_type}/{zone}/{market}")
        yield from found

    def _offer(self, provider: str, place: _Place, now: datetime) -> Offer:
        region, zone, name, market = place
        kind = self._kinds[name]
        return Offer(
            provider=provider,
            region=region,
            zone=zone,
            instance_type=name,
            capacity=replace(kind.capacity, market=market),
            price_usd_hour=self._markets[place].at(now).price_usd_hour,
            on_demand_usd_hour=kind.on_demand_usd_hour,
        )

    def _begin(self, request: LaunchRequest, now: datetime) -> _Launch:
        self._refuse_without_room(request.offer, now)
        slow, refused_code = self._slowness()
        done_at = now + timedelta(seconds=self.spec.slow_launch_s if slow else 0)
        return _Launch(
            machine_id=request.machine_id,
            offer_key=request.offer.key,
            vm=None if refused_code else self._make(request, now, done_at),
            refused_code=refused_code,
            operation=f"operation-{request.key}" if slow else "",
            done_at=done_at,
        )

    def _slowness(self) -> tuple[bool, str]:
        """Whether a launch answers with an operation, and the refusal that one ends in, if any."""
        if self._operations_to_make:
            return True, self._operations_to_make.pop(0)
        if not self._happens(self.spec.slow_launch_rate):
            return False, ""
        refused = self._happens(self.spec.late_refusal_rate)
        return True, "ZONE_RESOURCE_POOL_EXHAUSTED" if refused else ""

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate

    def _refuse_without_room(self, offer: Offer, now: datetime) -> None:
        place = (offer.region, offer.zone, offer.instance_type, offer.market)
        if place not in self._markets:
            raise refusal("Unsupported", f"{offer.key} is not sold here")
        alive = [vm.offer for vm in self._current(now) if vm.alive(now)]
        same_region = [each for each in alive if each.region == offer.region]
        quota = self.spec.quota_machines
        if quota is not None and sum(e.market is offer.market for e in same_region) >= quota:
            code = (
                "MaxSpotInstanceCountExceeded" if offer.market is Market.SPOT else "QuotaExceeded"
            )
            raise refusal(code, f"no more than {quota} {offer.market} machines in {offer.region}")
        taken = sum(each.key == offer.key for each in alive)
        if taken >= self._markets[place].at(now).capacity:
            raise refusal("InsufficientInstanceCapacity", f"no {offer.key} left")

    def _make(self, request: LaunchRequest, now: datetime, accepted_at: datetime) -> Vm:
        provider_id = f"i-{next(self._numbers):06d}"
        fate = random.Random(f"{self._seed}/{provider_id}")
        running_at = accepted_at + timedelta(seconds=self.spec.start_s)
        vm = Vm(
            provider_id=provider_id,
            key=request.key,
            machine_id=request.machine_id,
            fleet=request.boot.fleet,
            offer=self._sold(request.offer, now),
            boot=request.boot,
            deadline=request.deadline,
            created_at=now,
            listed_at=now + timedelta(seconds=self.spec.listing_lag_s),
            running_at=running_at,
            booted_at=self._boot_time(fate, accepted_at, running_at),
            limit_at=request.deadline if self.spec.life_limit else None,
        )
        self._draw_interruption(vm, fate)
        self._watch_for_twins(vm, now)
        self._vms[provider_id] = vm
        self._recent.append(vm)
        return vm

    def _sold(self, offer: Offer, now: datetime) -> Offer:
        # The caller's price may be old: the cloud charges its own.
        place = (offer.region, offer.zone, offer.instance_type, offer.market)
        return self._offer(offer.provider, place, now)

    def _boot_time(
        self, fate: random.Random, accepted_at: datetime, running_at: datetime
    ) -> datetime | None:
        never = fate.random() < self.spec.never_boot_rate
        slow = 5 if fate.random() < self.spec.slow_boot_rate else 1
        boot_s = fate.uniform(*self.spec.boot_s) * slow
        if self._boots_to_fail:
            self._boots_to_fail -= 1
            return None
        return None if never else max(running_at, accepted_at + timedelta(seconds=boot_s))

    def _draw_interruption(self, vm: Vm, fate: random.Random) -> None:
        rate = self.spec.interruptions_per_hour
        if rate <= 0 or vm.offer.market is not Market.SPOT:
            return
        notice = timedelta(seconds=self.spec.notice_s)
        vm.taken_at = vm.running_at + timedelta(hours=fate.expovariate(rate))
        vm.notice_at = max(vm.created_at, vm.taken_at - notice)

    def _watch_for_twins(self, vm: Vm, now: datetime) -> None:
        for other in self._current(now):
            if other.machine_id == vm.machine_id and other.alive(now):
                self._violations.append(
                    f"{vm.machine_id} has two VMs: {other.provider_id} and {vm.provider_id}"
                )

    def _answer(self, request: LaunchRequest, now: datetime) -> Launched:
        known = self._launches[request.key]
        if (known.machine_id, known.offer_key) != (request.machine_id, request.offer.key):
            self._violations.append(f"key {request.key} was used for two things")
            raise refusal("IdempotentParameterMismatch", f"{request.key} was used differently")
        if known.vm is not None and not known.vm.alive(now):
            raise refusal("Ended", f"{known.vm.provider_id} of {request.key} has ended")
        if now < known.done_at:
            return Launched(provider_id="", at=now, operation=known.operation)
        if known.vm is None:
            raise refusal(known.refused_code, f"{known.operation} came to nothing")
        return Launched(provider_id=known.vm.provider_id, at=known.vm.created_at)

    def _silent(self, region: str) -> bool:
        return region in self._unreadable or self._faults.unreadable()

    def _looked_at(self, now: datetime | None) -> Sequence[Vm]:
        # Only a look into the past has to go through all that ever was.
        if now is not None:
            return self.vms
        with self._lock:
            return self._current(self.clock.now())

    def _current(self, now: datetime) -> Sequence[Vm]:
        """VMs that are shown: the living, and those gone not long ago."""
        self._recent = [vm for vm in self._recent if self._remembered(vm, now)]
        return self._recent

    def _remembered(self, vm: Vm, now: datetime) -> bool:
        gone_at = vm.gone_at()
        return gone_at is None or now < gone_at + timedelta(seconds=self.spec.remembered_s)

    def _find(self, ref: MachineRef) -> Vm | None:
        if ref.provider_id:
            return self._vms.get(ref.provider_id)
        ours = [vm for vm in self.vms if vm.machine_id == ref.machine_id]
        return max(ours, key=lambda vm: (vm.alive(self.clock.now()), vm.created_at), default=None)

    def _bill_line(self, vm: Vm, until: datetime) -> BillLine:
        return BillLine(
            provider_id=vm.provider_id,
            machine_id=vm.machine_id,
            started_at=vm.created_at,
            until=until,
            cost_usd=self._cost(vm, until),
        )

    def _cost(self, vm: Vm, until: datetime) -> Decimal:
        if self.spec.price_locked:
            return vm.offer.price_usd_hour * hours(vm.created_at, until)
        offer = vm.offer
        path = self._markets[offer.region, offer.zone, offer.instance_type, offer.market]
        return path.cost(vm.created_at, until)


def _sighting(provider: str, vm: Vm, now: datetime) -> Sighting:
    state = vm.state(now)
    return Sighting(
        machine_id=vm.machine_id,
        provider_id=vm.provider_id,
        provider=provider,
        region=vm.offer.region,
        zone=vm.offer.zone,
        state=state,
        fleet=vm.fleet,
        created_at=vm.created_at,
        end_reason=vm.end_reason() if state == "gone" else "",
    )


def _notice(vm: Vm, taken_at: datetime) -> InterruptionNotice:
    return InterruptionNotice(
        provider_id=vm.provider_id, machine_id=vm.machine_id, taken_at=taken_at
    )
