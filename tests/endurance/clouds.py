"""The three fakes as one world sees them: the truth about their machines, what their machines can
prove, and the trouble that each of them can make. All of it at the same clock.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from agent_bootstrap.identity import STS_BODY, signed_headers
from control_plane.core.model import Market, Observation, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.ports import BootSettings, Clock, LaunchRequest, Provider
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from providers.gcp.provider import GcpProvider
from providers.simulated.clock import EPOCH
from providers.simulated.machines import InterruptionNotice
from tests.clouds.world import VouchedWeb
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect
from tests.fakes.azure.server import AzureServer
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.server import Ec2Server
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.server import GcpServer
from tests.fakes.metadata import identity
from tests.fakes.metadata.server import ROLE

_ACCOUNT = "agents@acme-ml.iam.gserviceaccount.com"
SERVER_URL = "https://control.test"
Watch = Callable[[Observation], None]
"""Told of every listing that came to something."""


class WorldClock:
    """`ports.Clock` of everybody: the fakes, the control plane, the agents. It moves only when it
    is told to."""

    def __init__(self) -> None:
        self.moved: Callable[[float], None] = lambda seconds: None
        """Told of every move: for a fake that keeps its own time."""
        self._now = EPOCH

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self.moved(seconds)

    def advance_to(self, when: datetime) -> None:
        """Move on to a time, never back."""
        self.advance(max(0.0, (when - self._now).total_seconds()))


@dataclass(slots=True, kw_only=True)
class Vm:
    """A machine that a fake has, or had."""

    cloud: Cloud
    provider_id: str
    machine_id: str
    offer: Offer
    """As the catalogue sells what the fake was asked for."""
    boot: BootSettings
    """As its start-up text says."""
    created_at: datetime
    booted_at: datetime | None
    made_at: datetime
    """From when on the cloud tells that it has come to something."""
    truth: Any
    """What the fake keeps of it."""
    gone_at: datetime | None = None
    refused: bool = False
    """It never came up: the cloud had no room for it after all."""

    @property
    def running(self) -> bool:
        """Whether it is there and switched on."""
        return self.gone_at is None and self.cloud.runs(self)

    def up(self, now: datetime) -> bool:
        """Whether an agent runs on it."""
        booted = self.booted_at is not None and self.booted_at <= now
        return booted and self.running


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A machine as a fake has it."""

    provider_id: str
    machine_id: str
    text: str
    region: str
    zone: str
    kind: str
    gpu: str
    spot: bool
    created_at: datetime
    made_at: datetime
    truth: Any


