"""The settings of the adapter and its botocore clients: one for each service and region."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from providers.aws.errors import answered

Client: TypeAlias = Any
"""A botocore client; botocore makes its methods at run time, so there is no type to name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSettings:
    """How the AWS APIs are reached. What is left empty comes from where the AWS SDK looks for it:
    environment, profile, role."""

    endpoint_url: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    deadline_s: float = 15.0
    """A region that has not answered a listing by then is unknown."""
    life_limit_role: str = ""
    """ARN of the role by which EventBridge Scheduler may end machines at their deadline; without
    one no schedules are made."""


class Clients:
    """Clients made when they are needed first. Any number of threads may ask."""

    def __init__(self, settings: AwsSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._made: dict[tuple[str, str], Client] = {}

    def get(self, service: str, region: str) -> Client:
        """The client of a service in a region. Raises `ProviderError`."""
        with self._lock, answered():
            if (service, region) not in self._made:
                self._made[service, region] = self._make(service, region)
            return self._made[service, region]

    def _make(self, service: str, region: str) -> Client:
        from botocore.config import Config

        settings = self._settings
        self._session = self._session or _session()
        return self._session.create_client(
            service,
            region_name=region,
            endpoint_url=settings.endpoint_url or None,
            aws_access_key_id=settings.access_key or None,
            aws_secret_access_key=settings.secret_key or None,
            config=Config(
                # botocore's own repeats would hide a throttle from the shared rest of an API, and
                # try a sold-out type five times (its answer is an HTTP 500).
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=settings.connect_timeout_s,
                read_timeout=settings.read_timeout_s,
                tcp_keepalive=True,
                max_pool_connections=32,
                user_agent_extra="orchctl",
            ),
        )


def _session() -> Any:
    import botocore.session

    session = botocore.session.Session()
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Any:
    """The service descriptions: 10 MB of JSON for EC2, read once in a process."""
    from botocore.loaders import create_loader

    return create_loader()
