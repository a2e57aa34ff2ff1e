"""Every code of the cloud reference, section 5, in its class; each class also over real HTTP."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from control_plane.core.model import ErrorClass, Market
from providers.aws.errors import refusal
from tests.unit.providers.aws.world import REGION, World, an_offer, refused

REFERENCE = {
    ErrorClass.CAPACITY_ZONE: """
        InsufficientInstanceCapacity InsufficientHostCapacity InsufficientCapacity
        UnfulfillableCapacity SpotMaxPriceTooLow ReservationCapacityExceeded
        InsufficientFreeAddressesInSubnet""",
    ErrorClass.QUOTA: """
        VcpuLimitExceeded MaxSpotInstanceCountExceeded InstanceLimitExceeded MaxFleetCountExceeded
        VolumeLimitExceeded AddressLimitExceeded NetworkInterfaceLimitExceeded""",
    ErrorClass.AUTH: """
        UnauthorizedOperation AuthFailure AuthFailure.ServiceLinkedRoleCreationNotPermitted
        InvalidClientTokenId SignatureDoesNotMatch ExpiredToken RequestExpired OptInRequired Blocked
        PendingVerification""",
    ErrorClass.INVALID: """
        InvalidAMIID.NotFound InvalidAMIID.Malformed InvalidAMIID.Unavailable InvalidParameterValue
        InvalidParameterCombination MissingParameter Unsupported InvalidSubnetID.NotFound
        InvalidGroup.NotFound InvalidUserData.Malformed InvalidBlockDeviceMapping
        UnsupportedOperation""",
    ErrorClass.THROTTLE: """
        RequestLimitExceeded Throttling ThrottlingException EC2ThrottledException""",
    ErrorClass.TRANSIENT: """
        InternalError InternalFailure ServerInternal ServiceUnavailable Unavailable RequestTimeout
        InvalidInstanceID.NotFound""",
}
ROWS = [(code, means) for means, codes in REFERENCE.items() for code in codes.split()]


@pytest.mark.parametrize(("code", "means"), ROWS)
def test_each_code_has_its_class_over_http(shared: World, code: str, means: ErrorClass) -> None:
    shared.account.fail_next(code, operation="RunInstances")
    error = refused(shared.launch)
    assert (error.error_class, error.raw_code, error.known) == (means, code, True)
    assert not list(shared.account.living())


def test_idempotent_parameter_mismatch_is_an_invalid_request_by_itself() -> None:
    error = refusal("IdempotentParameterMismatch", "")
    assert error.error_class is ErrorClass.INVALID


def test_lack_of_capacity_where_no_zone_was_named_is_one_of_the_region(world: World) -> None:
    world.account.set_capacity(0, instance_type="g4dn.xlarge")
    regional = an_offer(market=Market.ON_DEMAND)
    assert refused(lambda: world.launch(offer=regional)).error_class is ErrorClass.CAPACITY_REGION
    assert refused(world.launch).error_class is ErrorClass.CAPACITY_ZONE


def test_lack_of_capacity_in_a_subnet_of_the_settings_is_one_of_its_zone(world: World) -> None:
    ec2 = world.provider._clients.get("ec2", REGION)
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    world.account.set_capacity(0, instance_type="g4dn.xlarge")
    offer = an_offer(market=Market.ON_DEMAND)
    error = refused(lambda: world.launch(offer=offer, options={"subnets": subnet}))
    assert error.error_class is ErrorClass.CAPACITY_ZONE


def test_unknown_code_is_transient_and_says_so(shared: World) -> None:
    shared.account.fail_next("BrandNewCode", operation="RunInstances", message="never seen")
    error = refused(shared.launch)
    assert (error.error_class, error.known) == (ErrorClass.TRANSIENT, False)
    assert "BrandNewCode" in str(error)
    assert "never seen" in str(error)


def test_instance_profile_made_a_moment_ago_is_transient(shared: World) -> None:
    request = shared.request(options={"instance_profile": "brand-new"})
    error = refused(lambda: shared.provider.launch(request))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "InvalidParameterValue")


def test_quota_is_one_of_its_market(world: World) -> None:
    world.account.set_quota(REGION, "L-3819A6DF", 3)
    assert refused(world.launch).raw_code == "MaxSpotInstanceCountExceeded"
    regional = an_offer(market=Market.ON_DEMAND)
    assert world.launch("m-2", offer=regional).provider_id
    world.account.set_quota(REGION, "L-DB2E81BA", 7)
    error = refused(lambda: world.launch("m-3", offer=regional))
    assert (error.error_class, error.raw_code) == (ErrorClass.QUOTA, "VcpuLimitExceeded")


def test_what_does_not_exist_is_an_invalid_request(world: World) -> None:
    strange = {"image": "ami-00000000000000000"}
    error = refused(lambda: world.launch(options=strange))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "InvalidAMIID.NotFound")
    error = refused(lambda: world.launch(options={"image": "/no/such/parameter"}))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "ParameterNotFound")
    error = refused(lambda: world.launch(options={"security_groups": "sg-00000000"}))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "InvalidGroup.NotFound")
    error = refused(lambda: world.launch(options={"subnets": "subnet-00000000"}))
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "InvalidSubnetID.NotFound")


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (403, ErrorClass.AUTH),
        (429, ErrorClass.THROTTLE),
        (500, ErrorClass.TRANSIENT),
        (502, ErrorClass.TRANSIENT),
        (503, ErrorClass.TRANSIENT),
    ],
)
def test_answer_that_is_no_ec2_error_is_classed_by_its_status(
    shared: World, status: int, means: ErrorClass
) -> None:
    shared.account.fail_next(str(status), operation="RunInstances", status=status)
    error = refused(shared.launch)
    assert (error.error_class, error.known) == (means, True)


def test_lost_answer_is_transient_and_known(world: World) -> None:
    world.account.drop_next("RunInstances")
    error = refused(world.launch)
    assert (error.error_class, error.known) == (ErrorClass.TRANSIENT, True)


def test_slow_answer_is_given_up(world: World) -> None:
    world.account.set_latency(1.0)
    error = refused(lambda: world.open(read_timeout_s=0.2).launch(world.request()))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "ReadTimeoutError")


def test_closed_port_is_transient(world: World) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = world.open(endpoint_url=f"http://127.0.0.1:{free.getsockname()[1]}")
        error = refused(lambda: nobody.launch(world.request()))
    assert (error.error_class, error.raw_code) == (
        ErrorClass.TRANSIENT,
        "EndpointConnectionError",
    )


def test_missing_credentials_are_a_matter_of_auth(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    nobody = world.open(access_key="", secret_key="")
    error = refused(lambda: nobody.launch(world.request()))
    assert (error.error_class, error.raw_code) == (ErrorClass.AUTH, "NoCredentialsError")


def test_profile_that_does_not_exist_is_a_matter_of_auth(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    error = refused(lambda: shared.open().launch(shared.request()))
    assert (error.error_class, error.raw_code) == (ErrorClass.AUTH, "ProfileNotFound")


def test_region_that_is_no_region_is_invalid(shared: World) -> None:
    offer = replace(an_offer(), region="not a region")
    error = refused(lambda: shared.launch(offer=offer))
    assert (error.error_class, error.known) == (ErrorClass.INVALID, True)


def test_nothing_is_tried_twice_behind_our_back(world: World) -> None:
    world.account.set_capacity(0)
    refused(world.launch)
    assert world.account.called()["RunInstances"] == 1


def test_long_message_is_cut() -> None:
    assert len(str(refusal("UnauthorizedOperation", "x" * 5000))) < 600


def test_time_to_wait_is_passed_on(shared: World) -> None:
    shared.account.fail_next("RequestLimitExceeded", operation="RunInstances", retry_after_s=7)
    assert refused(shared.launch).retry_after_s == 7.0


@pytest.mark.parametrize("operation", ["DescribeInstances", "GetParameter", "RunInstances"])
@pytest.mark.parametrize("text", ["<html><body>log in first</body></html>", "{}", "hello", "<a"])
def test_answer_of_something_in_front_of_aws_is_transient(
    world: World, operation: str, text: str
) -> None:
    world.account.garble_next(operation, text)
    error = refused(world.launch)
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "UnreadableAnswer")
    assert world.launch().provider_id
    assert len(list(world.account.living())) == 1
