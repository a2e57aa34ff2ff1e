"""A fake Compute Engine for each test, and a provider that knows no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import BootSettings, Launched, LaunchRequest, MachineRef
from providers.gcp.launch import machine_type
from providers.gcp.prices import catalogue
from providers.gcp.provider import GcpProvider
from providers.simulated.clock import SimulatedClock
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.server import GcpServer

PROJECT, FLEET = "acme-ml", "fleet-a"
ACCOUNT = "agents@acme-ml.iam.gserviceaccount.com"
ZONE = "us-east5-a"


def offer(
    instance_type: str = "e2-standard-4",
    *,
    zone: str = ZONE,
    market: Market = Market.ON_DEMAND,
    gpu: str = "",
) -> Offer:
    """An offer of the catalogue, placed in a zone."""
    for each in catalogue([zone.rpartition("-")[0]]):
        same = (machine_type(each.instance_type), each.market) == (instance_type, market)
        if same and each.zone in ("", zone) and gpu in ("", each.capacity.gpu_name):
            return replace(each, zone=zone)
    raise LookupError(f"{instance_type} in {zone}")


@dataclass
class World:
    """One cloud, and what is asked of it."""

    clock: SimulatedClock
    cloud: GcpCloud
    server: GcpServer

    def provider(self) -> GcpProvider:
        """A new provider object, as after a restart of the control plane."""
        return GcpProvider(to(self.server.url), now=self.clock.now, version="1.2.3")

    def clouds(self, *regions: str, project: str = PROJECT, **options: str) -> list[CloudPolicy]:
        return [
            CloudPolicy(
                provider="gcp",
                regions=regions or ("us-east5",),
                options={"project": project, **options},
            )
        ]

    def request(
        self,
        machine_id: str = "m-1",
        *,
        attempt: int = 1,
        wanted: Offer | None = None,
        fleet: str = FLEET,
        **options: str,
    ) -> LaunchRequest:
        options = {"project": PROJECT, "service_account": ACCOUNT} | options
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.{attempt}",
            offer=wanted or offer(),
            disk_gib=100,
            deadline=self.clock.now() + timedelta(hours=24),
            boot=BootSettings(
                server_url="https://orchctl.example",
                machine_id=machine_id,
                fleet=fleet,
                pool="gpu",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=85_800,
            ),
            cloud=CloudPolicy(provider="gcp", options=options),
        )

    def ref(self, request: LaunchRequest, launched: Launched | None = None) -> MachineRef:
        return MachineRef(
            machine_id=request.machine_id,
            provider_id=launched.provider_id if launched else "",
            region=request.offer.region,
            zone=request.offer.zone,
            options=request.cloud.options,
        )

    def running(self, machine_id: str = "m-1") -> tuple[LaunchRequest, Launched]:
        """A machine that runs."""
        request = self.request(machine_id)
        launched = self.provider().launch(request)
        self.clock.advance(60)
        return request, launched

    def names(self) -> Sequence[str]:
        """Machine ids of what exists, asked from the fake."""
        return sorted(each["labels"]["orchctl-machine"] for each in self.cloud.machines())

    def seen(self, *regions: str) -> Sequence[str]:
        """Machine ids of what a listing shows."""
        sightings = self.provider().observe(FLEET, self.clouds(*regions)).sightings
        return sorted(each.machine_id for each in sightings)

    def empty(self) -> bool:
        """Whether nothing that costs money is left."""
        return not any(self.cloud.resources().values())


@pytest.fixture
def world() -> Iterator[World]:
    clock = SimulatedClock()
    cloud = GcpCloud(clock)
    with GcpServer(cloud) as server:
        yield World(clock, cloud, server)
    assert not cloud.violations


@pytest.fixture
def provider(world: World) -> GcpProvider:
    return world.provider()


def refused(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value