class Cloud(ABC):
    """One fake, and what the world around it needs of it."""

    name: ClassVar[str]
    places: ClassVar[Sequence[Mapping[str, object]]]
    """What the document says of it, in each of the two pools that buy here."""
    remembered_s: ClassVar[float] = 0.0
    """How long it tells of a machine that is gone."""

    def __init__(self, clock: WorldClock, seed: int) -> None:
        self.clock: Clock = clock
        self.chance = random.Random(f"{self.name}/{seed}")
        self.vms: dict[str, Vm] = {}
        """All there ever were, by the cloud's id, the oldest first."""
        self.past: list[Vm] = []
        """Those whose id another one has got since."""
        self.unbootable = 0
        """So many of the next machines never boot."""
        self.taken: dict[str, datetime] = {}
        """When interruptions that were announced take their machine, by the cloud's id."""

    # ------------------------------------------------------------------------- for the plane

    @abstractmethod
    def provider(self, render: Callable[[LaunchRequest], str], watch: Watch) -> Provider:
        """The real adapter, with connections of its own, as a new process makes it."""

    @abstractmethod
    def verifier(self, web: VouchedWeb, folder: Path) -> Verifier:
        """The real verifier."""

    # ------------------------------------------------------------------------- for the agents

    def notices(self) -> Sequence[InterruptionNotice]:
        """Interruptions that are announced now."""
        return [
            InterruptionNotice(
                provider_id=provider_id,
                machine_id=self.vms[provider_id].machine_id,
                taken_at=taken_at,
            )
            for provider_id, taken_at in self.taken.items()
            if provider_id in self.vms and self.vms[provider_id].gone_at is None
        ]

    @abstractmethod
    def shut_down(self, provider_id: str) -> None:
        """What the agent does to end its machine."""

    @abstractmethod
    def proof(self, vm: Vm, nonce: str, vouching: identity.Clouds) -> Mapping[str, str]:
        """What the machine can prove of itself to nobody else."""

    @abstractmethod
    def runs(self, vm: Vm) -> bool:
        """Whether it is switched on."""

    # ------------------------------------------------------------------------------ the truth

    def look(self) -> list[Vm]:
        """Note what is new and what is gone; the machines that exist."""
        for found in self._found():
            known = self.vms.get(found.provider_id)
            if known is not None:
                # A name is free again when its machine has gone.
                self.past.append(known)
            self.vms[found.provider_id] = self._met(found)
        there = [vm for vm in (*self.past, *self.vms.values()) if vm.gone_at is None]
        for vm in there:
            vm.refused = self._refused(vm)
            vm.gone_at = self._went_at(vm)
        return [vm for vm in there if vm.gone_at is None]

    def _went_at(self, vm: Vm) -> datetime | None:
        """At the end of its notice at the latest."""
        gone_at = self._gone_at(vm)
        taken_at = self.taken.get(vm.provider_id, gone_at)
        return min(gone_at, taken_at) if gone_at and taken_at else gone_at

    def _met(self, found: Found) -> Vm:
        boot = BootSettings(**json.loads(found.text.partition("# ")[2]))
        never = self.unbootable > 0
        self.unbootable -= never
        seconds = self.chance.uniform(20, 50)
        return Vm(
            cloud=self,
            provider_id=found.provider_id,
            machine_id=found.machine_id,
            offer=sold(self.name, found),
            boot=boot,
            created_at=found.created_at,
            made_at=found.made_at,
            booted_at=None if never else found.created_at + timedelta(seconds=seconds),
            truth=found.truth,
        )

    @abstractmethod
    def _found(self) -> Iterator[Found]:
        """What is new in the fake."""

    def _is_new(self, provider_id: str, truth: object) -> bool:
        known = self.vms.get(provider_id)
        return known is None or known.truth is not truth

    @abstractmethod
    def _gone_at(self, vm: Vm) -> datetime | None:
        """When it went; None while it exists."""

    def _refused(self, vm: Vm) -> bool:
        return False

    @abstractmethod
    def resources(self) -> Sequence[str]:
        """Everything that exists and costs money."""

    @abstractmethod
    def violations(self) -> Sequence[str]:
        """Requests and answers that the real cloud would not have made so."""

    @abstractmethod
    def called(self) -> int:
        """How many calls have arrived."""

    @abstractmethod
    def close(self) -> None: ...

    # -------------------------------------------------------------------------------- trouble

    @abstractmethod
    def throttle(self, times: int, retry_after_s: int) -> None:
        """So many calls are refused as too many."""

    @abstractmethod
    def run_out(self, room: int | None) -> str:
        """Something has so much room from now on; None = as much as wanted. What it is."""

    @abstractmethod
    def restock(self) -> None:
        """Everything has room again."""

    def recover(self) -> None:
        """Everything has room, everybody answers, and no trouble is to come."""
        self.restock()
        self.show()
        self.lag(0)
        self.forgive()

    @abstractmethod
    def forgive(self) -> None:
        """Forget the trouble that was to come."""

    @abstractmethod
    def hide(self) -> str:
        """A part of it no longer answers. Which."""

    @abstractmethod
    def show(self) -> None:
        """All parts answer."""

    @abstractmethod
    def lose(self) -> str:
        """An answer, or a call, does not arrive. Of what."""

    @abstractmethod
    def fail(self) -> str:
        """Calls fail inside the cloud. Which."""

    @abstractmethod
    def preempt(self, vm: Vm, notice_s: float) -> None:
        """The cloud takes a spot machine, after this long."""

    @abstractmethod
    def leave_something(self) -> str:
        """Something will be left behind. What."""

    @abstractmethod
    def lag(self, seconds: float) -> None:
        """Listings do not know what is newer."""


