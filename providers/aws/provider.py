"""`ports.Provider` on Amazon EC2.

A launch first looks for a machine of its key, then calls RunInstances with a token made of the key,
or CreateFleet where several spot offers would do. The look finds what an earlier call has made
however long ago, and in whatever zone; the token keeps two calls apart that the look cannot see
yet.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.core.model import ErrorClass, Leftover, Observation, Offer, Sighting
from control_plane.core.pacing import Pace
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check, Launched, LaunchRequest, Limits, MachineRef
from providers.aws import ending, fleets, labels, launch, listing
from providers.aws.client import AwsSettings, Client, Clients
from providers.aws.errors import ENDED, TOKEN_MISMATCH, TOKEN_OF_ENDED, answered, refusal
from providers.aws.examine import Examination
from providers.aws.life_limits import LifeLimits
from providers.aws.listing import Instance, Zones
from providers.aws.prices import PriceList
from providers.catalog.loader import load_offers
from providers.side_by_side import side_by_side
from providers.startup import agent_startup

_LOG = logging.getLogger(__name__)

Render = Callable[[LaunchRequest], str]
"""Makes the start-up text of a machine, at most 16,384 bytes."""

_LOOKS = 32
"""Regions and parts of them that are asked at a time."""
_NEW = timedelta(minutes=5)
"""How long EC2 may not know an instance that it has made."""
_NO_FLEETS = timedelta(minutes=10)
"""How long no fleet is tried in a region that has refused us the right."""


def _shipped() -> Sequence[Offer]:
    return load_offers(("aws",))


def _utc_now() -> datetime:
    return datetime.now(UTC)


LIMITS = Limits(launches=Pace(per_s=2.0, burst=5.0), requests=Pace(per_s=5.0, burst=100.0))
"""Of an account in a region: "Request throttling for the Amazon EC2 API", the buckets of
`RunInstances` and of `TerminateInstances`."""


class AwsProvider:
    """One AWS account. Any number of threads may use it."""

    name = "aws"
    needs_token = False
    limits = LIMITS

    def __init__(
        self,
        settings: AwsSettings | None = None,
        *,
        render: Render = agent_startup,
        catalogue: Callable[[], Sequence[Offer]] = _shipped,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._settings = settings or AwsSettings()
        self._render = render
        self._catalogue = catalogue
        self._now = now
        self._pool = ThreadPoolExecutor(_LOOKS, thread_name_prefix="aws")
        self._clients = Clients(self._settings)
        self._zones = Zones(self._clients)
        self._places = launch.Places(self._clients)
        self._templates = fleets.Templates(now)
        self._limits = LifeLimits(self._clients, self._settings.life_limit_role, now)
        self._prices = PriceList(
            self._clients, self._zones, self._pool, deadline_s=self._settings.deadline_s, now=now
        )
        self._lock = threading.Lock()
        self._made_at: dict[str, datetime] = {}
        """When each of the newest instances was made, by id."""
        self._no_fleets: dict[str, datetime] = {}
        """Until when no fleet is tried, by region."""

    # ------------------------------------------------------------------------------- the port

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        """The catalogue as shipped, or joined with what the regions of these settings say now."""
        regions = _regions(clouds)
        return self._prices.today(self._catalogue(), regions) if regions else self._catalogue()

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a machine, or return the one that this key has started."""
        region = request.offer.region
        with answered():
            ec2 = self._clients.get("ec2", region)
            # Read before anything is bought: afterwards nothing may stand in the way of saying so.
            zones = self._zones.of(region) if fleets.serves(request) else {}
            instance = self._made_by(ec2, request) or self._buy(ec2, request)
        return self._launched(request, instance, zones, self._now())

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """A machine that a fleet has made and that EC2 did not show yet."""
        instance_id, _, since = operation.partition("@")
        made_at = datetime.fromtimestamp(int(since), UTC)
        with answered():
            zones = self._zones.of(request.offer.region)
            instance = listing.by_id(self._clients.get("ec2", request.offer.region), instance_id)
        if instance is None and self._now() - made_at >= _NEW:
            raise refusal(ENDED, f"EC2 does not know {instance_id} any more")
        return self._launched(request, instance or _unseen(instance_id), zones, made_at)

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        """Every machine of a fleet, for about an hour also those that have ended. Regions that did
        not answer are `unknown`."""
        regions = _regions(clouds)
        at = self._now()
        found, problems = side_by_side(
            self._pool,
            regions,
            lambda region: self._look(fleet, region, _options(clouds, region)),
            deadline_s=self._settings.deadline_s,
        )
        if problems and not found:
            raise next(iter(problems.values()))
        return Observation(
            provider=self.name,
            at=at,
            sightings=tuple(each for region in found.values() for each in region),
            unknown=tuple(problems) if regions else ("*",),
            problem="; ".join(f"{region}: {error}" for region, error in problems.items()),
        )

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One machine; None = EC2 knows of none, and not because it is too new."""
        with answered():
            ec2 = self._clients.get("ec2", ref.region)
            instance = self._find(ec2, ref)
            if instance is not None:
                return listing.sighting(instance, ref.region, self._zones.of(ref.region))
        if self._is_new(ref):
            raise refusal("InvalidInstanceID.NotFound", f"{ref.provider_id} is not known yet")
        return None

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a machine."""
        with answered():
            ec2 = self._clients.get("ec2", ref.region)
            for instance_id in self._ids(ec2, ref):
                if ending.terminate(ec2, instance_id):
                    self._limits.forget(ref.region, instance_id, ref.options)

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        """Disks, network interfaces and addresses of a fleet that belong to no machine, and launch
        templates that are used no more. Raises when a region does not answer."""
        found, problems = side_by_side(
            self._pool,
            _regions(clouds),
            lambda region: self._left(fleet, region),
            deadline_s=self._settings.deadline_s,
        )
        for error in problems.values():
            raise error
        return [each for region in found.values() for each in region]

    def remove(self, leftover: Leftover) -> None:
        """Delete one of them; nothing happens when it is gone."""
        with answered():
            ending.remove(self._clients.get("ec2", leftover.region), leftover)

    def examine(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """Whether the account is set up for these settings and offers."""
        looking = Examination(self._clients, self._places, render=self._render, now=self._now)
        return looking.checks(clouds, offers)

    # --------------------------------------------------------------------------------- inside

    def _launched(
        self,
        request: LaunchRequest,
        instance: Instance,
        zones: Mapping[str, str],
        made_at: datetime,
    ) -> Launched:
        region, instance_id = request.offer.region, instance["InstanceId"]
        if listing.state(instance) in ("stopping", "gone"):
            raise refusal(ENDED, f"the machine of {request.key} has ended")
        self._remember({instance_id: self._now()})
        if not listing.is_shown(instance):
            operation = f"{instance_id}@{int(made_at.timestamp())}"
            return Launched(provider_id=instance_id, at=made_at, operation=operation)
        self._limits.make(region, instance_id, request.deadline, request.cloud.options)
        return Launched(
            provider_id=instance_id,
            at=listing.launched_at(instance),
            identity=listing.identity(instance),
            offer=fleets.bought(request, instance["InstanceType"], listing.zone(instance, zones)),
        )

    def _made_by(self, ec2: Client, request: LaunchRequest) -> Instance | None:
        return listing.liveliest(listing.find(ec2, *labels.key_filters(request)))

    def _buy(self, ec2: Client, request: LaunchRequest) -> Instance:
        try:
            return self._by_fleet(ec2, request) or self._run(ec2, request)
        except ProviderError as error:
            if error.raw_code == TOKEN_OF_ENDED:
                raise refusal(ENDED, str(error)) from error
            if error.raw_code != TOKEN_MISMATCH:
                raise
            # The machine was made by a call that said something else: settings have changed.
            return self._made_by(ec2, request) or self._not_shown(request, error.raw_code)

    def _by_fleet(self, ec2: Client, request: LaunchRequest) -> Instance | None:
        """The machine of a fleet; None where there is no use for one, or no right to it."""
        region = request.offer.region
        if not fleets.serves(request) or self._no_fleets.get(region, self._now()) > self._now():
            return None
        try:
            with answered():
                instance_id = self._fleet_machine(ec2, request)
        except ProviderError as error:
            if not fleets.is_denied(error):
                raise
            self._no_fleets[region] = self._now() + _NO_FLEETS
            _LOG.warning("no right to buy one of several offers in %s: %s", region, error)
            return None
        # It is there, whatever this look says.
        with suppress(ProviderError), answered():
            return listing.by_id(ec2, instance_id) or _unseen(instance_id)
        return _unseen(instance_id)

    def _fleet_machine(self, ec2: Client, request: LaunchRequest) -> str:
        """The id of a new machine."""
        try:
            answer = self._create_fleet(ec2, request)
        except ProviderError as error:
            if not fleets.lacks_template(error):
                raise
            self._templates.forget(request.offer.region)
            answer = self._create_fleet(ec2, request)
        instance_id = fleets.instance_id(answer)
        if not instance_id:
            raise fleets.refused(request, self._override(request), answer)
        return instance_id

    def _create_fleet(self, ec2: Client, request: LaunchRequest) -> Mapping[str, Any]:
        token = launch.client_token(request, "CreateFleet")
        call = fleets.parameters(request, token=token, overrides=self._overrides(ec2, request))
        with answered():
            answer: Mapping[str, Any] = ec2.create_fleet(**call)
        return answer

    def _overrides(
        self, ec2: Client, request: LaunchRequest
    ) -> Mapping[str, Sequence[fleets.Override]]:
        """What a fleet may buy, by launch template: what needs another image needs another one."""
        found: dict[str, list[fleets.Override]] = {}
        groups = self._places.groups(request)
        user_data = self._render(fleets.nameless(request))
        for offer in fleets.choices(request):
            one = replace(request, offer=offer)
            try:
                with answered():
                    override, image = self._override(one), self._places.image(one)
            except ProviderError as error:
                # An alternative that can be had nowhere is told so when its own turn comes.
                if offer == request.offer or error.error_class is not ErrorClass.INVALID:
                    raise
                continue
            data = fleets.template(one, image=image, groups=groups, user_data=user_data)
            name = self._templates.name(ec2, offer.region, request.boot.fleet, data)
            found.setdefault(name, []).append(override)
        return found

    def _override(self, request: LaunchRequest) -> fleets.Override:
        subnet = self._places.subnet(request, launch.client_token(request))
        place = {"SubnetId": subnet} if subnet else {}
        return {"InstanceType": request.offer.instance_type, **place}

    def _run(self, ec2: Client, request: LaunchRequest) -> Instance:
        token = launch.client_token(request)
        subnet = self._places.subnet(request, token)
        call = launch.parameters(
            request,
            token=token,
            image=self._places.image(request),
            subnet=subnet,
            groups=self._places.groups(request),
            user_data=self._render(request),
        )
        with answered(whole_region=not subnet):
            answer = ec2.run_instances(**call)
        instance = {**answer["Instances"][0], "OwnerId": answer["OwnerId"]}
        if launch.is_replay(answer):
            found = listing.by_id(ec2, instance["InstanceId"])
            return found or {**instance, "State": {"Name": "terminated"}}
        return instance

    def _not_shown(self, request: LaunchRequest, code: str) -> Instance:
        raise refusal(
            code,
            f"{request.key} has made a machine that no listing shows yet",
            means=ErrorClass.TRANSIENT,
        )

    def _look(self, fleet: str, region: str, options: Mapping[str, str]) -> Sequence[Sighting]:
        with answered():
            zones = self._zones.of(region)
            ec2 = self._clients.get("ec2", region)
            found = list(listing.find(ec2, labels.fleet_filter(fleet)))
        self._limits.watch(region, found, options)
        self._remember({each["InstanceId"]: listing.launched_at(each) for each in found})
        return [listing.sighting(each, region, zones) for each in found]

    def _left(self, fleet: str, region: str) -> Sequence[Leftover]:
        with answered():
            ec2 = self._clients.get("ec2", region)
            found = list(ending.leftovers(ec2, fleet, region, self._zones.of(region)))
        try:
            with answered():
                return [*found, *self._templates.unused(ec2, fleet, region)]
        except ProviderError as error:
            # Who may not see launch templates has made none.
            if error.error_class is not ErrorClass.AUTH:
                raise
            return found

    def _find(self, ec2: Client, ref: MachineRef) -> Instance | None:
        if ref.provider_id:
            return listing.by_id(ec2, ref.provider_id)
        return listing.liveliest(self._labelled(ec2, ref))

    def _ids(self, ec2: Client, ref: MachineRef) -> Sequence[str]:
        if ref.provider_id:
            return [ref.provider_id]
        return [
            each["InstanceId"] for each in self._labelled(ec2, ref) if listing.state(each) != "gone"
        ]

    def _labelled(self, ec2: Client, ref: MachineRef) -> Sequence[Instance]:
        label = {"Name": f"tag:{labels.MACHINE}", "Values": [labels.encode(ref.machine_id)]}
        return list(listing.find(ec2, label))

    def _remember(self, made_at: Mapping[str, datetime]) -> None:
        """Note the new ones, forget those that are so no longer."""
        since = self._now() - _NEW
        with self._lock:
            known = {**self._made_at, **made_at}
            self._made_at = {instance: at for instance, at in known.items() if at > since}

    def _is_new(self, ref: MachineRef) -> bool:
        with self._lock:
            made_at = self._made_at.get(ref.provider_id, ref.launched_at)
        return made_at is not None and self._now() - made_at < _NEW


def _regions(clouds: Sequence[CloudPolicy]) -> Sequence[str]:
    return sorted({region for cloud in clouds for region in cloud.regions})


def _options(clouds: Sequence[CloudPolicy], region: str) -> Mapping[str, str]:
    """Of the first settings that name a region."""
    return next((cloud.options for cloud in clouds if region in cloud.regions), {})


def _unseen(instance_id: str) -> Instance:
    """An instance that EC2 has made and does not show yet."""
    return {"InstanceId": instance_id, "State": {"Name": "pending"}}
