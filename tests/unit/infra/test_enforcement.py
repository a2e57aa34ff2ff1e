"""AWS's side of it: the emulator enforces a role, and a real call of a function whose right is
taken away is refused by the name of that right.

Only what the emulator can judge: it knows no tags of EC2's requests, and takes AWS's own parameters
for the account's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import botocore.session
import httpx2
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from control_plane.blobs.s3 import S3Blobs, connect
from control_plane.stores.dynamodb import INDEXES
from control_plane.stores.dynamodb.table import create_table
from tests.emulators.ministack import Ministack
from tests.fakes.iam.asks import Call
from tests.fakes.iam.policy import Statement
from tests.unit.infra.conftest import Recorded
from tests.unit.infra.history import PAGER
from tests.unit.infra.plane import BUCKET, REGION, TABLE
from tests.unit.infra.roles import ACCOUNT, machine_policy, policy, without

pytestmark = pytest.mark.xdist_group("permissions")

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
SPOKEN = frozenset({"dynamodb", "lambda", "s3", "ssm"})
"""Services of which the emulator judges every call."""
ROLE = "tried"

TAKEN_AWAY = [
    ("api", "dynamodb:BatchGetItem"),
    ("api", "dynamodb:GetItem"),
    ("api", "dynamodb:PutItem"),
    ("api", "dynamodb:Query"),
    ("api", "dynamodb:UpdateItem"),
    ("api", "lambda:InvokeFunction"),
    ("api", "s3:GetObject"),
    ("api", "s3:ListBucket"),
    ("api", "s3:PutObject"),
    ("reconcile", "dynamodb:DeleteItem"),
    ("reconcile", "dynamodb:Query"),
    ("reconcile", "dynamodb:UpdateItem"),
    ("reconcile", "ec2:DescribeInstances"),
    ("reconcile", "ec2:DescribeSubnets"),
    ("reconcile", "s3:GetObject"),
    ("interruption", "dynamodb:BatchGetItem"),
    ("interruption", "dynamodb:PutItem"),
    ("interruption", "dynamodb:UpdateItem"),
    ("interruption", "lambda:InvokeFunction"),
    ("prices", "dynamodb:Query"),
    ("prices", "ec2:DescribeVolumes"),
    ("prices", "s3:GetObject"),
    ("prices", "s3:PutObject"),
]


class Guarded:
    """An account in which roles count, and one role whose rights the tests change."""

    def __init__(self, server: Ministack) -> None:
        self._endpoint = server.endpoint
        self._session = botocore.session.get_session()
        self._owner = {"aws_access_key_id": ACCOUNT, "aws_secret_access_key": "any"}
        create_table(self._client("dynamodb", REGION, self._owner), TABLE, INDEXES)
        self._client("s3", REGION, self._owner).create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self._iam = self._client("iam", REGION, self._owner)
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "sts:AssumeRole",
        }
        made = self._iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=_document([trust]))
        told = self._client("sts", REGION, self._owner).assume_role(
            RoleArn=made["Role"]["Arn"], RoleSessionName="function"
        )["Credentials"]
        self._lent = {
            "aws_access_key_id": told["AccessKeyId"],
            "aws_secret_access_key": told["SecretAccessKey"],
            "aws_session_token": told["SessionToken"],
        }
        self._clients: dict[tuple[str, str], Any] = {}

    def allow(self, statements: Sequence[Statement]) -> None:
        """Give the role these rights and no others."""
        if statements:
            self._iam.put_role_policy(
                RoleName=ROLE, PolicyName="rights", PolicyDocument=_document(statements)
            )
        elif self._iam.list_role_policies(RoleName=ROLE)["PolicyNames"]:
            self._iam.delete_role_policy(RoleName=ROLE, PolicyName="rights")

    def denial(self, call: Call) -> str:
        """Make a call under the role; what is said when it is denied."""
        where = (call.service, call.region)
        if where not in self._clients:
            self._clients[where] = self._client(*where, self._lent)
        try:
            getattr(self._clients[where], xform_name(call.operation))(**call.parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] in DENIED:
                return str(error)
        return ""

    def blobs(self) -> S3Blobs:
        """Under the role."""
        client = connect(region=REGION, endpoint_url=self._endpoint, **self._lent)
        return S3Blobs(lambda: client, BUCKET)

    def _client(self, service: str, region: str, credentials: Mapping[str, str]) -> Any:
        return self._session.create_client(
            service, region_name=region, endpoint_url=self._endpoint, **credentials
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """For all tests here."""
    server = Ministack(tmp_path_factory.mktemp("guarded"), auth=True)
    server.start()
    yield Guarded(server)
    server.kill()


def _document(statements: Sequence[Statement]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _first(recorded: Recorded, function: str, action: str) -> Call:
    """A call of the function that needs this right and no other one."""
    return next(
        call
        for call, asks in recorded[function]
        if {ask.action for ask in asks} == {action} and not _is_streamed(call)
    )


def _is_streamed(call: Call) -> bool:
    return call.operation == "HeadObject"  # its refusals have no text


@pytest.mark.parametrize(("function", "action"), TAKEN_AWAY)
def test_the_emulator_denies_a_call_without_its_right_by_name(
    recorded: Recorded, guarded: Guarded, function: str, action: str
) -> None:
    call = _first(recorded, function, action)
    guarded.allow(policy(function))
    assert not guarded.denial(call)
    guarded.allow(without(policy(function), action))
    assert action in guarded.denial(call)


@pytest.mark.parametrize("action", ["s3:PutObject", "s3:GetObject"])
def test_an_address_is_as_good_as_the_role_that_signed_it(guarded: Guarded, action: str) -> None:
    blobs, data = guarded.blobs(), b"a source"
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"sources/{sha256}"

    def attempt() -> int:
        """The status of a PUT or a GET by whoever has the address alone."""
        if action == "s3:GetObject":
            url = blobs.sign_download(key, name="source.tar.gz", expires_s=60)
            return httpx2.get(url).status_code
        to = blobs.sign_upload(key, size=len(data), sha256=sha256, expires_s=60)
        return httpx2.put(to.url, content=data, headers=to.headers).status_code

    guarded.allow(policy("api"))
    blobs.put(key, data)
    assert attempt() == 200
    guarded.allow(without(policy("api"), action))
    assert attempt() == 403


def test_addresses_of_receivers_are_read_by_who_sends_and_no_other_deployment_s_are(
    guarded: Guarded,
) -> None:
    def denial(name: str) -> str:
        asked = {"Name": name, "WithDecryption": True}
        return guarded.denial(
            Call(service="ssm", operation="GetParameter", region=REGION, parameters=asked)
        )

    guarded.allow(policy("reconcile"))
    assert not denial(PAGER)
    assert "ssm:GetParameter" in denial("/orchctl/other/pager")
    guarded.allow(without(policy("reconcile"), "ssm:GetParameter"))
    assert "ssm:GetParameter" in denial(PAGER)
    guarded.allow(policy("api"))
    assert "ssm:GetParameter" in denial(PAGER)


def test_a_machine_may_do_nothing(recorded: Recorded, guarded: Guarded) -> None:
    guarded.allow(machine_policy())
    calls = {call.operation: call for each in recorded.values() for call, _ in each}
    for call in calls.values():
        if call.service in SPOKEN or call.operation.startswith("Describe"):
            assert guarded.denial(call), call.operation
