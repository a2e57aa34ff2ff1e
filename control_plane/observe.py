"""Gathering the snapshot: the only place that reads for a decision.

Clouds are listed before the store is read, so a machine whose record was written in between is
never taken for a stray. What a provider does not show is asked for once by id: only a positive "it
does not exist" counts as gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from control_plane import throttle
from control_plane.core.cost import spend
from control_plane.core.model import (
    Lease,
    Machine,
    Observation,
    PriceInterval,
    Sighting,
    WaitingGroup,
)
from control_plane.core.policy import Autoscaler, AutoscalerRecord
from control_plane.core.snapshot import Snapshot, Spend, Timing
from control_plane.errors import ProviderError
from control_plane.ports import Fence, Ids, MachineRef, PriceBook, Provider, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What observing needs."""

    store: Store
    providers: Mapping[str, Provider]
    prices: PriceBook
    ids: Ids
    timing: Timing
    pool: Executor
    """Runs the providers' listings side by side."""

    def gather(
        self,
        record: AutoscalerRecord,
        *,
        fleet: str,
        fence: Fence,
        now: datetime,
        reachable_since: datetime | None,
        look: bool = True,
    ) -> Snapshot:
        """Everything one decision about this autoscaler may look at; without `look` no provider is
        asked what it runs."""
        policy = record.policy
        known = self.store.machine_list(autoscaler=record.name)
        providers = _providers(policy, known)
        observations = self._observe(
            providers if look else [name for name in providers if name not in self.providers],
            fleet,
            now,
        )
        machines = self.store.machine_list(autoscaler=record.name)
        return Snapshot(
            now=now,
            policy=policy,
            paused=record.paused,
            deleting=record.deleting,
            generation=fence.generation,
            queues={k: v for k, v in self.store.queue_stats().items() if k in policy.queues},
            queues_paused=frozenset(q.name for q in self.store.queue_list() if q.paused),
            waiting=tuple(self._waiting(policy, now)),
            machines=tuple(machines),
            leases=self._leases(policy, machines),
            observations=self._look_again(observations, machines, fleet, now),
            offers=tuple(self.prices.offers(providers)),
            cooldowns=tuple(self.store.cooldown_list()),
            reachable_since=reachable_since,
            spend=self._spend(record.name, now),
            timing=self.timing,
            new_machine_ids=tuple(self.ids.new("m") for _ in range(_ids_needed(policy, machines))),
        )

    def _observe(
        self, providers: Sequence[str], fleet: str, now: datetime
    ) -> tuple[Observation, ...]:
        looks = [self.pool.submit(self._look, name, fleet, now) for name in providers]
        return tuple(look.result() for look in looks)

    def _look(self, name: str, fleet: str, now: datetime) -> Observation:
        provider = self.providers.get(name)
        if provider is None:
            return _unseen(name, now, f"provider {name} is not set up on this server")
        if throttle.resting(self.store, name, "", now):
            return _unseen(name, now, f"{name} has asked for fewer calls")
        try:
            return provider.observe(fleet)
        except ProviderError as error:
            throttle.heed(self.store, error, name, "", now)
            return _unseen(name, now, f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the answer is: unknown
            return _unseen(name, now, f"{name}: {type(error).__name__}: {error}")

    def _look_again(
        self,
        observations: tuple[Observation, ...],
        machines: Sequence[Machine],
        fleet: str,
        now: datetime,
    ) -> tuple[Observation, ...]:
        """Ask by id for every machine that its provider's listing should show and does not."""
        completed = []
        for observation in observations:
            shown = {sighting.provider_id for sighting in observation.sightings}
            missing = [
                machine
                for machine in machines
                if machine.offer.provider == observation.provider
                and machine.provider_id
                and machine.provider_id not in shown
                and observation.knows(machine.offer.region, machine.offer.zone)
            ]
            found = [self._ask(machine, fleet, now) for machine in missing]
            sightings = (*observation.sightings, *(each for each in found if each))
            completed.append(replace(observation, sightings=sightings))
        return tuple(completed)

    def _ask(self, machine: Machine, fleet: str, now: datetime) -> Sighting | None:
        place = machine.offer.provider, machine.offer.region
        if throttle.resting(self.store, *place, now):
            return None
        try:
            seen = self.providers[machine.offer.provider].sighting(machine_ref(machine))
        except ProviderError as error:
            throttle.heed(self.store, error, *place, now)
            return None
        except Exception:  # noqa: BLE001 - one cloud's fault must not hide what the others say
            return None
        return seen or Sighting(
            machine_id=machine.id,
            provider_id=machine.provider_id,
            provider=machine.offer.provider,
            region=machine.offer.region,
            zone=machine.offer.zone,
            state="gone",
            fleet=fleet,
            created_at=machine.launched_at or machine.planned_at,
        )

    def _waiting(self, policy: Autoscaler, now: datetime) -> Sequence[WaitingGroup]:
        ripe_before = {
            queue.name: now - timedelta(seconds=queue.launch_after_s)
            for queue in policy.queues.values()
        }
        return self.store.waiting_groups(sorted(policy.queues), ripe_before=ripe_before, now=now)

    def _leases(self, policy: Autoscaler, machines: Sequence[Machine]) -> tuple[Lease, ...]:
        """Those of this autoscaler's machines, and those of its queues whose machine no longer
        exists. A queue may change hands while a machine of its former owner works for it."""
        mine = {machine.id for machine in machines}
        others = {machine.id for machine in self.store.machine_list()} - mine
        return tuple(
            lease
            for lease in self.store.job_leases()
            if lease.machine_id in mine
            or (lease.queue in policy.queues and lease.machine_id not in others)
        )

    def _spend(self, autoscaler: str, now: datetime) -> Spend:
        day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        month = day.replace(day=1)
        mine: list[PriceInterval] = [
            interval
            for interval in self.store.prices_between(month, now)
            if interval.autoscaler == autoscaler
        ]
        return Spend(day_usd=spend(mine, day, now), month_usd=spend(mine, month, now))


def _unseen(provider: str, now: datetime, problem: str) -> Observation:
    return Observation(provider=provider, at=now, unknown=("*",), problem=problem)


def machine_ref(machine: Machine) -> MachineRef:
    """Enough to find a machine at its provider."""
    return MachineRef(
        machine_id=machine.id,
        provider_id=machine.provider_id,
        region=machine.offer.region,
        zone=machine.offer.zone,
    )


def _providers(policy: Autoscaler, machines: Sequence[Machine]) -> list[str]:
    """Where this autoscaler may buy, and where it still has something."""
    declared = {cloud.provider for pool in policy.pools.values() for cloud in pool.clouds}
    return sorted(declared | {machine.offer.provider for machine in machines})


def _ids_needed(policy: Autoscaler, machines: Sequence[Machine]) -> int:
    """As many as the pools still allow machines."""
    there = Counter(machine.pool for machine in machines)
    return sum(max(0, pool.machines_max - there[pool.name]) for pool in policy.pools.values())
