"""The fake refuses what EC2 refuses, and does what moto does not."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.exceptions import ClientError

from providers.aws.client import AwsSettings, Clients
from tests.fakes.ec2.checks import answer_problems, ec2_request
from tests.unit.providers.aws.world import REGION, World

SIGNED = f"AWS4-HMAC-SHA256 Credential=AKIA/20260105/{REGION}/ec2/aws4_request, SignedHeaders=host"
WANTED: dict[str, Any] = {
    "MinCount": 1,
    "MaxCount": 1,
    "ImageId": "ami-0d1a0000000000000",
    "InstanceType": "g4dn.xlarge",
}
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ec2(world: World) -> Any:
    return world.provider._clients.get("ec2", REGION)


def run(world: World, **more: Any) -> str:
    return str(ec2(world).run_instances(**WANTED, **more)["Instances"][0]["InstanceId"])


def refusal(call: Any, **asked: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(**asked)
    return caught.value


def code(call: Any, **asked: Any) -> str:
    return str(refusal(call, **asked).response["Error"]["Code"])


def post(url: str, data: bytes, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=data, headers=headers, method="POST")
    try:
        with _DIRECT.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def control(url: str, name: str, **asked: Any) -> Any:
    status, answer = post(f"{url}/_control/{name}", json.dumps(asked).encode())
    assert status == 200, answer
    return json.loads(answer)


# ------------------------------------------------------------------------------ idempotency


def subnet(world: World, zone: str) -> str:
    found = ec2(world).describe_subnets(
        Filters=[{"Name": "availability-zone-id", "Values": [zone]}]
    )
    return str(found["Subnets"][0]["SubnetId"])


def test_token_gives_the_first_answer_again(world: World) -> None:
    assert run(world, ClientToken="t") == run(world, ClientToken="t")
    assert run(world) != run(world)


def test_token_with_other_parameters_is_refused(world: World) -> None:
    run(world, ClientToken="t")
    call = ec2(world).run_instances
    assert code(call, **WANTED, ClientToken="t", UserData="x") == "IdempotentParameterMismatch"


def test_token_counts_for_one_zone_where_a_subnet_is_named(world: World) -> None:
    one, other = subnet(world, "use1-az1"), subnet(world, "use1-az2")
    machines = {
        run(world, ClientToken="t", **more)
        for more in ({}, {"SubnetId": one}, {"SubnetId": other}, {"SubnetId": one})
    }
    assert len(machines) == 3


def test_refused_launch_does_not_use_its_token_up(world: World) -> None:
    world.account.set_capacity(0)
    assert code(ec2(world).run_instances, **WANTED, ClientToken="t")
    world.account.set_capacity(None)
    assert run(world, ClientToken="t")


# ---------------------------------------------------------------------------- what is refused


def test_lack_of_capacity_is_an_http_500(world: World) -> None:
    world.account.set_capacity(0)
    error = refusal(ec2(world).run_instances, **WANTED)
    assert error.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"InstanceType": "g9.none"}, "InvalidParameterValue"),
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"SubnetId": "subnet-0"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0"]}, "InvalidGroup.NotFound"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"ClientToken": "ü"}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "none"}}, "InvalidParameterValue"),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 8}}]},
            "InvalidBlockDeviceMapping",
        ),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_wrong_launch_is_refused_and_makes_nothing(
    world: World, changes: dict[str, Any], expected: str
) -> None:
    assert code(ec2(world).run_instances, **{**WANTED, **changes}) == expected
    assert not list(world.account.living())


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("instance", "aws:mine", "x"),
        ("instance", "k" * 129, "x"),
        ("instance", "k", "v" * 257),
        ("instance", "k", "a*b"),
        ("spot-instances-request", "k", "on demand has no request"),
    ],
)
def test_wrong_tag_is_refused(world: World, kind: str, key: str, value: str) -> None:
    spec = [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value}]}]
    call = ec2(world).run_instances
    assert code(call, **WANTED, TagSpecifications=spec) == "InvalidParameterValue"


def test_type_that_a_zone_does_not_have_is_unsupported(world: World) -> None:
    place = subnet(world, "use1-az3")
    assert code(ec2(world).run_instances, **WANTED, SubnetId=place) == "Unsupported"


def test_unknown_filter_is_refused_not_ignored(world: World) -> None:
    wrong = [{"Name": "colour", "Values": ["red"]}]
    assert code(ec2(world).describe_instances, Filters=wrong) == "InvalidParameterValue"
    run(world)
    assert code(ec2(world).describe_instances, Filters=wrong) == "InvalidParameterValue"


def test_one_bad_id_ends_nothing(world: World) -> None:
    good = run(world)
    ids = [good, "i-00000000000000000"]
    assert code(ec2(world).terminate_instances, InstanceIds=ids) == "InvalidInstanceID.NotFound"
    assert [vm.state for vm in world.account.living()] == ["pending"]


def test_unknown_parameter_is_refused_and_noted(world: World) -> None:
    form = {"Action": "DescribeInstances", "Version": "2016-11-15", "Bogus": "1"}
    status, answer = post(world.server.url, urlencode(form).encode(), Authorization=SIGNED)
    assert status == 400
    assert b"Bogus" in answer
    assert world.account.violations.pop()


def test_missing_and_malformed_parameters_are_seen() -> None:
    assert "MaxCount" in ec2_request("RunInstances", {"MinCount": "1"})[1]
    assert "invalid literal" in ec2_request("RunInstances", {"MinCount": "one"})[1]
    assert ec2_request("RunInstances", {"MinCount": "1", "MaxCount": "1"})[1] == ""


def test_answers_that_no_client_could_read_are_seen() -> None:
    inside = "<reservationSet><item><colour>red</colour></item></reservationSet>"
    body = f"<DescribeInstancesResponse>{inside}</DescribeInstancesResponse>"
    (problem,) = answer_problems("ec2", "DescribeInstances", body.encode())
    assert "colour" in problem
    inside = "<volumeSet><item><size>many</size></item></volumeSet>"
    body = f"<DescribeVolumesResponse>{inside}</DescribeVolumesResponse>"
    (problem,) = answer_problems("ec2", "DescribeVolumes", body.encode())
    assert "many" in problem
    assert answer_problems("ssm", "GetParameter", b'{"Parameter": {"Name": 3}}')


# ------------------------------------------------------------------------------- what happens


def test_capacity_is_counted_by_type_zone_and_market(world: World) -> None:
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}, "SubnetId": subnet(world, "use1-az1")}
    world.account.set_capacity(1, instance_type="g4dn.xlarge", zone="use1-az1", market="spot")
    first = run(world, **spot)
    assert code(ec2(world).run_instances, **WANTED, **spot) == "InsufficientInstanceCapacity"
    assert run(world, SubnetId=spot["SubnetId"])
    assert run(world, **{**spot, "SubnetId": subnet(world, "use1-az2")})
    world.account.interrupt(first)
    assert run(world, **spot)


def test_spot_instance_knows_its_request(world: World) -> None:
    made = run(world, InstanceMarketOptions={"MarketType": "spot"})
    (found,) = ec2(world).describe_instances(InstanceIds=[made])["Reservations"]
    request = found["Instances"][0]["SpotInstanceRequestId"]
    wanted = [
        {"Name": "spot-instance-request-id", "Values": [request]},
        {"Name": "instance-lifecycle", "Values": ["spot"]},
    ]
    assert ec2(world).describe_instances(Filters=wanted)["Reservations"]


def test_only_spot_is_taken_back(world: World) -> None:
    with pytest.raises(ValueError, match="on demand"):
        world.account.interrupt(run(world))


def test_shutdown_from_within_leaves_it_stopped_unless_told_otherwise(world: World) -> None:
    kept, ended = run(world), run(world, InstanceInitiatedShutdownBehavior="terminate")
    for each in (kept, ended):
        world.account.shut_down(each)
    world.account.advance(60)
    assert [(vm.id, vm.state) for vm in world.account.living()] == [(kept, "stopped")]


@pytest.mark.parametrize(
    ("pattern", "found"), [("a*", 2), ("a?", 2), ("?", 2), ("a\\*", 1), ("*", 4)]
)
def test_filters_have_wildcards(world: World, pattern: str, found: int) -> None:
    for fleet in ("a*", "ab", "b", "c"):
        vm = world.account.find(REGION, run(world))
        assert vm is not None
        vm.tags = {"fleet": fleet}
    wanted = [{"Name": "tag:fleet", "Values": [pattern]}]
    assert len(ec2(world).describe_instances(Filters=wanted)["Reservations"]) == found


# ------------------------------------------------------------------------------ over the wire


def test_controls_work_over_http(world: World) -> None:
    url = world.server.url
    launched = world.launch()
    (machine,) = control(url, "machines")
    assert machine["id"] == launched.provider_id
    assert machine["user_data"].startswith("#!/bin/sh")
    control(url, "set_capacity", count=0, instance_type="g4dn.xlarge")
    assert code(ec2(world).run_instances, **WANTED) == "InsufficientInstanceCapacity"
    control(url, "interrupt", instance_id=launched.provider_id)
    assert control(url, "machines") == []
    assert control(url, "called")["RunInstances"] == 2


def test_wrong_controls_are_told(world: World) -> None:
    url = world.server.url
    assert post(f"{url}/_control/no_such_thing", b"{}")[0] == 404
    assert post(f"{url}/_control/_ended", b"{}")[0] == 404
    assert post(f"{url}/_control/set_capacity", b'{"colour": 1}')[0] == 400
    assert post(f"{url}/_control/interrupt", b'{"instance_id": "i-0"}')[0] == 400


def test_another_process_can_be_the_cloud() -> None:
    command = [sys.executable, "-m", "tests.fakes.ec2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            client = Clients(
                AwsSettings(endpoint_url=url, access_key="AKIAIOSFODNN7EXAMPLE", secret_key="s")
            ).get("ec2", REGION)
            made = client.run_instances(**WANTED)["Instances"][0]["InstanceId"]
            assert [each["id"] for each in control(url, "machines")] == [made]
            control(url, "advance", seconds=60)
            assert [each["state"] for each in control(url, "machines")] == ["running"]
        finally:
            process.terminate()
