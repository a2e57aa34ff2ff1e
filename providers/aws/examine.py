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
from providers.aws import fleets, labels, launch, quotas
from providers.aws.client import Clients
from providers.aws.errors import answered
from providers.examination import AGAIN, Fix, Wrong, clock, look, merged, sdk, told_before, unknown

READS = (
    "DescribeAddresses",
    "DescribeAvailabilityZones",
    "DescribeImages",
    "DescribeInstanceTypeOfferings",
    "DescribeInstances",
    "DescribeLaunchTemplates",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSpotPriceHistory",
    "DescribeSubnets",
    "DescribeVolumes",
)
"""What a running fleet reads; each has a dry run."""

_IMAGES = "arn:aws:ssm:*::parameter/aws/service/deeplearning/*"
_LET_THROUGH = "DryRunOperation"
_LOG_IN = (
    "aws sso login  # or `aws configure`; then `aws sts get-caller-identity` tells who you are"
)

Statement = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One region under the settings that name it."""

    cloud: CloudPolicy
    region: str
    offers: Sequence[Offer]
    """What may be bought there."""

    def request(self, now: datetime) -> LaunchRequest:
        """A launch of the cheapest offer, as it would be asked for."""
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
        self._profile_refused = False

    def checks(self, clouds: Sequence[CloudPolicy], offers: Sequence[Offer]) -> Iterator[Check]:
        """All that was found, in the order in which it is best mended."""
        yield (installed := sdk("aws", "botocore", "botocore"))
        sites = [
            Site(cloud=cloud, region=region, offers=[o for o in offers if o.region == region])
            for cloud in merged(clouds)
            for region in cloud.regions
        ]
        if not installed.ok or not sites:
            return
        (who,) = look("credentials", partial(self._who, sites[0].region), _log_in)
        yield who
        if who.ok:
            yield from self._account(sites)
        yield from clock(self._date, self._asked_at)

    def _account(self, sites: Sequence[Site]) -> Iterator[Check]:
        for site in sites:
            yield from self._permissions(site)
        yield unknown("permission ec2:TerminateInstances", "it shows only on a machine of ours")
        for site in sites:
            yield from self._quotas(site)
        sold = [site for site in sites if site.offers]
        for site in sold:
            yield from look(f"image {site.region}", partial(self._image, site), _image_fix(site))
        for site in sites:
            yield from look(f"network {site.region}", partial(self._network, site), _again)
        for cloud in {id(site.cloud): site.cloud for site in sites}.values():
            yield from look("instance_profile", partial(self._profile, cloud), _again)

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

    def _permissions(self, site: Site) -> Iterator[Check]:
        region, options = site.region, site.cloud.options
        may_read = _grant([f"ec2:{name}" for name in READS])
        yield from look(
            f"permission ec2:Describe* {region}", partial(self._reads, region), may_read
        )
        name = options.get("image") or launch.DEFAULT_IMAGE.format(driver="oss")
        if not name.startswith("ami-"):
            find = partial(self._may_name_image, region, name)
            parameter = f"arn:aws:ssm:*:*:parameter{name}" if "image" in options else _IMAGES
            fix = _grant(["ssm:GetParameter"], parameter)
            yield from look(f"permission ssm:GetParameter {region}", find, fix)
        if not site.offers:
            detail = "no pool accepts a machine that is sold here"
            yield Check(name=f"offers {region}", ok=True, detail=detail)
            return
        name = f"permission ec2:RunInstances {region}"
        yield from look(name, partial(self._dry_run, site), partial(_may_launch, options))
        if sum(offer.market is Market.SPOT for offer in site.offers) > 1:
            name = f"permission ec2:CreateFleet {region}"
            yield from look(name, partial(self._may_use_fleets, site), _again)

    def _reads(self, region: str) -> str:
        from botocore import xform_name

        ec2 = self._clients.get("ec2", region)
        denied = []
        for name in READS:
            error = _dry(getattr(ec2, xform_name(name)))
            if error and error.error_class is not ErrorClass.AUTH:
                raise error
            denied += [f"ec2:{name}"] if error else []
        if denied:
            raise Wrong(f"denied: {', '.join(denied)}", policy(_allow(denied)))
        return f"{len(READS)} kinds of reads"

    def _may_name_image(self, region: str, name: str) -> str:
        """Whether there is such a parameter is another check."""
        try:
            with answered():
                self._clients.get("ssm", region).get_parameter(Name=name)
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
                    groups=self._places.groups(request),
                    user_data=self._render(request),
                )
        except ProviderError:
            return ""
        error = _dry(self._clients.get("ec2", site.region).run_instances, **call)
        if error is None:
            return f"a dry run of {request.offer.instance_type} was let through"
        if "IAM Instance Profile" not in str(error):
            raise error
        self._profile_refused = True
        return ""

    def _may_use_fleets(self, site: Site) -> str:
        """That there is no such launch template shows only to who may use one."""
        request, name = site.request(self._now()), "orchctl-examine"
        pool = {"InstanceType": request.offer.instance_type}
        tags = labels.shared_tags(request.boot.fleet)
        ec2 = self._clients.get("ec2", site.region)
        errors = {
            "ec2:CreateLaunchTemplate": _dry(
                ec2.create_launch_template,
                LaunchTemplateName=name,
                LaunchTemplateData=pool,
                TagSpecifications=[{"ResourceType": "launch-template", "Tags": tags}],
            ),
            "ec2:CreateFleet": _dry(
                ec2.create_fleet,
                **fleets.parameters(request, token=uuid4().hex, overrides={name: [pool]}),
            ),
        }
        denied = [call for call, error in errors.items() if error and fleets.is_denied(error)]
        if denied:
            detail = f"denied: {', '.join(denied)}; spot machines are bought one offer at a time"
            raise Wrong(detail, policy(*fleet_statements()))
        for error in errors.values():
            if error and not fleets.lacks_template(error):
                raise error
        return "whichever of several spot offers AWS has most of can be bought in one call"

    # --------------------------------------------------------------------------------- quotas

    def _quotas(self, site: Site) -> Iterator[Check]:
        wanted: dict[str, list[Offer]] = {}
        for offer in site.offers:
            wanted.setdefault(quotas.code(offer.market, offer.instance_type), []).append(offer)
        may_ask = _grant(["servicequotas:GetServiceQuota"])
        for code, offers in sorted(wanted.items()):
            name = f"quota {site.region} {code}".rstrip()
            if code:
                yield from look(name, partial(self._quota, site.region, code, offers), may_ask)
            else:
                types = ", ".join(sorted({offer.instance_type for offer in offers}))
                yield unknown(name, f"there is no quota that is known to count {types}")

    def _quota(self, region: str, code: str, offers: Sequence[Offer]) -> str:
        with answered():
            limit = quotas.limit(self._clients.get("service-quotas", region), code)
        sizes = sorted((offer.capacity.cpus, offer.instance_type) for offer in offers)
        (least, small), (most, large) = sizes[0], sizes[-1]
        market = "spot" if offers[0].market is Market.SPOT else "on demand"
        detail = f"{limit:.0f} vCPUs {market}"
        if limit < least:
            raise Wrong(
                f"{detail}; {small} has {least}",
                f"aws service-quotas request-service-quota-increase --region {region} "
                f"--service-code ec2 --quota-code {code} --desired-value {most}",
            )
        return detail if limit >= most else f"{detail}: too few for {large}, which has {most}"

    # ---------------------------------------------------------------------- image and network

    def _image(self, site: Site) -> str:
        with told_before(), answered():
            return self._places.image(site.request(self._now())).id
        return ""

    def _network(self, site: Site) -> str:
        wanted = launch.listed(site.cloud.options, "subnets")
        only = {"Name": "subnet-id", "Values": wanted}
        default = {"Name": "default-for-az", "Values": ["true"]}
        with told_before(), answered():
            ec2 = self._clients.get("ec2", site.region)
            subnets = ec2.describe_subnets(Filters=[only if wanted else default])["Subnets"]
            if not subnets:
                raise _no_subnet(site.region, wanted)
            self._security_groups(site, subnets[0]["VpcId"])
            return f"{len(subnets)} subnets; {_way_out(site.cloud.options, subnets)}"
        return ""

    def _security_groups(self, site: Site, vpc: str) -> None:
        wanted = launch.listed(site.cloud.options, "security_groups")
        if not wanted:
            return
        only = {"Name": "group-id", "Values": wanted}
        ec2 = self._clients.get("ec2", site.region)
        if not ec2.describe_security_groups(Filters=[only])["SecurityGroups"]:
            raise Wrong(
                f"no security group {', '.join(wanted)} in {site.region}",
                f"aws ec2 create-security-group --region {site.region} --vpc-id {vpc} "
                "--group-name orchctl --description orchctl"
                "  # and name it under `security_groups` as well",
            )

    def _profile(self, cloud: CloudPolicy) -> str:
        name, role = _profile_and_role(cloud.options)
        missing = Wrong(f"there is no {name}, or it has no role", make_profile(name, role))
        try:
            with answered():
                iam = self._clients.get("iam", cloud.regions[0])
                found = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        except ProviderError as error:
            if error.raw_code == "NoSuchEntity" or self._profile_refused:
                raise missing from error
            if error.error_class is not ErrorClass.AUTH:
                raise
            return f"not known: these credentials may not look for {name} (iam:GetInstanceProfile)"
        if not found["Roles"]:
            raise missing
        if (theirs := found["Roles"][0]["RoleName"]) != role:
            fix = f"clouds:\n  aws:\n    role: {theirs}  # in the document"
            raise Wrong(f"{name} has the role {theirs}; machines are expected to have {role}", fix)
        return str(found["Arn"])


# ----------------------------------------------------------------------------------- dry runs


def _dry(called: Callable[..., Any], **parameters: Any) -> ProviderError | None:
    """What stands in the way of a call; None = it would have been made."""
    try:
        with answered():
            called(**parameters, DryRun=True)
    except ProviderError as error:
        return None if error.raw_code == _LET_THROUGH else error
    return None


def _date(answer: Mapping[str, Any]) -> str:
    return str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))


def _profile_and_role(options: Mapping[str, str]) -> tuple[str, str]:
    """The names of both, as a launch and the check of identities take them."""
    profile = options.get("instance_profile", launch.INSTANCE_PROFILE).rpartition("/")[2]
    return profile, options.get("role") or profile


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


def launch_statements(role: str) -> Sequence[Statement]:
    """What RunInstances needs: only machines with a fleet's tag can be made, and only with this
    role. The `*` for the fleet and for what is used can be narrowed."""
    return (
        _allow(["ec2:RunInstances"], [_any(kind) for kind in _MADE], StringLike=_TAGGED),
        _allow(["ec2:RunInstances"], _USED),
        _allow(["ec2:CreateTags"], _any("*"), StringEquals={"ec2:CreateAction": "RunInstances"}),
        _allow(
            ["iam:PassRole"],
            f"arn:aws:iam::*:role/{role}",
            StringEquals={"iam:PassedToService": "ec2.amazonaws.com"},
        ),
        _allow(
            ["iam:CreateServiceLinkedRole"],
            StringEquals={"iam:AWSServiceName": "spot.amazonaws.com"},
        ),
    )


def fleet_statements() -> Sequence[Statement]:
    """What CreateFleet needs besides: it runs instances in the caller's name, from launch templates
    with a fleet's tag."""
    made = [_any(kind) for kind in ("fleet", *_MADE)]
    template, calls = _any("launch-template"), ["CreateFleet", "CreateLaunchTemplate"]
    ours = {"aws:ResourceTag/orchctl-fleet": "*"}
    return (
        _allow(["ec2:CreateFleet"], made, StringLike=_TAGGED),
        _allow(["ec2:CreateFleet"], _USED),
        _allow(["ec2:CreateLaunchTemplate"], template, StringLike=_TAGGED),
        _allow(
            ["ec2:CreateFleet", "ec2:RunInstances", "ec2:DeleteLaunchTemplate"],
            template,
            StringLike=ours,
        ),
        _allow(["ec2:CreateTags"], _any("*"), StringEquals={"ec2:CreateAction": calls}),
    )


