"""Who the functions are at other clouds: their role in AWS, for which AWS itself vouches (workload
identity federation). No key of those clouds is kept anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import botocore.session

from control_plane.clouds import cloud_providers
from control_plane.ports import Provider
from control_plane.serverless.settings import ServerlessSettings

if TYPE_CHECKING:
    from azure.identity import ClientAssertionCredential
    from google.auth.aws import Credentials

AZURE_AUDIENCE = "api://AzureADTokenExchange"
"""Whom Microsoft Entra takes a token for; also in the module `azure-access`."""
VOUCHED_S = 300
"""As long as a token of AWS is good for: it is exchanged at once. The policy allows no more."""
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def federated(settings: ServerlessSettings, now: Callable[[], datetime]) -> Mapping[str, Provider]:
    """The clouds, each with the credentials that the deployment names; without any, its SDK looks
    for some. An SDK is imported for a cloud that is named here only."""
    gcp, tenant = settings.gcp_credentials, settings.azure_tenant
    return cloud_providers(
        now,
        gcp=google_credentials(gcp) if gcp else None,
        azure=azure_credential(tenant, settings.azure_client) if tenant else None,
    )


def google_credentials(told: str) -> Credentials:
    """Of what the module `gcp-access` puts out: Google is given a signed question to AWS who we
    are, asks it, and lends us the service account."""
    from google.auth.aws import Credentials

    made: Credentials = Credentials.from_info(json.loads(told), scopes=[_GOOGLE_SCOPE])  # type: ignore[no-untyped-call]
    return made


def azure_credential(tenant: str, client: str) -> ClientAssertionCredential:
    """The managed identity of the module `azure-access`, for whoever AWS vouches for."""
    from azure.identity import ClientAssertionCredential

    return ClientAssertionCredential(tenant, client, vouched)


def vouched() -> str:
    """A token in which AWS says which role this is. Raises what botocore raises."""
    sts = botocore.session.get_session().create_client("sts")
    answer = sts.get_web_identity_token(
        Audience=[AZURE_AUDIENCE], SigningAlgorithm="RS256", DurationSeconds=VOUCHED_S
    )
    return str(answer["WebIdentityToken"])
