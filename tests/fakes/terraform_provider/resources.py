"""The resources that are made for real, by boto3; here the table and the bucket of a control plane.

What is read back is what AWS says and nothing else, so that a change from outside is seen as a
drift, and what AWS has not taken over as an inconsistency.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tests.fakes.terraform_provider.calls import Seen, State, asked, client, pairs, region, tags_of
from tests.fakes.terraform_provider.stack import STACK


class Resource(Protocol):
    """One type of resource."""

    def read(self, state: State) -> Seen | None:
        """What AWS says of it; None when it is not there."""

    def write(self, state: State, *, new: bool) -> None:
        """Make it, or change it."""

    def delete(self, state: State) -> None:
        """Remove it."""


def of(type_name: str) -> Resource:
    """Raises `NotImplementedError` for those that have a schema only."""
    if type_name not in RESOURCES:
        raise NotImplementedError(f"{type_name} can be planned here and not applied")
    return RESOURCES[type_name]


def data(type_name: str) -> Seen:
    """What a data source says. Raises `NotImplementedError` for those that have a schema only."""
    if type_name not in DATA:
        raise NotImplementedError(f"the data source {type_name} has no answer here")
    return DATA[type_name]()


class Table:
    """`aws_dynamodb_table`, on demand."""

    def read(self, state: State) -> Seen | None:
        api, name = client("dynamodb"), state["name"]
        answer = asked(api.describe_table, TableName=name)
        if answer is None:
            return None
        table = answer["Table"]
        keys = _keys(table["KeySchema"])
        ttl = api.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        backups = api.describe_continuous_backups(TableName=name)
        point = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
        tags = tags_of(api.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"])
        encrypted = table.get("SSEDescription", {}).get("Status") == "ENABLED"
        return {
            "id": name,
            "name": name,
            "arn": table["TableArn"],
            "region": region(),
            "billing_mode": table["BillingModeSummary"]["BillingMode"],
            "hash_key": keys["HASH"],
            "range_key": keys.get("RANGE"),
            "deletion_protection_enabled": table.get("DeletionProtectionEnabled", False),
            "tags": tags,
            "tags_all": tags,
            "attribute": [
                {"name": each["AttributeName"], "type": each["AttributeType"]}
                for each in table["AttributeDefinitions"]
            ],
            "global_secondary_index": [
                _index(each) for each in table.get("GlobalSecondaryIndexes", ())
            ],
            "ttl": [
                {
                    "attribute_name": ttl.get("AttributeName"),
                    "enabled": ttl["TimeToLiveStatus"] == "ENABLED",
                }
            ],
            "point_in_time_recovery": [
                {"enabled": point["PointInTimeRecoveryStatus"] == "ENABLED"}
            ],
            "server_side_encryption": [{"enabled": encrypted}],
        }

    def write(self, state: State, *, new: bool) -> None:
        api, name = client("dynamodb"), state["name"]
        protected = bool(state["deletion_protection_enabled"])
        if new:
            api.create_table(
                TableName=name,
                BillingMode=state["billing_mode"],
                AttributeDefinitions=[
                    {"AttributeName": each["name"], "AttributeType": each["type"]}
                    for each in state["attribute"]
                ],
                KeySchema=_key_schema(state),
                GlobalSecondaryIndexes=[
                    {
                        "IndexName": each["name"],
                        "KeySchema": _key_schema(each),
                        "Projection": {
                            "ProjectionType": each["projection_type"],
                            "NonKeyAttributes": each["non_key_attributes"],
                        },
                    }
                    for each in state["global_secondary_index"]
                ],
                SSESpecification={"Enabled": state["server_side_encryption"][0]["enabled"]},
                DeletionProtectionEnabled=protected,
                Tags=pairs(state["tags_all"]),
            )
            api.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
        else:
            api.update_table(TableName=name, DeletionProtectionEnabled=protected)
        (ttl,) = state["ttl"]
        told = api.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        if (told["TimeToLiveStatus"] == "ENABLED") is not ttl["enabled"]:
            api.update_time_to_live(
                TableName=name,
                TimeToLiveSpecification={
                    "AttributeName": ttl["attribute_name"],
                    "Enabled": ttl["enabled"],
                },
            )
        api.update_continuous_backups(
            TableName=name,
            PointInTimeRecoverySpecification={
                "PointInTimeRecoveryEnabled": state["point_in_time_recovery"][0]["enabled"]
            },
        )

    def delete(self, state: State) -> None:
        client("dynamodb").delete_table(TableName=state["name"])


def _key_schema(state: State) -> list[dict[str, str]]:
    keys = [("HASH", state["hash_key"]), ("RANGE", state["range_key"])]
    return [{"AttributeName": name, "KeyType": kind} for kind, name in keys if name]


def _keys(schema: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {each["KeyType"]: each["AttributeName"] for each in schema}


def _index(told: Mapping[str, Any]) -> Seen:
    keys = _keys(told["KeySchema"])
    return {
        "name": told["IndexName"],
        "hash_key": keys["HASH"],
        "range_key": keys.get("RANGE"),
        "projection_type": told["Projection"]["ProjectionType"],
        "non_key_attributes": told["Projection"].get("NonKeyAttributes"),
    }


class Bucket:
    """`aws_s3_bucket`."""

    def read(self, state: State) -> Seen | None:
        api, name = client("s3"), state["bucket"]
        if asked(api.head_bucket, Bucket=name) is None:
            return None
        answer = asked(api.get_bucket_tagging, Bucket=name)
        tags = tags_of(answer["TagSet"]) if answer else None
        return {
            "id": name,
            "bucket": name,
            "arn": f"arn:aws:s3:::{name}",
            "region": region(),
            "bucket_region": region(),
            "bucket_domain_name": f"{name}.s3.amazonaws.com",
            "tags": tags,
            "tags_all": tags,
        }

    def write(self, state: State, *, new: bool) -> None:
        api, name = client("s3"), state["bucket"]
        if new:
            place = {"LocationConstraint": region()}
            api.create_bucket(Bucket=name, CreateBucketConfiguration=place)
        api.put_bucket_tagging(Bucket=name, Tagging={"TagSet": pairs(state["tags_all"])})

    def delete(self, state: State) -> None:
        client("s3").delete_bucket(Bucket=state["bucket"])


class Part:
    """A resource that is one setting of a bucket."""

    def __init__(
        self,
        name: str,
        to_aws: Callable[[State], Mapping[str, Any]],
        from_aws: Callable[[Mapping[str, Any]], Seen],
        drop: str = "",
    ) -> None:
        """`name` as in `get_bucket_NAME` and `put_bucket_NAME` of boto3."""
        self._name = name
        self._to_aws = to_aws
        self._from_aws = from_aws
        self._drop = drop

    def read(self, state: State) -> Seen | None:
        answer = asked(self._call("get"), Bucket=state["bucket"])
        if answer is None:
            return None
        fixed = {"id": state["bucket"], "bucket": state["bucket"], "region": region()}
        return fixed | self._from_aws(answer)

    def write(self, state: State, *, new: bool) -> None:
        self._call("put")(Bucket=state["bucket"], **self._to_aws(state))

    def delete(self, state: State) -> None:
        if self._drop:
            getattr(client("s3"), self._drop)(Bucket=state["bucket"])

    def _call(self, verb: str) -> Any:
        api = client("s3")
        return getattr(api, f"{verb}_bucket_{self._name}", None) or getattr(
            api, f"{verb}_{self._name}"
        )


_BLOCKS = {
    "block_public_acls": "BlockPublicAcls",
    "block_public_policy": "BlockPublicPolicy",
    "ignore_public_acls": "IgnorePublicAcls",
    "restrict_public_buckets": "RestrictPublicBuckets",
}


def _encryption(told: Mapping[str, Any]) -> Seen:
    (rule,) = told["ServerSideEncryptionConfiguration"]["Rules"]
    chosen = rule["ApplyServerSideEncryptionByDefault"]
    return {
        "rule": [
            {
                "bucket_key_enabled": rule.get("BucketKeyEnabled"),
                "apply_server_side_encryption_by_default": [
                    {"sse_algorithm": chosen["SSEAlgorithm"]}
                ],
            }
        ]
    }


def _lifecycle_to_aws(state: State) -> Mapping[str, Any]:
    return {"LifecycleConfiguration": {"Rules": [_rule_to_aws(each) for each in state["rule"]]}}


def _rule_to_aws(rule: State) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ID": rule["id"],
        "Status": rule["status"],
        "Filter": {"Prefix": rule["filter"][0]["prefix"]},
    }
    if rule["expiration"]:
        found["Expiration"] = {"Days": int(rule["expiration"][0]["days"])}
    if rule["noncurrent_version_expiration"]:
        days = int(rule["noncurrent_version_expiration"][0]["noncurrent_days"])
        found["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    if rule["abort_incomplete_multipart_upload"]:
        days = int(rule["abort_incomplete_multipart_upload"][0]["days_after_initiation"])
        found["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": days}
    return found


def _rule(told: Mapping[str, Any]) -> Seen:
    found: Seen = {
        "id": told["ID"],
        "status": told["Status"],
        "filter": [{"prefix": told["Filter"].get("Prefix", "")}],
    }
    if "Expiration" in told:
        found["expiration"] = [{"days": told["Expiration"]["Days"]}]
    if "NoncurrentVersionExpiration" in told:
        days = told["NoncurrentVersionExpiration"]["NoncurrentDays"]
        found["noncurrent_version_expiration"] = [{"noncurrent_days": days}]
    if "AbortIncompleteMultipartUpload" in told:
        days = told["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
        found["abort_incomplete_multipart_upload"] = [{"days_after_initiation": days}]
    return found


RESOURCES: Mapping[str, Resource] = {
    **STACK,
    "aws_dynamodb_table": Table(),
    "aws_s3_bucket": Bucket(),
    "aws_s3_bucket_versioning": Part(
        "versioning",
        lambda state: {
            "VersioningConfiguration": {"Status": state["versioning_configuration"][0]["status"]}
        },
        lambda told: {"versioning_configuration": [{"status": told.get("Status")}]},
    ),
    "aws_s3_bucket_server_side_encryption_configuration": Part(
        "encryption",
        lambda state: {
            "ServerSideEncryptionConfiguration": {
                "Rules": [
                    {
                        "ApplyServerSideEncryptionByDefault": {
                            "SSEAlgorithm": each["apply_server_side_encryption_by_default"][0][
                                "sse_algorithm"
                            ]
                        }
                    }
                    for each in state["rule"]
                ]
            }
        },
        _encryption,
        drop="delete_bucket_encryption",
    ),
    "aws_s3_bucket_ownership_controls": Part(
        "ownership_controls",
        lambda state: {
            "OwnershipControls": {
                "Rules": [{"ObjectOwnership": state["rule"][0]["object_ownership"]}]
            }
        },
        lambda told: {
            "rule": [{"object_ownership": told["OwnershipControls"]["Rules"][0]["ObjectOwnership"]}]
        },
        drop="delete_bucket_ownership_controls",
    ),
    "aws_s3_bucket_public_access_block": Part(
        "public_access_block",
        lambda state: {
            "PublicAccessBlockConfiguration": {
                theirs: bool(state[ours]) for ours, theirs in _BLOCKS.items()
            }
        },
        lambda told: {
            ours: told["PublicAccessBlockConfiguration"][theirs] for ours, theirs in _BLOCKS.items()
        },
        drop="delete_public_access_block",
    ),
    "aws_s3_bucket_lifecycle_configuration": Part(
        "lifecycle_configuration",
        _lifecycle_to_aws,
        lambda told: {"rule": [_rule(each) for each in told["Rules"]]},
        drop="delete_bucket_lifecycle",
    ),
    "aws_s3_bucket_policy": Part(
        "policy",
        lambda state: {"Policy": state["policy"]},
        lambda told: {"policy": json.dumps(json.loads(told["Policy"]), separators=(",", ":"))},
        drop="delete_bucket_policy",
    ),
}
"""By the names of their types."""

DATA: Mapping[str, Callable[[], Seen]] = {
    "aws_caller_identity": lambda: {"account_id": client("sts").get_caller_identity()["Account"]},
    "aws_partition": lambda: {"partition": "aws", "dns_suffix": "amazonaws.com"},
    "aws_region": lambda: {"region": region(), "id": region()},
}
"""Data sources that have an answer."""
