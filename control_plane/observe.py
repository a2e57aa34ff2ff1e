"""Gathering the snapshot: the only place that reads for a decision.

Clouds are listed before the fleet is read, so a machine whose record was written in between is
never taken for a stray. What a provider does not show is asked for once by id: only a positive "it
does not exist" counts as gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from control_plane import throttle
from control_plane.core.model import (
    Lease,
    Machine,
    MachineState,
    Observation,
    Offer,
    QueueRecord,
    QueueStats,
    Sighting,
    WaitingGroup,
)
from control_plane.core.policy import Autoscaler, AutoscalerRecord, CloudPolicy, merged
from control_plane.core.snapshot import Snapshot, Spend, Timing
from control_plane.errors import ProviderError
from control_plane.ports import Ids, MachineRef, PriceBook, Provider, Store
from control_plane.spending import Spending
from control_plane.throttle import Rests

_SET_UP = "it needs the cloud's SDK (docs/clouds.md), and an address for machines (--public-url)"

CLOUD_CALLS = 8
"""Side by side: enough to launch a fleet in seconds, few enough for any rate limit."""
PRICES_S = 1.0
"""So long a look waits for the prices of the day."""

LISTED_AFTER = timedelta(seconds=20)
"""So long after its launch a machine may be missing in a listing: on GCP one that is being
provisioned cannot be told from one that there is no room for, and listings lag everywhere."""

COUNTED_MIN, COUNTED_MAX = 500, 10_000
"""Of one kind of waiting jobs at least and at most so many are counted. Fewer than the minimum
would save nothing; more than the maximum would make a look at a deep queue slow, and no plan needs
them: the rest is counted at the looks after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which autoscaler is looked at, and what is known of it before the look."""

    record: AutoscalerRecord
    fleet: str
    """The label of its machines."""
    queues: Sequence[QueueRecord]
    """All there are."""
    rests: Rests
    generation: int = 0
    """Of the controller lease under which the decision would be carried out."""
    reachable_since: datetime | None = None
    """Since when agents could reach the control plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What observing needs."""

    store: Store
    providers: Mapping[str, Provider]
    prices: PriceBook
    spending: Spending
    ids: Ids
    timing: Timing
    pool: Executor
    """Runs the providers' listings side by side."""
    limits: dict[str, tuple[Autoscaler, int, int]] = field(default_factory=dict, repr=False)
    """By autoscaler: for which policy and how many offers it was worked out, and how many jobs are
    worth counting. Thousands of offers are looked at for it."""

    def gather(
        self, view: View, now: datetime, *, look: bool = True, sure: bool = True
    ) -> Snapshot:
        """Everything one decision about this autoscaler may look at; without `look` no provider is
        asked what it runs. What is not `sure` shows whether there is anything to decide."""
        policy = view.record.policy
        declared = merged(policy.clouds)
        prices = [self.pool.submit(self.prices.refresh, [cloud]) for cloud in declared if look]
        seen = self._observe(declared, view, now, look=look)
        # What takes longer comes into the next look: no decision waits for a price list.
        wait(prices, timeout=PRICES_S)
        fleet = self.store.fleet_read(sure=sure)
        elsewhere = _elsewhere(declared, _of(view, fleet[0]))
        if elsewhere:
            everywhere = merged([*declared, *elsewhere])
            changed = {cloud.provider for cloud in elsewhere}
            again = [cloud for cloud in everywhere if cloud.provider in changed]
            seen = {**seen, **self._observe(again, view, now, look=look)}
            fleet = self.store.fleet_read(sure=sure)
        observations = tuple(seen.values())
        machines = _of(view, fleet[0])
        offers = self.prices.offers([*declared, *elsewhere])
        waiting = self._waiting(policy, offers, now)
        return Snapshot(
            now=now,
            policy=policy,
            paused=view.record.paused,
            deleting=view.record.deleting,
            generation=view.generation,
            queues=_stats(policy, waiting, fleet[1]),
            queues_paused=frozenset(queue.name for queue in view.queues if queue.paused),
            waiting=tuple(waiting),
            machines=tuple(machines),
            leases=_leases(policy, machines, *fleet),
            observations=self._look_again(observations, machines, view, now),
            offers=tuple(offers),
            cooldowns=tuple(view.rests.known.values()),
            reachable_since=view.reachable_since,
            spend=(
                self.spending.of(policy.name, now)
                if _spends(policy, waiting, machines)
                else Spend()
            ),
            timing=self.timing,
            new_machine_ids=tuple(self.ids.new("m") for _ in range(_ids_needed(policy, machines))),
        )

    def _observe(
        self, clouds: Sequence[CloudPolicy], view: View, now: datetime, *, look: bool
    ) -> Mapping[str, Observation]:
        asked = {
            cloud.provider: [each for each in clouds if each.provider == cloud.provider]
            for cloud in clouds
            if look or cloud.provider not in self.providers
        }
        looks = {
            name: self.pool.submit(self._look, name, places, view, now)
            for name, places in asked.items()
        }
        return {name: look.result() for name, look in looks.items()}

    def _look(
        self, name: str, clouds: Sequence[CloudPolicy], view: View, now: datetime
    ) -> Observation:
        provider = self.providers.get(name)
        if provider is None:
            return _unseen(name, now, f"provider {name} is not set up on this server: {_SET_UP}")
        if throttle.resting(view.rests, name, "", now):
            return _unseen(name, now, f"{name} has asked for fewer calls")
        try:
            return provider.observe(view.fleet, clouds)
        except ProviderError as error:
            throttle.heed(view.rests, error, name, "", now)
            return _unseen(name, now, f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is: unknown
            return _unseen(name, now, f"{name}: {type(error).__name__}: {error}")

    def _look_again(
        self,
        observations: tuple[Observation, ...],
        machines: Sequence[Machine],
        view: View,
        now: datetime,
    ) -> tuple[Observation, ...]:
        """Ask for every machine that its provider's listing should show and does not."""
        completed = []
        for observation in observations:
            shown = {sighting.provider_id for sighting in observation.sightings}
            shown |= {sighting.machine_id for sighting in observation.sightings}
            missing = [
                machine
                for machine in machines
                if machine.offer.provider == observation.provider
                and observation.knows(machine.offer.region, machine.offer.zone)
                and self._is_missed(machine, shown, now)
            ]
            found = [self._ask(machine, view, now) for machine in missing]
            sightings = (*observation.sightings, *(each for each in found if each))
            completed.append(replace(observation, sightings=sightings))
        return tuple(completed)

    def _is_missed(self, machine: Machine, shown: Collection[str], now: datetime) -> bool:
        """Whether a listing should show a machine and does not. A launch that goes on is asked for
        by its operation. One that was given up is asked for by its label, once the books are about
        to be closed over it: it may have come to something, and gone again."""
        if machine.state is MachineState.LAUNCHING and machine.operation:
            return False
        if machine.provider_id:
            return machine.provider_id not in shown and not _is_new(machine, now)
        since, grace = machine.terminating_at, timedelta(seconds=self.timing.unknown_grace_s)
        over = machine.state is MachineState.TERMINATING and machine.id not in shown
        return over and since is not None and now - since > grace

    def _ask(self, machine: Machine, view: View, now: datetime) -> Sighting | None:
        place = machine.offer.provider, machine.offer.region
        if throttle.resting(view.rests, *place, now):
            return None
        try:
            seen = self.providers[machine.offer.provider].sighting(machine_ref(machine))
        except ProviderError as error:
            throttle.heed(view.rests, error, *place, now)
            return None
        except Exception:  # noqa: BLE001 - one cloud's fault must not hide what the others say
            return None
        if seen is not None or not machine.provider_id:
            return seen
        return Sighting(
            machine_id=machine.id,
            provider_id=machine.provider_id,
            provider=machine.offer.provider,
            region=machine.offer.region,
            zone=machine.offer.zone,
            state="gone",
            fleet=view.fleet,
            created_at=machine.launched_at or machine.planned_at,
        )

    def _waiting(
        self, policy: Autoscaler, offers: Sequence[Offer], now: datetime
    ) -> Sequence[WaitingGroup]:
        ripe_before = {
            queue.name: now - timedelta(seconds=queue.launch_after_s)
            for queue in policy.queues.values()
        }
        return self.store.waiting_groups(
            sorted(policy.queues),
            ripe_before=ripe_before,
            now=now,
            limit=self._limit(policy, offers),
        )

    def _limit(self, policy: Autoscaler, offers: Sequence[Offer]) -> int:
        known = self.limits.get(policy.name)
        if known is None or known[:2] != (policy, len(offers)):
            known = (policy, len(offers), counted(policy, offers))
            self.limits[policy.name] = known
        return known[2]


def counted(policy: Autoscaler, offers: Iterable[Offer]) -> int:
    """How many jobs of one kind are worth counting: what the pools could run at their largest, with
    a core or a card for each job."""
    room = dict.fromkeys(policy.pools, 1)
    for queue in policy.queues.values():
        for name in queue.pools:
            room[name] = max(room[name], queue.jobs_per_machine or 1)
    for offer in offers:
        for pool in policy.pools.values():
            jobs = max(offer.capacity.cpus, offer.capacity.gpus)
            if jobs > room[pool.name] and pool.accepts(offer):
                room[pool.name] = jobs
    most = sum(pool.machines_max * room[pool.name] for pool in policy.pools.values())
    return min(max(most, COUNTED_MIN), COUNTED_MAX)


def _spends(
    policy: Autoscaler, waiting: Sequence[WaitingGroup], machines: Sequence[Machine]
) -> bool:
    """Whether money spent so far can matter: something runs, or may be bought."""
    kept = any(pool.machines.low or pool.warm for pool in policy.pools.values())
    return bool(waiting or machines or kept)


def _of(view: View, machines: Iterable[Machine]) -> list[Machine]:
    """Those of this autoscaler."""
    return [machine for machine in machines if machine.autoscaler == view.record.name]


def _stats(
    policy: Autoscaler, waiting: Sequence[WaitingGroup], leases: Sequence[Lease]
) -> Mapping[str, QueueStats]:
    running = Counter(lease.queue for lease in leases)
    return {name: _queue_stats(name, waiting, running[name]) for name in sorted(policy.queues)}


def _queue_stats(name: str, waiting: Sequence[WaitingGroup], running: int) -> QueueStats:
    """What may start now: neither delayed jobs nor those that the queue's limits keep back."""
    mine = [group for group in waiting if group.queue == name]
    return QueueStats(
        name=name,
        waiting=sum(group.count for group in mine),
        running=running,
        oldest_at=min((group.oldest_at for group in mine), default=None),
        exact=all(group.exact for group in mine),
    )


def _leases(
    policy: Autoscaler,
    mine: Sequence[Machine],
    machines: Sequence[Machine],
    leases: Sequence[Lease],
) -> tuple[Lease, ...]:
    """Those of this autoscaler's machines, and those of its queues whose machine no longer exists.
    A queue may change hands while a machine of its former owner works for it."""
    own = {machine.id for machine in mine}
    others = {machine.id for machine in machines} - own
    return tuple(
        lease
        for lease in leases
        if lease.machine_id in own
        or (lease.queue in policy.queues and lease.machine_id not in others)
    )


def _unseen(provider: str, now: datetime, problem: str) -> Observation:
    return Observation(provider=provider, at=now, unknown=("*",), problem=problem)


def _is_new(machine: Machine, now: datetime) -> bool:
    """Whether a listing need not show a machine yet. A thousand launched at once would else be
    asked for one by one at every look."""
    began = machine.launched_at
    return (
        machine.state is MachineState.BOOTING and began is not None and now - began < LISTED_AFTER
    )


def machine_ref(machine: Machine) -> MachineRef:
    """Enough to find a machine at its provider."""
    return MachineRef(
        machine_id=machine.id,
        provider_id=machine.provider_id,
        region=machine.offer.region,
        zone=machine.offer.zone,
        options=machine.options,
        launched_at=machine.launched_at,
    )


def _elsewhere(
    declared: Sequence[CloudPolicy], machines: Sequence[Machine]
) -> tuple[CloudPolicy, ...]:
    """Where machines are that the document no longer allows."""
    places = [
        CloudPolicy(
            provider=machine.offer.provider,
            regions=(machine.offer.region,),
            options=machine.options,
        )
        for machine in machines
        if machine.state is not MachineState.PLANNED
    ]
    return tuple(
        place for place in merged(places) if not any(_holds(each, place) for each in declared)
    )


def _holds(cloud: CloudPolicy, place: CloudPolicy) -> bool:
    """Whether a listing of `cloud` shows the machines of `place`."""
    same = cloud.provider == place.provider and cloud.options == place.options
    return same and (not cloud.regions or set(place.regions) <= set(cloud.regions))


def _ids_needed(policy: Autoscaler, machines: Sequence[Machine]) -> int:
    """As many as the pools still allow machines."""
    there = Counter(machine.pool for machine in machines)
    return sum(max(0, pool.machines_max - there[pool.name]) for pool in policy.pools.values())
