"""Whether an AWS account is set up: looked at by reads and dry runs, which make nothing.

What cannot be known from outside is said: whether a subnet without public addresses has a way out,
and rights that show only on a machine of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from control_plane.core.model import ErrorClass, Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import BootSettings, Check, LaunchRequest
from providers.aws import launch, quotas
from providers.aws.client import Clients
from providers.aws.errors import answered
from providers.examination import AGAIN, Wrong, clock, look, sdk, unknown

READS = (
    "DescribeAddresses",
    "DescribeAvailabilityZones",
    "DescribeInstanceTypeOfferings",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeSpotPriceHistory",
    "DescribeSubnets",
    "DescribeVolumes",
)
"""What a running fleet reads; each has a dry run. `DescribeImages` is used to look at the image."""

_LET_THROUGH = "DryRunOperation"
_LOG_IN = "aws sso login  # or `aws configure`; then `aws sts get-caller-identity` tells who you are"

Statement = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region under the settings that name it."""

    cloud: CloudPolicy
    region: str
    offers: Sequence[Offer]
    """What may be bought there."""

    def request(self, now: datetime) -> LaunchRequest:
        """A launch of the cheapest offer, as it would be asked for. Raises `Wrong` where nothing is
        sold."""
        if not self.offers:
            raise Wrong(
                f"no pool accepts a machine that is sold in {self.region}",
                f"take {self.region} out of the document, or let a pool accept more",
            )
        machine_id = "m-examine"
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.1",
            offer=min(self.offers, key=lambda offer: (offer.price_usd_hour, offer.key)),
            disk_gib=100,
            deadline=now + timedelta(hours=1),
            boot=BootSettings(
                server_url="https://orchctl.example",
                machine_id=machine_id,
                fleet="examine",
                pool="examine",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=3600,
            ),
            cloud=self.cloud,
        )


