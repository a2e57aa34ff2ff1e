"""Proves each step of checking a question that an instance of AWS has signed: STS here is a real
server that signs again with botocore, and everything that must be refused is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from agent_bootstrap.identity import signed_headers
from control_plane.errors import Denied, Unavailable
from control_plane.identity.aws import INSTANCE_PROFILE, AwsIdentity
from providers.aws import launch
from tests.fakes.metadata.identity import Clouds, Fault
from tests.fakes.metadata.server import INSTANCE, REGION, ROLE
from tests.unit.identity.conftest import NONCE, NOW, ON_AWS, Moment, other

HOST = f"sts.{REGION}.amazonaws.com"
URL = f"https://{HOST}/"
BODY = "Action=GetCallerIdentity&Version=2011-06-15"


def proof(clouds: Clouds, *, url: str = URL, nonce: str = NONCE, **who: str) -> dict[str, str]:
    """What the agent of this instance sends."""
    credentials = clouds.aws_credentials(**{"instance_id": INSTANCE, **who})
    headers = signed_headers(url, nonce, credentials, clouds.now().timestamp())
    return {"kind": "aws", "nonce": nonce, "url": url, "body": BODY, "headers": json.dumps(headers)}


def with_headers(proof: Mapping[str, str], **changes: str | None) -> dict[str, str]:
    """The same with other headers; None takes one out."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    headers = json.loads(proof["headers"]) | named
    kept = {name: value for name, value in headers.items() if value is not None}
    return {**proof, "headers": json.dumps(kept)}


def test_an_instance_proves_who_it_is(aws: AwsIdentity, clouds: Clouds) -> None:
    aws.check(ON_AWS, proof(clouds), NONCE)
    assert clouds.seen == [("POST", HOST, "/")]


def test_the_role_may_be_named_by_itself(aws: AwsIdentity, clouds: Clouds) -> None:
    named = other(ON_AWS, options={"instance_profile": "p", "role": "theirs"})
    aws.check(named, proof(clouds, role="theirs"), NONCE)


# ------------------------------------------------------------------ 1: where the question goes


@pytest.mark.parametrize(
    "url",
    [
        "http://sts.us-east-1.amazonaws.com/",
        "https://sts.us-east-1.amazonaws.com",
        "https://sts.us-east-1.amazonaws.com/x",
        "https://sts.us-east-1.amazonaws.com/?Action=AssumeRole",
        "https://sts.us-east-1.amazonaws.com/#x",
        "https://sts.us-east-1.amazonaws.com:443/",
        "https://sts.us-east-1.amazonaws.com:8443/",
        "https://me@sts.us-east-1.amazonaws.com/",
        "https://sts.us-east-1.amazonaws.com@evil.example/",
        "https://sts.us-east-1.amazonaws.com.evil.example/",
        "https://evil.example/sts.us-east-1.amazonaws.com/",
        "https://sts.us-east-1.amazonaws.com\\@evil.example/",
        "https://STS.us-east-1.amazonaws.com/",
        "https://sts.amazonaws.com/",
        "https://sts.eu-west-1.amazonaws.com/",
        "https://169.254.169.254/",
    ],
)
def test_the_question_goes_to_sts_of_its_region_only(
    aws: AwsIdentity, clouds: Clouds, url: str
) -> None:
    with pytest.raises(Denied, match="is not for https://sts"):
        aws.check(ON_AWS, {**proof(clouds), "url": url}, NONCE)
    assert not clouds.seen


def test_a_question_signed_in_another_region_is_not_asked(aws: AwsIdentity, clouds: Clouds) -> None:
    there = proof(clouds, url="https://sts.eu-west-1.amazonaws.com/")
    with pytest.raises(Denied, match="another region"):
        aws.check(ON_AWS, {**there, "url": URL}, NONCE)
    assert not clouds.seen


# --------------------------------------------------------------------------- 2: what is asked


@pytest.mark.parametrize(
    "body",
    [
        "Action=GetSessionToken&Version=2011-06-15",
        BODY + "&X=1",
        BODY + "\n",
        "Action=AssumeRole&RoleArn=x",
    ],
)
def test_it_asks_for_the_caller_and_nothing_else(
    aws: AwsIdentity, clouds: Clouds, body: str
) -> None:
    with pytest.raises(Denied, match="not GetCallerIdentity"):
        aws.check(ON_AWS, {**proof(clouds), "body": body}, NONCE)
    assert not clouds.seen


