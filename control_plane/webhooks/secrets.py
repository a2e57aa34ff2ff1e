"""What `secret://` references stand for: variables of the server's environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from control_plane.errors import NotFound

PREFIX = "ORCHCTL_SECRET_"
SCHEME = "secret://"


class EnvironmentSecrets:
    """`ports.Secrets`. `secret://slack-webhook` is the variable `ORCHCTL_SECRET_SLACK_WEBHOOK`:
    what is neither letter nor digit is an underscore."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def resolve(self, reference: str) -> str:
        name = reference.removeprefix(SCHEME)
        variable = PREFIX + re.sub("[^A-Z0-9]", "_", name.upper())
        value = self._environment.get(variable, "").strip()
        if not value:
            raise NotFound(
                f"the server has no secret {name}", fix=f"set {variable} in its environment"
            )
        return value
