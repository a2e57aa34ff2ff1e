"""What `secret://` references stand for in a deployment: encrypted parameters of the account, which
neither a template nor Terraform's state holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from control_plane.errors import NotFound, Unavailable
from control_plane.ports import Secrets
from control_plane.webhooks.secrets import SCHEME

_ABSENT = frozenset({"ParameterNotFound", "ParameterVersionNotFound", "ValidationException"})


def connect() -> Any:
    """A client of the account and region that the function runs in."""
    import botocore.session

    return botocore.session.get_session().create_client("ssm")


class ParameterStoreSecrets:
    """`ports.Secrets`. `secret://pager` is the parameter `/orchctl/INSTALLATION/pager` of AWS
    Systems Manager, or what the function's own environment says."""

    def __init__(
        self, installation: str, environment: Secrets, client: Callable[[], Any] = connect
    ) -> None:
        """`client` makes one when it is needed first: most looks send nothing."""
        self._folder = f"/orchctl/{installation}/"
        self._environment = environment
        self._client = cache(client)

    def resolve(self, reference: str) -> str:
        try:
            return self._environment.resolve(reference)
        except NotFound:
            return self._parameter(self._folder + reference.removeprefix(SCHEME))

    def _parameter(self, name: str) -> str:
        """Raises `NotFound`, and `Unavailable` when it cannot be read."""
        try:
            told = self._client().get_parameter(Name=name, WithDecryption=True)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                raise _missing(name) from error
            raise Unavailable(f"the parameter {name} cannot be read: {error}") from error
        except BotoCoreError as error:
            raise Unavailable(f"the parameter {name} cannot be read: {error}") from error
        value = str(told["Parameter"]["Value"]).strip()
        if not value:
            raise _missing(name)
        return value


def _missing(name: str) -> NotFound:
    return NotFound(
        f"the account has no parameter {name}",
        fix=f"aws ssm put-parameter --type SecureString --name {name} --value ADDRESS",
    )
