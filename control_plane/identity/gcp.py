"""GCP: Google signs a token that names the machine, for our address and nonce only; and one that
names the service account in whose name Pub/Sub pushes.

Source: Compute Engine, "Verifying the identity of instances" (tokens of format `full`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from control_plane.core.model import Machine
from control_plane.errors import Denied, Unavailable
from control_plane.identity.verifier import CLOCK_SKEW, SIGNATURE_ONLY, known, part
from control_plane.identity.web import Web

if TYPE_CHECKING:
    from jwt import PyJWK

KEYS_URL = "https://www.googleapis.com/oauth2/v3/certs"
ISSUER = "https://accounts.google.com"
KEEP_KEYS = timedelta(hours=1)
"""Google changes its keys within days, and shows new ones before it uses them."""
LOOK_AGAIN = timedelta(minutes=1)
"""Between two looks for a key that is not known: strangers can name any."""

PUSH_ACCOUNT = "orchctl-notices"
"""The service account in whose name Pub/Sub pushes; it needs no role."""
_ACCOUNT = re.compile(PUSH_ACCOUNT + r"@([a-z0-9.-]+)\.iam\.gserviceaccount\.com")
"""In a project that belongs to a domain: `NAME@PROJECT.DOMAIN.iam…`."""


class GcpIdentity:
    """`Verifier` of Compute Engine instances."""

    def __init__(self, web: Web, now: Callable[[], datetime], *, server_url: str) -> None:
        """`server_url` is where agents reach this server, as their start-up texts name it."""
        self._server_url = server_url.rstrip("/")
        self._tokens = _Tokens(web, now)

    def check(self, machine: Machine, proof: Mapping[str, str], nonce: str) -> None:
        """As `Verifier.check`."""
        token = part(proof, "token")
        claims = self._tokens.claims(token, f"{self._server_url}/{nonce}", "this server and nonce")
        _check_instance(claims, machine)
        _check_account(claims, machine.options.get("service_account", ""))


class PushIdentity:
    """Who sends a push of Pub/Sub: a service account, by a token that Google signs for the address
    of the push.

    Source: Pub/Sub, "Authentication for push subscriptions". Any account of anybody can get a token
    for any address; so it must be one of a name of ours, and speaks for the project it is in alone:
    who may make accounts there may end machines there as well."""

    def __init__(self, web: Web, now: Callable[[], datetime], *, audience: str) -> None:
        """`audience` is the address of the push, as the subscription names it."""
        self._audience = audience
        self._tokens = _Tokens(web, now)

    def scope(self, token: str) -> str:
        """What the provider ids of the machines begin with that the sender may speak of. Raises
        `Denied`, and `Unavailable` when nothing can be said now."""
        claims = self._tokens.claims(token, self._audience, "this address")
        email = claims.get("email")
        account = _ACCOUNT.fullmatch(email) if isinstance(email, str) else None
        if account is None or claims.get("email_verified") is not True:
            raise Denied(f"the token is not of a service account named {PUSH_ACCOUNT}")
        name, _, domain = account[1].partition(".")
        project = f"{domain}:{name}" if domain else name
        return f"projects/{project}/"


class _Tokens:
    """Tokens that Google signs."""

    def __init__(self, web: Web, now: Callable[[], datetime]) -> None:
        self._now = now
        self._keys = _Keys(web, now)

    def claims(self, token: str, audience: str, whom: str) -> dict[str, Any]:
        """What a token says, once it is known that Google says it, now and for this audience; for
        people `whom`. Raises `Denied`."""
        claims = self._signed_claims(token)
        if claims.get("iss") != ISSUER:
            raise Denied("the token is not issued by Google")
        if claims.get("aud") != audience:
            raise Denied(f"the token is not for {whom}")
        self._check_times(claims)
        return claims

    def _signed_claims(self, token: str) -> dict[str, Any]:
        import jwt  # here, since reading it takes half a second

        try:
            key = self._keys.find(str(jwt.get_unverified_header(token).get("kid")))
            # The claims are checked one by one, against our own clock.
            return jwt.decode(token, key, algorithms=["RS256"], options=SIGNATURE_ONLY)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise Denied(f"the token is not signed by Google: {error}") from error

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._now().timestamp()
        skew = CLOCK_SKEW.total_seconds()
        issued, expires = claims.get("iat"), claims.get("exp")
        if not (isinstance(issued, int) and isinstance(expires, int)):
            raise Denied("the token has no times")
        if now > expires + skew:
            raise Denied("the token has expired")
        if now < issued - skew:
            raise Denied("the token is from the future")


class _Keys:
    """Google's public keys, by their id."""

    def __init__(self, web: Web, now: Callable[[], datetime]) -> None:
        self._web = web
        self._now = now
        self._known: tuple[datetime, dict[str, PyJWK]] | None = None

    def find(self, kid: str) -> PyJWK:
        """Raises `Denied` when Google has no such key."""
        at, keys = self._known or self._look()
        if self._now() - at >= (KEEP_KEYS if kid in keys else LOOK_AGAIN):
            _, keys = self._look()
        if kid not in keys:
            raise Denied("the token is signed with a key that is not Google's")
        return keys[kid]

    def _look(self) -> tuple[datetime, dict[str, PyJWK]]:
        self._known = self._now(), _read_keys(self._web.get(KEYS_URL))
        return self._known


def _read_keys(body: bytes) -> dict[str, PyJWK]:
    import jwt

    try:
        entries = json.loads(body)["keys"]
        return {
            entry["kid"]: jwt.PyJWK(entry, algorithm="RS256")
            for entry in entries
            if entry["kty"] == "RSA"
        }
    except (ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
        raise Unavailable("Google's keys cannot be read") from error


def _check_instance(claims: Mapping[str, Any], machine: Machine) -> None:
    google = claims.get("google")
    instance = google.get("compute_engine") if isinstance(google, dict) else None
    if not isinstance(instance, dict):
        raise Denied("the token names no instance")
    # `provider_id` is `projects/P/zones/Z/instances/NAME`.
    project, zone, name = machine.provider_id.split("/")[1::2]
    expected = {
        "project_id": project,
        "zone": zone,
        "instance_name": name,
        "instance_id": known(machine, "vm_id"),
    }
    for what, value in expected.items():
        if instance.get(what) != value:
            raise Denied(f"the token is another machine's: its {what} differs")


def _check_account(claims: Mapping[str, Any], expected: str) -> None:
    if "@" in expected and (claims.get("email") != expected or not claims.get("email_verified")):
        raise Denied("the token is of another service account")
