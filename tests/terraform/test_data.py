"""What outlives every deployment, made by Terraform in the AWS emulator: all of it is as the module
says, the second plan is empty, and a change from outside is seen and undone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from tests.terraform.terraform import Terraform
from tests.terraform.test_modules import GIVEN

pytestmark = pytest.mark.xdist_group("terraform")
FOLDER = "modules/control-plane"
TABLE = "orchctl-prod"
PARTS = (
    "aws_dynamodb_table",
    "aws_s3_bucket",
    "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_ownership_controls",
    "aws_s3_bucket_policy",
    "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration",
    "aws_s3_bucket_versioning",
)
COMMON = ("-no-color", "-input=false", *(f"-target={each}.this" for each in PARTS))


@pytest.fixture(scope="module")
def applied(terraform: Terraform) -> Iterator[Terraform]:
    """The data of a control plane, for tests that leave it as they found it. It is removed again,
    which takes its protection away first."""
    terraform.ready(FOLDER)
    _variables(terraform)
    terraform.run(FOLDER, "apply", "-auto-approve", *COMMON).ok()
    yield terraform
    _variables(terraform, retention={"deletion_protection": False})
    terraform.run(FOLDER, "apply", "-auto-approve", *COMMON).ok()
    terraform.run(FOLDER, "destroy", "-auto-approve", *COMMON).ok()
    (terraform.folder(FOLDER) / "terraform.tfvars.json").unlink()


def test_second_plan_is_empty(applied: Terraform) -> None:
    ended = applied.run(FOLDER, "plan", "-detailed-exitcode", *COMMON)

    assert ended.code == 0, ended.text
    assert "No changes" in ended.text


def test_aws_has_what_the_module_says(applied: Terraform) -> None:
    """Asked of AWS, not of Terraform."""
    dynamodb, s3 = _clients(applied)
    (bucket,) = [each["Name"] for each in s3.list_buckets()["Buckets"]]
    table = dynamodb.describe_table(TableName=TABLE)["Table"]
    ttl = dynamodb.describe_time_to_live(TableName=TABLE)["TimeToLiveDescription"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]

    assert bucket.startswith("orchctl-prod-")
    assert table["DeletionProtectionEnabled"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [each["IndexName"] for each in table["GlobalSecondaryIndexes"]] == ["ready"]
    assert (ttl["AttributeName"], ttl["TimeToLiveStatus"]) == ("ttl", "ENABLED")
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert sorted(each["ID"] for each in rules) == ["forget-jobs", "forget-sources", "tidy"]
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=bucket)["Policy"]


def test_change_from_outside_is_seen_and_undone(applied: Terraform) -> None:
    dynamodb, _ = _clients(applied)
    dynamodb.update_time_to_live(
        TableName=TABLE, TimeToLiveSpecification={"AttributeName": "ttl", "Enabled": False}
    )

    seen = applied.run(FOLDER, "plan", "-detailed-exitcode", *COMMON)
    applied.run(FOLDER, "apply", "-auto-approve", *COMMON).ok()
    after = applied.run(FOLDER, "plan", "-detailed-exitcode", *COMMON)

    assert seen.code == 2, seen.text
    assert "~ ttl {" in seen.text
    assert after.code == 0, after.text


def test_protected_table_is_not_removed(applied: Terraform) -> None:
    ended = applied.run(FOLDER, "destroy", "-auto-approve", "-no-color", f"-target={PARTS[0]}.this")

    assert ended.code == 1
    assert "deletion protection" in ended.text.lower()


def _variables(terraform: Terraform, **more: object) -> None:
    path = terraform.folder(FOLDER) / "terraform.tfvars.json"
    path.write_text(json.dumps({**GIVEN["control-plane"], **more}))


def _clients(terraform: Terraform) -> tuple[Any, Any]:
    """As the account that Terraform works in."""
    told = terraform.environment
    session = boto3.Session(
        aws_access_key_id=told["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=told["AWS_SECRET_ACCESS_KEY"],
        region_name=told["AWS_REGION"],
    )
    endpoint = told["AWS_ENDPOINT_URL"]
    return session.client("dynamodb", endpoint_url=endpoint), session.client(
        "s3", endpoint_url=endpoint
    )
