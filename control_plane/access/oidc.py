"""Tokens that CI systems carry: signed by their issuer, for our audience, for a short time.

Sources: OpenID Connect Core 1.0 (section 3.1.3.7) and Discovery 1.0, RFC 7515, RFC 7517, RFC 8725
("JWT best current practices"): one family of keys an algorithm, no key or algorithm that the token
chooses by itself, issuer and audience compared whole.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from control_plane.core.access import Federation
from control_plane.errors import Denied, Unavailable
from control_plane.identity.verifier import SIGNATURE_ONLY, json_object
from control_plane.identity.web import Web

if TYPE_CHECKING:
    from jwt import PyJWK

ALGORITHMS: Mapping[str, tuple[str, str]] = {"RS256": ("RSA", ""), "ES256": ("EC", "P-256")}
"""What a token may be signed with, and the only kind of key for each. All of it is asymmetric: a
public key is never taken for a shared secret."""
RSA_BITS_MIN = 2048
TOKEN_MAX = 16 * 1024
"""Characters. GitHub's have two thousand."""
SKEW = timedelta(seconds=60)
LIFE_MAX = timedelta(hours=12)
"""Between `iat` and `exp`. GitLab's live as long as their job may take; replays are remembered for
longer than this."""
KEEP_KEYS = timedelta(hours=1)
LOOK_AGAIN = timedelta(minutes=1)
"""Between two looks for a key that is not known: strangers can name any."""
TRY_AGAIN = timedelta(seconds=10)
"""After an issuer has not answered."""
KEYS_MAX = 64
ISSUERS_MAX = 32
CLAIM_MAX = 500
"""Characters of a claim that rules can be about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A token of which it is known that its issuer signed it."""

    claims: Mapping[str, Any]
    digest: str
    """Of what was signed. The same for any spelling of the signature, so that a token can be told
    from one that was used before."""


class Issuers:
    """Checks tokens. Any number of threads may use it."""

    def __init__(self, web: Web, now: Callable[[], datetime]) -> None:
        self._web = web
        self._now = now
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, _Keys] = OrderedDict()

    def check(self, token: str, federation: Federation) -> Signed:
        """What a token of this federation's issuer says. Raises `Denied` with the step that failed,
        and `Unavailable` when nothing can be said now."""
        algorithm, kid = _header(token)
        signed = self._signed(token, algorithm, self._keys_of(federation).find(kid, algorithm))
        check_claims(signed.claims, federation, self._now())
        return signed

    def _signed(self, token: str, algorithm: str, key: PyJWK) -> Signed:
        import jwt

        try:
            # The claims are checked one by one, against our own clock.
            claims = jwt.decode(token, key, algorithms=[algorithm], options=SIGNATURE_ONLY)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Denied("the token is not signed by its issuer") from error
        what = token.rpartition(".")[0].encode()
        return Signed(claims=claims, digest=hashlib.sha256(what).hexdigest())

    def _keys_of(self, federation: Federation) -> _Keys:
        place = f"{federation.issuer} {federation.jwks_uri}"
        with self._lock:
            keys = self._keys.setdefault(place, _Keys(self._web, self._now, federation))
            self._keys.move_to_end(place)
            while len(self._keys) > ISSUERS_MAX:
                self._keys.popitem(last=False)
            return keys


def issuer_of(token: str) -> str:
    """Whom a token names as its issuer; proves nothing yet. Raises `Denied`."""
    import jwt

    if len(token) > TOKEN_MAX or not token.isascii():
        raise Denied("this is no token of an issuer")
    _header(token)
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Denied("this is no token of an issuer") from error
    if not isinstance(issuer, str):
        raise Denied("the token names no issuer")
    return issuer


def _header(token: str) -> tuple[str, str]:
    """Algorithm and key id. Raises `Denied`."""
    import jwt

    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise Denied("this is no token of an issuer") from error
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Denied(f"tokens are signed with {' or '.join(ALGORITHMS)} here")
    if not isinstance(kid, str) or not kid or len(kid) > CLAIM_MAX:
        raise Denied("the token does not say which key it is signed with")
    if "crit" in header:
        raise Denied("the token asks for an extension that is not known here")
    return algorithm, kid


