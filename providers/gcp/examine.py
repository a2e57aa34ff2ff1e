"""Whether Google Cloud projects are set up: looked at by reads, which make nothing.

Compute Engine has no dry run of an insert, so what only a launch would show is said to be unknown:
the rights to write, and whether a network without public addresses has a way out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Check
from providers.examination import AGAIN, Wrong, clock, look, merged, sdk, told_before, unknown
from providers.gcp import quotas
from providers.gcp.client import Client
from providers.gcp.launch import DEFAULT_IMAGE, project_of

READS: Mapping[str, tuple[str, str]] = {
    "compute.projects.get": ("Projects", "get"),
    "compute.regions.get": ("Regions", "get"),
    "compute.machineTypes.list": ("MachineTypes", "list"),
    "compute.acceleratorTypes.list": ("AcceleratorTypes", "list"),
    "compute.zoneOperations.list": ("ZoneOperations", "list"),
    "compute.instances.list": ("Instances", "aggregated_list"),
    "compute.disks.list": ("Disks", "aggregated_list"),
    "compute.addresses.list": ("Addresses", "aggregated_list"),
}
"""What a running fleet reads: the right, and the call that needs it."""

WRITES = (
    "compute.addresses.delete",
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.setLabels",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "iam.serviceAccounts.actAs",
)
"""What it changes, and what it lends to its machines."""

GETS = ("compute.disks.get", "compute.instances.get", "compute.zoneOperations.get")
_LOG_IN = "gcloud auth application-default login"
_NOT_LOGGED_IN = frozenset({"NoCredentials", "authError", "UNAUTHENTICATED", "HTTP 401"})
_API_OFF = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
_BILLING_OFF = frozenset({"billingNotEnabled", "BILLING_DISABLED"})
_IMAGE = re.compile(r"(?:(?:.*/)?projects/([^/]+)/)?global/images/(family/)?([^/]+)")
_SUBNETWORK = re.compile(r"(?:(?:.*/)?projects/([^/]+)/)?regions/([^/]+)/subnetworks/([^/]+)")
_NETWORK = re.compile(r"(?:(?:.*/)?projects/([^/]+)/)?global/networks/([^/]+)")
_SHARED_CPUS = frozenset({"e2", "f1", "g1", "n1"})
"""Series that count against `CPUS`; others have a metric of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region of a project under the settings that name it."""

    cloud: CloudPolicy
    project: str
    region: str
    offers: Sequence[Offer]
    """What may be bought there."""


class Examination:
    """One look at what credentials can reach."""

    def __init__(self, client: Client, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._date = ""
        """By Google's clock, at the first answer."""
        self._asked_at = now()
        self._account = ""
        self._zones: dict[str, str] = {}
        """One of each region that can be read."""
        self._limits: dict[tuple[str, str], Mapping[str, float]] = {}
        """By project and region."""

    def checks(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """All that was found, in the order in which it is best mended."""
        yield (installed := sdk("gcp", "google-cloud-compute", "google.cloud.compute_v1"))
        if not installed.ok:
            return
        for cloud in merged(clouds):
            yield from self._of_cloud(cloud, offers)

    def _of_cloud(self, cloud: CloudPolicy, offers: Sequence[Offer]) -> Iterator[Check]:
        (who,) = look("credentials", partial(self._who, cloud), _log_in)
        yield who
        if who.ok:
            project = project_of(cloud.options)
            sites = [
                Site(
                    cloud=cloud,
                    project=project,
                    region=region,
                    offers=[offer for offer in offers if offer.region == region],
                )
                for region in cloud.regions
            ]
            yield from self._of_project(project, sites)
        yield from clock(self._date, self._asked_at)

    def _of_project(self, project: str, sites: Sequence[Site]) -> Iterator[Check]:
        for site in sites:
            name = f"permission compute reads {site.region}"
            yield from look(name, partial(self._reads, site), partial(self._project_fix, project))
        why = f"without a launch, as Compute Engine has no dry run ({', '.join(WRITES)})"
        yield unknown("permission compute.instances.create", why)
        known = [site for site in sites if site.region in self._zones]
        for site in known:
            yield from self._quotas(site)
        yield from self._gpus_everywhere(known)
        for site in known[:1]:
            yield from look("image", partial(self._image, site), self._image_fix)
        for site in known:
            yield from look(f"network {site.region}", partial(self._network, site), _again)

    # ------------------------------------------------------------------------- who and what

    def _who(self, cloud: CloudPolicy) -> str:
        """What the project says against them is a matter of permission."""
        self._account = self._client.account()
        self._asked_at, project = self._now(), project_of(cloud.options)
        try:
            self._date = self._client.date(project)
        except ProviderError as error:
            told_later = error.error_class in (ErrorClass.AUTH, ErrorClass.INVALID)
            if not told_later or error.raw_code in _NOT_LOGGED_IN:
                raise
        return self._account

    def _reads(self, site: Site) -> str:
        denied: dict[str, ProviderError] = {}
        for right in READS:
            try:
                self._read(right, site)
            except ProviderError as error:
                if error.error_class is not ErrorClass.AUTH:
                    raise
                denied[right] = error
        if denied:
            first = next(iter(denied.values()))
            detail = f"denied: {', '.join(denied)} ({first})"
            raise Wrong(detail, self._project_fix(site.project, first))
        return f"{len(READS)} kinds of reads"

    def _read(self, right: str, site: Site) -> None:
        """What is in a zone is not asked for where no zone is known."""
        service, method = READS[right]
        call = partial(self._client.call, service, method, project=site.project)
        if right == "compute.projects.get":
            call()
        elif right == "compute.regions.get":
            zones = call(region=site.region).zones
            self._zones[site.region] = zones[0].rpartition("/")[2]
        elif method == "aggregated_list":
            call(max_results=1)
        elif zone := self._zones.get(site.region):
            call(zone=zone, max_results=1)

    # --------------------------------------------------------------------------------- quotas

    def _quotas(self, site: Site) -> Iterator[Check]:
        yield from look(f"quota {site.region}", partial(self._learn_limits, site), _again)
        limits = self._limits.get((site.project, site.region))
        if limits is None:
            return
        wanted: dict[str, list[Offer]] = {}
        for offer in site.offers:
            wanted.setdefault(metric(offer), []).append(offer)
        for name, offers in sorted(wanted.items()):
            yield _enough(site, name, offers, limits)

    def _gpus_everywhere(self, sites: Sequence[Site]) -> Iterator[Check]:
        """The limit of a whole project, which the limits of each region contain."""
        offers = [offer for site in sites for offer in site.offers if offer.capacity.gpus]
        for site in sites[:1] if offers else ():
            limits = self._limits.get((site.project, site.region), {})
            yield _enough(site, quotas.ALL_GPUS, offers, limits)

    def _learn_limits(self, site: Site) -> str:
        with told_before():
            found = quotas.region(self._client, site.project, site.region)
            self._limits[site.project, site.region] = found.limits
        return ""

    # ---------------------------------------------------------------------- image and network

    def _image(self, site: Site) -> str:
        named = site.cloud.options.get("image") or DEFAULT_IMAGE
        found = _IMAGE.fullmatch(named)
        if found is None:
            return f"not known: {named} is no path of an image"
        project, family, name = found[1] or site.project, found[2], found[3]
        if family:
            return str(
                self._client.call("Images", "get_from_family", project=project, family=name).name
            )
        return str(self._client.call("Images", "get", project=project, image=name).name)

    def _network(self, site: Site) -> str:
        options = site.cloud.options
        try:
            if named := options.get("subnetwork", "").replace("{region}", site.region):
                found = self._has_subnetwork(site, named)
            else:
                found = self._has_network(site, options.get("network") or "default")
        except ProviderError as error:
            if error.error_class is not ErrorClass.AUTH:
                raise
            found = "not known: these credentials may not read networks"
        return f"{found}; {_way_out(options)}"

    def _has_subnetwork(self, site: Site, named: str) -> str:
        parts = _SUBNETWORK.fullmatch(named)
        project, region, name = parts.groups() if parts else (None, site.region, named)
        project = project or site.project
        asked = {"project": project, "region": region, "subnetwork": name}
        if region != site.region or self._client.find("Subnetworks", "get", name, **asked) is None:
            fix = "  # and name it with {region} for the region"
            raise Wrong(
                f"no {named} in {site.region}", _make_subnetwork(project, site.region, name) + fix
            )
        return f"subnetwork {name}"

    def _has_network(self, site: Site, named: str) -> str:
        parts = _NETWORK.fullmatch(named)
        project, name = parts.groups() if parts else (None, named)
        project = project or site.project
        found = self._client.find("Networks", "get", name, project=project, network=name)
        if found is None:
            fix = f"gcloud compute networks create {name} --project {project} --subnet-mode auto"
            raise Wrong(f"there is no network {name}", fix)
        if not any(f"/regions/{site.region}/" in each for each in found.subnetworks):
            raise Wrong(
                f"network {name} has no subnetwork in {site.region}",
                _make_subnetwork(project, site.region, name, network=name),
            )
        return f"network {name}"

    # ---------------------------------------------------------------------------------- fixes

    def _member(self) -> str:
        kind = "serviceAccount" if self._account.endswith("gserviceaccount.com") else "user"
        return f"{kind}:{self._account if '@' in self._account else 'YOUR_EMAIL'}"

    def _grant(self, project: str) -> str:
        rights = ",".join(sorted((*READS, *GETS, *WRITES)))
        return (
            f"gcloud iam roles create orchctl --project {project} --permissions {rights}"
            f" && gcloud projects add-iam-policy-binding {project}"
            f" --member {self._member()} --role projects/{project}/roles/orchctl"
        )

    def _project_fix(self, project: str, error: ProviderError) -> str:
        if error.raw_code in _API_OFF:
            return f"gcloud services enable compute.googleapis.com --project {project}"
        if error.raw_code in _BILLING_OFF:
            return f"gcloud billing projects link {project} --billing-account ACCOUNT_ID"
        if error.error_class is ErrorClass.INVALID:
            return "gcloud projects list  # and name one as `project`, and regions that it has"
        return self._grant(project) if error.error_class is ErrorClass.AUTH else AGAIN

    def _image_fix(self, error: ProviderError) -> str:
        if error.error_class is ErrorClass.AUTH:
            return (
                "gcloud projects add-iam-policy-binding PROJECT_OF_THE_IMAGE"
                f" --member {self._member()} --role roles/compute.imageUser"
            )
        if error.error_class is not ErrorClass.INVALID:
            return AGAIN
        return (
            "gcloud compute images list --project deeplearning-platform-release "
            "--no-standard-images --filter 'family~^common-cu' --format 'value(family)'"
            "  # and name one as image: "
            "projects/deeplearning-platform-release/global/images/family/FAMILY"
        )


def metric(offer: Offer) -> str:
    """The quota that a machine counts against first; empty when it is not known."""
    if offer.capacity.gpus:
        return quotas.METRICS.get(offer.capacity.gpu_name, "")
    series = offer.instance_type.partition("-")[0]
    return "CPUS" if series in _SHARED_CPUS else f"{series.upper()}_CPUS"


def _enough(site: Site, name: str, offers: Sequence[Offer], limits: Mapping[str, float]) -> Check:
    """A machine that the cloud deletes within a week may use the preemptible quota or the usual
    one, on either market, so the larger counts."""
    everywhere = name == quotas.ALL_GPUS
    check = " ".join(["quota", *([] if everywhere else [site.region]), name]).rstrip()
    preemptible = "PREEMPTIBLE_CPUS" if name.endswith("CPUS") else f"PREEMPTIBLE_{name}"
    found = [limits[each] for each in (name, preemptible) if each in limits]
    types = ", ".join(sorted({offer.instance_type for offer in offers}))
    if not found:
        return unknown(check, f"the region shows no quota that counts {types}")
    sizes = sorted((o.capacity.gpus or o.capacity.cpus, o.instance_type) for o in offers)
    (least, small), (most, large) = sizes[0], sizes[-1]
    detail = f"limit {max(found):.0f}"
    if max(found) >= least:
        short = f": too few for {large}, which has {most}" if max(found) < most else ""
        return Check(name=check, ok=True, detail=detail + short)
    spot = preemptible in limits and all(offer.market is Market.SPOT for offer in offers)
    fix = _ask_for(site, preemptible if spot else name, most)
    return Check(name=check, ok=False, detail=f"{detail}; {small} has {least}", fix=fix)


def _ask_for(site: Site, name: str, value: int) -> str:
    words = name.replace("_", "-")
    everywhere = name == quotas.ALL_GPUS
    quota = f"{words}-per-project" + ("" if everywhere else "-region")
    place = "" if everywhere else f" --dimensions region={site.region}"
    return (
        f"gcloud quotas preferences create --project {site.project} "
        f"--service compute.googleapis.com --quota-id {quota}{place} --preferred-value {value}"
    )


def _way_out(options: Mapping[str, str]) -> str:
    if options.get("public_ip", "true") != "false":
        return "machines get public addresses"
    return "not known: whether Cloud NAT leads out, as machines get no public address"


def _make_subnetwork(project: str, region: str, name: str, *, network: str = "default") -> str:
    return (
        f"gcloud compute networks subnets create {name} --project {project} --region {region} "
        f"--network {network} --range 10.100.0.0/20"
    )


def _log_in(error: ProviderError) -> str:
    if error.error_class is ErrorClass.INVALID:
        return "name a `project` under `clouds.gcp` of the document"
    return _LOG_IN if error.error_class is ErrorClass.AUTH else AGAIN


def _again(_: ProviderError) -> str:
    return AGAIN
