"""Every provider that must pass the provider suite."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.clouds.aws import AwsCase
from tests.conformance.clouds.azure import AzureCase
from tests.conformance.clouds.gcp import GcpCase
from tests.conformance.provider_cases import (
    LocalCase,
    ProviderCase,
    RenamedCase,
    SimulatedCase,
)

CASES: Mapping[str, type[ProviderCase]] = {
    "aws": AwsCase,
    "azure": AzureCase,
    "gcp": GcpCase,
    "local": LocalCase,
    "simulated": SimulatedCase,
    "simulated-as-aws": RenamedCase,
}
