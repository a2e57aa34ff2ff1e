"""Every refusal as `application/problem+json` (RFC 9457), each class of error with its status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from control_plane.agents import Gone
from control_plane.config.errors import ConfigError
from control_plane.core.codec import to_json
from control_plane.core.lifecycle import IllegalTransition
from control_plane.errors import (
    Conflict,
    Denied,
    InvalidInput,
    NotFound,
    OrchctlError,
    ProviderError,
    Refused,
    TooManyRequests,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
TYPES = "https://orchctl.dev/problems/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of several things that are wrong with a request."""

    pointer: str
    """JSON pointer into the body; `query:limit` or the like outside it; `file:line:column` in a
    configuration text."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    """Stable word for programs."""
    fix: str = ""
    """What to do next; may be empty."""
    errors: tuple[Fault, ...] = ()


class Unauthenticated(Denied):
    """Nobody we know sent this."""


class PreconditionFailed(Conflict):
    """It changed since it was read."""


class PreconditionRequired(OrchctlError):
    """The request must say which version it is about."""

    code = "precondition-required"


class KeyInFlight(Conflict):
    """The first request with this idempotency key is still being answered."""

    code = "idempotency-in-flight"


class KeyReused(InvalidInput):
    """This idempotency key belongs to another request."""

    code = "idempotency-key-reused"


class TooLarge(InvalidInput):
    """The request is larger than what is taken here."""

    code = "too-large"


class Misdirected(InvalidInput):
    """The request was meant for another server."""

    code = "misdirected"


class Malformed(InvalidInput):
    """The request cannot be read at all."""

    code = "malformed"


_STATUS: Sequence[tuple[type[Exception], int]] = (
    (Unauthenticated, 401),
    (Denied, 403),
    (NotFound, 404),
    (Gone, 410),
    (PreconditionFailed, 412),
    (PreconditionRequired, 428),
    (Conflict, 409),
    (Refused, 409),
    (TooLarge, 413),
    (Malformed, 400),
    (Misdirected, 421),
    (InvalidInput, 422),
    (TooManyRequests, 429),
    (Unavailable, 503),
    (ProviderError, 502),
)
"""The first class that fits decides, so a narrower one stands before a wider one."""

_HEADERS: Mapping[type[Exception], Mapping[str, str]] = {
    Unauthenticated: {"WWW-Authenticate": 'Bearer realm="orchctl"'},
    Unavailable: {"Retry-After": "1"},
    KeyInFlight: {"Retry-After": "1"},
}


_CODES: Mapping[int, str] = {400: Malformed.code, 413: TooLarge.code}
"""Of what the framework refuses and we refuse elsewhere by ourselves: one code for both."""


class Listed(Protocol):
    """A route, as far as a refusal names it."""

    @property
    def path(self) -> str | None:
        """Its pattern; None = it has none."""

    @property
    def methods(self) -> Collection[str] | None:
        """What it answers."""


def install(app: Starlette, routes: Callable[[], Iterable[Listed]]) -> None:
    """Make an app answer every expected error with a problem; `routes` are all that it has."""

    # Coroutines, because the framework would send a plain function to a thread.
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, OrchctlError), type(error)
        # For the log of whoever let the request in.
        request.state.refused = error
        return of_error(error)

    async def not_now(_request: Request, error: Exception) -> Response:
        return of_error(Refused(str(error)))

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), type(error)
        if error.status_code == 405:
            # The framework names only the methods of the first route with this path.
            error.headers = {"Allow": ", ".join(_allowed(request.url.path, routes()))}
        return of_http(error)

    app.add_exception_handler(OrchctlError, refused)
    app.add_exception_handler(IllegalTransition, not_now)
    app.add_exception_handler(HTTPException, no_route)


def of_error(error: OrchctlError) -> Response:
    """The answer to one of our own errors."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = next((extra for kind, extra in _HEADERS.items() if isinstance(error, kind)), {})
    if isinstance(error, TooManyRequests):
        headers = {"Retry-After": str(ceil(error.retry_after_s)), **error.limit}
    return respond(
        status,
        error.code,
        title=_title(type(error)),
        detail=error.message,
        fix=error.fix,
        errors=_config_faults(error) if isinstance(error, ConfigError) else (),
        headers=headers,
    )


def of_http(error: HTTPException) -> Response:
    """The answer to what the framework refuses: no such route, wrong method, unreadable body."""
    status = HTTPStatus(error.status_code)
    code = _CODES.get(status) or status.phrase.lower().replace(" ", "-")
    return respond(
        status, code, title=status.phrase, detail=error.detail, headers=error.headers or {}
    )


def of_faults(faults: Sequence[Fault]) -> Response:
    """The answer to a request with these values in it, at least one."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    first = f"{faults[0].pointer}: {faults[0].detail}{more}"
    return respond(422, InvalidInput.code, title=_title(InvalidInput), detail=first, errors=faults)


def unexpected(error_id: str) -> Response:
    """The answer to a fault of ours; `error_id` finds it in the server's log."""
    return respond(
        500,
        "internal",
        title="Something broke in the server",
        detail=f"The server failed to answer this request; its log says more under {error_id}.",
        fix="Try again; if it stays, report it with this id.",
    )


def respond(
    status: int,
    code: str,
    *,
    title: str,
    detail: str,
    fix: str = "",
    errors: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    body = Problem(
        type=TYPES + code,
        title=title,
        status=status,
        detail=detail,
        code=code,
        fix=fix,
        errors=tuple(errors),
    )
    return JSONResponse(to_json(body), int(status), dict(headers or {}), MEDIA_TYPE)


def _allowed(path: str, routes: Iterable[Listed]) -> Sequence[str]:
    """The methods that a path answers."""
    found = {
        method
        for route in routes
        if route.path and compile_path(route.path)[0].match(path)
        for method in route.methods or ()
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


def _title(kind: type[Exception]) -> str:
    return (kind.__doc__ or kind.__name__).partition("\n")[0].rstrip(".")


def _config_faults(error: ConfigError) -> Sequence[Fault]:
    return [
        Fault(
            pointer=each.place,
            detail=": ".join(part for part in (each.path, ". ".join(each.sentences)) if part),
        )
        for each in error.problems
    ]
