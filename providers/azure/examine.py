"""Whether Azure subscriptions are set up: looked at by reads, which make nothing.

The resource manager has no dry run of a machine that least-privilege credentials may use, so the
rights to write are said to be unknown, as is whether a subnet without public addresses leads out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check
from providers.azure.body import GPU_IMAGE, PLAIN_IMAGE, resource
from providers.azure.client import COMPUTE_API, Clients, Place
from providers.azure.errors import told
from providers.azure.quotas import Allowed, allowed
from providers.examination import AGAIN, Wrong, clock, look, merged, sdk, told_before, unknown

NETWORK_API = "2025-09-01"
READS: Mapping[str, str] = {
    "Microsoft.Compute/virtualMachines": COMPUTE_API,
    "Microsoft.Compute/sshPublicKeys": COMPUTE_API,
    "Microsoft.Compute/disks": "2026-03-02",
    "Microsoft.Network/networkInterfaces": NETWORK_API,
    "Microsoft.Network/publicIPAddresses": NETWORK_API,
}
"""What a running fleet reads in its resource group, and by which API."""

CHANGES = (
    *(f"{kind}/{deed}" for kind in READS for deed in ("write", "delete")),
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.ManagedIdentity/userAssignedIdentities/read",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
)
"""What launches and ends need beyond it."""

OF_REGIONS = ("Microsoft.Compute/skus/read", "Microsoft.Compute/locations/usages/read")
_SPOT_CORES = "lowPriorityCores"
_SUBNET = re.compile(r".*/resourceGroups/([^/]+)/.*/virtualNetworks/([^/]+)/subnets/([^/]+)", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region of a resource group under the settings that name it."""

    cloud: CloudPolicy
    place: Place
    region: str
    offers: Sequence[Offer]
    """What may be bought there."""


