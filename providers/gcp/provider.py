"""`ports.Provider` on Google Compute Engine.

The name of an instance is made from the launch key, and a name exists once in a project and zone:
that is what keeps a key from making two machines. `insert` answers with an operation; whether there
was room shows only when that is done, so a launch goes on in `launch_result`, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any

from control_plane.core.model import Leftover, Observation, Offer, Sighting
from control_plane.core.pacing import Pace
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check, Launched, LaunchRequest, Limits, MachineRef
from providers.gcp import leftovers, names
from providers.gcp.client import Client, Connection
from providers.gcp.ending import Deed, History, deed, histories, history
from providers.gcp.errors import NAME_IS_TAKEN, refusal
from providers.gcp.examine import Examination
from providers.gcp.launch import instance, place_of, project_of, request_id
from providers.gcp.listing import PROVIDER, everywhere, listings, regions_of, shown, sighting
from providers.gcp.names import Place, region_of
from providers.gcp.prices import Shop, catalogue
from providers.startup import agent_startup

_SIDE_BY_SIDE = 8


def _utc_now() -> datetime:
    return datetime.now(UTC)


LIMITS = Limits(launches=Pace(per_s=20.0, burst=100.0), requests=Pace(per_s=20.0, burst=100.0))
"""Of a project in a region: "Compute Engine rate quotas", 1,500 calls of a group in each minute of
the clock, so the burst and a minute of the rate stay below it."""


class GcpProvider:
    """All projects that one set of credentials may use. Safe to use from several threads."""

    name = PROVIDER
    needs_token = False
    limits = LIMITS

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        render: Callable[[LaunchRequest], str] = agent_startup,
        patience_s: float = 25.0,
        version: str = "",
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`patience_s` is how long a listing may take in all, and each of the four rounds of
        questions about what is sold."""
        self._client = Client(connection or Connection())
        self._render = render
        self._patience_s = patience_s
        self._version = version or installed_version("orchctl")
        self._now = now
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="gcp")
        self._shop = Shop(self._client, now, patience_s=patience_s)

    # ------------------------------------------------------------------------------- the port

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        """What these settings may buy now; without any the catalogue as shipped."""
        if not clouds:
            return catalogue()
        return [offer for cloud in clouds for offer in self._shop.offers(cloud)]

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a VM, or return the one that this key has started. What the key has led to before
        is read first: a name is free again once its instance is gone."""
        place = place_of(request)
        past = history(self._client, place)
        if past.pending or past.made:
            return self._begun(request, place, past)
        body = instance(request, self._render(request), self._version)
        try:
            answer = self._client.call(
                "Instances",
                "insert_unary",
                project=place.project,
                zone=place.zone,
                instance_resource=body,
                request_id=request_id(body, past.failures),
            )
        except ProviderError as error:
            return self._taken(request, place, error)
        return self._followed(request, place, deed(answer))

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """How a launch that answered with an operation goes on."""
        place = place_of(request)
        found = self._client.find(
            "ZoneOperations",
            "get",
            operation,
            project=place.project,
            zone=place.zone,
            operation=operation,
        )
        if found is None:
            return self._existing(request, place)
        return self._followed(request, place, deed(found))

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        """Every VM of a fleet in the projects of these settings. Of their regions, zones that did
        not answer are `unknown`."""
        at, regions = self._now(), regions_of(clouds)
        seen, errors = listings(self._client, self._pool, regions, fleet, self._patience_s)
        if errors and not seen:
            raise next(iter(errors.values()))
        if regions and not any(each.heard(regions[project]) for project, each in seen.items()):
            raise refusal("NoAnswer", f"no zone of {', '.join(regions)} answered")
        silent = [place for name, each in seen.items() for place in each.silent(regions[name])]
        lost = [region for project in errors for region in regions[project] or ["*"]]
        return Observation(
            provider=self.name,
            at=at,
            sightings=tuple(
                sighting(each, project, fleet)
                for project, listing in seen.items()
                for _, each in listing.found
                if shown(each)
            ),
            unknown=tuple(sorted({*silent, *lost})),
            problem="; ".join(f"{project}: {error}" for project, error in errors.items()),
        )

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One VM, with the reason of its end as long as Compute remembers; None = there never was
        one, or all about it is forgotten. Of several attempts the liveliest."""
        told = [self._told(place, ref) for place in self._places(ref)]
        return max((each for each in told if each), key=_liveliness, default=None)

    def terminate(self, ref: MachineRef) -> None:
        """Begin to delete a VM."""
        for place in self._places(ref):
            self._about("delete_unary", place)

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        """Disks, addresses and stopped machines of a fleet that serve nobody. Raises when a place
        does not answer."""
        return [
            found
            for project, regions in regions_of(clouds).items()
            for found in leftovers.leftovers(self._client, project, fleet, regions)
        ]

    def remove(self, leftover: Leftover) -> None:
        """Delete a leftover; nothing happens when it is gone."""
        leftovers.remove(self._client, leftover.id)

    def examine(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """Whether the projects are set up for these settings and offers."""
        return Examination(self._client, self._now).checks(clouds, offers)

    # ------------------------------------------------------------------------------- launches

    def _begun(self, request: LaunchRequest, place: Place, past: History) -> Launched:
        """What an earlier insert of this key has come to."""
        if past.pending:
            return _going_on(past.pending)
        return self._existing(request, place)

    def _followed(self, request: LaunchRequest, place: Place, insert: Deed) -> Launched:
        if not insert.done:
            return _going_on(insert)
        if insert.refused:
            return self._taken(request, place, insert.refused.error())
        return self._existing(request, place)

    def _taken(self, request: LaunchRequest, place: Place, error: ProviderError) -> Launched:
        """The name is taken: by an insert of this key that was not listed yet, if by any. All other
        refusals are raised."""
        if error.raw_code not in NAME_IS_TAKEN:
            raise error
        past = history(self._client, place)
        if past.pending or past.made:
            return self._begun(request, place, past)
        found = self._get(place)
        if found is None:
            self._clear_disk(place)
            raise error
        if not shown(found):
            raise refusal("resourceNotReady", f"{place.provider_id} is being made")
        return self._launched(request, place, found)

    def _clear_disk(self, place: Place) -> None:
        """The boot disk of an earlier try, left behind under the instance's name, is in the way:
        the next try finds it gone. One that is in use the cloud keeps."""
        self._client.find(
            "Disks",
            "delete_unary",
            place.name,
            project=place.project,
            zone=place.zone,
            disk=place.name,
        )

    def _existing(self, request: LaunchRequest, place: Place) -> Launched:
        found = self._get(place)
        if found is None:
            raise refusal("Ended", f"the machine of {request.key} has ended")
        return self._launched(request, place, found)

    def _launched(self, request: LaunchRequest, place: Place, found: Any) -> Launched:
        if dict(found.labels).get(names.KEY) != names.label(request.key):
            raise refusal("invalid", f"{place.provider_id} exists and is not of {request.key}")
        seen = sighting(found, place.project)
        if seen.state not in ("pending", "running"):
            raise refusal("Ended", f"the machine of {request.key} has stopped")
        return Launched(provider_id=place.provider_id, at=seen.created_at, identity=seen.identity)

    # -------------------------------------------------------------------------------- looking

    def _get(self, place: Place) -> Any | None:
        return self._about("get", place)

    def _about(self, method: str, place: Place) -> Any | None:
        """A call about one instance; None = there is none."""
        return self._client.find(
            "Instances",
            method,
            place.name,
            project=place.project,
            zone=place.zone,
            instance=place.name,
        )

    def _told(self, place: Place, ref: MachineRef) -> Sighting | None:
        """What is known of one instance, there or gone."""
        found = self._get(place)
        if found is None:
            return _past(place, history(self._client, place), ref)
        return sighting(found, place.project)

    def _places(self, ref: MachineRef) -> Sequence[Place]:
        """Where a machine is or was. Without its provider id these are the instances of all its
        attempts, from a listing, which lags, and from the operations, which are forgotten."""
        if ref.provider_id:
            place = Place.parse(ref.provider_id)
            return [place] if place else []
        project, pattern = project_of(ref.options), names.name_pattern(ref.machine_id)
        wanted = f'name eq "{pattern}"'
        found = everywhere(self._client, "Instances", "instances", project, wanted).found
        places = {Place(project, zone, each.name) for zone, each in found}
        if ref.zone:
            past = histories(self._client, Place(project, ref.zone, pattern), pattern)
            places |= {Place(project, ref.zone, name) for name in past}
        return sorted(places)


def _going_on(insert: Deed) -> Launched:
    return Launched(provider_id="", at=insert.at, operation=insert.name)


def _past(place: Place, past: History, ref: MachineRef) -> Sighting | None:
    """A machine that no listing has (any more)."""
    if past.pending:
        raise refusal("resourceNotReady", f"{place.provider_id} is being made")
    if past.made is None:
        return None
    return Sighting(
        machine_id=ref.machine_id,
        provider_id=place.provider_id,
        provider=PROVIDER,
        region=region_of(place.zone),
        zone=place.zone,
        state="gone",
        fleet="",
        created_at=past.made.at,
        end_reason=past.end_reason(ref.options.get("service_account", "")),
    )


def _liveliness(seen: Sighting) -> tuple[int, datetime]:
    return {"gone": 0, "stopping": 1}.get(seen.state, 2), seen.created_at
