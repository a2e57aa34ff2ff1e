"""Google Compute Engine: the real client over HTTP against the fake in `tests/fakes/gcp`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy
from control_plane.ports import Launched
from providers.gcp.launch import machine_type
from providers.gcp.provider import GcpProvider
from providers.simulated.clock import SimulatedClock
from tests.conformance.provider_cases import ProviderCase
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.server import GcpServer

OPTIONS = {"project": "acme-ml", "service_account": "agents@acme-ml.iam.gserviceaccount.com"}
REGIONS = ("europe-west2", "us-east5")

CODES: Mapping[str, str] = {
    "InsufficientInstanceCapacity": "ZONE_RESOURCE_POOL_EXHAUSTED",
    "AllocationFailed": "insufficientCapacity",
    "QuotaExceeded": "quotaExceeded",
    "UnauthorizedOperation": "forbidden",
    "InvalidParameterValue": "invalid",
    "RequestLimitExceeded": "rateLimitExceeded",
    "InternalError": "backendError",
}
"""What stands here for the raw codes of the suite."""


class GcpCase(ProviderCase):
    """A calm cloud but for a listing that lags."""

    name = "gcp"
    cannot: ClassVar[Mapping[str, str]] = {
        "crash_in_launch": "an insert is one request: there is no half of it"
    }

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.cloud = GcpCloud(self.clock)
        self.cloud.listing_lag(5)
        self.server = GcpServer(self.cloud)
        self.server.__enter__()
        self._offer: Offer | None = None

    def open(self) -> GcpProvider:
        return GcpProvider(to(self.server.url), now=self.clock.now)

    def clouds(self) -> Sequence[CloudPolicy]:
        return [CloudPolicy(provider=self.name, regions=REGIONS, options=OPTIONS)]

    def offer(self) -> Offer:
        self._offer = self._offer or super().offer()
        return self._offer

    def now(self) -> datetime:
        return self.clock.now()

    def settle(self) -> None:
        self.clock.advance(120)

    def alive(self) -> Sequence[str]:
        return [each["labels"]["orchctl-machine"] for each in self.cloud.machines()]

    def end_by_itself(self, launched: Launched) -> None:
        self.cloud.self_delete(launched.provider_id)
        self.clock.advance(60)

    def visible_outside(self) -> str:
        return repr(self.cloud.machines())

    def pause(self) -> None:
        self.clock.advance(5)

    def close(self) -> None:
        self.server.__exit__(None, None, None)
        assert not self.cloud.violations

    def make_unavailable(self, offer: Offer) -> None:
        self.cloud.set_capacity(0, machine_type(offer.instance_type))

    def make_available(self, offer: Offer) -> None:
        self.cloud.set_capacity(None, machine_type(offer.instance_type))

    def drop_launch_answer(self) -> None:
        self.cloud.drop_next_answer("instances.insert")

    def fail_next(self, code: str) -> None:
        raw = CODES[code]
        where = "no room in regions/europe-west2" if raw == "insufficientCapacity" else ""
        self.cloud.fail_next(raw, message=where)

    def blind(self, region: str) -> None:
        self.cloud.partial(region)

    def answer_slowly(self, *, refuse: bool) -> None:
        self.cloud.slow_next_insert(90, "ZONE_RESOURCE_POOL_EXHAUSTED" if refuse else "")

    def interrupt(self, launched: Launched) -> None:
        self.cloud.preempt(launched.provider_id)
        self.clock.advance(30)