class Examination:
    """One look at what credentials can reach."""

    def __init__(self, clients: Clients, now: Callable[[], datetime]) -> None:
        self._clients = clients
        self._now = now
        self._date = ""
        """By Azure's clock, at the first answer."""
        self._asked_at = now()
        self._account = ""
        self._subscriptions: Sequence[str] = ()
        self._places: list[tuple[CloudPolicy, Place]] = []
        self._no_group: set[Place] = set()
        self._allowed: dict[tuple[str, str], Allowed] = {}
        """By subscription and region."""

    def checks(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """All that was found, in the order in which it is best mended."""
        modules = ("azure.mgmt.compute", "azure.identity")
        yield (installed := sdk("azure", "azure-mgmt-compute", *modules))
        if not installed.ok:
            return
        (who,) = look("credentials", self._who, _log_in)
        yield who
        if who.ok:
            for cloud in merged(clouds):
                yield from look("subscription", partial(self._place, cloud), _name_it)
            for cloud, place in self._places:
                yield from self._of_group(cloud, place, offers)
        yield from clock(self._date, self._asked_at)

    def _of_group(
        self, cloud: CloudPolicy, place: Place, offers: Sequence[Offer]
    ) -> Iterator[Check]:
        sites = [
            Site(
                cloud=cloud,
                place=place,
                region=region,
                offers=[offer for offer in offers if offer.region == region],
            )
            for region in cloud.regions
        ]
        find = partial(self._reads, place, next(iter(cloud.regions), "eastus"))
        yield from look(f"permission reads {place.group}", find, _again)
        for site in sites:
            find, fix = partial(self._learn_allowed, site), partial(self._may_ask, place)
            yield from look(f"permission skus and usages {site.region}", find, fix)
        why = f"without a launch, as Azure has no dry run ({', '.join(CHANGES)})"
        yield unknown(f"permission writes {place.group}", why)
        for site in sites:
            yield from self._quotas(site)
        for site in sites:
            yield from look(f"image {site.region}", partial(self._images, site), _again)
        for site in sites:
            yield from look(f"network {site.region}", partial(self._network, site), _again)

    # ------------------------------------------------------------------------- who and what

    def _who(self) -> str:
        self._asked_at = self._now()
        with told():
            self._account = self._clients.account()
            self._subscriptions, self._date = self._clients.subscriptions()
        return self._account

    def _place(self, cloud: CloudPolicy) -> str:
        with told():
            place = self._clients.place(cloud.options)
        if place.subscription not in self._subscriptions:
            raise Wrong(
                f"{self._account} does not reach {place.subscription}",
                "az account list --output table  # and name one as `subscription`",
            )
        self._places.append((cloud, place))
        return place.subscription

    def _reads(self, place: Place, region: str) -> str:
        denied = []
        for kind, version in READS.items():
            try:
                with told():
                    url = f"{place.path}/{kind}?api-version={version}"
                    self._clients.call(place.subscription, "GET", url)
            except ProviderError as error:
                if error.raw_code == "ResourceGroupNotFound":
                    self._no_group.add(place)
                    fix = f"az group create --name {place.group} --location {region}"
                    raise Wrong(f"there is no resource group {place.group}", fix) from error
                if error.error_class is not ErrorClass.AUTH:
                    raise
                denied.append(f"{kind}/read")
        if denied:
            scope = place.path.removesuffix("/providers")
            actions = [*(f"{kind}/read" for kind in READS), *CHANGES]
            fix = grant("orchctl", actions, scope=scope, to=self._account)
            raise Wrong(f"denied: {', '.join(denied)}", fix)
        return f"{len(READS)} kinds of reads"

    def _learn_allowed(self, site: Site) -> str:
        found = allowed(self._clients, site.place.subscription, site.region)
        self._allowed[site.place.subscription, site.region] = found
        return f"{len(found.families)} sizes, {len(found.limits)} quotas"

    def _may_ask(self, place: Place, error: ProviderError) -> str:
        if error.error_class is not ErrorClass.AUTH:
            return AGAIN
        scope = f"/subscriptions/{place.subscription}"
        return grant("orchctl-quotas", OF_REGIONS, scope=scope, to=self._account)

    # --------------------------------------------------------------------------------- quotas

    def _quotas(self, site: Site) -> Iterator[Check]:
        rights = self._allowed.get((site.place.subscription, site.region))
        if rights is None or not site.offers:
            return
        sold = [o for o in site.offers if o.instance_type.lower() in rights.families]
        yield _sold(site, sold)
        wanted: dict[str, list[Offer]] = {}
        for offer in sold:
            spot = offer.market is Market.SPOT
            family = rights.families[offer.instance_type.lower()]
            for name in (_SPOT_CORES,) if spot else (family, "cores"):
                wanted.setdefault(name, []).append(offer)
        for name, offers in sorted(wanted.items()):
            yield _enough(site, name, offers, rights.limits.get(name.lower()))

    # ---------------------------------------------------------------------- image and network

    def _images(self, site: Site) -> str:
        default = {GPU_IMAGE if offer.capacity.gpus else PLAIN_IMAGE for offer in site.offers}
        named = site.cloud.options.get("image")
        return ", ".join(
            self._image(site, each) for each in ([named] if named else sorted(default))
        )

    def _image(self, site: Site, name: str) -> str:
        parts = name.split(":")
        if len(parts) != 4:
            return f"not known: whether {name} may be used"
        publisher, offer, sku, version = parts
        url = (
            f"/subscriptions/{site.place.subscription}/providers/Microsoft.Compute/locations/"
            f"{site.region}/publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}"
            f"/versions{'' if version == 'latest' else '/' + version}?api-version={COMPUTE_API}"
        )
        found = self._get(site, url)
        if found is _DENIED:
            return f"not known: {self._account} may not read images ({name})"
        if not found:
            raise Wrong(
                f"there is no {name} in {site.region}",
                f"az vm image list --all --location {site.region} --publisher microsoft-dsvm "
                "--offer ubuntu-hpc --output table  # and name one as `image`",
            )
        return name

    def _network(self, site: Site) -> str:
        """Says nothing where the network would be in a group that there is not."""
        options = site.cloud.options
        if site.place in self._no_group and "subnet" not in options:
            return ""
        subnet = resource(options, site.place, site.region, "subnet")
        known = [self._has(site, subnet, _make_subnet(subnet, site.region))]
        if options.get("network_security_group"):
            group = resource(options, site.place, site.region, "network_security_group")
            known.append(self._has(site, group, _make_security_group(group, site.region)))
        if not all(known):
            return f"not known: {self._account} may not read networks; {_way_out(options)}"
        return f"{subnet.rpartition('/virtualNetworks/')[2]}; {_way_out(options)}"

    def _has(self, site: Site, resource_id: str, fix: str) -> bool:
        """Whether a resource is there; False = it is not shown to us."""
        found = self._get(site, f"{resource_id}?api-version={NETWORK_API}")
        if found is None:
            raise Wrong(f"there is no {resource_id}", fix)
        return found is not _DENIED

    def _get(self, site: Site, url: str) -> Any:
        """What the resource manager has there; None = nothing."""
        from azure.core.exceptions import HttpResponseError

        with told_before(), told():
            try:
                return self._clients.call(site.place.subscription, "GET", url)
            except HttpResponseError as error:
                if error.status_code != HTTPStatus.NOT_FOUND:
                    raise
                return None
        return _DENIED


_DENIED: Mapping[str, Any] = {"denied": True}


# -------------------------------------------------------------------------------------- quotas


def _sold(site: Site, sold: Sequence[Offer]) -> Check:
    names = {offer.instance_type for offer in sold}
    withheld = sorted({offer.instance_type for offer in site.offers} - names)
    detail = f"{len(names)} may be started" + (f", not {', '.join(withheld)}" if withheld else "")
    fix = (
        f"az vm list-skus --location {site.region} --size {withheld[0]} --all --output table"
        "  # tells why; ask Azure's support for access, or buy in another region"
        if not names
        else ""
    )
    return Check(name=f"sizes {site.region}", ok=bool(names), detail=detail, fix=fix)


def _enough(site: Site, name: str, offers: Sequence[Offer], limit: int | None) -> Check:
    check = f"quota {site.region} {name}"
    if limit is None:
        return unknown(check, "the region does not show it")
    sizes = sorted((offer.capacity.cpus, offer.instance_type) for offer in offers)
    (least, small), (most, large) = sizes[0], sizes[-1]
    detail = f"limit {limit} vCPUs"
    if limit >= least:
        short = f": too few for {large}, which has {most}" if limit < most else ""
        return Check(name=check, ok=True, detail=detail + short)
    kind = "lowPriority" if name == _SPOT_CORES else "dedicated"
    scope = f"/subscriptions/{site.place.subscription}/providers/Microsoft.Compute/locations"
    fix = (
        f"az extension add --name quota && az quota update --resource-name {name} "
        f"--scope {scope}/{site.region} --limit-object value={most} --resource-type {kind}"
    )
    return Check(name=check, ok=False, detail=f"{detail}; {small} has {least}", fix=fix)


# --------------------------------------------------------------------------------------- fixes


def grant(role: str, actions: Sequence[str], *, scope: str, to: str) -> str:
    """Commands that make a role and give it to somebody."""
    definition = {"Name": role, "IsCustom": True, "Description": role, "Actions": list(actions)}
    text = json.dumps({**definition, "AssignableScopes": [scope]})
    assignee = to if " " not in to else "YOUR_OBJECT_ID"
    return (
        f"az role definition create --role-definition '{text}'"
        f" && az role assignment create --assignee {assignee} --role {role} --scope {scope}"
    )


def _way_out(options: Mapping[str, str]) -> str:
    if options.get("public_ip", "true") == "true":
        return "machines get public addresses"
    return "not known: whether a NAT gateway leads out, as machines get no public address"


def _make_subnet(subnet: str, region: str) -> str:
    found = _SUBNET.fullmatch(subnet)
    if found is None:
        return "name a subnet by its resource id: az network vnet subnet show --query id"
    group, network, name = found.groups()
    return (
        f"az network vnet create --resource-group {group} --name {network} --location {region} "
        f"--address-prefixes 10.100.0.0/16 --subnet-name {name} --subnet-prefixes 10.100.0.0/20"
    )


def _make_security_group(group_id: str, region: str) -> str:
    group = group_id.split("/")[4:5]
    name = group_id.rpartition("/")[2]
    return (
        f"az network nsg create --resource-group {''.join(group)} --name {name} --location {region}"
    )


def _log_in(error: ProviderError) -> str:
    return "az login" if error.error_class is ErrorClass.AUTH else AGAIN


def _name_it(error: ProviderError) -> str:
    if error.error_class is not ErrorClass.INVALID:
        return AGAIN
    return "az account list --output table  # and name one as `subscription`, and a resource_group"


def _again(_: ProviderError) -> str:
    return AGAIN
