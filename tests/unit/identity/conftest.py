"""The clouds at a fixed moment, and the verifiers of a server that asks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.core.model import Capacity, Machine, MachineState, Offer
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.web import Web
from tests.fakes.metadata.identity import ACCOUNT, EMAIL, INSTANCE_NUMBER, VM_ID, Clouds
from tests.fakes.metadata.server import INSTANCE, NAME, PROJECT, REGION, RESOURCE, ROLE, ZONE

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
NONCE = "0123456789"
SERVER = "https://orchctl.example"


@dataclass
class Moment:
    """A clock that moves when told."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at

    def pass_by(self, **time: float) -> None:
        self.at += timedelta(**time)


def machine(
    provider: str, provider_id: str, region: str, identity: Mapping[str, str], **options: str
) -> Machine:
    """A machine that was launched and has not registered."""
    offer = Offer(
        provider=provider,
        region=region,
        zone="",
        instance_type="small",
        capacity=Capacity(cpus=4, memory_mib=16_384, disk_gib=100),
        price_usd_hour=Decimal("0.50"),
        on_demand_usd_hour=Decimal("0.50"),
    )
    return Machine(
        id="m-7k2m9",
        autoscaler="research",
        pool="small",
        state=MachineState.BOOTING,
        offers=(offer,),
        provider_id=provider_id,
        identity=identity,
        options=options,
        planned_at=NOW,
    )


PROFILE = f"arn:aws:iam::{ACCOUNT}:instance-profile/team/{ROLE}"
ON_AWS = machine("aws", INSTANCE, REGION, {"account": ACCOUNT}, instance_profile=PROFILE)
ON_GCP = machine(
    "gcp",
    f"projects/{PROJECT}/zones/{ZONE}/instances/{NAME}",
    "us-central1",
    {"vm_id": INSTANCE_NUMBER},
    project=PROJECT,
    service_account=EMAIL,
)
ON_AZURE = machine(
    "azure",
    RESOURCE,
    "eastus",
    {"account": RESOURCE.split("/")[2], "vm_id": VM_ID},
    resource_group="orchctl",
)


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def clouds(moment: Moment) -> Iterator[Clouds]:
    clouds = Clouds(moment.now)
    yield clouds
    clouds.close()


@pytest.fixture
def web(clouds: Clouds) -> Web:
    return Web(clouds.transport())


@pytest.fixture
def aws(web: Web, moment: Moment) -> AwsIdentity:
    return AwsIdentity(web, moment.now)


@pytest.fixture
def gcp(web: Web, moment: Moment) -> GcpIdentity:
    return GcpIdentity(web, moment.now, server_url=SERVER + "/")


@pytest.fixture
def azure(web: Web, moment: Moment, clouds: Clouds, tmp_path: Path) -> AzureIdentity:
    roots = clouds.azure.write_roots(tmp_path / "roots.pem")
    return AzureIdentity(web, moment.now, roots)


def other(machine: Machine, **changes: object) -> Machine:
    """The same machine with something else in its record."""
    return replace(machine, **changes)  # type: ignore[arg-type]
