"""`ports.Provider` on Azure: one virtual machine for each machine, in a resource group of ours.

Azure has no limit of its own to a machine's life, and a system that shuts down leaves a machine
that is stopped and paid for. So it is the controller that ends machines: at the deadline in their
label, and when they are found stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TypeVar

from control_plane.core.model import Leftover, Observation, Offer, Sighting
from control_plane.core.pacing import Pace
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check, Launched, LaunchRequest, Limits, MachineRef
from providers.azure import ending, listing
from providers.azure.body import FLEET, MACHINE
from providers.azure.client import Clients, Place, parse_id
from providers.azure.errors import told
from providers.azure.examine import Examination
from providers.azure.launch import Launch
from providers.azure.prices import priced, prices
from providers.azure.quotas import allowed
from providers.catalog.loader import load_offers
from providers.side_by_side import side_by_side
from providers.startup import agent_startup

_SIDE_BY_SIDE = 8

K = TypeVar("K")
T = TypeVar("T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


LIMITS = Limits(
    launches=Pace(per_s=500 / 60, burst=1500.0), requests=Pace(per_s=500 / 60, burst=1500.0)
)
"""Of a subscription in a region: "Compute throttling limits", the buckets of Put VM and of Delete
VM: 1,500 at once, 500 a minute."""


class AzureProvider:
    """Machines of one set of credentials. Safe to use from several threads."""

    name = "azure"
    needs_token = False
    limits = LIMITS

    def __init__(
        self,
        clients: Clients,
        *,
        render: Callable[[LaunchRequest], str] = agent_startup,
        now: Callable[[], datetime] = _utc_now,
        listing_s: float = 30.0,
    ) -> None:
        """`render` makes the start-up text; a listing has `listing_s` in all."""
        self._clients = clients
        self._render = render
        self._now = now
        self._listing_s = listing_s
        self._operations: dict[str, str] = {}

    # ------------------------------------------------------------------------------- the port

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        """The catalogue at today's prices, without what the subscription may not start. What does
        not answer leaves the catalogue's word standing; without settings nothing is asked."""
        shipped = load_offers([self.name])
        if not clouds:
            return shipped
        by_region: dict[str, list[Offer]] = {
            region: [] for cloud in clouds for region in cloud.regions
        }
        for offer in shipped:
            if offer.region in by_region:
                by_region[offer.region].append(offer)
        found, _ = self._asked(
            by_region,
            lambda region: self._sold(region, clouds, by_region[region]),
            limit_s=self._listing_s,
        )
        return [
            offer for region, offers in by_region.items() for offer in found.get(region, offers)
        ]

    def launch(self, request: LaunchRequest) -> Launched:
        """Make a machine, or find the one that this key has made; while Azure is at it, the answer
        carries an operation. Refuses as `errors.py` has it, with `Ended` (transient), `NameTaken`
        or `CustomDataTooLong` (invalid)."""
        return self._launch(request).begin(self._render)

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:  # noqa: ARG002
        """How a launch goes on: the machine itself tells, found by the key as ever."""
        return self._launch(request).result()

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        """Every machine of a fleet in the resource groups that are named. One call answers for a
        whole group, so a group that does not answer leaves all its regions unknown."""
        at, began = self._now(), monotonic()
        regions = listing.places(self._clients, clouds)
        list_machines = partial(listing.machines, self._clients)
        shown, failed = self._asked(regions, list_machines, limit_s=self._listing_s)
        if failed and not shown:
            raise next(iter(failed.values()))
        ours = [(place, vm) for place, vms in shown.items() for vm in listing.of_fleet(vms, fleet)]
        powers = self._powers({place.subscription for place, _ in ours}, began)
        return Observation(
            provider=self.name,
            at=at,
            sightings=tuple(
                listing.sighting(place, vm, powers.get(vm["id"].lower(), ""), fleet, at)
                for place, vm in ours
            ),
            unknown=tuple(sorted({region for place in failed for region in regions[place]})),
            problem="; ".join(f"{place.group}: {error}" for place, error in failed.items()),
        )

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One machine, by id, or by label where the id was never heard of."""
        found = (self._look(place, name) for place, name in self._meant(ref))
        seen = [each for each in found if each is not None]
        return min(seen, key=lambda each: each.state == "stopping", default=None)

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a machine; when it is gone, look for what it has left behind."""
        for place, name in self._meant(ref):
            with told():
                if ending.end(self._clients, place, name):
                    ending.sweep(self._clients, place, name)

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        """What machines of a fleet have left behind in the resource groups that are named. Raises
        when nothing could be read; a group that does not answer is looked at the next time."""
        places = listing.places(self._clients, clouds)
        look = partial(ending.leftovers, self._clients, fleet=fleet, now=self._now())
        found, failed = self._asked(places, look, limit_s=self._listing_s)
        if failed and not found:
            raise next(iter(failed.values()))
        return [leftover for group in found.values() for leftover in group]

    def remove(self, leftover: Leftover) -> None:
        """Remove what was left behind; nothing happens when it is gone."""
        ending.remove(self._clients, leftover)

    def examine(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """Whether the subscriptions are set up for these settings and offers."""
        return Examination(self._clients, self._now).checks(clouds, offers)

    # --------------------------------------------------------------------------------- inside

    def _asked(
        self, keys: Collection[K], look: Callable[[K], T], *, limit_s: float
    ) -> tuple[Mapping[K, T], Mapping[K, ProviderError]]:
        """Looks side by side, in threads of their own: what hangs keeps no later look waiting."""
        pool = ThreadPoolExecutor(max(1, min(_SIDE_BY_SIDE, len(keys))), "azure")
        try:
            return side_by_side(pool, keys, look, deadline_s=limit_s)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _launch(self, request: LaunchRequest) -> Launch:
        with told():
            return Launch(self._clients, request, now=self._now, operations=self._operations)

    def _meant(self, ref: MachineRef) -> Sequence[tuple[Place, str]]:
        """The virtual machines that a reference means."""
        if ref.provider_id:
            found = parse_id(ref.provider_id)
            return [found] if found else []
        with told():
            place = self._clients.place(ref.options)
        shown = listing.machines(self._clients, place)
        labelled = (vm for vm in shown if listing.tags(vm).get(MACHINE) == ref.machine_id)
        return [(place, vm["name"]) for vm in labelled]

    def _look(self, place: Place, name: str) -> Sighting | None:
        with told():
            vm = listing.machine(self._clients, place, name)
        if vm is None:
            return None
        fleet = listing.tags(vm).get(FLEET, "")
        return listing.sighting(place, vm, listing.power(vm), fleet, self._now())

    def _powers(self, subscriptions: set[str], began: float) -> Mapping[str, str]:
        """Power states by resource id, as far as they can be had in what is left of the time."""
        left_s = max(1.0, self._listing_s - (monotonic() - began))
        read_powers = partial(listing.powers, self._clients)
        found, _ = self._asked(subscriptions, read_powers, limit_s=left_s)
        return {vm: power for group in found.values() for vm, power in group.items()}

    def _sold(
        self, region: str, clouds: Sequence[CloudPolicy], shipped: Sequence[Offer]
    ) -> Sequence[Offer]:
        """What is sold in a region to any of the subscriptions that buy there."""
        offers = shipped
        with suppress(ProviderError):
            offers = list(priced(shipped, prices(self._clients, region)))
        with suppress(ProviderError), told():
            subscriptions = {
                self._clients.subscription(cloud.options)
                for cloud in clouds
                if region in cloud.regions
            }
            rights = [allowed(self._clients, each, region) for each in subscriptions]
            offers = [offer for offer in offers if any(each.allows(offer) for each in rights)]
        return offers
