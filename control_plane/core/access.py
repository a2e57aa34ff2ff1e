"""Who may do what: roles, the tokens of people, and the rules by which CI systems come in.

Pure: who somebody is has been proven elsewhere (`control_plane/access/`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

ALL_QUEUES = "*"
"""Stands for every queue, and for what belongs to none; no queue has this name."""


class Role(StrEnum):
    """What somebody may do; each may do all that the ones before it may."""

    VIEWER = "viewer"
    """Look."""
    SUBMITTER = "submitter"
    """Hand in jobs, and cancel their own."""
    OPERATOR = "operator"
    """Everything with queues, jobs and machines."""
    ADMIN = "admin"
    """Documents, tokens and federations too."""

    @property
    def rank(self) -> int:
        """Grows with what a role may do."""
        return _RANKS[self]


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role, and the queues it is for."""

    role: Role
    queues: tuple[str, ...]
    """`ALL_QUEUES` alone for all of them. None = the grant allows nothing."""

    @property
    def everywhere(self) -> bool:
        """Whether it is for all queues, and so for documents, machines and costs too."""
        return ALL_QUEUES in self.queues

    def allows(self, role: Role, queue: str = ALL_QUEUES) -> bool:
        """Whether somebody with this grant may do what takes `role`, to a queue or to all."""
        return self.role.rank >= role.rank and (self.everywhere or queue in self.queues)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token of a person or program; the token itself is known to nobody but its owner."""

    id: str
    """Stands in the token itself, so that one look finds its record."""
    name: str
    """Whose it is: the actor of what is done with it."""
    sha256: str
    """Of the whole token, in lower-case hex. It holds 256 random bits, so a quick hash will do."""
    grant: Grant
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    """None = never."""
    version: int = 1

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who of an issuer may do what: all claims must match."""

    claims: Mapping[str, tuple[str, ...]]
    """By name: the patterns of which one must match. `*` stands for any characters but `/`, `**`
    for any at all."""
    grant: Grant

    def admits(self, claims: Mapping[str, str]) -> bool:
        """Whether these claims match."""
        return all(
            name in claims and any(matches(each, claims[name]) for each in patterns)
            for name, patterns in self.claims.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A CI system, or any other issuer of OpenID Connect tokens, whose word we take."""

    name: str
    issuer: str
    """Exactly as tokens name it."""
    audience: str
    """What tokens must be made for: ours, and nobody else's."""
    rules: tuple[Rule, ...]
    """The first that admits somebody decides."""
    session_s: int = 3600
    """How long somebody may go on with what one token was exchanged for."""
    jwks_uri: str = ""
    """Where the issuer's keys are; empty = where its discovery document says."""
    applied_at: datetime
    applied_by: str
    version: int = 1

    def grant(self, claims: Mapping[str, str]) -> Grant | None:
        """What these claims allow; None = nothing."""
        return next((rule.grant for rule in self.rules if rule.admits(claims)), None)


def matches(pattern: str, text: str) -> bool:
    """Whether a whole text is as a rule's pattern says. What is not a star stands for itself. Takes
    time by the product of their lengths at most, whatever a stranger names a branch."""
    reached = {0}
    for part in _PARTS.findall(pattern):
        if part[0] != "*":
            reached = {each + len(part) for each in reached if text.startswith(part, each)}
        elif part == "*":
            reached = {end for each in reached for end in range(each, _segment_end(text, each) + 1)}
        elif reached:
            reached = set(range(min(reached), len(text) + 1))
    return len(text) in reached


_PARTS = re.compile(r"\*+|[^*]+")


def _segment_end(text: str, start: int) -> int:
    end = text.find("/", start)
    return len(text) if end < 0 else end


PUBLIC_ISSUERS: Mapping[str, str] = {
    "https://token.actions.githubusercontent.com": "repository",
    "https://gitlab.com": "project_path",
}
"""Issuers that sign for everybody, each with the claim that says who it is."""

_WHOLE = frozenset(
    {
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "enterprise",
        "enterprise_id",
        "project_id",
        "namespace_path",
        "namespace_id",
    }
)
"""Claims that name an owner or a repository by themselves."""
_BEGINS_WITH_OWNER = frozenset({"repository", "project_path", "sub"})
"""Claims that begin with the owner, up to a slash. `job_workflow_ref` is none of them: anybody may
call a public workflow."""


def faults(federation: Federation) -> Sequence[tuple[str, str]]:
    """What would let strangers in: the place in the federation, and why. Empty = nothing seen."""
    found = [
        (f"/rules/{number}/claims", "a rule needs at least one claim, or it admits everybody")
        for number, rule in enumerate(federation.rules)
        if not any(pattern.strip("*") for each in rule.claims.values() for pattern in each)
    ]
    claim = PUBLIC_ISSUERS.get(federation.issuer)
    if claim is None:
        return found
    return found + [
        (
            f"/rules/{number}/claims",
            f"{federation.issuer} signs for everybody: name the owner, as in "
            f'`{claim}: "acme/train"` or `{claim}: "acme/*"`',
        )
        for number, rule in enumerate(federation.rules)
        if not any(_names_owner(name, each) for name, each in rule.claims.items())
    ]


def _names_owner(claim: str, patterns: Sequence[str]) -> bool:
    """Whether each pattern leaves no choice of the owner."""
    if claim in _WHOLE:
        return all("*" not in each for each in patterns)
    if claim not in _BEGINS_WITH_OWNER:
        return False
    return all("/" in each.partition("*")[0] for each in patterns)
