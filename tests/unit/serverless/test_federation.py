"""Functions prove to other clouds who they are by their role in AWS: Google gets a signed question
to AWS, Azure a token that AWS signs; no key is anywhere. Over real HTTP, by the real SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote

import pytest
from azure.identity import ClientAssertionCredential
from google.auth.transport.requests import Request

from control_plane.serverless import federation
from control_plane.serverless.settings import ServerlessSettings
from control_plane.system import SystemClock
from tests.loopback import Loopback

LENT = "/v1/projects/-/serviceAccounts/buys@acme-ml.iam.gserviceaccount.com:generateAccessToken"
TOKEN = "header.of-the-role.signature"
SETTINGS = ServerlessSettings(
    table="t",
    bucket="b",
    public_url="https://orchctl.example.com",
    installation="prod",
    admin_token_sha256="0" * 64,
)


class Clouds(Loopback):
    """STS of AWS, STS and IAM of Google, by what they are asked and answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        clouds = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                clouds.asked.append((self.path, body))
                text = clouds.answer(self.path).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)

    @staticmethod
    def answer(path: str) -> str:
        if path == "/google/token":
            kinds = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
            return json.dumps(
                {"access_token": "federated", "token_type": "Bearer", "expires_in": 3600, **kinds}
            )
        if path == LENT:
            return json.dumps({"accessToken": "lent", "expireTime": "2099-01-01T00:00:00Z"})
        return (
            "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult>"
            f"<WebIdentityToken>{TOKEN}</WebIdentityToken>"
            "<Expiration>2099-01-01T00:00:00Z</Expiration>"
            "</GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
        )


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    """As a function finds itself: the keys of its role, of an hour, in the environment."""
    made = Clouds()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-an-hour")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", made.url)
    yield made
    made.close()


def _told(clouds: Clouds) -> str:
    """As the module `gcp-access` puts it out, but for the addresses."""
    return json.dumps(
        {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p",
            "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
            "token_url": f"{clouds.url}/google/token",
            "service_account_impersonation_url": f"{clouds.url}{LENT}",
            "credential_source": {
                "environment_id": "aws1",
                "regional_cred_verification_url": "https://sts.{region}.amazonaws.com"
                "?Action=GetCallerIdentity&Version=2011-06-15",
            },
        }
    )


def test_google_is_given_a_signed_question_and_lends_the_account(clouds: Clouds) -> None:
    credentials = federation.google_credentials(_told(clouds))

    credentials.refresh(Request())  # type: ignore[no-untyped-call]

    (first, body), (second, _) = clouds.asked
    question = json.loads(unquote(parse_qs(body)["subject_token"][0]))
    headers = {each["key"].lower(): each["value"] for each in question["headers"]}
    assert credentials.token == "lent"
    assert (first, second) == ("/google/token", LENT)
    assert question["url"].startswith("https://sts.eu-central-1.amazonaws.com?")
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=ASIAEXAMPLE/")
    assert headers["x-amz-security-token"] == "session"
    assert "secret-of-an-hour" not in body


def test_aws_vouches_for_the_role_to_azure_alone_and_for_minutes(clouds: Clouds) -> None:
    token = federation.vouched()

    ((_, body),) = clouds.asked
    asked = parse_qs(body)
    assert token == TOKEN
    assert asked["Action"] == ["GetWebIdentityToken"]
    assert asked["Audience.member.1"] == ["api://AzureADTokenExchange"]
    assert asked["SigningAlgorithm"] == ["RS256"]
    assert int(asked["DurationSeconds"][0]) <= 300


def test_without_federation_sdks_look_for_credentials_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = _given(monkeypatch, SETTINGS)

    assert given == {"gcp": None, "azure": None}


def test_each_cloud_gets_what_the_deployment_names(
    monkeypatch: pytest.MonkeyPatch, clouds: Clouds
) -> None:
    given = _given(
        monkeypatch,
        ServerlessSettings(
            **{name: getattr(SETTINGS, name) for name in ("table", "bucket", "public_url")},
            installation="prod",
            admin_token_sha256="0" * 64,
            gcp_credentials=_told(clouds),
            azure_tenant="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            azure_client="66666666-7777-8888-9999-000000000000",
        ),
    )

    assert type(given["gcp"]).__module__ == "google.auth.aws"
    assert isinstance(given["azure"], ClientAssertionCredential)


def _given(monkeypatch: pytest.MonkeyPatch, settings: ServerlessSettings) -> Mapping[str, object]:
    """The credentials that the clouds are made with."""
    seen: dict[str, object] = {}
    real = federation.cloud_providers
    monkeypatch.setattr(
        federation, "cloud_providers", lambda now, **given: seen.update(given) or real(now, **given)
    )

    made = federation.federated(settings, SystemClock().now)

    assert set(made) == {"aws", "azure", "gcp"}
    return seen