def check_claims(claims: Mapping[str, Any], federation: Federation, now: datetime) -> None:
    """Raise `Denied` unless a token is of this issuer, for our audience, and for now."""
    if claims.get("iss") != federation.issuer:
        raise Denied("the token is of another issuer")
    if claims.get("aud") not in (federation.audience, [federation.audience]):
        raise Denied(f"the token is not for {federation.audience} alone")
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    at, skew = now.timestamp(), SKEW.total_seconds()
    if at > expires + skew:
        raise Denied("the token has expired")
    if at < issued - skew or at < _time(claims, "nbf", default=issued) - skew:
        raise Denied("the token is not valid yet")
    if expires - issued > LIFE_MAX.total_seconds():
        raise Denied(f"the token lives longer than {LIFE_MAX.total_seconds() / 3600:g} hours")


def _time(claims: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    value = claims.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise Denied(f"the token has no usable {name}")
    return value


def plain_claims(claims: Mapping[str, Any]) -> dict[str, str]:
    """The claims that rules can be about: texts, numbers and yes or no, as text."""
    found: dict[str, str] = {}
    for name, value in claims.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, (str, int)) and len(text) <= CLAIM_MAX and text.isprintable():
            found[name] = text
    return found


class _Keys:
    """The public keys of one issuer, by their id."""

    def __init__(self, web: Web, now: Callable[[], datetime], federation: Federation) -> None:
        self._web = web
        self._now = now
        self._issuer = federation.issuer
        self._jwks_uri = federation.jwks_uri
        self._looking = threading.Lock()
        self._looked_at: datetime | None = None
        self._failed_at: datetime | None = None
        self._known: Mapping[str, Mapping[str, Any]] = {}

    def find(self, kid: str, algorithm: str) -> PyJWK:
        """Raises `Denied` when the issuer has no such key, and `Unavailable` when it is silent."""
        import jwt

        if self._is_time_to_look(kid):
            self._look()
        entry = self._known.get(kid)
        if entry is None:
            raise Denied("the token is signed with a key that its issuer does not show")
        _check_key(entry, algorithm)
        try:
            return jwt.PyJWK(dict(entry), algorithm=algorithm)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unavailable("a key of the issuer cannot be read") from error

    def _is_time_to_look(self, kid: str) -> bool:
        if self._looked_at is None:
            return True
        return self._now() - self._looked_at >= (KEEP_KEYS if kid in self._known else LOOK_AGAIN)

    def _look(self) -> None:
        # One at a time, and nobody waits: a flood of tokens must not take all threads.
        if not self._looking.acquire(blocking=False):
            raise Unavailable("the keys of the issuer are being read")
        try:
            if self._failed_at is not None and self._now() - self._failed_at < TRY_AGAIN:
                raise Unavailable(f"{self._issuer} did not answer a moment ago")
            try:
                self._known = self._read()
            except Unavailable:
                self._failed_at = self._now()
                raise
            self._looked_at, self._failed_at = self._now(), None
        finally:
            self._looking.release()

    def _read(self) -> Mapping[str, Mapping[str, Any]]:
        document = self._json(self._jwks_uri or self._discovered())
        entries = document.get("keys")
        if not isinstance(entries, list):
            raise Unavailable(f"the keys of {self._issuer} cannot be read")
        usable = [each for each in entries if isinstance(each, dict)]
        return {each["kid"]: each for each in usable[:KEYS_MAX] if isinstance(each.get("kid"), str)}

    def _discovered(self) -> str:
        document = self._json(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise Unavailable(f"{self._issuer} calls itself otherwise")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str) or not is_safe_url(uri, local=_is_here(urlsplit(self._issuer))):
            raise Unavailable(f"{self._issuer} does not say where its keys are")
        return uri

    def _json(self, url: str) -> Mapping[str, Any]:
        try:
            return json_object(self._web.get(url), "the answer of the issuer")
        except Denied as error:
            raise Unavailable(f"{url}: {error.message}") from error


def _check_key(entry: Mapping[str, Any], algorithm: str) -> None:
    kind, curve = ALGORITHMS[algorithm]
    fits = (
        entry.get("kty") == kind
        and entry.get("crv", "") == curve
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
    )
    if fits and kind == "RSA":
        # Six bits a character; the leading zeros of a modulus are not written.
        modulus = entry.get("n")
        fits = isinstance(modulus, str) and len(modulus) * 6 >= RSA_BITS_MIN
    if not fits:
        raise Denied(f"the key is not one for {algorithm}")


def is_safe_url(url: str, *, local: bool = True) -> bool:
    """Whether an issuer's answers may be fetched from there: over TLS, or from this computer where
    that is to be allowed."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.username is not None or not parts.hostname or parts.fragment or port == 0:
        return False
    return parts.scheme == "https" or (local and parts.scheme == "http" and _is_here(parts))


def _is_here(parts: SplitResult) -> bool:
    return parts.hostname in ("127.0.0.1", "::1", "localhost")
