"""`examine` on a fake account: all is well, or exactly what is broken fails, with what mends it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.model import Offer
from control_plane.ports import Check, Examiner
from providers.aws.client import AwsSettings
from providers.aws.examine import READS
from providers.aws.provider import AwsProvider
from providers.catalog.loader import load_offers
from tests.unit.providers.aws.world import REGION, World

PROFILE = {"instance_profile": "orchctl-machine"}
SPOT_G, ON_DEMAND_G, ON_DEMAND_P = "L-3819A6DF", "L-DB2E81BA", "L-417A185B"
READS_CHECK = f"permission ec2:Describe* {REGION}"
LAUNCH_CHECK = f"permission ec2:RunInstances {REGION}"
FLEET_CHECK = f"permission ec2:CreateFleet {REGION}"
SSM_CHECK = f"permission ssm:GetParameter {REGION}"

Break = Callable[[World], object]


def _offers(*types: str) -> Sequence[Offer]:
    types = types or ("g4dn.xlarge", "p4d.24xlarge")
    return [offer for offer in load_offers(("aws",)) if offer.instance_type in types]


def _checks(world: World, *regions: str, types: Sequence[str] = (), **options: str) -> list[Check]:
    found = list(world.open().examine(world.clouds(*regions, **options), _offers(*types)))
    assert not any(world.account.resources().values()), "an examination makes nothing"
    for check in found:
        assert bool(check.fix) is not check.ok, f"{check.name}: a failure has a fix, and only it"
    return found


def _failed(world: World, *regions: str, **options: str) -> Mapping[str, str]:
    """What failed, and what mends it."""
    options = PROFILE | options
    return {c.name: c.fix for c in _checks(world, *regions, **options) if not c.ok}


def _detail(checks: Sequence[Check], name: str) -> str:
    return next(check.detail for check in checks if check.name == name)


def _actions(fix: str) -> Sequence[str]:
    """The actions of a policy."""
    statements: Sequence[Mapping[str, Any]] = json.loads(fix)["Statement"]
    return [action for each in statements for action in each["Action"]]


# ------------------------------------------------------------------------------------ all well


def test_all_is_well(world: World) -> None:
    assert isinstance(world.provider, Examiner)
    checks = _checks(world, REGION, "us-west-2", **PROFILE)
    assert all(check.ok for check in checks)
    assert [check.name for check in checks] == [
        "sdk",
        "credentials",
        *(
            f"permission {what} {region}"
            for region in (REGION, "us-west-2")
            for what in (
                "ec2:Describe*",
                "ssm:GetParameter",
                "ec2:RunInstances",
                "ec2:CreateFleet",
            )
            if what != "ec2:CreateFleet" or _sells_several(region)
        ),
        "permission ec2:TerminateInstances",
        *(
            f"quota {region} {code}"
            for region in (REGION, "us-west-2")
            for code in sorted((SPOT_G, ON_DEMAND_G, ON_DEMAND_P, "L-7212CCBC"))
            if code != "L-7212CCBC" or _sells_spot(region)
        ),
        f"image {REGION}",
        "image us-west-2",
        f"network {REGION}",
        "network us-west-2",
        "instance_profile",
        "clock",
    ]
    assert _detail(checks, "credentials").startswith(f"arn:aws:iam::{world.account.id}:")
    assert _detail(checks, "permission ec2:TerminateInstances").startswith("not known")


def _sells_several(region: str) -> bool:
    return sum(o.region == region and o.zone != "" for o in _offers()) > 1


def _sells_spot(region: str) -> bool:
    return any(o.region == region and o.zone for o in _offers("p4d.24xlarge"))


def test_one_launch_is_asked_for_as_it_would_be_made(world: World) -> None:
    """By its dry run, in each region; all the rest are reads."""
    _checks(world, **PROFILE, public_ip="true")
    called = dict(world.account.called())
    launches = ("RunInstances", "CreateFleet", "CreateLaunchTemplate")
    assert [called.pop(name) for name in launches] == [1, 1, 1]
    assert not world.account.templates
    assert all(name.startswith(("Describe", "Get")) for name in called)
    assert set(READS) <= set(called)


def test_pools_with_the_same_settings_are_one(world: World) -> None:
    clouds = [*world.clouds(**PROFILE), *world.clouds(REGION, "us-west-2", **PROFILE)]
    names = [check.name for check in world.provider.examine(clouds, _offers())]
    assert f"network {REGION}" in names
    assert len(names) == len(set(names))


def test_a_region_in_which_no_pool_buys_is_said(world: World) -> None:
    checks = _checks(world, types=("no-such-type",), **PROFILE)
    assert all(check.ok for check in checks)
    assert _detail(checks, f"offers {REGION}") == "no pool accepts a machine that is sold here"
    assert "RunInstances" not in world.account.called()


# ---------------------------------------------------------------------------------- one broken


def _deny(operation: str, code: str = "UnauthorizedOperation") -> Break:
    return lambda world: world.account.fail_next(code, operation=operation, times=99, status=403)


BROKEN: Mapping[str, tuple[Break, str, str]] = {
    "credentials": (_deny("GetCallerIdentity", "ExpiredToken"), "credentials", "aws sso login"),
    "reads": (_deny("DescribeVolumes"), READS_CHECK, '"ec2:DescribeVolumes"'),
    "subnets": (_deny("DescribeSubnets"), READS_CHECK, '"ec2:DescribeSubnets"'),
    "images": (_deny("DescribeImages"), READS_CHECK, '"ec2:DescribeImages"'),
    "ssm": (_deny("GetParameter", "AccessDeniedException"), SSM_CHECK, '"ssm:GetParameter"'),
    "launch": (_deny("RunInstances"), LAUNCH_CHECK, '"ec2:RunInstances"'),
    "fleet": (_deny("CreateFleet"), FLEET_CHECK, '"ec2:CreateFleet"'),
    "template": (_deny("CreateLaunchTemplate"), FLEET_CHECK, '"ec2:CreateLaunchTemplate"'),
    "fleet refused": (_deny("CreateFleet", "InternalError"), FLEET_CHECK, "run the command again"),
    "launch refused": (_deny("RunInstances", "Unsupported"), LAUNCH_CHECK, "correct what AWS"),
    "no quota": (
        lambda world: world.account.set_quota(REGION, ON_DEMAND_P, 0),
        f"quota {REGION} {ON_DEMAND_P}",
        f"aws service-quotas request-service-quota-increase --region {REGION} --service-code ec2"
        f" --quota-code {ON_DEMAND_P} --desired-value 96",
    ),
    "small quota": (
        lambda world: world.account.set_quota(REGION, SPOT_G, 3),
        f"quota {REGION} {SPOT_G}",
        f"--quota-code {SPOT_G} --desired-value 4",
    ),
    "image": (
        lambda world: world.account.parameters.clear(),
        f"image {REGION}",
        f"aws ssm get-parameters-by-path --region {REGION}",
    ),
    "network": (
        lambda world: _without_subnets(world),
        f"network {REGION}",
        f"aws ec2 create-default-vpc --region {REGION}",
    ),
    "profile": (
        lambda world: world.account.profiles.clear(),
        "instance_profile",
        "aws iam create-instance-profile --instance-profile-name orchctl-machine",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_fails_and_nothing_else(world: World, what: str) -> None:
    break_it, name, fix = BROKEN[what]
    break_it(world)
    failed = _failed(world)
    assert list(failed) == [name]
    assert fix in failed[name]


OPTIONS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "image": ({"image": "ami-00000000000000000"}, f"image {REGION}", "get-parameters-by-path"),
    "subnets": (
        {"subnets": "subnet-00000000"},
        f"network {REGION}",
        f"aws ec2 describe-subnets --region {REGION}",
    ),
    "security group": (
        {"security_groups": "sg-00000000"},
        f"network {REGION}",
        f"aws ec2 create-security-group --region {REGION} --vpc-id vpc-",
    ),
    "profile": (
        {"instance_profile": "arn:aws:iam::123456789012:instance-profile/ml"},
        "instance_profile",
        "aws iam create-instance-profile --instance-profile-name ml",
    ),
    "role": ({"role": "ml"}, "instance_profile", "role: orchctl-machine"),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_document_that_names_what_is_not_there(world: World, what: str) -> None:
    options, name, fix = OPTIONS[what]
    failed = _failed(world, **options)
    assert list(failed) == [name]
    assert fix in failed[name]


def _without_subnets(world: World) -> None:
    import botocore.session

    ec2 = botocore.session.Session().create_client(
        "ec2",
        region_name=REGION,
        endpoint_url=world.server.url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])


def test_without_the_sdk_nothing_else_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    (check,) = _checks(world, **PROFILE)
    assert (check.name, check.fix) == ("sdk", "pip install 'orchctl[aws]'")
    assert not world.account.called()


def test_a_clock_that_is_off_is_told_even_without_credentials(world: World) -> None:
    """A clock is why signatures are refused."""
    settings = AwsSettings(endpoint_url=world.server.url, access_key="a", secret_key="b")
    late = AwsProvider(settings, now=lambda: world.account.now() + timedelta(minutes=6))
    _deny("GetCallerIdentity", "SignatureDoesNotMatch")(world)
    found = {check.name: check for check in late.examine(world.clouds(), _offers())}
    assert list(found) == ["sdk", "credentials", "clock"]
    assert found["clock"].detail == "360 s from the cloud's"
    assert found["clock"].fix == "sudo timedatectl set-ntp true"


# -------------------------------------------------------------------------------------- details


def test_without_a_profile_named_the_usual_one_must_exist(world: World) -> None:
    assert all(check.ok for check in _checks(world))
    world.account.profiles.clear()
    (failed,) = [check for check in _checks(world) if not check.ok]
    assert "--instance-profile-name orchctl-machine" in failed.fix


def test_policy_lets_a_fleet_be_launched_and_its_role_be_lent(world: World) -> None:
    _deny("RunInstances")(world)
    fix = _failed(world, role="machines")[LAUNCH_CHECK]
    assert set(_actions(fix)) == {
        "ec2:RunInstances",
        "ec2:CreateTags",
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
    }
    assert '"aws:RequestTag/orchctl-fleet"' in fix
    assert '"arn:aws:iam::*:role/machines"' in fix


def test_policy_lets_what_a_fleet_makes_bear_its_tag_only(world: World) -> None:
    _deny("CreateFleet")(world)
    found = {check.name: check for check in _checks(world, **PROFILE)}
    assert "bought one offer at a time" in found[FLEET_CHECK].detail
    statements = json.loads(found[FLEET_CHECK].fix)["Statement"]
    assert set(_actions(found[FLEET_CHECK].fix)) == {
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateTags",
        "ec2:DeleteLaunchTemplate",
        "ec2:RunInstances",
    }
    loose = [each for each in statements if "Condition" not in each]
    assert [each["Resource"] for each in loose] == [
        ["arn:aws:ec2:*::image/*", "arn:aws:ec2:*:*:subnet/*", "arn:aws:ec2:*:*:security-group/*"]
    ]


def test_one_spot_offer_needs_no_fleet(world: World) -> None:
    offers = [offer for offer in _offers("g4dn.xlarge") if offer.zone in ("", "use1-az1")]
    found = [check.name for check in world.open().examine(world.clouds(**PROFILE), offers)]
    assert LAUNCH_CHECK in found
    assert FLEET_CHECK not in found


def test_denied_quotas_are_denied_each(world: World) -> None:
    _deny("GetServiceQuota", "AccessDeniedException")(world)
    failed = _failed(world)
    assert failed
    assert all(name.startswith(f"quota {REGION} L-") for name in failed)
    assert all(_actions(fix) == ["servicequotas:GetServiceQuota"] for fix in failed.values())


def test_a_quota_for_some_of_the_types_is_enough(world: World) -> None:
    types = ("g4dn.xlarge", "g4dn.12xlarge")
    world.account.set_quota(REGION, ON_DEMAND_G, 8)
    checks = _checks(world, types=types, **PROFILE)
    assert all(check.ok for check in checks)
    detail = _detail(checks, f"quota {REGION} {ON_DEMAND_G}")
    assert detail == "8 vCPUs on demand: too few for g4dn.12xlarge, which has 48"


def test_a_type_that_no_known_quota_counts_is_unknown(world: World) -> None:
    offers = [o for o in load_offers(("aws",)) if o.instance_type == "p6-b200.48xlarge" and o.zone]
    assert offers
    region = offers[0].region
    found = world.open().examine(world.clouds(region, **PROFILE), offers)
    details = {check.name: check.detail for check in found}
    assert details[f"quota {region}"].startswith("not known")


def test_profile_may_be_out_of_sight(world: World) -> None:
    """Who may launch need not read IAM: then it is the dry run that tells."""
    _deny("GetInstanceProfile", "AccessDenied")(world)
    checks = _checks(world, **PROFILE)
    assert all(check.ok for check in checks)
    assert _detail(checks, "instance_profile").startswith("not known")
    world.account.profiles.clear()
    assert list(_failed(world)) == ["instance_profile"]


@pytest.mark.parametrize(
    ("public_ip", "said"),
    [("true", "machines get public addresses"), ("false", "not known: whether a NAT gateway")],
)
def test_a_way_out_is_known_of_public_addresses_only(
    world: World, public_ip: str, said: str
) -> None:
    checks = _checks(world, **PROFILE, public_ip=public_ip)
    assert said in _detail(checks, f"network {REGION}")


def test_a_region_that_is_silent_hides_no_other(world: World) -> None:
    world.account.silence("us-west-2")
    failed = _failed(world, REGION, "us-west-2")
    assert failed
    assert all("us-west-2" in name for name in failed)


def test_each_call_has_a_deadline(world: World) -> None:
    world.account.set_latency(5)
    began = time.monotonic()
    provider = world.open(read_timeout_s=0.2)
    found = [check.name for check in provider.examine(world.clouds(), _offers()) if not check.ok]
    assert found == ["credentials"]
    assert time.monotonic() - began < 4
    world.account.set_latency(0)