class Examination:
    """One look at an account."""

    def __init__(
        self,
        clients: Clients,
        places: launch.Places,
        *,
        render: Callable[[LaunchRequest], str],
        now: Callable[[], datetime],
    ) -> None:
        self._clients = clients
        self._places = places
        self._render = render
        self._now = now
        self._date = ""
        """By AWS's clock, at the first answer."""
        self._asked_at = now()

    def checks(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """All that was found, in the order in which it is best mended."""
        yield (installed := sdk("botocore", "botocore", "aws"))
        sites = [
            Site(cloud=cloud, region=region, offers=[o for o in offers if o.region == region])
            for cloud in clouds
            for region in cloud.regions
        ]
        if not installed.ok or not sites:
            return
        (who,) = look("credentials", partial(self._who, sites[0].region), lambda _: _LOG_IN)
        yield who
        if who.ok:
            yield from self._account(sites)
        yield from clock(self._date, self._asked_at)

    def _account(self, sites: Sequence[Site]) -> Iterator[Check]:
        images = set[str]()
        for site in sites:
            yield from self._permissions(site, images)
        yield unknown("permission ec2:TerminateInstances", "it shows only on a machine of ours")
        for site in sites:
            yield from self._quotas(site)
        for site in sites:
            if site.region in images:
                name = f"image {site.region}"
                yield from look(name, partial(self._image, site), partial(_image_fix, site))
        for site in sites:
            name = f"network {site.region}"
            yield from look(name, partial(self._network, site), _may_read)
        for cloud in {id(site.cloud): site.cloud for site in sites}.values():
            yield from self._profile(cloud)

    # ------------------------------------------------------------------------- who and what

    def _who(self, region: str) -> str:
        from botocore.exceptions import ClientError

        with answered():
            self._asked_at = self._now()
            try:
                answer = self._clients.get("sts", region).get_caller_identity()
            except ClientError as error:
                self._date = _date(error.response)
                raise
        self._date = _date(answer)
        return str(answer["Arn"])

    def _permissions(self, site: Site, images: set[str]) -> Iterator[Check]:
        """Adds the region to `images` when its image may be looked at."""
        region = site.region
        yield from look(f"permission ec2:Describe* {region}", partial(self._reads, site), _may_read)
        name = f"permission ssm:GetParameter {region}"
        named = list(look(name, partial(self._may_name_image, site), _may_name_image))
        if all(each.ok for each in named):
            images.add(region)
        yield from named
        name = f"permission ec2:RunInstances {region}"
        yield from look(name, partial(self._dry_run, site), _may_launch)

    def _reads(self, site: Site) -> str:
        names = list(READS)
        if site.cloud.options.get("security_groups"):
            names.append("DescribeSecurityGroups")
        denied = [name for name in names if not self._may_read(site.region, name)]
        if denied:
            actions = [f"ec2:{name}" for name in (*names, "DescribeImages")]
            raise Wrong(f"denied: {', '.join(denied)}", policy(_allow(actions)))
        return f"{len(names)} kinds of reads"

    def _may_read(self, region: str, name: str) -> bool:
        from botocore import xform_name

        called = getattr(self._clients.get("ec2", region), xform_name(name))
        code, error = _dry(called)
        if code == _LET_THROUGH:
            return True
        if error and error.error_class is not ErrorClass.AUTH:
            raise error
        return False

    def _may_name_image(self, site: Site) -> str:
        """Says nothing where the image is given by id."""
        name = launch.image_name(site.request(self._now()))
        if name.startswith("ami-"):
            return ""
        try:
            with answered():
                self._clients.get("ssm", site.region).get_parameter(Name=name)
        except ProviderError as error:
            if error.raw_code != "ParameterNotFound":
                raise
        return name

    def _dry_run(self, site: Site) -> str:
        """What the call lacks is told by a check of its own, as is its profile."""
        request, token = site.request(self._now()), uuid4().hex
        try:
            with answered():
                call = launch.parameters(
                    request,
                    token=token,
                    image=self._places.image(request),
                    subnet=self._places.subnet(request, token),
                    user_data=self._render(request),
                )
        except ProviderError:
            return ""
        code, error = _dry(self._clients.get("ec2", site.region).run_instances, **call)
        if code == _LET_THROUGH:
            return f"a dry run of {request.offer.instance_type} was let through"
        if error and not _about_profile(error):
            raise error
        return ""

    # --------------------------------------------------------------------------------- quotas

    def _quotas(self, site: Site) -> Iterator[Check]:
        wanted: dict[str, list[Offer]] = {}
        for offer in site.offers:
            wanted.setdefault(quotas.code(offer.market, offer.instance_type), []).append(offer)
        for code, offers in sorted(wanted.items()):
            name = f"quota {site.region} {code}".rstrip()
            if code:
                yield from look(name, partial(self._quota, site.region, code, offers), _may_ask)
            else:
                types = ", ".join(sorted({offer.instance_type for offer in offers}))
                yield unknown(name, f"there is no quota that is known to count {types}")

    def _quota(self, region: str, code: str, offers: Sequence[Offer]) -> str:
        with answered():
            limit = quotas.limit(self._clients.get("service-quotas", region), code)
        sizes = sorted((offer.capacity.cpus, offer.instance_type) for offer in offers)
        (least, small), (most, large) = sizes[0], sizes[-1]
        market = "spot" if offers[0].market is Market.SPOT else "on demand"
        detail = f"{limit:g} vCPUs {market}"
        if limit < least:
            raise Wrong(
                f"{detail}; {small} has {least}",
                f"aws service-quotas request-service-quota-increase --region {region} "
                f"--service-code ec2 --quota-code {code} --desired-value {most}",
            )
        return detail if limit >= most else f"{detail}: too few for {large}, which has {most}"

    # ---------------------------------------------------------------------- image and network

    def _image(self, site: Site) -> str:
        with answered():
            return self._places.image(site.request(self._now())).id

    def _network(self, site: Site) -> str:
        wanted = launch.listed(site.cloud.options, "subnets")
        only = {"Name": "subnet-id", "Values": wanted}
        default = {"Name": "default-for-az", "Values": ["true"]}
        ec2 = self._clients.get("ec2", site.region)
        with answered():
            subnets = ec2.describe_subnets(Filters=[only if wanted else default])["Subnets"]
        if not subnets:
            raise _no_subnet(site.region, wanted)
        self._security_groups(site, subnets[0]["VpcId"])
        return f"{len(subnets)} subnets; {_way_out(site.cloud.options, subnets)}"

    def _security_groups(self, site: Site, vpc: str) -> None:
        wanted = launch.listed(site.cloud.options, "security_groups")
        if not wanted:
            return
        only = {"Name": "group-id", "Values": wanted}
        with answered():
            ec2 = self._clients.get("ec2", site.region)
            found = {
                each["GroupId"]
                for each in ec2.describe_security_groups(Filters=[only])["SecurityGroups"]
            }
        if missing := [each for each in wanted if each not in found]:
            raise Wrong(
                f"no security group {', '.join(missing)} in {site.region}",
                f"aws ec2 create-security-group --region {site.region} --vpc-id {vpc} "
                "--group-name orchctl --description orchctl"
                "  # and name it under `security_groups`; one that is named must be in each region",
            )

    def _profile(self, cloud: CloudPolicy) -> Iterator[Check]:
        yield from look(
            "instance_profile",
            lambda: self._found_profile(cloud),
            lambda error: policy(_allow(["iam:GetInstanceProfile"]))
            if error.error_class is ErrorClass.AUTH
            else AGAIN,
        )

    def _found_profile(self, cloud: CloudPolicy) -> str:
        name = cloud.options.get("instance_profile", "").rpartition("/")[2]
        if not name:
            raise Wrong("none is given: a machine could not prove who it is", make_profile())
        try:
            with answered():
                iam = self._clients.get("iam", cloud.regions[0])
                found = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        except ProviderError as error:
            if error.raw_code == "NoSuchEntity":
                raise Wrong(f"there is no {name}", make_profile(name)) from error
            if error.error_class is not ErrorClass.AUTH:
                raise
            return f"not known: these credentials may not look for {name} (iam:GetInstanceProfile)"
        if not found["Roles"]:
            raise Wrong(f"{name} has no role", make_profile(name))
        return str(found["Arn"])


# ----------------------------------------------------------------------------------- dry runs


def _dry(called: Callable[..., Any], **parameters: Any) -> tuple[str, ProviderError | None]:
    """What a dry run was answered with, which always is an error."""
    try:
        with answered():
            called(**parameters, DryRun=True)
    except ProviderError as error:
        return error.raw_code, error
    return "", None


def _about_profile(error: ProviderError) -> bool:
    return "IAM Instance Profile" in str(error)


def _date(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))


