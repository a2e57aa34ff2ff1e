"""Signatures of webhooks: as GitHub and the standard publish them, and what is no signature."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.errors import Denied
from control_plane.webhooks import signatures

# https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_GOOD = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

# The vector of the standard's own libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
AT = datetime.fromtimestamp(1614265330, UTC)
GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = "whsec_" + "A" * 32


def github(**changes: str) -> str:
    headers = {"x-hub-signature-256": GITHUB_GOOD, "x-github-delivery": "72d3162e", **changes}
    return signatures.check_github(headers, GITHUB_BODY, [GITHUB_SECRET])


def standard(now: datetime = AT, *, secrets: tuple[str, ...] = (SECRET,), **changes: str) -> str:
    headers = {
        "webhook-id": MESSAGE,
        "webhook-timestamp": "1614265330",
        "webhook-signature": GOOD,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return signatures.check_standard(headers, BODY, secrets, now)


def test_the_published_signatures_are_made_and_known() -> None:
    assert signatures.github_signature(GITHUB_SECRET, GITHUB_BODY) == GITHUB_GOOD
    assert github() == "72d3162e"
    assert signatures.standard_headers(SECRET, MESSAGE, AT, BODY)["webhook-signature"] == GOOD
    assert standard() == MESSAGE


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        GITHUB_GOOD.removeprefix("sha256="),
        GITHUB_GOOD.replace("sha256", "sha1"),
        GITHUB_GOOD.replace("sha256", "sha512"),
        GITHUB_GOOD.replace("sha256=", "none="),
        "sha256=",
        GITHUB_GOOD + "0",
        GITHUB_GOOD[:-1],
        GITHUB_GOOD.upper(),
        " " + GITHUB_GOOD,
        "ſha256=" + GITHUB_GOOD[7:],
        "\udcff",
    ],
)
def test_what_is_no_signature_of_github(wrong: str) -> None:
    with pytest.raises(Denied, match="no signature"):
        github(**{"x-hub-signature-256": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        GOOD.removeprefix("v1,"),
        GOOD.replace("v1", "v1a"),
        GOOD.replace("v1", "v2"),
        GOOD.replace("v1", "none"),
        "v1,",
        GOOD.rstrip("="),
        GOOD.replace(",", " "),
        " ".join(["v1,AAAA"] * 16 + [GOOD]),
    ],
)
def test_what_is_no_signature_of_the_standard(wrong: str) -> None:
    with pytest.raises(Denied, match="no signature"):
        standard(webhook_signature=wrong)


def test_one_good_signature_of_several_is_enough() -> None:
    """A sender that changes its secret signs with both."""
    assert standard(webhook_signature=f"v1,AAAA v1a,BBBB {GOOD}") == MESSAGE
    assert standard(secrets=(OTHER, SECRET)) == MESSAGE
    with pytest.raises(Denied):
        standard(secrets=(OTHER,))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_clocks_may_differ_by_five_minutes(seconds: int) -> None:
    assert standard(AT + timedelta(seconds=seconds)) == MESSAGE


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_what_was_signed_long_ago_or_ahead_is_refused(seconds: int) -> None:
    with pytest.raises(Denied, match="5 minutes from now"):
        standard(AT + timedelta(seconds=seconds))


@pytest.mark.parametrize("wrong", ["", "now", "-1", "1614265330.5", "١٦١٤٢٦٥٣٣٠", "1" * 400])
def test_a_time_that_is_none(wrong: str) -> None:
    with pytest.raises(Denied, match="no time"):
        standard(webhook_timestamp=wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 201, "a\nb", "ä"])
def test_an_id_that_cannot_stand_in_a_line(wrong: str) -> None:
    with pytest.raises(Denied, match="no id"):
        standard(webhook_id=wrong)
    with pytest.raises(Denied, match="no id"):
        github(**{"x-github-delivery": wrong})  # GitHub's signature does not cover it


@pytest.mark.parametrize(
    "changed", [{"webhook_id": "msg_another"}, {"webhook_timestamp": "1614265331"}]
)
def test_the_signature_covers_id_and_time(changed: dict[str, str]) -> None:
    with pytest.raises(Denied, match="no signature"):
        standard(**changed)


def test_secrets_are_their_names_alone() -> None:
    key = b"k" * 32
    secret = signatures.new_secret(key, "hook", "a", "h-1", "1")
    assert secret == signatures.new_secret(key, "hook", "a", "h-1", "1")
    assert len(secret) == len("whsec_") + 44
    others = [("hook", "a", "h-1", "2"), ("hook", "a", "h-2", "1"), ("hook", "b", "h-1", "1")]
    assert len({secret, *(signatures.new_secret(key, *each) for each in others)}) == 4
    assert secret != signatures.new_secret(b"x" * 32, "hook", "a", "h-1", "1")
