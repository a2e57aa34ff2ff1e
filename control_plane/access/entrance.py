"""Who may come in: tokens are made and known again here, and what a CI system's issuer signs is
exchanged for a session.

Why an exchange, and not the issuer's token with every request: a token can be taken once only, so
one that was stolen is of no use; its signature is checked once; and a job may run for longer than
the token lives. A session holds no right of its own: what it may do is looked up in the rules
in force at every request, so whoever is taken out of them is out at once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.access.oidc import LIFE_MAX, SKEW, Issuers, Signed, issuer_of, plain_claims
from control_plane.access.who import ADMIN, Identity
from control_plane.core.access import ALL_QUEUES, ApiToken, Federation, Grant, Role
from control_plane.core.model import Event
from control_plane.errors import Denied, InvalidInput, NotFound, Refused, Unavailable
from control_plane.ports import Clock, Ids, Store, StoredAnswer

TOKENS_MAX = 1000
"""Far more than people and programs; listing them stays one page."""
FEDERATIONS_MAX = 32
RESERVED = frozenset({ADMIN.actor, "orchctl"})
"""Who does something by the server's own token, and what it does by itself."""
SESSION = "orchctl_ci."
REMEMBERED_S = 24 * 3600.0
"""How long a token that was exchanged is known again. As long as answers to idempotency keys are
kept, since it is remembered in the same place."""
CLAIMS_MAX_BYTES = 2048
"""Of what a session carries of its token: it travels in a header."""

assert (LIFE_MAX + 2 * SKEW).total_seconds() < REMEMBERED_S, "a token could be used twice"

