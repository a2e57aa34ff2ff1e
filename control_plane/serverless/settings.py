"""What a deployment tells its functions, by environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.errors import InvalidInput

PREFIX = "ORCHCTL_"
REQUIRED = ("table", "bucket", "public_url", "installation", "admin_token_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerlessSettings:
    """Of one deployment. Each field is the variable of its name in capitals behind `ORCHCTL_`."""

    table: str
    """Of DynamoDB: queues, jobs, machines, ledger."""
    bucket: str
    """Of S3: logs, sources, artifacts, today's prices."""
    public_url: str
    """Where people and machines reach the API."""
    installation: str
    """What the labels of its machines begin with: no two control planes of one cloud account may
    have the same."""
    admin_token_sha256: str
    """In lower-case hex. The token itself is kept by whoever deploys."""
    notices_token_sha256: str = ""
    """The same of the token that Azure sends notices with; empty = none may."""
    reconcile_function: str = ""
    """The function that is woken when something changes; empty = the schedule alone."""
    gcp_credentials: str = ""
    """How Google Cloud is told that this is a role of AWS, as JSON (`federation.py`); no secret."""
    azure_tenant: str = ""
    """The same for Azure: a tenant, and a managed identity of it."""
    azure_client: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ServerlessSettings:
        """Raises `InvalidInput` naming what is missing."""
        given = {name: environment.get(PREFIX + name.upper(), "") for name in cls.__slots__}
        missing = [name for name, value in given.items() if not value and name in REQUIRED]
        if missing:
            raise InvalidInput(
                f"the function is deployed without {', '.join(PREFIX + n.upper() for n in missing)}"
            )
        return cls(**{**given, "public_url": given["public_url"].rstrip("/")})
