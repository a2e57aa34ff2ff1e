"""How the provider reaches a fake, and what its machines run first."""

from __future__ import annotations

from typing import Any

from azure.core.credentials import AccessToken

from control_plane.ports import LaunchRequest
from providers.azure.client import Clients, Endpoint
from tests.fakes.azure.server import AzureServer

_FAR = 4_102_444_800  # the year 2100


class FakeCredential:
    """Gives out one token."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        return AccessToken(self.token, _FAR)


def startup(request: LaunchRequest) -> str:
    """Stands for the start-up text: who it is for, and no secret."""
    return f"#!/bin/sh\n# {request.machine_id} {request.boot.server_url}\n"


def connect(server: AzureServer) -> Clients:
    """The SDK's clients on a fake, as production makes them but for address and credentials."""
    endpoint = Endpoint(
        url=server.url,
        scope=f"{server.url}/.default",
        prices_url=server.url,
        ca_file=server.ca_file,
    )
    return Clients(endpoint, FakeCredential(server.cloud.token))
