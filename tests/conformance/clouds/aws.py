"""Amazon EC2 for the provider suite: the real adapter and botocore against the fake over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import pytest

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.aws import labels
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from tests.conformance.provider_cases import ProviderCase
from tests.fakes.ec2.server import Ec2Server

REGIONS = ("eu-west-1", "us-east-1")
CODES = {"QuotaExceeded": "MaxSpotInstanceCountExceeded"}
"""What EC2 has in place of a code of the simulated cloud."""


class AwsCase(ProviderCase):
    """EC2 with a listing that lags. Machines are bought on spot in one zone: only those can be
    interrupted."""

    name = "aws"
    cannot: ClassVar = {"answer_slowly": "RunInstances answers with the instance itself"}
    lacks: ClassVar = {
        "AllocationFailed": "the code for a lack in a zone is the one for a lack in the region"
    }

    def __init__(self, folder: Path) -> None:
        self.server = Ec2Server()
        self.account = self.server.account
        self.account.set_lag(5)

    def open(self) -> AwsProvider:
        settings = AwsSettings(
            endpoint_url=self.server.url,
            access_key="AKIAIOSFODNN7EXAMPLE",
            secret_key="secret",
            life_limit_role="arn:aws:iam::123456789012:role/orchctl-life-limit",
        )
        return AwsProvider(settings, now=self.account.now)

    def clouds(self) -> Sequence[CloudPolicy]:
        return [
            CloudPolicy(
                provider="aws", regions=REGIONS, options={"instance_profile": "orchctl-machine"}
            )
        ]

    def offer(self) -> Offer:
        """From the shipped catalogue: asking AWS for each test would take most of its time."""
        return next(
            each
            for each in self.open().offers()
            if each.market is Market.SPOT and each.region in REGIONS
        )

    def now(self) -> datetime:
        return self.account.now()

    def settle(self) -> None:
        self.account.advance(120)

    def alive(self) -> Sequence[str]:
        return [vm.tags[labels.MACHINE] for vm in self.account.living()]

    def end_by_itself(self, launched: Launched) -> None:
        self.account.shut_down(launched.provider_id)
        self.account.advance(60)

    def visible_outside(self) -> str:
        return repr(self.account.machines())

    def pause(self) -> None:
        self.account.advance(5)

    def close(self) -> None:
        for vm in list(self.account.living()):
            self.account.end(vm, "Client.UserInitiatedShutdown", "the test is over")
        self.account.advance(86_400)
        left = {kind: found for kind, found in self.account.resources().items() if found}
        self.server.close()
        assert not self.account.violations
        assert not left

    def make_unavailable(self, offer: Offer) -> None:
        self.account.set_capacity(0, instance_type=offer.instance_type)

    def make_available(self, offer: Offer) -> None:
        self.account.set_capacity(None, instance_type=offer.instance_type)

    def drop_launch_answer(self) -> None:
        self.account.drop_next("RunInstances")

    def fail_next(self, code: str) -> None:
        for region in REGIONS:
            self.account.fail_next(CODES.get(code, code), region=region)

    def blind(self, region: str) -> None:
        self.account.silence(region)

    def interrupt(self, launched: Launched) -> None:
        self.account.interrupt(launched.provider_id, notice_s=30)
        self.account.advance(30)

    def crash_in_launch(self, request: LaunchRequest) -> None:
        self.account.drop_next("RunInstances", before=True)
        with pytest.raises(ProviderError):
            self.open().launch(request)