# ----------------------------------------------------------------- 3: headers, and the nonce


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X-Evil": "1"}, "must not have"),
        ({"Host": "evil.example"}, "must not have"),
        ({"Transfer-Encoding": "chunked"}, "must not have"),
        ({"Content-Length": "5"}, "must not have"),
        ({"Accept": "application/json"}, "must not have"),
        ({"X-Amz-Security-Token": None}, "lacks headers: x-amz-security-token"),
        ({"X-Orchctl-Nonce": None}, "lacks headers: x-orchctl-nonce"),
        ({"Authorization": None}, "lacks headers: authorization"),
        ({"X-Amz-Date": "20260310T120000Z\r\nX-Evil: 1"}, "plain text"),
        ({"X-Amz-Security-Token": 5}, "plain text"),
        ({"X-Amz-Security-Token": ["x"]}, "plain text"),
        ({"X-Amz-Security-Token": "\u00e9"}, "plain text"),
        ({"X-Orchctl-Nonce": "9876543210"}, "another nonce"),
        ({"Authorization": "Bearer x"}, "Signature Version 4"),
    ],
)
def test_only_the_headers_it_must_have(
    aws: AwsIdentity, clouds: Clouds, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(Denied, match=words):
        aws.check(ON_AWS, with_headers(proof(clouds), **changes), NONCE)
    assert not clouds.seen


@pytest.mark.parametrize("headers", ["", "[]", "{", '{"a": 1, "a": 2}', "1", "[" * 10_000])
def test_headers_that_make_no_sense(aws: AwsIdentity, clouds: Clouds, headers: str) -> None:
    with pytest.raises(Denied, match="headers"):
        aws.check(ON_AWS, {**proof(clouds), "headers": headers}, NONCE)


def test_one_header_under_two_spellings_is_refused(aws: AwsIdentity, clouds: Clouds) -> None:
    doubled = with_headers(proof(clouds), **{"x-orchctl-nonce": NONCE})
    with pytest.raises(Denied, match="twice"):
        aws.check(ON_AWS, doubled, NONCE)


def test_the_nonce_must_be_signed(aws: AwsIdentity, clouds: Clouds) -> None:
    """Else one overheard question would be good for every nonce."""
    made = proof(clouds)
    text = json.loads(made["headers"])["Authorization"].replace(";x-orchctl-nonce", "")
    with pytest.raises(Denied, match="does not cover"):
        aws.check(ON_AWS, with_headers(made, Authorization=text), NONCE)
    assert not clouds.seen


def test_a_question_for_another_nonce_is_not_this_one(aws: AwsIdentity, clouds: Clouds) -> None:
    with pytest.raises(Denied, match="another nonce"):
        aws.check(ON_AWS, proof(clouds, nonce="9999999999"), NONCE)


def test_a_nonce_put_in_afterwards_breaks_the_signature(aws: AwsIdentity, clouds: Clouds) -> None:
    forged = with_headers(proof(clouds, nonce="9999999999"), **{"X-Orchctl-Nonce": NONCE})
    with pytest.raises(Denied, match="403 SignatureDoesNotMatch"):
        aws.check(ON_AWS, forged, NONCE)


# -------------------------------------------------------------------------------- 4: the date


@pytest.mark.parametrize("minutes", [-6, 6, 60 * 24, -60 * 24])
def test_a_question_is_asked_soon_after_it_was_signed(
    aws: AwsIdentity, clouds: Clouds, moment: Moment, minutes: int
) -> None:
    made = proof(clouds)
    moment.pass_by(minutes=minutes)
    with pytest.raises(Denied, match="signed at 12:00:00, not now"):
        aws.check(ON_AWS, made, NONCE)
    assert not clouds.seen


def test_clocks_may_differ_a_little(aws: AwsIdentity, clouds: Clouds, moment: Moment) -> None:
    made = proof(clouds)
    for minutes in (-5, 10):
        moment.pass_by(minutes=minutes)
        aws.check(ON_AWS, made, NONCE)


@pytest.mark.parametrize("date", ["20260310", "20261310T120000Z", "yesterday"])
def test_a_date_that_is_none(aws: AwsIdentity, clouds: Clouds, date: str) -> None:
    with pytest.raises(Denied, match="not a date"):
        aws.check(ON_AWS, with_headers(proof(clouds), **{"X-Amz-Date": date}), NONCE)


# ----------------------------------------------------------------------------- 5: asking AWS


def test_a_redirect_is_not_followed(aws: AwsIdentity, clouds: Clouds) -> None:
    clouds.faults[HOST] = Fault(307, {"Location": f"{clouds.url}/elsewhere"})
    with pytest.raises(Denied, match="refused the question: 307"):
        aws.check(ON_AWS, proof(clouds), NONCE)
    assert [path for _, _, path in clouds.seen] == ["/"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_aws_in_trouble_says_nothing(aws: AwsIdentity, clouds: Clouds, status: int) -> None:
    clouds.faults[HOST] = Fault(status)
    with pytest.raises(Unavailable, match=str(status)):
        aws.check(ON_AWS, proof(clouds), NONCE)
    del clouds.faults[HOST]
    aws.check(ON_AWS, proof(clouds), NONCE)


def test_credentials_that_aws_does_not_know(aws: AwsIdentity, clouds: Clouds) -> None:
    made = proof(clouds)
    clouds.sessions.clear()
    with pytest.raises(Denied, match="403 InvalidClientTokenId"):
        aws.check(ON_AWS, made, NONCE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<x",
        b"<a/>",
        b'{"Arn": "x"}',
        b"<R><GetCallerIdentityResult><Arn>a</Arn><Arn>b</Arn></GetCallerIdentityResult></R>",
        b"<R><Other><Arn>a</Arn></Other></R>",
        b"\xff\xfe",
    ],
)
def test_an_answer_that_says_nothing_clear(aws: AwsIdentity, clouds: Clouds, body: bytes) -> None:
    clouds.faults[HOST] = Fault(200, {}, body)
    with pytest.raises(Denied, match="did not say who"):
        aws.check(ON_AWS, proof(clouds), NONCE)


# ------------------------------------------------------------------- 6: who AWS says has signed


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"account": "999999999999"}, "another account"),
        ({"role": "admin"}, "another role, admin"),
        ({"role": ROLE + "x"}, "another role"),
        ({"instance_id": "i-0ffffffffffffffff"}, "another instance"),
        ({"instance_id": INSTANCE + "0"}, "another instance"),
        ({"instance_id": "somebody"}, "another instance"),
    ],
)
def test_the_signer_is_this_instance_in_its_role(
    aws: AwsIdentity, clouds: Clouds, who: dict[str, str], words: str
) -> None:
    with pytest.raises(Denied, match=words):
        aws.check(ON_AWS, proof(clouds, **who), NONCE)


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::123456789012:user/{INSTANCE}",
        f"arn:aws:sts::123456789012:federated-user/{INSTANCE}",
        f"arn:aws:sts::123456789012:assumed-role/{ROLE}/x/{INSTANCE}",
        f"arn:aws-cn:sts::123456789012:assumed-role/{ROLE}/{INSTANCE}",
        f" arn:aws:sts::123456789012:assumed-role/{ROLE}/{INSTANCE}",
        "arn:aws:iam::123456789012:root",
    ],
)
def test_whoever_is_no_session_of_a_role(aws: AwsIdentity, clouds: Clouds, arn: str) -> None:
    made = proof(clouds)
    for session in clouds.sessions.values():
        session.arn = arn
    with pytest.raises(Denied, match="not a role's session"):
        aws.check(ON_AWS, made, NONCE)