_TOKEN = re.compile(r"orchctl_(t-[a-z0-9-]{1,38})_[0-9a-f]{64}")
_ACTOR_UNSAFE = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a token of a CI system was exchanged for."""

    token: str
    identity: Identity


class Access:
    """Makes tokens, and says who sends one. Any number of threads may use it."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, issuers: Issuers, *, secret: bytes
    ) -> None:
        """`secret` signs sessions; at least 32 bytes."""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._issuers = issuers
        self._key = hashlib.sha256(b"ci sessions" + secret).digest()

    # ---------------------------------------------------------------------------- tokens

    def create(
        self, name: str, grant: Grant, *, expires_at: datetime | None, actor: str
    ) -> tuple[ApiToken, str]:
        """A new token: its record, and the token itself, which is shown this once. Raises `Refused`
        when there are too many, and `InvalidInput` for a grant that makes no sense."""
        now = self._clock.now()
        check_grant(grant)
        if name in RESERVED:
            raise InvalidInput(f"{name} is what the server itself is called in the log")
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("a token must expire in the future")
        if len(self._store.token_list()) >= TOKENS_MAX:
            raise Refused(
                f"there are {TOKENS_MAX} tokens", fix="revoke those that have expired first"
            )
        token_id = self._ids.new("t")
        token = f"orchctl_{token_id}_{secrets.token_hex(32)}"
        record = ApiToken(
            id=token_id,
            name=name,
            sha256=_sha256(token),
            grant=grant,
            created_at=now,
            created_by=actor,
            expires_at=expires_at,
        )
        self._store.token_put(record, expected_version=0)
        self._note(token_id, f"token made for {name}: {_told(grant)}", actor)
        return record, token

    def revoke(self, token_id: str, *, actor: str) -> None:
        """End a token now. Raises `NotFound`."""
        record = self._store.token_get(token_id)
        self._store.token_remove(token_id)
        self._note(token_id, f"token of {record.name} revoked", actor)

    # ------------------------------------------------------------------------ federations

    def apply(self, wanted: Federation, *, expected_version: int | None, actor: str) -> Federation:
        """Make this the federation of its name; the same again changes nothing. With an
        `expected_version` (0 = new) raises `Conflict` when somebody else applied in between."""
        current = self._federation(wanted.name)
        version = current.version if current else 0
        if current is None and len(self._store.federation_list()) >= FEDERATIONS_MAX:
            raise Refused(f"there are {FEDERATIONS_MAX} federations")
        for rule in wanted.rules:
            check_grant(rule.grant)
        if current is not None and expected_version in (None, version):
            same = replace(current, version=0, applied_at=wanted.applied_at, applied_by=actor)
            if same == replace(wanted, version=0, applied_by=actor):
                return current
        expected = version if expected_version is None else expected_version
        record = replace(
            wanted, version=expected + 1, applied_at=self._clock.now(), applied_by=actor
        )
        self._store.federation_put(record, expected_version=expected)
        self._note(record.name, f"federation applied: {len(record.rules)} rules", actor)
        return record

    def remove(self, name: str, *, actor: str) -> None:
        """Take no more tokens of it; its sessions end. Raises `NotFound`."""
        self._store.federation_get(name)
        self._store.federation_remove(name)
        self._note(name, "federation removed", actor)

    # --------------------------------------------------------------------------- coming in

    def identify(self, token: str) -> Identity:
        """Whose token or session this is. Raises `Denied`."""
        if token.startswith(SESSION):
            return self._session(token)
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise Denied("this token is not known here")
        record = self._token(found[1])
        if not hmac.compare_digest(record.sha256.encode(), _sha256(token).encode()):
            raise Denied("this token is not known here")
        return self._identity(record)

    def known(self, token_id: str) -> Identity:
        """Whose the token of this id is, for who has shown it before. Raises `Denied`."""
        return self._identity(self._token(token_id))

    def exchange(self, token: str, key: str) -> Session:
        """A session for what a CI system's issuer has signed, once. `key` is chosen by the sender:
        a repeat with the same one, as after a lost answer, is given the same session; with another
        one it is a replay. Raises `Denied`, and `Unavailable` when nothing can be said now."""
        try:
            federation, signed, claims = self._admitted(token)
        except ImportError as error:
            raise Unavailable(
                "this server cannot check tokens of issuers",
                fix="install it with `pip install 'orchctl[oidc]'`",
            ) from error
        expires = int(self._expiry(federation, signed).timestamp())
        kept = {name for rule in federation.rules for name in rule.claims}
        content = {
            "f": federation.name,
            "i": federation.issuer,
            "a": federation.audience,
            "s": claims["sub"],
            "c": {name: claims[name] for name in sorted(kept) if name in claims},
            "e": expires,
            "d": signed.digest[:16],
        }
        body = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
        if len(body) > CLAIMS_MAX_BYTES:
            raise Denied("the claims that the rules are about are too long")
        self._take(signed, key)
        session = SESSION + _base64(body) + "." + self._mac(body)
        identity = self._session(session)
        self._note(federation.name, f"session until {_iso(expires)}", identity.actor)
        return Session(token=session, identity=identity)

    def _admitted(self, token: str) -> tuple[Federation, Signed, Mapping[str, str]]:
        """The federation whose token this is and whose rules admit it."""
        issuer = issuer_of(token)
        mine = [each for each in self._store.federation_list() if each.issuer == issuer]
        if not mine:
            raise Denied("the token is of an issuer whose word is not taken here")
        refused = Denied("the token is not for us")
        for federation in mine:
            try:
                signed = self._issuers.check(token, federation)
            except Denied as error:
                refused = error
                continue
            claims = plain_claims(signed.claims)
            if not claims.get("sub"):
                raise Denied("the token names no subject")
            if federation.grant(claims) is not None:
                return federation, signed, claims
            refused = Denied(f"no rule of federation {federation.name} admits {claims['sub']}")
        raise refused

    def _take(self, signed: Signed, key: str) -> None:
        """Note that a token is used. Raises `Denied` when it was, by somebody with another key."""
        place, mark = f"oidc {signed.digest}", _sha256(key or secrets.token_hex(16))
        earlier = self._store.answer_begin(place, mark, now=self._clock.now(), keep_s=REMEMBERED_S)
        if earlier is None:
            self._store.answer_finish(place, StoredAnswer(fingerprint=mark, status=200))
        elif not hmac.compare_digest(earlier.fingerprint.encode(), mark.encode()):
            raise Denied("this token was used before: each is good for one session")

    @staticmethod
    def _expiry(federation: Federation, signed: Signed) -> datetime:
        """From the token's own time, so that a repeat is given the same session."""
        issued = datetime.fromtimestamp(signed.claims["iat"], UTC)
        return issued + timedelta(seconds=federation.session_s)

    # -------------------------------------------------------------------------- identities

    def _session(self, token: str) -> Identity:
        content = self._opened(token)
        expires_at = datetime.fromtimestamp(content["e"], UTC)
        if expires_at <= self._clock.now():
            raise Denied("this session is over")
        federation = self._federation(content["f"])
        unchanged = federation is not None and (federation.issuer, federation.audience) == (
            content["i"],
            content["a"],
        )
        grant = federation.grant(content["c"]) if federation and unchanged else None
        if grant is None:
            raise Denied("the rules that admitted this session have changed")
        actor = f"ci:{content['f']}:{_ACTOR_UNSAFE.sub('?', content['s'])}"
        return Identity(
            actor=actor[:200], grant=grant, key=f"ci {content['d']}", expires_at=expires_at
        )

    def _opened(self, token: str) -> Any:
        body, _, mac = token.removeprefix(SESSION).partition(".")
        try:
            content = base64.b64decode(
                body.encode() + b"=" * (-len(body) % 4), b"-_", validate=True
            )
        except ValueError:
            content = b""
        if not hmac.compare_digest(self._mac(content).encode(), mac.encode()):
            raise Denied("this session is not known here")
        return json.loads(content)

    def _identity(self, record: ApiToken) -> Identity:
        if record.expired(self._clock.now()):
            raise Denied("this token has expired")
        return Identity(
            actor=record.name, grant=record.grant, key=record.id, expires_at=record.expires_at
        )

    def _token(self, token_id: str) -> ApiToken:
        try:
            return self._store.token_get(token_id)
        except NotFound:
            raise Denied("this token is not known here") from None

    def _federation(self, name: str) -> Federation | None:
        try:
            return self._store.federation_get(name)
        except NotFound:
            return None

    def _mac(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()

    def _note(self, subject: str, text: str, actor: str) -> None:
        self._store.event_append(
            Event(at=self._clock.now(), kind="access", subject=subject, text=text, actor=actor)
        )


def check_grant(grant: Grant) -> None:
    """Raise `InvalidInput` for a grant that makes no sense."""
    if not grant.queues:
        raise InvalidInput("a grant needs a queue", fix=f"name some, or `{ALL_QUEUES}` for all")
    if grant.everywhere and len(grant.queues) > 1:
        raise InvalidInput(f"`{ALL_QUEUES}` stands alone: it is all queues")
    if grant.role is Role.ADMIN and not grant.everywhere:
        raise InvalidInput("an admin is one for all queues", fix="make it an operator")


def _told(grant: Grant) -> str:
    return f"{grant.role} for {'all queues' if grant.everywhere else ', '.join(grant.queues)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
