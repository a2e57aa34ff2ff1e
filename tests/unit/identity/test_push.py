"""Proves each step of checking who sends a push of Pub/Sub."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from control_plane.errors import Denied, Unavailable
from control_plane.identity.gcp import PushIdentity
from control_plane.identity.web import Web
from tests.fakes.metadata.identity import GOOGLE_KID, Clouds, Fault, spare_key
from tests.unit.identity.conftest import SERVER, Moment

AUDIENCE = f"{SERVER}/v1/notices/gcp"
EMAIL = "orchctl-notices@acme-ml.iam.gserviceaccount.com"


@pytest.fixture
def push(web: Web, moment: Moment) -> PushIdentity:
    return PushIdentity(web, moment.now, audience=AUDIENCE)


def claims(clouds: Clouds, **changes: Any) -> dict[str, Any]:
    """What Google says in a push; None takes a claim out."""
    every = clouds.gcp_push_claims(AUDIENCE, EMAIL) | changes
    return {name: value for name, value in every.items() if value is not None}


def token(clouds: Clouds, **changes: Any) -> str:
    return clouds.gcp_token(claims(clouds, **changes))


def test_a_push_of_our_account_speaks_for_its_project(push: PushIdentity, clouds: Clouds) -> None:
    assert push.scope(token(clouds)) == "projects/acme-ml/"


def test_a_project_of_a_domain_is_written_in_another_order(
    push: PushIdentity, clouds: Clouds
) -> None:
    email = "orchctl-notices@ml.acme.com.iam.gserviceaccount.com"
    assert push.scope(token(clouds, email=email)) == "projects/acme.com:ml/"


@pytest.mark.parametrize(
    "email",
    [
        "somebody@acme-ml.iam.gserviceaccount.com",
        "orchctl-notices@acme-ml.iam.gserviceaccount.com.example.com",
        "orchctl-notices@example.com",
        "x-orchctl-notices@acme-ml.iam.gserviceaccount.com",
        "orchctl-notices@acme/ml.iam.gserviceaccount.com",
        "orchctl-notices@acme-ml.iam.gserviceaccount.com\n",
        ["orchctl-notices@acme-ml.iam.gserviceaccount.com"],
        None,
    ],
)
def test_other_accounts_say_nothing(push: PushIdentity, clouds: Clouds, email: Any) -> None:
    with pytest.raises(Denied, match="account named orchctl-notices"):
        push.scope(token(clouds, email=email))


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_google_does_not_vouch_for(
    push: PushIdentity, clouds: Clouds, verified: Any
) -> None:
    with pytest.raises(Denied, match="account named"):
        push.scope(token(clouds, email_verified=verified))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aud": f"{SERVER}/0123456789"}, "not for this address"),
        ({"aud": [AUDIENCE]}, "not for this address"),
        ({"aud": None}, "not for this address"),
        ({"iss": "https://accounts.example.com"}, "not issued by Google"),
        ({"exp": None}, "no times"),
    ],
)
def test_a_token_for_something_else(
    push: PushIdentity, clouds: Clouds, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(Denied, match=words):
        push.scope(token(clouds, **change))


def test_a_token_of_yesterday(push: PushIdentity, clouds: Clouds, moment: Moment) -> None:
    old = token(clouds)
    moment.pass_by(hours=2)
    with pytest.raises(Denied, match="expired"):
        push.scope(old)


def test_a_token_that_google_has_not_signed(push: PushIdentity, clouds: Clouds) -> None:
    forged = jwt.encode(
        claims(clouds), spare_key(1), algorithm="RS256", headers={"kid": GOOGLE_KID}
    )
    with pytest.raises(Denied, match="not signed by Google"):
        push.scope(forged)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "\udcff.b.c", "e30.e30.", "ü" * 10])
def test_what_is_no_token(push: PushIdentity, text: str) -> None:
    with pytest.raises(Denied):
        push.scope(text)


def test_without_googles_keys_nothing_is_said(push: PushIdentity, clouds: Clouds) -> None:
    clouds.faults["www.googleapis.com"] = Fault(status=500)
    with pytest.raises(Unavailable):
        push.scope(token(clouds))