def _any(kind: str) -> str:
    return f"arn:aws:ec2:*:*:{kind}/*"


_MADE = ("instance", "volume", "network-interface", "spot-instances-request")
_USED = ("arn:aws:ec2:*::image/*", _any("subnet"), _any("security-group"))
_TAGGED = {"aws:RequestTag/orchctl-fleet": "*"}


def make_profile(name: str, role: str) -> str:
    """Commands that make a profile whose role may do nothing: it says who a machine is."""
    trust = policy(
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    )
    return (
        f"aws iam create-role --role-name {role} --assume-role-policy-document '{trust}'"
        f" && aws iam create-instance-profile --instance-profile-name {name}"
        f" && aws iam add-role-to-instance-profile --instance-profile-name {name}"
        f" --role-name {role}"
    )


def _grant(actions: Sequence[str], resource: str = "*") -> Fix:
    """The statement that a denied look lacks."""

    def fix(error: ProviderError) -> str:
        denied = error.error_class is ErrorClass.AUTH
        return policy(_allow(actions, resource)) if denied else AGAIN

    return fix


def _log_in(error: ProviderError) -> str:
    return _LOG_IN if error.error_class is ErrorClass.AUTH else AGAIN


def _again(_: ProviderError) -> str:
    return AGAIN


def _may_launch(options: Mapping[str, str], error: ProviderError) -> str:
    if error.error_class is not ErrorClass.AUTH:
        return "correct what AWS names under `clouds.aws` of the document"
    return policy(*launch_statements(_profile_and_role(options)[1]))


def _image_fix(site: Site) -> Fix:
    look_for = (
        f"aws ssm get-parameters-by-path --region {site.region} --recursive "
        "--path /aws/service/deeplearning/ami/x86_64 --query 'Parameters[].Name'"
        "  # and name one under `image`, or an image of your own that is in each region"
    )
    return lambda error: look_for if error.error_class is ErrorClass.INVALID else AGAIN


def _no_subnet(region: str, wanted: Sequence[str]) -> Wrong:
    if not wanted:
        return Wrong(
            f"{region} has no default subnets", f"aws ec2 create-default-vpc --region {region}"
        )
    return Wrong(
        f"none of {', '.join(wanted)} is in {region}",
        f"aws ec2 describe-subnets --region {region} --query 'Subnets[].SubnetId'"
        "  # and add one under `subnets`",
    )
