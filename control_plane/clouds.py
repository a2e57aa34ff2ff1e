"""The clouds: for each one who sells and ends its machines, who says which machine is calling, and
what it tells from outside.

Nothing is connected here, and no SDK imported, before a document names the cloud. Each part is
imported when it is wanted: those who only answer machines start without what sells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from control_plane.interruptions import Source
from control_plane.ports import Provider

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from google.auth.credentials import Credentials

T = TypeVar("T")


class LateMapping(Mapping[str, T]):
    """A mapping that is made when something in it is wanted first."""

    def __init__(self, make: Callable[[], Mapping[str, T]]) -> None:
        self._made = cache(make)

    def __getitem__(self, name: str) -> T:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


@dataclass(frozen=True, slots=True, kw_only=True)
class Clouds:
    """By the name of the provider."""

    providers: Mapping[str, Provider] = field(default_factory=dict)
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    """What tells us from outside that a machine is taken."""


_SDKS = {"aws": "botocore", "azure": "azure.mgmt.compute", "gcp": "google.cloud.compute_v1"}

MakeClouds = Callable[[str, Callable[[], datetime]], Clouds]
"""Sets clouds up for a server that machines reach at an address, by a clock."""


def cloud_providers(
    now: Callable[[], datetime],
    *,
    gcp: Credentials | None = None,
    azure: TokenCredential | None = None,
) -> Mapping[str, Provider]:
    """Those of AWS, Google Cloud and Azure whose SDK is installed; where no credentials are given,
    it finds those of this computer."""
    made: Mapping[str, Callable[[], Provider]] = {
        "aws": lambda: _aws(now),
        "azure": lambda: _azure(now, azure),
        "gcp": lambda: _gcp(now, gcp),
    }
    return {name: make() for name, make in made.items() if _installed(_SDKS[name])}


def _aws(now: Callable[[], datetime]) -> Provider:
    from providers.aws.provider import AwsProvider

    return AwsProvider(now=now)


def _azure(now: Callable[[], datetime], credential: TokenCredential | None) -> Provider:
    from providers.azure.client import Clients, Endpoint
    from providers.azure.provider import AzureProvider

    return AzureProvider(Clients(Endpoint(), credential), now=now)


def _gcp(now: Callable[[], datetime], credentials: Credentials | None) -> Provider:
    from providers.gcp.client import Connection
    from providers.gcp.provider import GcpProvider

    return GcpProvider(Connection(credentials=credentials), now=now)


def real_clouds(public_url: str, now: Callable[[], datetime]) -> Clouds:
    """The three clouds for a server that machines reach at `public_url`."""
    web = Web()
    return Clouds(
        providers=cloud_providers(now),
        verifiers=cloud_verifiers(web, now, public_url),
        sources=cloud_sources(web, now, public_url),
    )


def cloud_verifiers(
    web: Web, now: Callable[[], datetime], public_url: str
) -> Mapping[str, Verifier]:
    """How machines of the three clouds prove who they are to a server at `public_url`."""
    from control_plane.identity.aws import AwsIdentity
    from control_plane.identity.azure import AzureIdentity
    from control_plane.identity.gcp import GcpIdentity

    return {
        "aws": AwsIdentity(web, now),
        "azure": AzureIdentity(web, now),
        "gcp": GcpIdentity(web, now, server_url=public_url),
    }


def cloud_sources(web: Web, now: Callable[[], datetime], public_url: str) -> Mapping[str, Source]:
    """How the three clouds tell a server at `public_url` something from outside."""
    from control_plane.identity.gcp import PushIdentity
    from providers.aws import events as aws_events
    from providers.azure import events as azure_events
    from providers.gcp import events as gcp_events

    push = PushIdentity(web, now, audience=f"{public_url}/v1/notices/gcp")
    return {
        "aws": Source(read=aws_events.read),
        "azure": Source(read=azure_events.read),
        "gcp": Source(read=gcp_events.read, scope=push.scope),
    }


def _installed(module: str) -> bool:
    """Whether a module is there, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False