class _Watched:
    """A provider whose listings somebody watches."""

    watch: Watch

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy] = ()) -> Observation:
        seen: Observation = super().observe(fleet, clouds)  # type: ignore[misc]
        self.watch(seen)
        return seen


class _WatchedAws(_Watched, AwsProvider):
    pass


class _WatchedGcp(_Watched, GcpProvider):
    pass


class _WatchedAzure(_Watched, AzureProvider):
    pass


def startup(request: LaunchRequest) -> str:
    """Stands for the start-up text: what a machine is told, and no more."""
    boot = request.boot
    told = {name: getattr(boot, name) for name in BootSettings.__dataclass_fields__}
    return "#!/bin/sh\n# " + json.dumps(told)


@cache
def _catalogue(cloud: str) -> Mapping[tuple[str, str, str, str, Market], Offer]:
    """By region, zone, type, GPU and market; types of GPU machines come in one size here."""
    found: dict[tuple[str, str, str, str, Market], Offer] = {}
    for offer in load_offers([cloud]):
        gpu = offer.capacity.gpu_name
        if not gpu or offer.capacity.gpus == 1:
            kind = offer.instance_type.partition("+")[0]
            found[offer.region, offer.zone, kind, gpu, offer.market] = offer
    return found


def sold(cloud: str, found: Found) -> Offer:
    """The offer that a machine is an instance of: zones of a region share one where the catalogue
    knows of no difference."""
    market = Market.SPOT if found.spot else Market.ON_DEMAND
    offers = _catalogue(cloud)
    for zone in (found.zone, ""):
        offer = offers.get((found.region, zone, found.kind, found.gpu, market))
        if offer is not None:
            return offer
    raise KeyError(found)


# --------------------------------------------------------------------------------------------- AWS


