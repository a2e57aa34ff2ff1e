"""Tokens of CI systems that must open nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fakes.issuer import Issuer, rsa_key

AUDIENCE = "https://orchctl.example"
"""What a good token is made for."""

FORGED: Mapping[str, Callable[[Issuer], str]] = {
    "unsigned": lambda issuer: issuer.unsigned(),
    "unsigned in capitals": lambda issuer: issuer.unsigned("NONE"),
    "public key as shared secret": lambda issuer: issuer.signed_with_public_key(),
    "signed by somebody else": lambda issuer: issuer.token(key=rsa_key(1)),
    "unknown key": lambda issuer: issuer.token(kid="other", key=rsa_key(1)),
    "wrong audience": lambda issuer: issuer.token(aud="https://other.example"),
    "two audiences": lambda issuer: issuer.token(aud=[AUDIENCE, "https://other.example"]),
    "no audience": lambda issuer: issuer.token(aud=None),
    "unknown issuer": lambda issuer: issuer.token(iss="https://evil.example"),
    "look-alike issuer": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "expired": lambda issuer: issuer.token(exp=_in(issuer, -61), iat=_in(issuer, -300)),
    "not valid yet": lambda issuer: issuer.token(nbf=_in(issuer, 120)),
    "from the future": lambda issuer: issuer.token(iat=_in(issuer, 120), exp=_in(issuer, 300)),
    "lives for ever": lambda issuer: issuer.token(exp=_in(issuer, 10**8)),
    "never expires": lambda issuer: issuer.token(exp=None),
    "other repository": lambda issuer: issuer.token(repository="evil/train"),
    "repository that begins alike": lambda issuer: issuer.token(repository="acme/train-evil"),
    "repository in capitals": lambda issuer: issuer.token(repository="Acme/Train"),
    "repository with a Cyrillic letter": lambda issuer: issuer.token(repository="\u0430cme/train"),
    "other branch": lambda issuer: issuer.token(ref="refs/heads/main-evil"),
    "pull request": lambda issuer: issuer.token(ref="refs/pull/1/merge"),
    "no token": lambda issuer: "a.b.c",
}


def _in(issuer: Issuer, seconds: int) -> int:
    return int(issuer.now().timestamp()) + seconds
