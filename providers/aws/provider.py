"""`ports.Provider` on Amazon EC2.

A launch first looks for a machine of its key, then calls RunInstances with a token made of the key.
The look finds what an earlier call has made however long ago, and in whatever zone; the token keeps
two calls apart that the look cannot see yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from control_plane.core.model import ErrorClass, Leftover, Observation, Offer, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check, Launched, LaunchRequest, MachineRef
from providers.aws import ending, labels, launch, listing
from providers.aws.client import AwsSettings, Client, Clients, side_by_side
from providers.aws.errors import ENDED, answered, refusal
from providers.aws.examine import Examination
from providers.aws.life_limits import LifeLimits
from providers.aws.listing import Instance, Zones
from providers.aws.prices import PriceList
from providers.catalog.loader import load_offers
from providers.startup import agent_startup

Render = Callable[[LaunchRequest], str]
"""Makes the start-up text of a machine, at most 16,384 bytes."""

_LOOKS = 32
"""Regions and parts of them that are asked at a time."""
_NEW = timedelta(minutes=5)
"""How long EC2 may not know an instance that it has made."""


def _shipped() -> Sequence[Offer]:
    return load_offers(("aws",))


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AwsProvider:
    """One AWS account. Any number of threads may use it."""

    name = "aws"
    needs_token = False

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
        self._limits = LifeLimits(self._clients, self._settings.life_limit_role)
        self._prices = PriceList(
            self._clients, self._zones, self._pool, deadline_s=self._settings.deadline_s, now=now
        )
        self._lock = threading.Lock()
        self._made_at: dict[str, datetime] = {}
        """When each of the newest instances was made, by id."""

    # ------------------------------------------------------------------------------- the port

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        """The catalogue as shipped, or joined with what the regions of these settings say now."""
        regions = _regions(clouds)
        return self._prices.today(self._catalogue(), regions) if regions else self._catalogue()

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a machine, or return the one that this key has started."""
        with answered():
            ec2 = self._clients.get("ec2", request.offer.region)
            token = launch.client_token(request)
            instance = self._made_by(ec2, token) or self._run(ec2, request, token)
        if listing.state(instance) in ("stopping", "gone"):
            raise refusal(ENDED, f"the machine of {request.key} has ended")
        self._remember({instance["InstanceId"]: self._now()})
        self._limits.make(request.offer.region, instance["InstanceId"], request.deadline)
        return Launched(
            provider_id=instance["InstanceId"],
            at=listing.launched_at(instance),
            identity=listing.identity(instance),
        )

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:  # noqa: ARG002
        """The same as `launch`, which here never answers with an operation."""
        return self.launch(request)

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        """Every machine of a fleet, for about an hour also those that have ended. Regions that did
        not answer are `unknown`."""
        regions = _regions(clouds)
        at = self._now()
        found, problems = side_by_side(
            self._pool,
            regions,
            lambda region: self._look(fleet, region),
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
                    self._limits.forget(ref.region, instance_id)

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        """Disks, network interfaces and addresses of a fleet that belong to no machine. Raises when
        a region does not answer."""
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

    def _made_by(self, ec2: Client, token: str) -> Instance | None:
        return listing.liveliest(listing.find(ec2, {"Name": "client-token", "Values": [token]}))

    def _run(self, ec2: Client, request: LaunchRequest, token: str) -> Instance:
        subnet = self._places.subnet(request, token)
        call = launch.parameters(
            request,
            token=token,
            image=self._places.image(request),
            subnet=subnet,
            groups=self._places.groups(request),
            user_data=self._render(request),
        )
        try:
            with answered(whole_region=not subnet):
                answer = ec2.run_instances(**call)
        except ProviderError as error:
            if error.raw_code != "IdempotentParameterMismatch":
                raise
            # The machine was made by a call that said something else: settings have changed.
            return self._made_by(ec2, token) or self._not_shown(request, error.raw_code)
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

    def _look(self, fleet: str, region: str) -> Sequence[Sighting]:
        with answered():
            zones = self._zones.of(region)
            ec2 = self._clients.get("ec2", region)
            found = list(listing.find(ec2, labels.fleet_filter(fleet)))
        self._remember({each["InstanceId"]: listing.launched_at(each) for each in found})
        return [listing.sighting(each, region, zones) for each in found]

    def _left(self, fleet: str, region: str) -> Sequence[Leftover]:
        with answered():
            ec2 = self._clients.get("ec2", region)
            return list(ending.leftovers(ec2, fleet, region, self._zones.of(region)))

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
