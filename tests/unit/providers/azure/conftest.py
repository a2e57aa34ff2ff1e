"""A fake of Azure with one resource group, and the provider on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.ports import BootSettings, LaunchRequest, MachineRef
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect, startup
from tests.fakes.azure.server import AzureServer

GPU_SIZE, PLAIN_SIZE, BURSTABLE = "Standard_NC4as_T4_v3", "Standard_D4s_v5", "Standard_B2ms"
GROUP, FLEET = "ml", "fleet-a"


def offer(size: str = GPU_SIZE, *, market: Market = Market.SPOT, region: str = "eastus") -> Offer:
    """An offer of the catalogue."""
    return next(
        each
        for each in load_offers(["azure"])
        if (each.instance_type, each.market, each.region) == (size, market, region)
    )


class World:
    """Everything a test needs; machines take 20 s to come up and 15 s to go."""

    def __init__(self) -> None:
        self.cloud = AzureCloud()
        self.cloud.add_group(GROUP)
        self.server = AzureServer(self.cloud)
        self.clients = connect(self.server)
        self.provider = self.restarted()

    def restarted(self) -> AzureProvider:
        """A provider that remembers nothing."""
        return AzureProvider(self.clients, render=startup, now=self.cloud.clock.now, listing_s=10)

    def settings(self, *regions: str, group: str = GROUP, **options: str) -> CloudPolicy:
        return CloudPolicy(
            provider="azure",
            regions=regions or ("eastus",),
            options={"resource_group": group, "subscription": SUBSCRIPTION, **options},
        )

    def request(
        self,
        machine_id: str = "m-1",
        *,
        attempt: int = 1,
        fleet: str = FLEET,
        market: Market = Market.SPOT,
        size: str = GPU_SIZE,
        zone: str = "",
        **options: str,
    ) -> LaunchRequest:
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.{attempt}",
            offer=replace(offer(size, market=market), zone=zone),
            disk_gib=100,
            deadline=self.cloud.clock.now() + timedelta(hours=24),
            boot=BootSettings(
                server_url="https://orchctl.example",
                machine_id=machine_id,
                fleet=fleet,
                pool="p",
                agent_sha256="ab" * 32,
                boot_timeout_s=600,
                max_lifetime_s=86_400,
            ),
            cloud=self.settings(**options),
        )

    def running(self, machine_id: str = "m-1", **words: object) -> LaunchRequest:
        """Launch a machine and let it come up; returns its request."""
        request = self.request(machine_id, **words)  # type: ignore[arg-type]
        begun = self.provider.launch(request)
        self.cloud.clock.advance(20)
        self.provider.launch_result(request, begun.operation)
        return request

    def ref(self, request: LaunchRequest, provider_id: str = "") -> MachineRef:
        return MachineRef(
            machine_id=request.machine_id,
            provider_id=provider_id,
            region=request.offer.region,
            zone=request.offer.zone,
            options=request.cloud.options,
        )

    def kinds(self) -> list[str]:
        """What exists and costs money, by kind: `vm`, `disks` …"""
        group = self.cloud.groups[GROUP]
        self.cloud.settle()
        return sorted([*("vm" for _ in group.machines), *(kind for kind, _ in group.parts)])

    def calls(self, name: str) -> int:
        return self.cloud.calls.count(name)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.clients.close()
    made.server.stop()
    assert made.cloud.invalid == [], "the fake has broken the published schemas"
