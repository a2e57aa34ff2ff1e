"""A token counts when its issuer signed it for us, and for now; keys are asked for seldom."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from control_plane.access import oidc
from control_plane.access.oidc import Issuers, is_safe_url, issuer_of, plain_claims
from control_plane.core.access import Federation
from control_plane.errors import Denied, Unavailable
from tests.api.world import ManualClock
from tests.fakes.issuer import Issuer, ec_key, rsa_key


@pytest.mark.parametrize("kid", ["one", "curve"])
def test_a_good_token(issuers: Issuers, issuer: Issuer, federation: Federation, kid: str) -> None:
    signed = issuers.check(issuer.token(kid=kid), federation)
    assert signed.claims["repository"] == "acme/train"
    assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]
    assert issuer_of(issuer.token()) == issuer.url


def test_keys_may_be_named_in_the_federation(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    issuers.check(issuer.token(), replace(federation, jwks_uri=f"{issuer.url}/jwks"))
    assert issuer.asked == ["/jwks"]


HOUR = 3600
WRONG_CLAIMS: list[dict[str, Any]] = [
    {"iss": "https://evil.example"},
    {"iss": None},
    {"aud": "https://other.example"},
    {"aud": None},
    {"aud": ["https://orchctl.example", "https://other.example"]},
    {"aud": "https://orchctl.example/"},
    {"aud": "HTTPS://ORCHCTL.EXAMPLE"},
    {"aud": []},
    {"exp": None},
    {"iat": None},
    {"exp": "soon"},
    {"exp": True},
    {"iat": 1e9},
    {"exp": -1},
    {"exp": 1 << 50},
]


@pytest.mark.parametrize("changes", WRONG_CLAIMS)
def test_a_wrong_claim(
    issuers: Issuers, issuer: Issuer, federation: Federation, changes: dict[str, Any]
) -> None:
    with pytest.raises(Denied):
        issuers.check(issuer.token(**changes), federation)


@pytest.mark.parametrize(
    ("ahead", "ok"),
    [
        ({"exp": -59}, True),
        ({"exp": -61}, False),
        ({"nbf": 59}, True),
        ({"nbf": 61}, False),
        ({"iat": 59, "nbf": None}, True),
        ({"iat": 61, "nbf": None}, False),
        ({"exp": 12 * HOUR}, True),
        ({"exp": 12 * HOUR + 1}, False),
        ({"nbf": None}, True),
    ],
)
def test_times(
    issuers: Issuers, issuer: Issuer, federation: Federation, ahead: dict[str, Any], ok: bool
) -> None:
    at = int(issuer.now().timestamp())
    token = issuer.token(**{k: None if v is None else at + v for k, v in ahead.items()})
    if ok:
        issuers.check(token, federation)
    else:
        with pytest.raises(Denied):
            issuers.check(token, federation)


def test_one_audience_in_a_list_is_one(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    issuers.check(issuer.token(aud=[federation.audience]), federation)


FORGED: dict[str, Callable[[Issuer], str]] = {
    "none": lambda issuer: issuer.unsigned(),
    "None": lambda issuer: issuer.unsigned("None"),
    "no algorithm": lambda issuer: issuer.unsigned(""),
    "public key as secret": lambda issuer: issuer.signed_with_public_key(),
    "another's key": lambda issuer: issuer.token(key=rsa_key(1)),
    "a curve's key under the name of the other": lambda issuer: issuer.token(key=ec_key()),
    "a key of another kind": lambda issuer: issuer.token(kid="curve", key=rsa_key()),
    "PS256": lambda issuer: issuer.token(alg="PS256"),
    "RS512": lambda issuer: issuer.token(alg="RS512"),
    "signature cut off": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "claims changed": lambda issuer: _with_claims(issuer, repository="acme/train", sub="x"),
    "its own key in the header": lambda issuer: _own_key(issuer),
    "critical extension": lambda issuer: issuer.handmade(
        {"alg": "RS256", "kid": "one", "crit": ["b64"], "b64": False}, lambda what: b"x"
    ),
    "algorithm is a list": lambda issuer: issuer.handmade(
        {"alg": ["RS256"], "kid": "one"}, lambda what: b"x"
    ),
    "no key id": lambda issuer: issuer.handmade({"alg": "RS256"}, lambda what: b"x"),
    "key id is a number": lambda issuer: issuer.handmade(
        {"alg": "RS256", "kid": 1}, lambda what: b"x"
    ),
    "key id is a path": lambda issuer: issuer.handmade(
        {"alg": "RS256", "kid": "../../one"}, lambda what: b"x"
    ),
}


def _with_claims(issuer: Issuer, **changes: Any) -> str:
    header, _, signature = issuer.token().split(".")
    _, claims, _ = issuer.token(key=rsa_key(1), **changes).split(".")
    return f"{header}.{claims}.{signature}"


def _own_key(issuer: Issuer) -> str:
    mine = rsa_key(1)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    headers = {"kid": "one", "jwk": jwk, "jku": "https://evil.example/jwks"}
    return jwt.encode(issuer.claims(), mine, "RS256", headers)


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_token(issuers: Issuers, issuer: Issuer, federation: Federation, how: str) -> None:
    token = FORGED[how](issuer)
    with pytest.raises(Denied):
        issuers.check(token, federation)
    issuers.check(issuer.token(), federation)


DEEP = base64.urlsafe_b64encode(b"[" * 9000).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a.b.c", "\u00e4.b.c", "e30.e30.", "e30.e30.e30", "x" * 20_000),
        f"{DEEP}.{DEEP}.x",
        f"eyJhbGciOiJSUzI1NiIsImtpZCI6Im9uZSJ9.{DEEP}.x",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9uZSJ9.bnVsbA.x",
    ],
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Denied):
        issuer_of(text)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "RSA"},
        {},
    ],
)
def test_a_key_that_is_not_for_this_is_not_taken(
    issuers: Issuers, issuer: Issuer, federation: Federation, key: dict[str, Any]
) -> None:
    token = issuer.token()
    issuer.keys = {"one": key}
    with pytest.raises(Denied):
        issuers.check(token, federation)


def test_a_key_for_encryption_or_of_1024_bits_is_not_taken(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key().public_key(), as_dict=True)
    weak = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(2, 1024).public_key(), as_dict=True)
    token = issuer.token()
    weakly = issuer.handmade(
        {"alg": "RS256", "kid": "weak"},
        lambda what: rsa_key(2, 1024).sign(what, padding.PKCS1v15(), hashes.SHA256()),
    )
    issuer.keys = {"one": {**public, "use": "enc"}, "weak": weak}
    for each in (token, weakly):
        with pytest.raises(Denied):
            issuers.check(each, federation)


# ---------------------------------------------------------------------------- asking for keys


def test_keys_are_kept_for_an_hour_and_new_ones_found(
    issuers: Issuers, issuer: Issuer, federation: Federation, clock: ManualClock
) -> None:
    for _ in range(5):
        issuers.check(issuer.token(), federation)
    assert issuer.asked.count("/jwks") == 1
    issuer.keys["two"] = rsa_key(1)
    with pytest.raises(Denied):
        issuers.check(issuer.token(kid="two"), federation)
    clock.sleep(60)
    issuers.check(issuer.token(kid="two"), federation)
    assert issuer.asked.count("/jwks") == 2
    clock.sleep(3600)
    issuers.check(issuer.token(), federation)
    assert issuer.asked.count("/jwks") == 3


def test_a_key_that_is_withdrawn_is_not_taken_after_an_hour(
    issuers: Issuers, issuer: Issuer, federation: Federation, clock: ManualClock
) -> None:
    stolen = issuer.keys["one"]
    issuers.check(issuer.token(), federation)
    issuer.keys = {"two": rsa_key(1)}
    clock.sleep(3600)
    with pytest.raises(Denied):
        issuers.check(issuer.token(key=stolen), federation)


def test_a_flood_of_unknown_keys_asks_once_a_minute(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    for number in range(200):
        with pytest.raises(Denied):
            issuers.check(issuer.token(kid=f"k{number}", key=rsa_key()), federation)
    assert issuer.asked.count("/jwks") == 1


def test_a_silent_issuer_is_asked_every_ten_seconds(
    issuers: Issuers, issuer: Issuer, federation: Federation, clock: ManualClock
) -> None:
    issuer.status = 500
    for _ in range(50):
        with pytest.raises(Unavailable):
            issuers.check(issuer.token(), federation)
    assert len(issuer.asked) == 1
    issuer.status = 200
    clock.sleep(10)
    issuers.check(issuer.token(), federation)


def test_nobody_waits_behind_an_issuer_that_hangs(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    issuer.go.clear()
    token = issuer.token()
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(issuers.check(token, federation)))
    thread.start()
    while not issuer.asked:
        thread.join(0.005)
    for _ in range(20):
        with pytest.raises(Unavailable, match="being read"):
            issuers.check(token, federation)
    issuer.go.set()
    thread.join(10)
    assert done


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"issuer": "https://evil.example"}',
        b"[" * 60_000,
        b"x" * 70_000,
        b'{"issuer": 1, "issuer": 2}',
        b"\xff",
    ],
)
def test_an_issuer_that_talks_nonsense(
    issuers: Issuers, issuer: Issuer, federation: Federation, body: bytes
) -> None:
    token = issuer.token()
    issuer.body = body
    with pytest.raises(Unavailable):
        issuers.check(token, federation)
    direct = replace(federation, jwks_uri=f"{issuer.url}/jwks")
    with pytest.raises((Unavailable, Denied)):
        issuers.check(token, direct)


def test_only_so_many_keys_and_issuers_are_kept(
    issuers: Issuers, issuer: Issuer, federation: Federation
) -> None:
    issuer.keys = {f"k{number}": rsa_key() for number in range(oidc.KEYS_MAX + 1)}
    issuers.check(issuer.token(kid="k0"), federation)
    with pytest.raises(Denied):
        issuers.check(issuer.token(kid=f"k{oidc.KEYS_MAX}"), federation)
    for number in range(oidc.ISSUERS_MAX + 5):
        place = replace(federation, jwks_uri=f"{issuer.url}/jwks?{number}")
        issuers.check(issuer.token(kid="k0"), place)
    assert len(issuers._keys) == oidc.ISSUERS_MAX


@pytest.mark.parametrize(
    ("url", "here", "safe"),
    [
        ("https://issuer.example", False, True),
        ("https://issuer.example:8443/path", False, True),
        ("http://issuer.example", True, False),
        ("http://127.0.0.1:80/x", True, True),
        ("http://127.0.0.1:80/x", False, False),
        ("http://127.0.0.1.evil.example/", True, False),
        ("https://user@issuer.example", False, False),
        ("https://issuer.example#x", False, False),
        ("https://", False, False),
        ("ftp://issuer.example", False, False),
        ("file:///etc/passwd", True, False),
        ("https://issuer.example:99999", False, False),
        ("https://[::1", False, False),
        ("", False, False),
    ],
)
def test_where_keys_may_come_from(url: str, here: bool, safe: bool) -> None:
    assert is_safe_url(url, local=here) is safe


def test_claims_become_texts() -> None:
    claims = {"a": "x", "b": True, "c": 7, "d": ["x"], "e": {"x": 1}, "f": "y" * 501, "g": "a\nb"}
    assert plain_claims(claims) == {"a": "x", "b": "true", "c": "7"}