class Aws(Cloud):
    name = "aws"
    remembered_s = 3600.0
    places: ClassVar = (
        {"regions": ["us-east-1"], "instance_profile": ROLE},
        {"regions": ["us-east-1", "eu-west-1"], "instance_profile": ROLE},
    )

    def __init__(self, clock: WorldClock, seed: int) -> None:
        super().__init__(clock, seed)
        self.account = Account(start=clock.now())
        self.server = Ec2Server(self.account)
        clock.moved = self.account.advance
        self._rooms: list[dict[str, str]] = []

    def provider(self, render: Callable[[LaunchRequest], str], watch: Watch) -> Provider:
        settings = AwsSettings(
            endpoint_url=self.server.url, access_key="AKIAIOSFODNN7EXAMPLE", secret_key="secret"
        )
        made = _WatchedAws(settings, render=render, now=self.clock.now)
        made.watch = watch
        return made

    def verifier(self, web: VouchedWeb, folder: Path) -> Verifier:
        return AwsIdentity(web, self.clock.now)

    def shut_down(self, provider_id: str) -> None:
        self.account.shut_down(provider_id)

    def proof(self, vm: Vm, nonce: str, vouching: identity.Clouds) -> Mapping[str, str]:
        credentials = vouching.aws_credentials(vm.provider_id, account=self.account.id)
        url = f"https://sts.{vm.offer.region}.amazonaws.com/"
        headers = signed_headers(url, nonce, credentials, self.clock.now().timestamp())
        return {"url": url, "body": STS_BODY.decode(), "headers": json.dumps(headers)}

    def runs(self, vm: Vm) -> bool:
        return bool(vm.truth.state == "running")

    def _found(self) -> Iterator[Found]:
        for vm in self.account.living():
            if self._is_new(vm.id, vm):
                yield Found(
                    provider_id=vm.id,
                    machine_id=vm.tags["orchctl-machine"],
                    text=vm.user_data,
                    region=vm.region,
                    zone=vm.zone,
                    kind=vm.instance_type,
                    gpu="T4" if vm.instance_type.startswith("g4dn") else "",
                    spot=vm.spot,
                    created_at=vm.shown["LaunchTime"],
                    made_at=vm.shown["LaunchTime"],
                    truth=vm,
                )

    def _gone_at(self, vm: Vm) -> datetime | None:
        if vm.truth.forgotten_at is None:
            return None
        gone_at: datetime = vm.truth.forgotten_at - timedelta(seconds=self.account.shown_s)
        return gone_at

    def resources(self) -> Sequence[str]:
        return [each for found in self.account.resources().values() for each in found]

    def violations(self) -> Sequence[str]:
        return self.account.violations

    def called(self) -> int:
        return sum(self.account.called().values())

    def close(self) -> None:
        self.server.close()

    def throttle(self, times: int, retry_after_s: int) -> None:
        region = self.chance.choice(("us-east-1", "eu-west-1"))
        self.account.fail_next(
            "RequestLimitExceeded", region=region, times=times, retry_after_s=retry_after_s
        )

    def run_out(self, room: int | None) -> str:
        of_one_type = self.chance.choice(("m7i.xlarge", "g4dn.xlarge", "m6i.xlarge"))
        words = self.chance.choice(
            (
                {"market": "spot"},
                {"market": "spot", "zone": "use1-az4"},
                {"instance_type": of_one_type},
                {"instance_type": of_one_type, "market": "on-demand"},
            )
        )
        self._rooms.append(words)
        self.account.set_capacity(room, **words)
        return f"{words}"

    def restock(self) -> None:
        for words in self._rooms:
            self.account.set_capacity(None, **words)
        self._rooms.clear()

    def forgive(self) -> None:
        self.account.faults.planned.clear()

    def hide(self) -> str:
        region = self.chance.choice(("us-east-1", "eu-west-1"))
        self.account.silence(region)
        return region

    def show(self) -> None:
        for region in ("us-east-1", "eu-west-1"):
            self.account.unsilence(region)

    def lose(self) -> str:
        call = self.chance.choice(("RunInstances", "RunInstances", "TerminateInstances"))
        before = self.chance.random() < 0.3
        self.account.drop_next(call, before=before)
        return f"{call}{', on its way there' if before else ''}"

    def fail(self) -> str:
        call = self.chance.choice(("RunInstances", "TerminateInstances", "DescribeInstances"))
        code = self.chance.choice(("InternalError", "ServiceUnavailable"))
        self.account.fail_next(code, operation=call, times=self.chance.randint(1, 3))
        return f"{call} with {code}"

    def preempt(self, vm: Vm, notice_s: float) -> None:
        if notice_s:
            self.taken[vm.provider_id] = self.clock.now() + timedelta(seconds=notice_s)
        self.account.interrupt(vm.provider_id, notice_s=notice_s)

    def leave_something(self) -> str:
        return ""

    def lag(self, seconds: float) -> None:
        self.account.set_lag(seconds)


# --------------------------------------------------------------------------------------------- GCP


