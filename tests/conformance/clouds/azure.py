"""Azure behind the hooks of the provider suite: the real SDK over TLS against the fake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy
from control_plane.ports import Launched
from providers.azure.provider import AzureProvider
from tests.conformance.provider_cases import ProviderCase
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect, startup
from tests.fakes.azure.server import AzureServer

CODES = {
    "InsufficientInstanceCapacity": ("ZonalAllocationFailed", 409),
    "AllocationFailed": ("AllocationFailed", 409),
    "QuotaExceeded": ("QuotaExceeded", 409),
    "UnauthorizedOperation": ("AuthorizationFailed", 403),
    "InvalidParameterValue": ("InvalidParameter", 400),
    "RequestLimitExceeded": ("TooManyRequests", 429),
    "InternalError": ("InternalServerError", 500),
}
"""What Azure says in place of the simulated cloud's codes, and with which status."""


class AzureCase(ProviderCase):
    """Two regions, each with a resource group of its own, so that one can be silent. Machines come
    up, and go, at once: how that goes on for a while has tests of its own."""

    name = "azure"
    cannot: ClassVar[Mapping[str, str]] = {
        "crash_in_launch": "its launch is one PUT: there is no half of it"
    }

    def __init__(self, folder: Path) -> None:
        self.cloud = AzureCloud()
        self.cloud.provision_s = 0
        self.groups = {"eastus": "ml-east", "westeurope": "ml-west"}
        for region, group in self.groups.items():
            self.cloud.add_group(group, region)
        self.server = AzureServer(self.cloud)
        self.clients = connect(self.server)

    def open(self) -> AzureProvider:
        return AzureProvider(self.clients, render=startup, now=self.cloud.clock.now)

    def clouds(self) -> Sequence[CloudPolicy]:
        return [
            CloudPolicy(
                provider=self.name,
                regions=(region,),
                options={"resource_group": group, "subscription": SUBSCRIPTION},
            )
            for region, group in self.groups.items()
        ]

    def now(self) -> datetime:
        return self.cloud.clock.now()

    def settle(self) -> None:
        self.cloud.clock.advance(120)

    def alive(self) -> Sequence[str]:
        return [vm.tags["orchctl-machine"] for vm in self.cloud.alive()]

    def end_by_itself(self, launched: Launched) -> None:
        self.cloud.delete_from_within(launched.provider_id)

    def visible_outside(self) -> str:
        return json.dumps([self.cloud.told(), self.cloud.resources()])

    def pause(self) -> None:
        self.cloud.clock.advance(5)

    def close(self) -> None:
        self.clients.close()
        self.server.stop()
        assert self.cloud.invalid == []
        living = [vm.name for vm in self.cloud.machines()]
        lost = [name for name in self.cloud.resources() if not name.startswith(tuple(living))]
        assert lost == [], "parts without a machine"

    # ---- hooks

    def make_unavailable(self, offer: Offer) -> None:
        self.cloud.set_capacity(0, size=offer.instance_type)

    def make_available(self, offer: Offer) -> None:
        self.cloud.set_capacity(None, size=offer.instance_type)

    def drop_launch_answer(self) -> None:
        self.cloud.drop_next_answer("virtual_machines_create_or_update")

    def fail_next(self, code: str) -> None:
        """The next launch; or the next listing, which is a call for each resource group."""
        raw_code, status = CODES[code]
        self.cloud.fail_next(raw_code, status=status, call="virtual_machines_create_or_update")
        self.cloud.fail_next(
            raw_code, status=status, call="virtual_machines_list", times=len(self.groups)
        )

    def blind(self, region: str) -> None:
        self.cloud.silence(self.groups[region])

    def answer_slowly(self, *, refuse: bool) -> None:
        error = {"code": "AllocationFailed", "message": "Allocation failed."} if refuse else None
        self.cloud.next_launch(takes_s=60, error=error)

    def interrupt(self, launched: Launched) -> None:
        self.cloud.machine(launched.provider_id).body["properties"]["evictionPolicy"] = "Delete"
        self.cloud.interrupt(launched.provider_id)
        self.cloud.clock.advance(30)
