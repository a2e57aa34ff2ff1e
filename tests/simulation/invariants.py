"""What must hold after everything that happens, checked against the clouds' own truth.

The books (store, ledger) are what the control plane believes; `SimulatedCloud.alive`, `bill` and
`violations` are what is. A promise counts only where the two are compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from control_plane.core.lifecycle import IN_FLIGHT, JOB_ENDED
from control_plane.core.model import Attempt, Job, JobState, Machine, PriceInterval
from control_plane.core.policy import Autoscaler
from control_plane.reconcile import Tick
from providers.simulated.clock import EPOCH
from providers.simulated.machines import Vm
from tests.simulation.world import INSTALLATION, Controller, World

NOTICED_LATE_S = 900
"""How long after a VM has ended the books may still count it as costing money.

`ended_at` is written when a controller *knows* that a machine is gone, not when it went: normally
the next look (a minute), after a crash the lease's time (two minutes), the restart, and the looks
that unreadable regions and failing calls spoil. So the ledger never says less than the bill for a
machine it knows, and at most this much more."""

_HELD = (JobState.LEASED, JobState.RUNNING)


class Broken(AssertionError):
    """A promise was broken."""


class Watch:
    """Looks at a world after every step and remembers what may never change again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accepted: set[str] = set()
        """Ids of jobs that were handed in."""
        self.loosened: dict[str, int] = {}
        """Pools whose maximum was lowered: what they may still have by then."""
        self.hidden: dict[tuple[str, str], list[tuple[datetime, datetime]]] = defaultdict(list)
        """When regions of clouds did not answer, for as long as they were told not to."""
        self._ended: dict[str, Job] = {}
        self._epochs: dict[str, int] = {}
        world.after_step = self.step
        world.ticked = self.ticked

    def step(self) -> None:
        """After anything happened. Raises `Broken`."""
        for cloud in self.world.clouds.values():
            none(cloud.violations)
        for record in self.world.store.autoscaler_list():
            none(self._caps(record.policy))

    def ticked(self, controller: Controller, tick: Tick) -> None:
        """After a controller has looked at an autoscaler. Raises `Broken`."""
        none([finding.sentence for finding in tick.findings])
        none([error for error in (tick.done.errors if tick.done else ()) if is_bug(error)])
        none(self._jobs())
        none(self._bought_twice(tick))

    def at_rest(self) -> None:
        """When everything has come to its end. Raises `Broken`."""
        self.step()
        none(self._jobs())
        none([f"{job.id} is {job.state}" for job in self.world.jobs() if not _over(job)])
        none([f"{lease.job_id} is leased" for lease in self.world.store.job_leases()])
        none([f"{m.id} is {m.state}" for m in self.world.machines()])
        none([f"{vm.provider_id} of {vm.machine_id} lives" for vm in self.world.alive()])
        none(self._ledger())

    # ------------------------------------------------------------------------ caps

    def _caps(self, policy: Autoscaler) -> Iterator[str]:
        fleet = f"{INSTALLATION}-{policy.name}"
        alive = [vm for vm in self.world.alive() if vm.fleet == fleet]
        for name, pool in policy.pools.items():
            mine = [vm for vm in alive if vm.boot.pool == name]
            most = max(pool.machines_max, self.loosened.get(name, 0))
            if len(mine) > most:
                yield f"pool {name} has {len(mine)} VMs, its maximum is {most}"
            gpus = sum(vm.offer.capacity.gpus for vm in mine)
            if gpus > pool.gpus_max:
                yield f"pool {name} has {gpus} GPUs, its maximum is {pool.gpus_max}"
        rate = sum((self._planned_price(vm) for vm in alive), Decimal(0))
        if rate > policy.budget.hour_usd:
            yield f"machines cost {rate} USD/hour, the budget is {policy.budget.hour_usd}"

    def _planned_price(self, vm: Vm) -> Decimal:
        """What the VM was bought for. A spot price may move between the decision and the purchase;
        no cap can know that, so it is judged by the price it was decided on."""
        machine = self.world.store.machine_get(vm.machine_id)
        attempt = int(vm.key.rpartition(".")[2])
        return machine.offers[attempt - 1].price_usd_hour

    # ------------------------------------------------------------------------ jobs

    def _jobs(self) -> Iterator[str]:
        jobs = self.world.jobs()
        lost = self.accepted - {job.id for job in jobs}
        if lost:
            yield f"jobs are lost: {sorted(lost)}"
        leases = {lease.job_id: lease for lease in self.world.store.job_leases()}
        yield from self._limits([job for job in jobs if job.state in _HELD])
        states = {job.id: job.state for job in jobs}
        for job in jobs:
            if job.id in self._ended:
                if job != self._ended[job.id]:
                    yield f"{job.id} changed after its end: {self._ended[job.id]} -> {job}"
                continue
            if (job.state in _HELD) != (job.id in leases):
                yield f"{job.id} is {job.state}, its lease {leases.get(job.id)}"
            if job.epoch < self._epochs.get(job.id, 0):
                yield f"the epoch of {job.id} went back to {job.epoch}"
            self._epochs[job.id] = job.epoch
            attempts = self.world.store.job_attempts(job.id)
            yield from wrong_attempts(job, attempts)
            yield from _held_back(job, attempts, states)
            if _over(job):
                self._ended[job.id] = job

    def _limits(self, held: Sequence[Job]) -> Iterator[str]:
        in_all = Counter(job.queue for job in held)
        by_owner = Counter((job.queue, job.owner) for job in held)
        for queue in self.world.store.queue_list():
            if queue.max_running is not None and in_all[queue.name] > queue.max_running:
                yield f"{in_all[queue.name]} jobs of {queue.name} run, {queue.max_running} may"
            most = queue.max_running_per_owner
            for (name, owner), count in by_owner.items():
                if name == queue.name and most is not None and count > most:
                    yield f"{count} jobs of {owner} in {name} run, {most} may"

    # ------------------------------------------------------------------------ buying

    def _bought_twice(self, tick: Tick) -> Iterator[str]:
        """A plan made again at once, with everything it bought in flight, buys nothing."""
        if tick.plan is None or not tick.plan.launches or tick.plan.refusals or tick.plan.requeues:
            # What was refused may become possible when the others have found their offer, and what
            # was given back is waiting now.
            return
        machines = {machine.id: machine for machine in self.world.machines()}
        launches = {each.machine_id for each in tick.plan.launches}
        launches |= {each.machine_id for each in tick.plan.resumes}
        if not all(each in machines and _as_wanted(machines[each]) for each in launches):
            return  # a launch came to nothing, or to a smaller machine: buying elsewhere is right
        again = self.world.preview(tick.autoscaler)
        for launch in again.launches:
            yield f"bought again at once: {launch.reason.sentence}"

    # ------------------------------------------------------------------------ money

    def _ledger(self) -> Iterator[str]:
        """Each VM is in the books from its first moment until it was known to be gone."""
        intervals: dict[str, list[PriceInterval]] = defaultdict(list)
        horizon = self.world.clock.now() + timedelta(days=1)
        for interval in self.world.store.prices_between(EPOCH - timedelta(days=1), horizon):
            intervals[interval.machine_id].append(interval)
        for name, cloud in self.world.clouds.items():
            for vm in cloud.vms:
                yield from self._booked(name, vm, intervals[vm.machine_id])
        for machine_id, left in intervals.items():
            for interval in left:
                yield f"{machine_id} is booked from {interval.started_at}, there was no such VM"

    def _booked(self, cloud: str, vm: Vm, intervals: list[PriceInterval]) -> Iterator[str]:
        name = f"{vm.provider_id} of {vm.machine_id}"
        mine = [each for each in intervals if each.started_at == vm.created_at]
        gone_at = vm.gone_at()
        if gone_at is not None and not mine and self._never_shown(cloud, vm, gone_at):
            return
        if not mine or gone_at is None:
            yield f"{name}, alive {vm.created_at:%d %H:%M:%S} to {gone_at}, is not in the books"
            return
        intervals.remove(mine[0])
        if mine[0].ended_at is None:
            yield f"{name} is still booked"
            return
        late_s = self._shown_s(cloud, vm, gone_at, mine[0].ended_at)
        if not 0 <= late_s <= NOTICED_LATE_S:
            yield f"{name} was gone at {gone_at}, the books end {late_s:.0f} s later"

    def _never_shown(self, cloud: str, vm: Vm, gone_at: datetime) -> bool:
        """Whether its region was silent all the time in which a listing would have shown it: then
        nobody can know that a launch whose answer was lost came to something."""
        forgotten = gone_at + timedelta(seconds=self.world.clouds[cloud].spec.remembered_s)
        return self._shown_s(cloud, vm, vm.listed_at, forgotten) <= NOTICED_LATE_S

    def _shown_s(self, cloud: str, vm: Vm, since: datetime, until: datetime) -> float:
        """A span of time in seconds, without the parts in which the VM's region did not answer."""
        shown = until - since
        for start, end in self.hidden[cloud, vm.offer.region]:
            shown -= max(min(end, until) - max(start, since), timedelta(0))
        return shown.total_seconds()


