"""Every error the SDK raises, one class for each problem code of the API.

    OrchctlError                     what happened, and what to do next
    ├── NotFound                     no such queue, job, machine, autoscaler
    ├── Conflict                     somebody else was first: read again, then repeat
    │   ├── StaleEpoch               a late writer; the lease belongs to somebody else now
    │   ├── FencedOut                another controller has taken over
    │   ├── PreconditionRequired     the request must say which version it is about
    │   └── KeyInFlight              the first request with this idempotency key is not answered yet
    ├── Refused                      the request makes no sense for what is there
    ├── InvalidInput                 the request itself is wrong
    │   ├── ConfigError              a configuration text; `details` name the places
    │   ├── KeyReused                an idempotency key that belongs to another request
    │   ├── TooLarge                 more than the server takes at once
    │   └── Malformed                cannot be read at all
    ├── Denied                       who you are does not allow it
    │   └── RoleNeeded               your role does not; the message says which one does
    ├── TooManyRequests              more than the server answers in this time; wait, then repeat
    ├── Unavailable                  the server, or a part it needs, does not answer; try again
    └── ProviderError                a cloud said no

Each class carries the exit code that the command line ends with when nothing handles the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One of several things that are wrong."""

    pointer: str
    """JSON pointer into the request, or `file:line:column` of a configuration text."""
    text: str


class OrchctlError(Exception):
    """Something went wrong that orchctl knows about."""

    code = "error"
    exit_code = 1

    def __init__(
        self, message: str, *, why: str = "", fix: str = "", details: Sequence[Detail] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        """What is behind it; may be empty."""
        self.fix = fix
        """What to do next, as one sentence; may be empty."""
        self.details = tuple(details)


class NotFound(OrchctlError):
    """There is nothing of that name."""

    code = "not-found"
    exit_code = 4


class Conflict(OrchctlError):
    """It changed since it was read."""

    code = "conflict"
    exit_code = 6


class StaleEpoch(Conflict):
    """The lease this writer holds is over."""

    code = "stale-epoch"


class FencedOut(Conflict):
    """Another controller has taken over."""

    code = "fenced-out"


class PreconditionRequired(Conflict):
    """The request must say which version it is about."""

    code = "precondition-required"


class KeyInFlight(Conflict):
    """The first request with this idempotency key is still being answered."""

    code = "idempotency-in-flight"


class Refused(OrchctlError):
    """Understood, but not possible as things are."""

    code = "refused"


class InvalidInput(OrchctlError):
    """The request is wrong in itself."""

    code = "invalid-input"
    exit_code = 2


class ConfigError(InvalidInput):
    """A configuration text is wrong."""

    code = "config-error"


class KeyReused(InvalidInput):
    """This idempotency key belongs to another request."""

    code = "idempotency-key-reused"


class TooLarge(InvalidInput):
    """The request is larger than what the server takes."""

    code = "too-large"


class Misdirected(InvalidInput):
    """The request was meant for another server: it does not answer to that host name."""

    code = "misdirected"


class Malformed(InvalidInput):
    """The request cannot be read at all."""

    code = "malformed"


class Denied(OrchctlError):
    """Not allowed for this identity."""

    code = "denied"
    exit_code = 5


class RoleNeeded(Denied):
    """The role of this identity does not reach so far."""

    code = "role-needed"


class TooManyRequests(OrchctlError):
    """More requests than the server answers in this time."""

    code = "too-many-requests"
    exit_code = 7


class Unavailable(OrchctlError):
    """The server, or a part it needs, does not answer now."""

    code = "unavailable"
    exit_code = 7


class ProviderError(OrchctlError):
    """A cloud refused or failed."""

    code = "provider-error"


def _tree(kind: type[OrchctlError]) -> Iterator[type[OrchctlError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


BY_CODE = {kind.code: kind for kind in _tree(OrchctlError)}
"""From a problem's code to its class."""

BY_STATUS: dict[int, type[OrchctlError]] = {
    400: InvalidInput,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: TooLarge,
    422: InvalidInput,
    428: Conflict,
    429: TooManyRequests,
    500: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
"""For answers that are no problem document, such as a proxy's."""
