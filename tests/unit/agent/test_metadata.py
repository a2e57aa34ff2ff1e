"""Proves that the fake metadata service refuses what the real ones refuse, so that an agent which
passes here does not fail there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_bootstrap.cloud import call
from tests.fakes.metadata.server import ROLE, Metadata

LIFE = "X-aws-ec2-metadata-token-ttl-seconds"
GOOGLE = {"Metadata-Flavor": "Google"}
AZURE = {"Metadata": "true"}
FORWARDED = {"X-Forwarded-For": "10.0.0.1"}


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata()
    yield metadata
    metadata.close()


def status(metadata: Metadata, method: str, path: str, headers: dict[str, str]) -> int:
    return call(method, metadata.url + path, headers).status


def test_aws_version_1_is_switched_off(metadata: Metadata) -> None:
    metadata.preempt(120)
    path = "/latest/meta-data/spot/instance-action"
    assert status(metadata, "GET", path, {}) == 401
    assert status(metadata, "GET", path, {"X-aws-ec2-metadata-token": "guessed"}) == 401
    token = call("PUT", metadata.url + "/latest/api/token", {LIFE: "60"}).text
    assert status(metadata, "GET", path, {"X-aws-ec2-metadata-token": token}) == 200


@pytest.mark.parametrize("life", ["", "0", "21601", "an hour"])
def test_aws_wants_a_life_for_its_token(life: str, metadata: Metadata) -> None:
    assert status(metadata, "PUT", "/latest/api/token", {LIFE: life}) == 400


def test_aws_gives_no_token_through_a_proxy_nor_to_a_get(metadata: Metadata) -> None:
    assert status(metadata, "PUT", "/latest/api/token", {LIFE: "60", **FORWARDED}) == 403
    assert status(metadata, "GET", "/latest/api/token", {LIFE: "60"}) == 405


def test_aws_shows_the_credentials_of_the_role(metadata: Metadata) -> None:
    token = call("PUT", metadata.url + "/latest/api/token", {LIFE: "60"}).text
    root = "/latest/meta-data/iam/security-credentials/"
    headers = {"X-aws-ec2-metadata-token": token}
    assert call("GET", metadata.url + root, headers).text == ROLE
    assert "SecretAccessKey" in call("GET", metadata.url + root + ROLE, headers).text
    assert status(metadata, "GET", root + "another", headers) == 404


@pytest.mark.parametrize(
    ("headers", "expected"),
    [(GOOGLE, 200), ({}, 403), ({"Metadata-Flavor": "x"}, 403), ({**GOOGLE, **FORWARDED}, 403)],
)
def test_google_wants_its_header(
    headers: dict[str, str], expected: int, metadata: Metadata
) -> None:
    assert status(metadata, "GET", "/computeMetadata/v1/instance/preempted", headers) == expected


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        (AZURE, "?api-version=2020-07-01", 200),
        (AZURE, "", 400),
        ({}, "?api-version=2020-07-01", 400),
        ({**AZURE, **FORWARDED}, "?api-version=2020-07-01", 400),
    ],
)
def test_azure_wants_its_header_and_a_version(
    headers: dict[str, str], query: str, expected: int, metadata: Metadata
) -> None:
    assert status(metadata, "GET", "/metadata/scheduledevents" + query, headers) == expected


def test_the_api_deletes_only_with_the_machines_own_token(metadata: Metadata) -> None:
    assert status(metadata, "DELETE", "/anything", {"Authorization": "Bearer guessed"}) == 401
    right = {"Authorization": "Bearer " + metadata.access_token}
    assert status(metadata, "DELETE", "/compute/v1/projects/p/zones/z/instances/i", right) == 400
    assert metadata.deleted == []