class Gcp(Cloud):
    name = "gcp"
    remembered_s = 3600.0
    places: ClassVar = tuple(
        {"regions": [region], "project": "acme-ml", "service_account": _ACCOUNT}
        for region in ("us-central1", "europe-west4")
    )
    zones: ClassVar = ("us-central1-a", "us-central1-b", "europe-west4-a", "europe-west4-b")

    def __init__(self, clock: WorldClock, seed: int) -> None:
        super().__init__(clock, seed)
        self.cloud = GcpCloud(clock)
        self.server = GcpServer(self.cloud)
        self.server.__enter__()
        self._rooms: list[tuple[str, str, str]] = []

    def provider(self, render: Callable[[LaunchRequest], str], watch: Watch) -> Provider:
        made = _WatchedGcp(to(self.server.url), render=render, now=self.clock.now)
        made.watch = watch
        return made

    def verifier(self, web: VouchedWeb, folder: Path) -> Verifier:
        return GcpIdentity(web, self.clock.now, server_url=SERVER_URL)

    def shut_down(self, provider_id: str) -> None:
        """Mostly it deletes itself; where it may not, it can only switch itself off."""
        if self.chance.random() < 0.8:
            self.cloud.self_delete(provider_id)
        else:
            self.cloud.guest_shutdown(provider_id)

    def proof(self, vm: Vm, nonce: str, vouching: identity.Clouds) -> Mapping[str, str]:
        claims = vouching.gcp_claims(
            f"{SERVER_URL}/{nonce}",
            project=vm.truth.project,
            zone=vm.truth.zone,
            name=vm.truth.name,
            email=_ACCOUNT,
        )
        claims["google"]["compute_engine"]["instance_id"] = str(vm.truth.number)
        return {"token": vouching.gcp_token(claims)}

    def runs(self, vm: Vm) -> bool:
        """One that is preempted goes on until its notice is over."""
        return vm.truth.status(self.clock.now()) == "RUNNING" or vm.provider_id in self.taken

    def _found(self) -> Iterator[Found]:
        self.cloud.settle()
        for vm in self.cloud.vms.values():
            provider_id = f"projects/{vm.project}/zones/{vm.zone}/instances/{vm.name}"
            if self._is_new(provider_id, vm):
                items = {each["key"]: each["value"] for each in vm.body["metadata"]["items"]}
                yield Found(
                    provider_id=provider_id,
                    machine_id=vm.body["labels"]["orchctl-machine"],
                    text=items["startup-script"],
                    region=vm.region,
                    zone=vm.zone,
                    kind=vm.kind,
                    gpu="T4" if vm.body.get("guestAccelerators") else "",
                    spot=vm.spot,
                    created_at=vm.created_at,
                    made_at=vm.made_at,
                    truth=vm,
                )

    def _gone_at(self, vm: Vm) -> datetime | None:
        ending = vm.truth.ending
        if ending is None or not ending.deletes or ending.done_at > self.clock.now():
            return None
        gone_at: datetime = ending.done_at
        return gone_at

    def _refused(self, vm: Vm) -> bool:
        return bool(vm.truth.ending and vm.truth.ending.at <= vm.truth.made_at)

    def resources(self) -> Sequence[str]:
        found = self.cloud.resources()
        return [*found["machines"], *found["disks"], *found["addresses"]]

    def violations(self) -> Sequence[str]:
        return self.cloud.violations

    def called(self) -> int:
        return self.cloud.calls.total()

    def close(self) -> None:
        self.server.__exit__(None, None, None)

    def throttle(self, times: int, retry_after_s: int) -> None:
        code = self.chance.choice(("rateLimitExceeded", "RESOURCE_EXHAUSTED", "tooManyRequests"))
        self.cloud.fail_next(code, times, retry_after_s=retry_after_s)

    def run_out(self, room: int | None) -> str:
        words = (
            self.chance.choice(("", "n1-standard-4", "n2d-standard-4", "n4-standard-4")),
            self.chance.choice(("", *self.zones)),
            self.chance.choice(("spot", "spot", "on-demand", "")),
        )
        self._rooms.append(words)
        self.cloud.set_capacity(room, *words)
        return " ".join(words)

    def restock(self) -> None:
        for words in self._rooms:
            self.cloud.set_capacity(None, *words)
        self._rooms.clear()

    def forgive(self) -> None:
        self.cloud._faults.clear()
        self.cloud._drops.clear()
        self.cloud.slow_inserts.clear()
        self.cloud.leaving_disks = 0

    def hide(self) -> str:
        place = self.chance.choice((*self.zones, "us-central1", "europe-west4"))
        self.cloud.partial(place)
        return place

    def show(self) -> None:
        for place in list(self.cloud.silent):
            self.cloud.readable(place)

    def lose(self) -> str:
        call = self.chance.choice(("instances.insert", "instances.insert", "instances.delete"))
        self.cloud.drop_next_answer(call)
        return call

    def fail(self) -> str:
        deed = self.chance.choice(("slow", "slow refusal", "backendError"))
        if deed == "backendError":
            call = self.chance.choice(("instances.insert", "instances.delete", "instances.get"))
            self.cloud.fail_next(deed, self.chance.randint(1, 3), call)
            return f"{call} with {deed}"
        refusal = "ZONE_RESOURCE_POOL_EXHAUSTED" if deed == "slow refusal" else ""
        self.cloud.slow_next_insert(self.chance.choice((10, 40, 90)), refusal)
        return f"a {deed}"

    def preempt(self, vm: Vm, notice_s: float) -> None:
        """A notice of this cloud is always thirty seconds long; without one the host dies."""
        if notice_s:
            self.cloud.preempt(vm.provider_id)
            self.taken[vm.provider_id] = vm.truth.ending.done_at
        else:
            self.cloud.host_error(vm.provider_id)

    def leave_something(self) -> str:
        self.cloud.leave_disk_next()
        return "the disk of an insert that is refused"

    def lag(self, seconds: float) -> None:
        self.cloud.listing_lag(seconds)


