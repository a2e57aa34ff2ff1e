"""Proves each step of checking a token in which Google names an instance."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from control_plane.errors import Denied, Unavailable
from control_plane.identity.gcp import GcpIdentity
from tests.fakes.metadata.identity import GOOGLE_KID, Clouds, Fault
from tests.unit.identity.conftest import NONCE, ON_GCP, SERVER, Moment, other

KEYS_HOST = "www.googleapis.com"
AUDIENCE = f"{SERVER}/{NONCE}"


def proof(token: str) -> dict[str, str]:
    """What an agent sends."""
    return {"kind": "gcp", "nonce": NONCE, "token": token}


def claimed(clouds: Clouds, **changes: Any) -> dict[str, str]:
    """A proof with other claims, signed by Google; None takes one out."""
    claims = clouds.gcp_claims(AUDIENCE) | changes
    return proof(
        clouds.gcp_token({name: value for name, value in claims.items() if value is not None})
    )


def instance(clouds: Clouds, **changes: Any) -> dict[str, str]:
    """A proof that names another instance."""
    google = clouds.gcp_claims(AUDIENCE)["google"]
    return claimed(clouds, google={"compute_engine": google["compute_engine"] | changes})


def test_an_instance_proves_who_it_is(gcp: GcpIdentity, clouds: Clouds) -> None:
    gcp.check(ON_GCP, claimed(clouds), NONCE)
    assert clouds.seen == [("GET", KEYS_HOST, "/oauth2/v3/certs")]


# ------------------------------------------------------------------------------- the signature


def forged(header: Mapping[str, Any], claims: Mapping[str, Any], mac_key: bytes = b"") -> str:
    """A token put together by hand, signed with a shared secret or not at all."""
    parts = [_base64url(json.dumps(part).encode()) for part in (header, claims)]
    text = ".".join(parts)
    mac = hmac.new(mac_key, text.encode(), hashlib.sha256).digest() if mac_key else b""
    return f"{text}.{_base64url(mac)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_a_token_without_signature(gcp: GcpIdentity, clouds: Clouds, name: str) -> None:
    token = forged({"alg": name, "kid": GOOGLE_KID}, clouds.gcp_claims(AUDIENCE))
    with pytest.raises(Denied, match="not signed by Google"):
        gcp.check(ON_GCP, proof(token), NONCE)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_googles_public_key_is_no_shared_secret(
    gcp: GcpIdentity, clouds: Clouds, encoding: Encoding
) -> None:
    """Everybody knows that key: a token "signed" with it as if it were a secret proves nothing."""
    secret = clouds.google_key.public_key().public_bytes(
        encoding, PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "HS256", "typ": "JWT", "kid": GOOGLE_KID}
    token = forged(header, clouds.gcp_claims(AUDIENCE), secret)
    with pytest.raises(Denied, match=r"not signed by Google: .*alg"):
        gcp.check(ON_GCP, proof(token), NONCE)


@pytest.mark.parametrize("name", ["RS384", "RS512", "PS256"])
def test_only_the_algorithm_that_google_uses(gcp: GcpIdentity, clouds: Clouds, name: str) -> None:
    token = jwt.encode(
        clouds.gcp_claims(AUDIENCE), clouds.google_key, algorithm=name, headers={"kid": GOOGLE_KID}
    )
    with pytest.raises(Denied, match=r"not signed by Google: .*alg"):
        gcp.check(ON_GCP, proof(token), NONCE)


def test_a_key_of_somebody_elses(gcp: GcpIdentity, clouds: Clouds) -> None:
    own = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    for header in ({"kid": GOOGLE_KID}, {"kid": GOOGLE_KID, "jwk": public}):
        token = jwt.encode(clouds.gcp_claims(AUDIENCE), own, algorithm="RS256", headers=header)
        with pytest.raises(Denied, match="Signature verification failed"):
            gcp.check(ON_GCP, proof(token), NONCE)


@pytest.mark.parametrize("kid", ["another", "", "../certs"])
def test_a_key_that_google_does_not_have(gcp: GcpIdentity, clouds: Clouds, kid: str) -> None:
    token = clouds.gcp_token(clouds.gcp_claims(AUDIENCE), kid=kid)
    with pytest.raises(Denied, match="not Google's"):
        gcp.check(ON_GCP, proof(token), NONCE)


def test_claims_changed_afterwards(gcp: GcpIdentity, clouds: Clouds) -> None:
    head, _, signature = claimed(clouds)["token"].split(".")
    claims = _base64url(json.dumps(clouds.gcp_claims(AUDIENCE, name="other")).encode())
    with pytest.raises(Denied, match="Signature verification failed"):
        gcp.check(ON_GCP, proof(f"{head}.{claims}.{signature}"), NONCE)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "..",
        "\u00e9",
        f"{_base64url(b'[' * 5000)}.{_base64url(b'{}')}.x",
        f"{_base64url(b'[]')}.{_base64url(b'{}')}.x",
    ],
)
def test_a_token_that_is_none(gcp: GcpIdentity, token: str) -> None:
    with pytest.raises(Denied, match="not signed by Google"):
        gcp.check(ON_GCP, proof(token), NONCE)


def test_half_a_proof_is_none(gcp: GcpIdentity) -> None:
    with pytest.raises(Denied, match="no token"):
        gcp.check(ON_GCP, {"kind": "gcp", "nonce": NONCE}, NONCE)


# ---------------------------------------------------------------------------------- the claims


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": "accounts.google.com"}, "not issued by Google"),
        ({"iss": "https://accounts.google.com/"}, "not issued by Google"),
        ({"iss": "https://evil.example"}, "not issued by Google"),
        ({"iss": None}, "not issued by Google"),
        ({"aud": SERVER}, "not for this server and nonce"),
        ({"aud": f"{SERVER}/9876543210"}, "not for this server and nonce"),
        ({"aud": f"https://evil.example/{NONCE}"}, "not for this server and nonce"),
        ({"aud": [AUDIENCE]}, "not for this server and nonce"),
        ({"aud": [AUDIENCE, "https://evil.example"]}, "not for this server and nonce"),
        ({"aud": None}, "not for this server and nonce"),
        ({"exp": None}, "no times"),
        ({"iat": None}, "no times"),
        ({"exp": "later"}, "no times"),
        ({"google": None}, "names no instance"),
        ({"google": {}}, "names no instance"),
        ({"google": "x"}, "names no instance"),
        ({"google": {"compute_engine": []}}, "names no instance"),
        ({"email": "other@project.iam.gserviceaccount.com"}, "another service account"),
        ({"email": None}, "another service account"),
        ({"email_verified": False}, "another service account"),
    ],
)
def test_a_claim_that_is_not_ours(
    gcp: GcpIdentity, clouds: Clouds, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Denied, match=words):
        gcp.check(ON_GCP, claimed(clouds, **changes), NONCE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project_id", "other-project"),
        ("zone", "us-central1-b"),
        ("instance_name", "orchctl-m-other"),
        ("instance_name", "ORCHCTL-M-7K2M9"),
        ("instance_name", None),
        ("instance_id", "4711081500000000002"),
        ("instance_id", 4711081500000000001),
    ],
)
def test_another_instance(gcp: GcpIdentity, clouds: Clouds, name: str, value: object) -> None:
    with pytest.raises(Denied, match=f"another machine's: its {name} differs"):
        gcp.check(ON_GCP, instance(clouds, **{name: value}), NONCE)


def test_a_record_without_a_number_is_not_complete(gcp: GcpIdentity, clouds: Clouds) -> None:
    with pytest.raises(Unavailable, match="vm_id of machine m-7k2m9 is not known"):
        gcp.check(other(ON_GCP, identity={}), claimed(clouds), NONCE)


@pytest.mark.parametrize(
    ("minutes", "words"), [(66, "expired"), (60 * 24, "expired"), (-6, "from the future")]
)
def test_a_token_of_another_time(
    gcp: GcpIdentity, clouds: Clouds, moment: Moment, minutes: int, words: str
) -> None:
    made = claimed(clouds)
    moment.pass_by(minutes=minutes)
    with pytest.raises(Denied, match=words):
        gcp.check(ON_GCP, made, NONCE)


def test_clocks_may_differ_a_little(gcp: GcpIdentity, clouds: Clouds, moment: Moment) -> None:
    made = claimed(clouds)
    for minutes in (-5, 70):
        moment.pass_by(minutes=minutes)
        gcp.check(ON_GCP, made, NONCE)


def test_without_a_named_account_any_of_the_project_will_do(
    gcp: GcpIdentity, clouds: Clouds
) -> None:
    for account in ("", "default"):
        here = other(ON_GCP, options={"service_account": account})
        gcp.check(here, claimed(clouds, email="123-compute@developer.gserviceaccount.com"), NONCE)


# -------------------------------------------------------------------------------- Google's keys


def test_keys_are_asked_for_once_an_hour(gcp: GcpIdentity, clouds: Clouds, moment: Moment) -> None:
    for _ in range(3):
        gcp.check(ON_GCP, claimed(clouds), NONCE)
    assert len(clouds.seen) == 1
    moment.pass_by(minutes=60)
    gcp.check(ON_GCP, claimed(clouds), NONCE)
    assert len(clouds.seen) == 2


def test_a_new_key_is_found_within_a_minute(
    gcp: GcpIdentity, clouds: Clouds, moment: Moment
) -> None:
    gcp.check(ON_GCP, claimed(clouds), NONCE)
    clouds.google_kid = "google-key-2"
    with pytest.raises(Denied, match="not Google's"):
        gcp.check(ON_GCP, claimed(clouds), NONCE)
    moment.pass_by(seconds=61)
    gcp.check(ON_GCP, claimed(clouds), NONCE)


def test_strangers_cannot_make_us_ask_google_again_and_again(
    gcp: GcpIdentity, clouds: Clouds
) -> None:
    for number in range(5):
        token = clouds.gcp_token(clouds.gcp_claims(AUDIENCE), kid=f"made-up-{number}")
        with pytest.raises(Denied):
            gcp.check(ON_GCP, proof(token), NONCE)
    assert len(clouds.seen) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(302, {"Location": "/elsewhere"}),
        Fault(200, {}, b"<html>"),
        Fault(200, {}, b"{}"),
        Fault(200, {}, b'{"keys": [{"kty": "RSA"}]}'),
        Fault(200, {}, b'{"keys": [{"kty": "RSA", "kid": "x", "n": "AQAB", "e": "!"}]}'),
        Fault(200, {}, b"x" * 100_000),
    ],
)
def test_a_google_in_trouble_says_nothing(gcp: GcpIdentity, clouds: Clouds, fault: Fault) -> None:
    clouds.faults[KEYS_HOST] = fault
    with pytest.raises(Unavailable):
        gcp.check(ON_GCP, claimed(clouds), NONCE)
    clouds.faults.clear()
    gcp.check(ON_GCP, claimed(clouds), NONCE)


def test_known_keys_outlast_trouble_for_an_hour(
    gcp: GcpIdentity, clouds: Clouds, moment: Moment
) -> None:
    gcp.check(ON_GCP, claimed(clouds), NONCE)
    clouds.faults[KEYS_HOST] = Fault(503)
    moment.pass_by(minutes=59)
    gcp.check(ON_GCP, claimed(clouds), NONCE)
    moment.pass_by(minutes=2)
    with pytest.raises(Unavailable):
        gcp.check(ON_GCP, claimed(clouds), NONCE)