def _way_out(options: Mapping[str, str], subnets: Sequence[Mapping[str, Any]]) -> str:
    shown = options.get("public_ip")
    if shown == "true" or (shown is None and all(s.get("MapPublicIpOnLaunch") for s in subnets)):
        return "machines get public addresses"
    return "not known: whether a NAT gateway leads out, as machines get no public address"


# -------------------------------------------------------------------------------------- fixes


def policy(*statements: Statement) -> str:
    """Statements as a policy to attach to the controller's role or user."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _allow(actions: Sequence[str], resource: object = "*", **condition: object) -> Statement:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def launch_statements() -> Sequence[Statement]:
    """What RunInstances needs: only machines with a fleet's tag can be made. The `*` for the fleet
    and for resources can be narrowed."""
    made = ("instance", "volume", "network-interface", "spot-instances-request")
    used = ("image", "subnet", "security-group", "network-interface")
    ec2 = "arn:aws:ec2:*:*:"
    tagged = {"aws:RequestTag/orchctl-fleet": "*"}
    by_launch = {"ec2:CreateAction": "RunInstances"}
    to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
    of_spot = {"iam:AWSServiceName": "spot.amazonaws.com"}
    return (
        _allow(["ec2:RunInstances"], [f"{ec2}{kind}/*" for kind in made], StringLike=tagged),
        _allow(["ec2:RunInstances"], [f"arn:aws:ec2:*:*:{k}/*" for k in used[1:3]] + [_IMAGES]),
        _allow(["ec2:CreateTags"], f"{ec2}*/*", StringEquals=by_launch),
        _allow(["iam:PassRole"], "arn:aws:iam::*:role/orchctl-machine", StringEquals=to_ec2),
        _allow(["iam:CreateServiceLinkedRole"], StringEquals=of_spot),
    )


_IMAGES = "arn:aws:ec2:*::image/*"


def make_profile(name: str = "orchctl-machine") -> str:
    """Commands that make a profile whose role may do nothing: it says who a machine is."""
    trust = policy(
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )
    return (
        f"aws iam create-role --role-name {name} --assume-role-policy-document '{trust}'"
        f" && aws iam create-instance-profile --instance-profile-name {name}"
        f" && aws iam add-role-to-instance-profile --instance-profile-name {name}"
        f" --role-name {name}  # and in the document: instance_profile: {name}"
    )


def _may_launch(error: ProviderError) -> str:
    if error.error_class is ErrorClass.AUTH:
        return policy(*launch_statements())
    return "correct what AWS names under `clouds.aws` of the document"


def _may_read(error: ProviderError) -> str:
    if error.error_class is not ErrorClass.AUTH:
        return AGAIN
    return policy(_allow([f"ec2:{name}" for name in (*READS, "DescribeSecurityGroups")]))


def _may_name_image(error: ProviderError) -> str:
    if error.error_class is not ErrorClass.AUTH:
        return AGAIN
    parameters = "arn:aws:ssm:*::parameter/aws/service/deeplearning/*"
    return policy(_allow(["ssm:GetParameter"], parameters))


def _may_ask(error: ProviderError) -> str:
    if error.error_class is not ErrorClass.AUTH:
        return AGAIN
    return policy(_allow(["servicequotas:GetServiceQuota"]))


def _image_fix(site: Site, error: ProviderError) -> str:
    if error.error_class is ErrorClass.AUTH:
        return policy(_allow(["ec2:DescribeImages"]))
    if error.error_class is not ErrorClass.INVALID:
        return AGAIN
    return (
        f"aws ssm get-parameters-by-path --region {site.region} --recursive "
        "--path /aws/service/deeplearning/ami/x86_64 --query Parameters[].Name"
        "  # and name one under `image`, or an image of your own that is in each region"
    )


def _no_subnet(region: str, wanted: Sequence[str]) -> Wrong:
    if not wanted:
        return Wrong(
            f"{region} has no default subnets", f"aws ec2 create-default-vpc --region {region}"
        )
    return Wrong(
        f"none of {', '.join(wanted)} is in {region}",
        f"aws ec2 describe-subnets --region {region} --query Subnets[].SubnetId"
        "  # and add one under `subnets`",
    )
