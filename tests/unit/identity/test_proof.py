"""Proves that what an agent makes of its metadata service's answers is what the verifiers of the
control plane take, and that a service in trouble makes no proof."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from agent_bootstrap.identity import STS_BODY, STS_CONTENT_TYPE, proof, signed_headers
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from tests.fakes.metadata.identity import Clouds
from tests.fakes.metadata.server import ROLE, Metadata
from tests.unit.identity.conftest import NONCE, ON_AWS, ON_AZURE, ON_GCP, SERVER

MACHINES = {"aws": ON_AWS, "gcp": ON_GCP, "azure": ON_AZURE}
ROLES = "/latest/meta-data/iam/security-credentials/"
ANSWERS = {
    "aws": ROLES + ROLE,
    "gcp": "/computeMetadata/v1/instance/service-accounts/default/identity",
    "azure": "/metadata/attested/document",
}
"""Where each cloud's service answers with what proves a machine."""


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def today() -> Iterator[Clouds]:
    """The clouds at this moment, which is when an agent signs."""
    clouds = Clouds()
    yield clouds
    clouds.close()


@pytest.fixture
def metadata(today: Clouds) -> Iterator[Metadata]:
    metadata = Metadata()
    today.equip(metadata)
    yield metadata
    metadata.close()


@pytest.fixture
def verifiers(today: Clouds, tmp_path: Path) -> dict[str, Verifier]:
    """One server's."""
    web = Web(today.transport())
    roots = today.azure.write_roots(tmp_path / "roots.pem")
    return {
        "aws": AwsIdentity(web, _now),
        "gcp": GcpIdentity(web, _now, server_url=SERVER),
        "azure": AzureIdentity(web, _now, roots),
    }


@pytest.mark.parametrize("cloud", list(MACHINES))
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_machine_convinces_its_control_plane(
    verifiers: dict[str, Verifier], metadata: Metadata, cloud: str, slash: str
) -> None:
    made = proof(cloud, NONCE, SERVER + slash, metadata.url + slash)
    assert (made["kind"], made["nonce"]) == (cloud, NONCE)
    verifiers[cloud].check(MACHINES[cloud], made, NONCE)


def test_what_goes_out_holds_no_key_of_the_machine(metadata: Metadata, today: Clouds) -> None:
    made = json.dumps(proof("aws", NONCE, SERVER, metadata.url))
    (session,) = today.sessions.values()
    assert session.token in made
    assert session.secret not in made


def test_the_signature_is_the_one_that_amazons_own_code_makes() -> None:
    """Byte for byte, at a fixed time."""
    secrets = {"AccessKeyId": "ASIAX", "SecretAccessKey": "s/e+c", "Token": "t/o+k=="}
    url = "https://sts.eu-central-1.amazonaws.com/"
    at = datetime(2026, 3, 10, 12, 0, tzinfo=UTC).timestamp()
    ours = signed_headers(url, NONCE, secrets, at)
    request = AWSRequest(method="POST", url=url, data=STS_BODY)
    request.headers["Content-Type"] = STS_CONTENT_TYPE
    request.headers["X-Amz-Date"] = "20260310T120000Z"
    request.headers["X-Amz-Security-Token"] = secrets["Token"]
    request.headers["X-Orchctl-Nonce"] = NONCE
    request.context["timestamp"] = "20260310T120000Z"
    signer = SigV4Auth(Credentials("ASIAX", "s/e+c", "t/o+k=="), "sts", "eu-central-1")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["Authorization"].endswith("Signature=" + signer.signature(text, request))
    assert signer.signed_headers(signer.headers_to_sign(request)) in ours["Authorization"]


@pytest.mark.parametrize("cloud", list(MACHINES))
@pytest.mark.parametrize("status", [404, 429, 500])
def test_a_service_in_trouble(metadata: Metadata, cloud: str, status: int) -> None:
    """As right after boot: the next attempt succeeds."""
    metadata.faults[ANSWERS[cloud]] = [status]
    with pytest.raises(OSError, match=f"answered {status}"):
        proof(cloud, NONCE, SERVER, metadata.url)
    proof(cloud, NONCE, SERVER, metadata.url)


@pytest.mark.parametrize("cloud", list(MACHINES))
def test_a_service_that_is_not_there(cloud: str) -> None:
    gone = Metadata()
    gone.close()
    with pytest.raises(ConnectionRefusedError):
        proof(cloud, NONCE, SERVER, gone.url)


@pytest.mark.parametrize("answer", ["{}", "[]", "x", "", '"x"'])
@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_an_answer_that_makes_no_sense(metadata: Metadata, cloud: str, answer: str) -> None:
    metadata.documents[ANSWERS[cloud]] = lambda _: answer
    with pytest.raises(ValueError, match=r"metadata service|Expecting"):
        proof(cloud, NONCE, SERVER, metadata.url)


def test_a_machine_without_a_role(metadata: Metadata) -> None:
    metadata.documents[ROLES] = lambda _: ""
    with pytest.raises(ValueError, match="no role"):
        proof("aws", NONCE, SERVER, metadata.url)


def test_a_cloud_of_another_name() -> None:
    with pytest.raises(ValueError, match="no such cloud: mars"):
        proof("mars", NONCE, SERVER, "http://127.0.0.1")