# ------------------------------------------------------------------------------------------- Azure


class Azure(Cloud):
    name = "azure"
    groups: ClassVar = {"eastus": "ml-east", "westeurope": "ml-west"}
    places: ClassVar = tuple(
        {"regions": [region], "resource_group": group, "subscription": SUBSCRIPTION}
        for region, group in groups.items()
    )

    def __init__(self, clock: WorldClock, seed: int) -> None:
        super().__init__(clock, seed)
        self.cloud = AzureCloud(clock)
        for region, group in self.groups.items():
            self.cloud.add_group(group, region)
        self.server = AzureServer(self.cloud)
        self._rooms: list[dict[str, str]] = []

    def provider(self, render: Callable[[LaunchRequest], str], watch: Watch) -> Provider:
        made = _WatchedAzure(connect(self.server), render=render, now=self.clock.now)
        made.watch = watch
        return made

    def verifier(self, web: VouchedWeb, folder: Path) -> Verifier:
        return AzureIdentity(web, self.clock.now, folder / "roots.pem")

    def shut_down(self, provider_id: str) -> None:
        """Where it may not delete itself, it can only switch itself off, and goes on costing."""
        if self.chance.random() < 0.8:
            self.cloud.delete_from_within(provider_id)
            self.vms[provider_id].gone_at = self.clock.now()
        else:
            self.cloud.shut_down(provider_id)

    def proof(self, vm: Vm, nonce: str, vouching: identity.Clouds) -> Mapping[str, str]:
        vm_id = f"00000000-0000-4000-8000-{vm.truth.number:012x}"
        content = vouching.azure_content(nonce, vm_id=vm_id, subscription=SUBSCRIPTION)
        return {"signature": vouching.azure_document(content)["signature"]}

    def runs(self, vm: Vm) -> bool:
        return bool(vm.truth.power_state(self.clock.now()) == "running")

    def _found(self) -> Iterator[Found]:
        for vm in self.cloud.machines():
            provider_id = self._id(vm.id)
            if self._is_new(provider_id, vm):
                yield Found(
                    provider_id=provider_id,
                    machine_id=vm.tags["orchctl-machine"],
                    text=vm.startup,
                    region=vm.location,
                    zone="",
                    kind=vm.size,
                    gpu="T4" if "_T4_" in vm.size else "",
                    spot=vm.market is Market.SPOT,
                    created_at=vm.created_at,
                    made_at=vm.ready_at,
                    truth=vm,
                )

    def _id(self, resource_id: str) -> str:
        """As the adapter writes it: the group in lower case."""
        parts = resource_id.split("/")
        return "/".join([*parts[:4], parts[4].lower(), *parts[5:]])

    def _gone_at(self, vm: Vm) -> datetime | None:
        there = self.cloud.group_of(vm.truth.id).machines
        if there.get(vm.truth.name.lower()) is vm.truth:
            return None
        ends = [each for each in (vm.truth.gone_at, vm.truth.taken_at) if each is not None]
        return min([*ends, self.clock.now()])

    def _refused(self, vm: Vm) -> bool:
        return vm.truth.error is not None

    def resources(self) -> Sequence[str]:
        return self.cloud.resources()

    def violations(self) -> Sequence[str]:
        return self.cloud.invalid

    def called(self) -> int:
        return len(self.cloud.calls)

    def close(self) -> None:
        self.server.stop()

    def throttle(self, times: int, retry_after_s: int) -> None:
        self.cloud.fail_next(
            "TooManyRequests", status=429, times=times, retry_after_s=retry_after_s
        )

    def run_out(self, room: int | None) -> str:
        words = self.chance.choice(
            (
                {"market": "spot"},
                {"market": "spot", "region": "eastus"},
                {"size": "Standard_NC4as_T4_v3"},
                {"size": "Standard_F4s_v2", "market": "spot"},
                {"market": "on-demand"},
            )
        )
        self._rooms.append(words)
        self.cloud.set_capacity(room, **words)
        return f"{words}"

    def restock(self) -> None:
        for words in self._rooms:
            self.cloud.set_capacity(None, **words)
        self._rooms.clear()

    def forgive(self) -> None:
        self.cloud._troubles.clear()
        self.cloud._slow.clear()

    def hide(self) -> str:
        group = self.chance.choice(sorted(self.groups.values()))
        self.cloud.silence(group)
        return group

    def show(self) -> None:
        for group in self.groups.values():
            self.cloud.speak(group)

    def lose(self) -> str:
        call = self.chance.choice(
            ("virtual_machines_create_or_update",) * 2 + ("virtual_machines_delete",)
        )
        if self.chance.random() < 0.3:
            self.cloud.lose_next_call(call)
            return f"{call}, on its way there"
        self.cloud.drop_next_answer(call)
        return call

    def fail(self) -> str:
        deed = self.chance.choice(("slow", "slow refusal", "InternalServerError"))
        if deed == "InternalServerError":
            call = self.chance.choice(
                ("virtual_machines_create_or_update", "virtual_machines_delete")
            )
            self.cloud.fail_next(deed, call=call, status=500, times=self.chance.randint(1, 3))
            return f"{call} with {deed}"
        error = {"code": "AllocationFailed", "message": "Allocation failed."}
        refusal = error if deed == "slow refusal" else None
        self.cloud.next_launch(takes_s=self.chance.choice((10, 40, 90)), error=refusal)
        return f"a {deed}"

    def preempt(self, vm: Vm, notice_s: float) -> None:
        if notice_s:
            self.taken[vm.provider_id] = self.clock.now() + timedelta(seconds=notice_s)
        self.cloud.interrupt(vm.provider_id, notice_s=notice_s)

    def leave_something(self) -> str:
        self.cloud.leave_behind()
        return "disk, interface and address of the next machine that goes"

    def lag(self, seconds: float) -> None:
        self.cloud.listing_lag_s = seconds


CLOUDS: Sequence[type[Cloud]] = (Aws, Gcp, Azure)


def vouched(clock: Clock, folder: Path) -> identity.Clouds:
    """What vouches for the machines of all three, at the world's time."""
    vouching = identity.Clouds(clock.now)
    vouching.azure.write_roots(folder / "roots.pem")
    return vouching
