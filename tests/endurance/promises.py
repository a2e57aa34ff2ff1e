"""What must hold at every moment, compared with the fakes' own truth, and what at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.lifecycle import JOB_ENDED, MACHINE_ENDED
from control_plane.core.model import JobState, Machine, PriceInterval
from control_plane.reconcile import Tick
from providers.simulated.clock import EPOCH
from tests.endurance.clouds import Vm
from tests.endurance.world import BUDGET_USD, MACHINES_MAX, PACE, TIMING, Plane, World
from tests.simulation.invariants import is_bug, none, wrong_attempts

STRAY_S = 2 * TIMING.unknown_grace_s + 2 * PACE.at_least_s + 60
"""How long a machine may exist without a record that explains it: too young to judge, seen, noted,
seen again, ended, and the cloud's own time to do so. Time in which its cloud could not be asked
does not count."""
LATE_LOOKS = 8
"""A machine that is gone is paid for no longer after so many looks that could show it. The first
one does, unless it crashes, is another controller's, or meets one of the planned faults: they come
in bursts of up to four calls."""
SURE_LOOKS = 3
"""What so many looks could have shown is in the books: one may crash, another may be dropped since
somebody else has acted."""
_HELD = (JobState.LEASED, JobState.RUNNING)


class Promises:
    """Looks at a world after every step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accepted: set[str] = set()
        """Ids of jobs that were handed in."""
        self.machines_most = 0
        self.longest_stray_s = 0.0
        self.paid_usd = self.billed_usd = Decimal(0)
        self.latest_looks = 0
        self.unbooked = 0
        """Machines that came and went while hardly anybody could look."""
        self._strayed: dict[str, float] = defaultdict(float)
        self._looked_at = world.clock.now()
        self._minute = world.clock.now()
        world.after_step = self.step
        world.ticked = self.ticked

    def step(self) -> None:
        """After anything happened. Raises `Broken`."""
        none(self._caps())
        none(self._shared_leases())
        now = self.world.clock.now()
        if now - self._minute >= timedelta(minutes=1):
            self._minute = now
            self.minute()

    def ticked(self, plane: Plane, tick: Tick) -> None:
        """After a look that came to its end. Raises `Broken`."""
        none([finding.sentence for finding in tick.findings])
        none([error for error in (tick.done.errors if tick.done else ()) if is_bug(error)])

    def minute(self) -> None:
        """Once a minute. Raises `Broken`."""
        none(self._strays())
        none(self._jobs())
        none([each for cloud in self.world.clouds for each in cloud.violations()])

    def at_rest(self) -> None:
        """When everything has come to its end. Raises `Broken`."""
        self.step()
        self.minute()
        none(self._undone())
        none([f"{lease.job_id} is leased" for lease in self.world.store.job_leases()])
        none([f"{m.id} is {m.state}" for m in self.world.store.machine_list()])
        none([f"{vm.provider_id} of {vm.machine_id} lives" for vm in self.world.alive()])
        none([f"{each} is left" for cloud in self.world.clouds for each in cloud.resources()])
        none(self._ledger())

    # ------------------------------------------------------------------------ caps

    def _caps(self) -> Iterator[str]:
        alive = self.world.alive()
        self.machines_most = max(self.machines_most, len(alive))
        for pool, count in Counter(vm.boot.pool for vm in alive).items():
            if count > MACHINES_MAX[pool]:
                yield f"pool {pool} has {count} machines, its maximum is {MACHINES_MAX[pool]}"
        rate = sum((vm.offer.price_usd_hour for vm in alive), Decimal(0))
        if rate > BUDGET_USD:
            yield f"machines cost {rate} USD/hour, the budget is {BUDGET_USD}"

    # ------------------------------------------------------------------------ jobs

    def _shared_leases(self) -> Iterator[str]:
        now = self.world.clock.now()
        holders: dict[str, str] = {}
        for guest in self.world.guests.values():
            for key in guest.runs if guest.vm.up(now) else ():
                if key in holders:
                    yield f"{key} runs on {holders[key]} and on {guest.machine_id}"
                holders[key] = guest.machine_id

    def _jobs(self) -> Iterator[str]:
        jobs = self.world.jobs()
        if lost := self.accepted - {job.id for job in jobs}:
            yield f"jobs are lost: {sorted(lost)}"
        leases = Counter(lease.job_id for lease in self.world.store.job_leases())
        for job in jobs:
            if leases[job.id] != (job.state in _HELD):
                yield f"{job.id} is {job.state} and has {leases[job.id]} leases"
            yield from wrong_attempts(job, self.world.store.job_attempts(job.id))

    def _undone(self) -> Iterator[str]:
        """A job has done its work, or says why not."""
        for job in self.world.jobs():
            if job.state not in JOB_ENDED:
                yield f"{job.id} is {job.state}"
            elif job.state is not JobState.SUCCEEDED and not (job.reason and job.reason.sentence):
                yield f"{job.id} is {job.state} without a reason"

    # ------------------------------------------------------------------------ strays

    def _strays(self) -> Iterator[str]:
        now = self.world.clock.now()
        passed_s = (now - self._looked_at).total_seconds()
        self._looked_at = now
        records = {m.id: m for m in self.world.store.machine_list(open_only=False)}
        for vm in self.world.alive():
            if explains(records.get(vm.machine_id), vm):
                self._strayed.pop(vm.provider_id, None)
                continue
            if self._shown(vm, now - timedelta(seconds=PACE.at_least_s + 5), now):
                self._strayed[vm.provider_id] += passed_s
            self.longest_stray_s = max(self.longest_stray_s, self._strayed[vm.provider_id])
            if self._strayed[vm.provider_id] > STRAY_S:
                yield f"{vm.provider_id} of {vm.machine_id} is explained by no record"

    def _shown(self, vm: Vm, since: datetime, until: datetime) -> int:
        """How many looks in a span of time could have shown what has become of a machine."""
        place = vm.offer.region, vm.offer.zone
        return sum(
            since < at <= until and seen.knows(*place) and not rests(vm.offer.region)
            for at, seen, rests in self.world.looks[vm.cloud.name]
        )

    # ------------------------------------------------------------------------ money

    def _ledger(self) -> Iterator[str]:
        """Each machine is in the books from its first moment until it was known to be gone."""
        until = self.world.clock.now() + timedelta(days=1)
        booked = list(self.world.store.prices_between(EPOCH - timedelta(days=1), until))
        for vm in self.world.ever():
            mine = [each for each in booked if _is_of(each, vm)]
            if not mine and self._hardly_shown(vm):
                self.unbooked += 1
                continue
            if len(mine) != 1:
                yield f"{vm.provider_id} of {vm.machine_id} is {len(mine)} times in the books"
                continue
            booked.remove(mine[0])
            yield from self._paid(mine[0], vm)
        refused = [vm for cloud in self.world.clouds for vm in cloud.vms.values() if vm.refused]
        for each in booked:
            if any(_is_of(each, vm) for vm in refused):
                continue  # it never came up; what was made with it had to be removed all the same
            yield f"{each.machine_id} is booked from {each.started_at}, there was no such machine"

    def _hardly_shown(self, vm: Vm) -> bool:
        """Whether so few looks could have shown it that none of them may have lived to write it
        down: then nobody can know that a launch whose answer was lost came to something."""
        assert vm.gone_at is not None, "all are gone"
        remembered = timedelta(seconds=vm.cloud.remembered_s)
        return self._shown(vm, vm.made_at, vm.gone_at + remembered) < SURE_LOOKS

    def _paid(self, interval: PriceInterval, vm: Vm) -> Iterator[str]:
        assert vm.gone_at is not None, "all are gone"
        if interval.ended_at is None:
            yield f"{vm.machine_id} is still booked"
            return
        if interval.price_usd_hour != vm.offer.price_usd_hour:
            yield f"{vm.machine_id} is booked at {interval.price_usd_hour}, it cost {vm.offer}"
        hour = timedelta(hours=1)
        price = vm.offer.price_usd_hour
        self.billed_usd += price * Decimal((vm.gone_at - vm.created_at) / hour)
        self.paid_usd += price * Decimal((interval.ended_at - interval.started_at) / hour)
        looks = self._shown(vm, self._over_at(vm), interval.ended_at)
        self.latest_looks = max(self.latest_looks, looks)
        late_s = (interval.ended_at - vm.gone_at).total_seconds()
        if late_s < -1 or (looks > LATE_LOOKS and late_s > PACE.at_least_s):
            yield (
                f"{vm.provider_id} of {vm.machine_id} was gone at {vm.gone_at:%H:%M:%S}, the books"
                f" end at {interval.ended_at:%H:%M:%S}, {looks} looks later"
            )

    def _over_at(self, vm: Vm) -> datetime:
        """From when on the books can be closed: a launch that nobody has heard of is given time to
        show."""
        assert vm.gone_at is not None, "all are gone"
        record = self.world.store.machine_get(vm.machine_id)
        if record.registered_at is not None or record.terminating_at is None:
            return vm.gone_at
        grace = timedelta(seconds=TIMING.unknown_grace_s)
        return max(vm.gone_at, record.terminating_at + grace)


def explains(record: Machine | None, vm: Vm) -> bool:
    """Whether a record is that of a machine."""
    is_open = record is not None and record.state not in MACHINE_ENDED
    return is_open and record is not None and record.provider_id in ("", vm.provider_id)


def _is_of(interval: PriceInterval, vm: Vm) -> bool:
    """One that nobody has seen alive is booked from when it was wanted."""
    early = vm.created_at - interval.started_at
    mine = interval.machine_id == vm.machine_id
    return mine and timedelta(seconds=-2) < early < timedelta(minutes=1)


def tally(counts: Mapping[str, int]) -> str:
    """`12 a, 3 b`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