def test_a_document_that_names_no_profile_means_the_usual_one(
    aws: AwsIdentity, clouds: Clouds
) -> None:
    assert INSTANCE_PROFILE == ROLE == launch.INSTANCE_PROFILE
    aws.check(other(ON_AWS, options={}), proof(clouds), NONCE)
    with pytest.raises(Denied, match="role"):
        aws.check(other(ON_AWS, options={"instance_profile": "theirs"}), proof(clouds), NONCE)


# ------------------------------------------------------------------------------------ the rest


def test_a_record_without_an_account_is_not_complete(aws: AwsIdentity, clouds: Clouds) -> None:
    with pytest.raises(Unavailable, match="account of machine m-7k2m9 is not known"):
        aws.check(other(ON_AWS, identity={}), proof(clouds), NONCE)


@pytest.mark.parametrize("missing", ["url", "body", "headers"])
def test_half_a_proof_is_none(aws: AwsIdentity, clouds: Clouds, missing: str) -> None:
    made = proof(clouds)
    del made[missing]
    with pytest.raises(Denied, match=f"the proof has no {missing}"):
        aws.check(ON_AWS, made, NONCE)


def test_a_question_is_good_for_minutes_only(
    aws: AwsIdentity, clouds: Clouds, moment: Moment
) -> None:
    """Also at STS, which would take it for a quarter of an hour."""
    made = proof(clouds)
    moment.at = NOW + timedelta(minutes=5, seconds=1)
    with pytest.raises(Denied):
        aws.check(ON_AWS, made, NONCE)
