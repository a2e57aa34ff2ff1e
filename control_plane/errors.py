"""Every error orchctl raises on purpose, as one tree.

    OrchctlError                     what happened, and what to do next
    ├── NotFound                     no such queue, job, machine, autoscaler
    ├── Conflict                     somebody else was first: read again, then repeat
    │   ├── StaleEpoch               a late writer; the lease belongs to somebody else now
    │   └── FencedOut                another controller has taken over; stop acting
    ├── Refused                      the request makes no sense for what is there
    ├── InvalidInput                 the request itself is wrong
    │   └── ConfigError              a configuration text, with file, line and column
    ├── Denied                       who you are does not allow it
    │   └── RoleNeeded               your role does not; says which one does
    ├── TooManyRequests              more than anybody may send; says when to come again
    ├── Unavailable                  a part that is needed does not answer; try again
    └── ProviderError                a cloud said no; carries class, scope and code

An error's text is written for the person who reads it; programs decide on the class and `code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from control_plane.core.model import ErrorClass


class OrchctlError(Exception):
    """Something went wrong that orchctl knows about."""

    code = "error"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        """What to do next, as one sentence; may be empty."""


class NotFound(OrchctlError):
    """There is nothing of that name."""

    code = "not-found"


class Conflict(OrchctlError):
    """It changed since it was read."""

    code = "conflict"


class StaleEpoch(Conflict):
    """The lease this writer holds is over."""

    code = "stale-epoch"


class FencedOut(Conflict):
    """Another controller holds the lease with a newer generation."""

    code = "fenced-out"


class Refused(OrchctlError):
    """Understood, but not possible as things are."""

    code = "refused"


class InvalidInput(OrchctlError):
    """The request is wrong in itself."""

    code = "invalid-input"


class Denied(OrchctlError):
    """Not allowed for this identity."""

    code = "denied"


class RoleNeeded(Denied):
    """The role of this identity does not reach so far."""

    code = "role-needed"


class TooManyRequests(OrchctlError):
    """More requests than anybody may send in this time."""

    code = "too-many-requests"
    retry_after_s = 1.0
    """After so long the next one is answered, in seconds."""
    limit: Mapping[str, str] = MappingProxyType({})
    """The limit that was reached, as headers."""

    def __init__(
        self,
        message: str,
        *,
        fix: str = "",
        retry_after_s: float = 1.0,
        limit: Mapping[str, str] = limit,
    ) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s
        self.limit = limit


class Unavailable(OrchctlError):
    """A part that is needed does not answer now."""

    code = "unavailable"


class ProviderError(OrchctlError):
    """A provider refused or failed; `error_class` alone decides what happens next."""

    code = "provider-error"

    def __init__(
        self,
        message: str,
        *,
        error_class: ErrorClass,
        raw_code: str,
        retry_after_s: float | None = None,
        known: bool = True,
    ) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.raw_code = raw_code
        """The cloud's own code, unchanged."""
        self.retry_after_s = retry_after_s
        """What the cloud asked us to wait, in seconds."""
        self.known = known
        """Whether the code stands in the provider's table; `error_class` is a guess otherwise."""