def _as_wanted(machine: Machine) -> bool:
    """Whether a machine is on its way, and as large as the offer it was planned with."""
    wanted = machine.offers[0].capacity
    return machine.state in IN_FLIGHT and machine.offer.capacity.gpus >= wanted.gpus


def wrong_attempts(job: Job, attempts: Sequence[Attempt]) -> Iterator[str]:
    """One attempt at a time, each closed before the next, and one final one."""
    open_ones = [each for each in attempts if each.ended_at is None]
    if len(open_ones) != (job.state in _HELD):
        yield f"{job.id} is {job.state} with {len(open_ones)} open attempts"
    for before, after in pairwise(attempts):
        if before.ended_at is None or before.ended_at > after.leased_at:
            yield f"attempts {before.number} and {after.number} of {job.id} overlap"
    final = [each for each in attempts if each.outcome in ("succeeded", "cancelled")]
    if len(final) > 1:
        yield f"{job.id} ended {len(final)} times"


def _held_back(
    job: Job, attempts: Sequence[Attempt], states: Mapping[str, JobState]
) -> Iterator[str]:
    """Nothing begins before its time, or before what it depends on has succeeded."""
    if attempts and job.not_before is not None and attempts[0].leased_at < job.not_before:
        yield f"{job.id} began at {attempts[0].leased_at}, not before {job.not_before}"
    open_ones = [each for each in job.depends_on if states[each] is not JobState.SUCCEEDED]
    if open_ones and (attempts or job.state is JobState.QUEUED):
        yield f"{job.id} is {job.state} although {open_ones} have not succeeded"


def is_bug(error: str) -> bool:
    """Whether an error of a tick is one of the program rather than of a cloud."""
    return any(
        word in error
        for word in (
            "KeyError",
            "TypeError",
            "AttributeError",
            "ValueError",
            "IllegalTransition",
            "InvalidInput",
            "AssertionError",
            "IndexError",
            "Refused",
        )
    )


def _over(job: Job) -> bool:
    return job.state in JOB_ENDED


def none(broken: Sequence[str] | Iterator[str]) -> None:
    """Raises `Broken` when there is anything."""
    found = list(broken)
    if found:
        raise Broken("; ".join(found))
