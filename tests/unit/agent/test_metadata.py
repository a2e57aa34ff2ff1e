"""Proves that the fake metadata service refuses what the real ones refuse, so that an agent which
passes here does not fail there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

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


# ---------------------------------------------------------------------------- controls over HTTP


def control(metadata: Metadata, name: str, **arguments: object) -> Any:
    answer = call(
        "POST", f"{metadata.url}/_control/{name}", {}, body=json.dumps(arguments).encode()
    )
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def session(metadata: Metadata) -> dict[str, str]:
    token = call("PUT", metadata.url + "/latest/api/token", {LIFE: "60"}).text
    return {"X-aws-ec2-metadata-token": token}


def test_interruption_of_each_cloud_is_announced_by_control(metadata: Metadata) -> None:
    aws = "/latest/meta-data/spot/instance-action"
    gcp = "/computeMetadata/v1/instance/preempted"
    azure = "/metadata/scheduledevents?api-version=2020-07-01"
    assert status(metadata, "GET", aws, session(metadata)) == 404
    assert call("GET", metadata.url + gcp, GOOGLE).text == "FALSE"
    assert json.loads(call("GET", metadata.url + azure, AZURE).text)["Events"] == []
    control(metadata, "preempt", seconds=120)
    assert status(metadata, "GET", aws, session(metadata)) == 200
    assert call("GET", metadata.url + gcp, GOOGLE).text == "TRUE"
    (event,) = json.loads(call("GET", metadata.url + azure, AZURE).text)["Events"]
    assert event["EventType"] == "Preempt"


def test_hints_events_and_faults_are_controlled_too(metadata: Metadata) -> None:
    path = "/latest/meta-data/events/recommendations/rebalance"
    assert status(metadata, "GET", path, session(metadata)) == 404
    control(metadata, "rebalance")
    good = session(metadata)
    assert status(metadata, "GET", path, good) == 200
    control(metadata, "fail_next", path=path, status=503, times=2)
    assert [status(metadata, "GET", path, good) for _ in range(3)] == [503, 503, 200]
    control(metadata, "forget_tokens")
    assert status(metadata, "GET", path, good) == 401
    assert control(metadata, "schedule", kind="Reboot", seconds=60) == metadata.events[0]["EventId"]


def test_tags_are_told_where_they_are_to_be_shown(metadata: Metadata) -> None:
    path = "/latest/meta-data/tags/instance/orchctl-machine"
    assert status(metadata, "GET", path, session(metadata)) == 404
    control(metadata, "show_tags", tags={"orchctl-machine": "m-1"})
    assert call("GET", metadata.url + path, session(metadata)).text == "m-1"
    assert status(metadata, "GET", path, {}) == 401


def test_what_was_asked_is_told_without_the_controls(metadata: Metadata) -> None:
    control(metadata, "rebalance")
    status(metadata, "GET", "/metadata/scheduledevents?api-version=1", AZURE)
    assert control(metadata, "calls") == [
        {
            "method": "GET",
            "path": "/metadata/scheduledevents",
            "query": {"api-version": "1"},
            "status": 200,
        }
    ]


def test_wrong_controls_are_told(metadata: Metadata) -> None:
    for path, body, expected in (
        ("/_control/close", b"{}", 404),
        ("/_control/preempt", b"{}", 400),
        ("/_control/preempt", b"{", 400),
    ):
        assert call("POST", metadata.url + path, {}, body=body).status == expected
    assert status(metadata, "GET", "/_control/rebalance", {}) == 404


def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "tests.fakes.metadata"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert call("POST", url + "/_control/calls", {}, body=b"{}").text == "[]"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
