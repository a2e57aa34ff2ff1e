"""The clouds: for each one who sells and ends its machines, and who says which machine is calling.

Nothing is connected here, and no SDK imported, before a document names the cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec

from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from control_plane.ports import Provider
from providers.aws.provider import AwsProvider
from providers.azure.client import Clients, Endpoint
from providers.azure.provider import AzureProvider
from providers.gcp.provider import GcpProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Clouds:
    """By the name of the provider."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)


_SDKS = {"aws": "botocore", "azure": "azure.mgmt.compute", "gcp": "google.cloud.compute_v1"}

MakeClouds = Callable[[str, Callable[[], datetime]], Clouds]
"""Sets clouds up for a server that machines reach at an address, by a clock."""


def cloud_providers(now: Callable[[], datetime]) -> Mapping[str, Provider]:
    """Those of AWS, Google Cloud and Azure whose SDK is installed; it finds the credentials of this
    computer."""
    made: Mapping[str, Callable[[], Provider]] = {
        "aws": lambda: AwsProvider(now=now),
        "azure": lambda: AzureProvider(Clients(Endpoint()), now=now),
        "gcp": lambda: GcpProvider(now=now),
    }
    return {name: make() for name, make in made.items() if _installed(_SDKS[name])}


def real_clouds(public_url: str, now: Callable[[], datetime]) -> Clouds:
    """The three clouds for a server that machines reach at `public_url`."""
    web = Web()
    return Clouds(
        providers=cloud_providers(now),
        verifiers={
            "aws": AwsIdentity(web, now),
            "azure": AzureIdentity(web, now),
            "gcp": GcpIdentity(web, now, server_url=public_url),
        },
    )


def _installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False
