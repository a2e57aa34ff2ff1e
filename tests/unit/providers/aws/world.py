"""The adapter on a fake account, with short words for what the tests of this folder do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.model import Market, Offer, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import BootSettings, Launched, LaunchRequest, MachineRef
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from providers.catalog.loader import load_offers
from tests.fakes.ec2.server import Ec2Server

FLEET = "fleet-a"
REGION, ZONE = "us-east-1", "use1-az1"
ROLE = "arn:aws:iam::123456789012:role/orchctl-life-limit"


class World:
    """One account, its server, and providers on it."""

    def __init__(self) -> None:
        self.server = Ec2Server()
        self.account = self.server.account
        self.provider = self.open()

    def open(self, **changes: object) -> AwsProvider:
        """Another provider object, as after a restart."""
        settings = AwsSettings(
            endpoint_url=self.server.url,
            access_key="AKIAIOSFODNN7EXAMPLE",
            secret_key="secret",
            life_limit_role=ROLE,
        )
        return AwsProvider(
            replace(settings, **changes),  # type: ignore[arg-type]
            now=self.account.now,
        )

    def close(self) -> None:
        """Both sides must have spoken as the service models say."""
        self.server.close()
        assert not self.account.violations

    def clouds(self, *regions: str, **options: str) -> Sequence[CloudPolicy]:
        return [CloudPolicy(provider="aws", regions=regions or (REGION,), options=options)]

    def request(
        self,
        machine_id: str = "m-1",
        *,
        attempt: int = 1,
        offer: Offer | None = None,
        fleet: str = FLEET,
        options: Mapping[str, str] | None = None,
    ) -> LaunchRequest:
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.{attempt}",
            offer=offer or an_offer(),
            disk_gib=100,
            deadline=self.account.now() + timedelta(hours=24),
            boot=BootSettings(
                server_url="https://orchctl.example",
                machine_id=machine_id,
                fleet=fleet,
                pool="gpu",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=86_400,
            ),
            cloud=CloudPolicy(provider="aws", regions=(REGION,), options=options or {}),
        )

    def launch(self, machine_id: str = "m-1", **more: object) -> Launched:
        return self.provider.launch(self.request(machine_id, **more))  # type: ignore[arg-type]

    def running(self, machine_id: str = "m-1", **more: object) -> Launched:
        launched = self.launch(machine_id, **more)
        self.account.advance(60)
        return launched

    def ref(self, launched: Launched | None = None, machine_id: str = "m-1") -> MachineRef:
        provider_id = launched.provider_id if launched else ""
        return MachineRef(machine_id=machine_id, provider_id=provider_id, region=REGION, zone=ZONE)

    def look(self, launched: Launched) -> Sighting:
        seen = self.provider.sighting(self.ref(launched))
        assert seen is not None
        return seen

    def asked(self, launched: Launched) -> Mapping[str, Any]:
        """The RunInstances call that has made a machine."""
        (vm,) = [each for each in self.account.living() if each.id == launched.provider_id]
        return vm.asked


def an_offer(
    instance_type: str = "g4dn.xlarge", *, market: Market = Market.SPOT, zone: str = ZONE
) -> Offer:
    """An offer of the catalogue; on demand has no zone there."""
    return next(
        offer
        for offer in load_offers(("aws",))
        if (offer.instance_type, offer.region, offer.market) == (instance_type, REGION, market)
        and offer.zone == (zone if market is Market.SPOT else "")
    )


def refused(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value
