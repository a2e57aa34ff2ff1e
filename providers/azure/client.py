"""Connections to Azure: one SDK client a subscription, made on first use, that never waits.

The SDK's own pipeline repeats calls for minutes and registers resource providers while the caller
waits. Ours has neither: a call is made once, and whoever asked decides what follows.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

if TYPE_CHECKING:
    from azure.core import PipelineClient
    from azure.core.credentials import TokenCredential
    from azure.core.rest import HttpRequest, HttpResponse
    from azure.mgmt.compute import ComputeManagementClient

COMPUTE_API = "2026-04-01"
_SUBSCRIPTIONS_API = "2022-12-01"
_ID = re.compile(
    r"/subscriptions/([^/]+)/resourcegroups/([^/]+)/providers/[^/]+/[^/]+/([^/]+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where Azure is and how long it may take to answer; as it stands, the public cloud."""

    url: str = "https://management.azure.com"
    scope: str = "https://management.azure.com/.default"
    """What the credentials ask a token for."""
    prices_url: str = "https://prices.azure.com"
    ca_file: str = ""
    """Certificate authorities to trust; empty = those of this computer."""
    connect_s: float = 5.0
    read_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Place:
    """A resource group. Both names are lower-case: Azure does not tell cases apart, and answers in
    any."""

    subscription: str
    group: str

    @property
    def path(self) -> str:
        """What the ids of all resources here begin with."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers"

    def vm_id(self, name: str) -> str:
        """The resource id of a virtual machine here: what `provider_id` is."""
        return f"{self.path}/Microsoft.Compute/virtualMachines/{name}"


def parse_id(resource_id: str) -> tuple[Place, str] | None:
    """Resource group and name of a resource; None when this is no resource id."""
    found = _ID.fullmatch(resource_id)
    if found is None:
        return None
    subscription, group, name = found.groups()
    return Place(subscription.lower(), group.lower()), name


def _bearer(token: str) -> str:
    """The name in a token. It is shown and never believed, so its signature is left alone."""
    claims = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    except ValueError:
        return "a token that tells no name"
    names = (told.get(name) for name in ("upn", "unique_name", "appid", "oid"))
    return str(next(filter(None, names), "a token that tells no name"))


class Clients:
    """The clients of one set of credentials. Safe to use from several threads."""

    def __init__(self, endpoint: Endpoint, credential: TokenCredential | None = None) -> None:
        """Without credentials: what this computer has (`azure.identity.DefaultAzureCredential`)."""
        self.endpoint = endpoint
        self._credential = credential
        self._compute: dict[str, ComputeManagementClient] = {}
        self._prices: PipelineClient[HttpRequest, HttpResponse] | None = None
        self._own_subscription = ""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock:
            for client in self._compute.values():
                client.close()
            if self._prices is not None:
                self._prices.close()

    def place(self, options: Mapping[str, str]) -> Place:
        """The resource group that a document names. Raises `ProviderError`."""
        group = options.get("resource_group", "")
        if not group:
            raise ProviderError(
                "no resource_group is named",
                error_class=ErrorClass.INVALID,
                raw_code="NoResourceGroup",
            )
        return Place(self.subscription(options), group.lower())

    def subscription(self, options: Mapping[str, str]) -> str:
        """The subscription that a document names, else the only one of the credentials."""
        return options.get("subscription", "").lower() or self._only_subscription()

    def compute(self, subscription: str) -> ComputeManagementClient:
        """The client of a subscription."""
        with self._lock:
            if subscription not in self._compute:
                self._compute[subscription] = self._connect(subscription)
            return self._compute[subscription]

    def pages(
        self, subscription: str, path: str, version: str, **query: str
    ) -> Iterator[Mapping[str, Any]]:
        """All items of a listing, page by page. Raises the SDK's errors."""
        words = {"api-version": version, **query}
        url = path + "?" + "&".join(f"{name}={value}" for name, value in words.items())
        while url:
            page = self.call(subscription, "GET", url)
            yield from page["value"]
            url = page.get("nextLink") or ""

    def call(self, subscription: str, method: str, url: str) -> Mapping[str, Any]:
        """One plain call of the resource manager, for what the SDK in use does not know or is slow
        at. Raises the SDK's errors."""
        from azure.core.rest import HttpRequest

        answer = self.compute(subscription).send_request(HttpRequest(method, url))
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def price_page(self, url: str, params: Mapping[str, str]) -> Mapping[str, Any]:
        """One page of the public price list, its figures exact."""
        from azure.core.rest import HttpRequest

        with self._lock:
            if self._prices is None:
                self._prices = self._connect_prices()
        answer = self._prices.send_request(HttpRequest("GET", url, params=dict(params)))
        answer.raise_for_status()
        page: Mapping[str, Any] = json.loads(answer.text(), parse_float=Decimal)
        return page

    def account(self) -> str:
        """Whose credentials these are, as far as their token says. Raises the SDK's errors."""
        return _bearer(self._credentials().get_token(self.endpoint.scope).token)

    def subscriptions(self) -> tuple[Sequence[str], str]:
        """The subscriptions that the credentials reach, and the `Date` of Azure's answer. Raises
        the SDK's errors."""
        from azure.core.rest import HttpRequest

        url = f"/subscriptions?api-version={_SUBSCRIPTIONS_API}"
        answer = self.compute("").send_request(HttpRequest("GET", url))
        answer.raise_for_status()
        found = list(answer.json()["value"])
        if more := answer.json().get("nextLink"):
            found += self.call("", "GET", more)["value"]
        ids = [str(each["subscriptionId"]).lower() for each in found]
        return ids, answer.headers.get("Date", "")

    # --------------------------------------------------------------------------------- inside

    def _connect(self, subscription: str) -> ComputeManagementClient:
        from azure.core.pipeline import policies
        from azure.mgmt.compute import ComputeManagementClient
        from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

        credential = self._credentials()
        return ComputeManagementClient(
            credential,
            subscription,
            base_url=self.endpoint.url,
            credential_scopes=[self.endpoint.scope],
            policies=[
                policies.RequestIdPolicy(),
                policies.HeadersPolicy(),
                policies.UserAgentPolicy("orchctl"),
                policies.ContentDecodePolicy(),
                ARMChallengeAuthenticationPolicy(credential, self.endpoint.scope),
            ],
            **self._transport(),
        )

    def _connect_prices(self) -> PipelineClient[HttpRequest, HttpResponse]:
        """Without credentials: the price list is public, and no token of ours is its business."""
        from azure.core import PipelineClient
        from azure.core.pipeline import policies

        return PipelineClient(
            self.endpoint.prices_url,
            policies=[policies.UserAgentPolicy("orchctl")],
            **self._transport(),
        )

    def _transport(self) -> dict[str, Any]:
        return {
            "connection_timeout": self.endpoint.connect_s,
            "read_timeout": self.endpoint.read_s,
            "connection_verify": self.endpoint.ca_file or True,
        }

    def _credentials(self) -> TokenCredential:
        with self._lock:
            if self._credential is None:
                from azure.identity import DefaultAzureCredential

                self._credential = DefaultAzureCredential()
            return self._credential

    def _only_subscription(self) -> str:
        if not self._own_subscription:
            found, _ = self.subscriptions()
            if len(found) != 1:
                raise ProviderError(
                    f"the credentials reach {len(found)} subscriptions: name one in the document",
                    error_class=ErrorClass.INVALID,
                    raw_code="NoSubscription",
                )
            self._own_subscription = found[0]
        return self._own_subscription
