"""What a fleet has at its clouds and nobody needs: machines that no record explains, and the disks,
network interfaces and addresses that machines left behind.

The loop ends unexplained machines itself, at every look (`core/recovery.py`). Here leftovers are
removed, now and then, and all of it is found for people who ask (`orchctl sweep`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.core.model import Leftover, Market
from control_plane.core.policy import AutoscalerRecord, CloudPolicy, merged
from control_plane.errors import ProviderError
from control_plane.ports import Cleaner, MachineRef, Provider, Store
from control_plane.service import Service

log = logging.getLogger("orchctl.sweep")

PAUSE = timedelta(minutes=10)
"""Between two rounds."""

GRACE = timedelta(minutes=10)
"""A disk may be older than the machine it is for. What serves nobody for this long is left over."""

AGE = timedelta(hours=1)
"""No launch takes this long: what is older and serves nobody goes at first sight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """Something at a cloud that carries a fleet's label and no open record explains."""

    provider: str
    region: str
    zone: str
    kind: str
    """`machine`, or what a `Leftover` says."""
    id: str
    machine_id: str
    created_at: datetime | None
    detail: str
    """For people: its type or size."""
    usd_hour: Decimal | None
    """At list price; None where that is not known."""
    leftover: Leftover | None = None

    def remove(self, provider: Provider, options: Mapping[str, str]) -> None:
        """Begin to remove it. Raises `ProviderError`."""
        if self.leftover is not None:
            assert isinstance(provider, Cleaner), "only a cleaner finds leftovers"
            provider.remove(self.leftover)
            return
        provider.terminate(
            MachineRef(
                machine_id=self.machine_id,
                provider_id=self.id,
                region=self.region,
                zone=self.zone,
                options=options,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one cloud shows of a fleet."""

    strays: tuple[Stray, ...]
    problem: str = ""
    """What did not answer: more may be there. Empty when everything did."""


def look(
    provider: Provider,
    fleet: str,
    clouds: Sequence[CloudPolicy],
    known: Callable[[], Mapping[str, str]],
) -> Look:
    """All that this fleet has at a cloud beyond its open machines. `known` gives their provider's
    ids by machine id, empty where not known yet; it is asked after the cloud, so that a machine
    launched meanwhile is in it."""
    problems: list[str] = []
    machines = _asked(lambda: _machines(provider, fleet, clouds, problems), problems)
    leftovers = _asked(lambda: _leftovers(provider, fleet, clouds), problems)
    books = known()
    unexplained = [each for each in machines if books.get(each.machine_id) not in ("", each.id)]
    left = [each for each in leftovers if each.machine_id not in books]
    # A stopped machine is both, and what it costs is what a leftover costs.
    stopped = {each.id for each in left}
    unexplained = [each for each in unexplained if each.id not in stopped]
    return Look(strays=(*unexplained, *left), problem="; ".join(problems))


def _asked(ask: Callable[[], list[Stray]], problems: list[str]) -> list[Stray]:
    try:
        return ask()
    except ProviderError as error:
        problems.append(str(error))
        return []


def _machines(
    provider: Provider, fleet: str, clouds: Sequence[CloudPolicy], problems: list[str]
) -> list[Stray]:
    observation = provider.observe(fleet, clouds)
    if observation.unknown:
        problems.append(f"{', '.join(observation.unknown)}: {observation.problem or 'no answer'}")
    prices: dict[tuple[str, str, Market | None], Decimal] = {
        (each.region, each.instance_type, each.market): each.price_usd_hour
        for each in provider.offers([])
    }
    return [
        Stray(
            provider=seen.provider,
            region=seen.region,
            zone=seen.zone,
            kind="machine",
            id=seen.provider_id,
            machine_id=seen.machine_id,
            created_at=seen.created_at,
            detail=seen.instance_type,
            usd_hour=prices.get((seen.region, seen.instance_type, seen.market)),
        )
        for seen in observation.sightings
        if seen.state != "gone"
    ]


def _leftovers(provider: Provider, fleet: str, clouds: Sequence[CloudPolicy]) -> list[Stray]:
    found = provider.strays(fleet, clouds) if isinstance(provider, Cleaner) else ()
    return [
        Stray(
            provider=each.provider,
            region=each.region,
            zone=each.zone,
            kind=each.kind,
            id=each.id,
            machine_id=each.machine_id,
            created_at=each.created_at,
            detail=each.size,
            usd_hour=each.usd_hour,
            leftover=each,
        )
        for each in found
    ]


class Sweeper:
    """Removes, now and then, what machines left behind."""

    def __init__(
        self,
        service: Service,
        providers: Mapping[str, Provider],
        fleet: Callable[[str], str],
    ) -> None:
        """`fleet` gives the label of an autoscaler's machines."""
        self._service = service
        self._providers = providers
        self._fleet = fleet
        self._seen: dict[str, datetime] = {}
        """Since when each leftover was seen at every round."""
        self._due = service.clock.now()

    def sweep(self) -> None:
        """Look and remove when it is time to. What goes wrong is logged: it must not keep anybody
        from anything else."""
        now = self._service.clock.now()
        if now < self._due:
            return
        self._due = now + PAUSE
        seen: set[str] = set()
        try:
            for record in self._service.store.shared_read().autoscalers:
                seen |= {each.id for each in self._round(record, now)}
        except Exception:
            log.exception("nobody knows what machines left behind")
            return
        self._seen = {name: at for name, at in self._seen.items() if name in seen}

    def _round(self, record: AutoscalerRecord, now: datetime) -> list[Leftover]:
        """Remove what has served nobody for long enough; all that was seen."""
        fleet = self._fleet(record.name)
        # The clouds first: what is launched meanwhile has its record by the second look.
        found = [
            (cleaner, left)
            for cleaner, clouds in self._cleaners(record.policy.clouds)
            for left in _read(cleaner, fleet, clouds)
        ]
        known = open_machines(self._service.store)
        found = [(cleaner, left) for cleaner, left in found if left.machine_id not in known]
        for cleaner, left in found:
            if self._is_over(left, now):
                self._remove(cleaner, left)
        return [left for _, left in found]

    def _cleaners(
        self, clouds: Sequence[CloudPolicy]
    ) -> Iterator[tuple[Cleaner, Sequence[CloudPolicy]]]:
        for name in sorted({cloud.provider for cloud in clouds}):
            provider = self._providers.get(name)
            if isinstance(provider, Cleaner):
                yield provider, merged(each for each in clouds if each.provider == name)

    def _is_over(self, left: Leftover, now: datetime) -> bool:
        first = self._seen.setdefault(left.id, now)
        old = left.created_at is not None and now - left.created_at >= AGE
        return old or now - first >= GRACE

    def _remove(self, cleaner: Cleaner, left: Leftover) -> None:
        whose = left.machine_id or "an unknown machine"
        try:
            cleaner.remove(left)
        except ProviderError as error:
            log.warning("%s %s was not removed: %s", left.kind, left.id, error)
            return
        text = f"{left.kind} {left.id} ({left.size or 'no size'}) of {whose} was left over: removed"
        self._service.note("machine", left.machine_id or left.id, text, code="leftover-removed")


def open_machines(store: Store) -> Mapping[str, str]:
    """The ids that providers gave the open machines, by machine id; empty where not known yet."""
    return {machine.id: machine.provider_id for machine in store.fleet_read()[0]}


def _read(cleaner: Cleaner, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
    try:
        return cleaner.strays(fleet, clouds)
    except ProviderError as error:
        log.warning("what machines left behind is not known: %s", error)
        return ()
