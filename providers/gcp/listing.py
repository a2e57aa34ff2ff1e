"""From instances to sightings; from pages of a listing to what was seen and what was not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from control_plane.core.model import Market, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from providers.gcp import names
from providers.gcp.client import Client
from providers.gcp.launch import project_of, sold_as
from providers.gcp.names import Place, moment, region_of
from providers.side_by_side import side_by_side

PROVIDER = "gcp"

_STATES: Mapping[str, str] = {
    "PENDING": "pending",
    "PROVISIONING": "pending",
    "STAGING": "pending",
    "RUNNING": "running",
    "REPAIRING": "running",
}
"""All else ends, or has stopped: a stopped machine of ours never goes on, and its disk costs money
until it is deleted."""

_NOT_SURE_YET = frozenset({"PENDING", "PROVISIONING"})
_NOTHING_HERE = "NO_RESULTS_ON_PAGE"


def last(link: str) -> str:
    """The name at the end of a link."""
    return link.rpartition("/")[2]


@dataclass(slots=True)
class Listing:
    """One listing over all places of a project."""

    found: list[tuple[str, Any]] = field(default_factory=list)
    """Things with the zone or region they are in."""
    answered: set[str] = field(default_factory=set)
    """Zones and regions that said what they have, or that they have nothing."""
    unheard: set[str] = field(default_factory=set)

    def read(self, page: Any, word: str) -> None:
        """Add one page, in which each place has things or says why it has none."""
        for scope, part in page.items.items():
            place, warning = last(scope), part.warning.code
            if warning and warning != _NOTHING_HERE:
                self.unheard.add(place)
            else:
                self.answered.add(place)
            self.found += [(place, thing) for thing in getattr(part, word)]
        self.unheard |= {last(scope) for scope in page.unreachables}

    def silent(self, regions: Sequence[str]) -> Sequence[str]:
        """The places of these regions (none = all) that did not answer; a region of which nothing
        was heard at all by its own name."""
        found = [] if regions else sorted(self.unheard)
        for region in regions:
            zones = {each for each in self.answered | self.unheard if _within(each, region)}
            found += sorted(zones & self.unheard) if zones else [region]
        return found

    def heard(self, regions: Sequence[str]) -> bool:
        """Whether any place of these regions (none = all) answered."""
        answered = self.answered - self.unheard
        return any(_within(each, region) for region in regions or [""] for each in answered)


def _within(place: str, region: str) -> bool:
    return region in ("", place, region_of(place))


def fleet_filter(fleet: str) -> str:
    """What finds all that carries a fleet's label."""
    return f'labels.{names.FLEET}="{names.label(fleet)}"'


def everywhere(client: Client, service: str, word: str, project: str, wanted: str) -> Listing:
    """An aggregated listing, all its pages."""
    listing = Listing()
    pages = client.pages(service, "aggregated_list", project=project, filter=wanted)
    for page in pages:
        listing.read(page, word)
    return listing


def regions_of(clouds: Sequence[CloudPolicy]) -> Mapping[str, Sequence[str]]:
    """The regions to look at in each project; none = all. Raises `ProviderError` for settings that
    name no project."""
    found: dict[str, list[CloudPolicy]] = {}
    for cloud in clouds:
        found.setdefault(project_of(cloud.options), []).append(cloud)
    return {project: _united(same) for project, same in sorted(found.items())}


def _united(same: Sequence[CloudPolicy]) -> Sequence[str]:
    if not all(cloud.regions for cloud in same):
        return ()
    return sorted({region for cloud in same for region in cloud.regions})


def listings(
    client: Client, pool: Executor, projects: Iterable[str], fleet: str, patience_s: float
) -> tuple[Mapping[str, Listing], Mapping[str, ProviderError]]:
    """The instances of a fleet in each project, asked side by side; and why others have none."""
    wanted = fleet_filter(fleet)
    return side_by_side(
        pool,
        projects,
        lambda project: everywhere(client, "Instances", "instances", project, wanted),
        deadline_s=patience_s,
    )


def shown(instance: Any) -> bool:
    """Whether a listing should show it. Until its insert is done nobody knows whether there is room
    for it, and one without room looks the same: its launch key tells, not the listing."""
    return status(instance) not in _NOT_SURE_YET


def sighting(instance: Any, project: str, fleet: str = "") -> Sighting:
    """What an instance shows. `fleet` is the one that was asked for, where the label is its
    encoding."""
    labels = dict(instance.labels)
    zone = last(instance.zone)
    marked = labels.get(names.FLEET, "")
    same = bool(fleet) and marked == names.label(fleet)
    model = instance.scheduling.provisioning_model
    gpus = instance.guest_accelerators
    added = [(last(each.accelerator_type), each.accelerator_count) for each in gpus]
    return Sighting(
        machine_id=names.text_of(labels.get(names.MACHINE, "")),
        provider_id=Place(project, zone, instance.name).provider_id,
        provider=PROVIDER,
        region=region_of(zone),
        zone=zone,
        state=_STATES.get(status(instance), "stopping"),
        fleet=fleet if same else names.text_of(marked),
        created_at=moment(instance.creation_timestamp),
        identity={"vm_id": str(instance.id)},
        instance_type=sold_as(last(instance.machine_type), added),
        market=Market.SPOT if model == "SPOT" else Market.ON_DEMAND,
    )


def status(instance: Any) -> str:
    """The status by its name."""
    return str(getattr(instance.status, "name", instance.status))
