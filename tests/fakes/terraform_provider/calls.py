"""Calls of AWS, by boto3, wherever `AWS_ENDPOINT_URL` points."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

State = Mapping[str, Any]
Seen = dict[str, Any]

ABSENT = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "OwnershipControlsNotFoundError",
        "NotFoundException",
        "ResourceNotFoundException",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)


def use_region(region: str | None) -> None:
    """The region of the provider's configuration, for all that follows."""
    if region:
        os.environ["AWS_REGION"] = region


def client(service: str) -> Any:
    return _connected(service, os.environ["AWS_REGION"])


@cache
def _connected(service: str, region: str) -> Any:
    import boto3  # most commands plan only, and each may start this program anew

    return boto3.client(service, region_name=region)


def region() -> str:
    return os.environ["AWS_REGION"]


def asked(call: Callable[..., Any], *words: Any, **request: Any) -> Any:
    """The answer; None when there is no such thing."""
    from botocore.exceptions import ClientError

    try:
        return call(*words, **request)
    except ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return None
        raise


def pairs(tags: Mapping[str, str] | None) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted((tags or {}).items())]


def tags_of(pairs: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    return {each["Key"]: each["Value"] for each in pairs} or None
