"""What Azure's refusals mean: a table of codes, a few rules for texts, and where to look in them.

Azure wraps: the code of an answer is often that of its outermost layer (`DeploymentFailed`), and
the one that says why lies some layers of `details` below. The innermost code that the table knows
decides. Codes: learn.microsoft.com, "Error codes and error messages for Azure Spot VMs", "Resolve
common Azure deployment errors", and "Troubleshoot allocation failures".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.core.rest import HttpResponse

_CODES: Mapping[ErrorClass, str] = {
    ErrorClass.CAPACITY_ZONE: "ZonalAllocationFailed OverconstrainedZonalAllocationRequest",
    ErrorClass.CAPACITY_REGION: (
        "AllocationFailed OverconstrainedAllocationRequest SpotPriceGreaterThanProvidedMaxPrice "
        "SubnetIsFull"
    ),
    ErrorClass.QUOTA: "QuotaExceeded PublicIPCountLimitReached",
    ErrorClass.AUTH: (
        "AuthorizationFailed InvalidAuthenticationToken InvalidAuthenticationTokenTenant "
        "ExpiredAuthenticationToken LinkedAuthorizationFailed ReadOnlyDisabledSubscription "
        "SubscriptionNotRegistered SubscriptionNotFound MissingSubscriptionRegistration "
        "RequestDisallowedByPolicy AzureSpotFeatureNotEnabledForSubscription ScopeLocked"
    ),
    ErrorClass.INVALID: (
        "InvalidParameter InvalidTemplate BadRequest ImageNotFound PlatformImageNotFound "
        "VMImageNotFound PropertyChangeNotAllowed AzureSpotIsNotSupportedForThisVMSize "
        "MaxPriceValueInvalid ResourceGroupNotFound InvalidResourceReference "
        "LocationNotAvailableForResourceType"
    ),
    ErrorClass.THROTTLE: "TooManyRequests",
    ErrorClass.TRANSIENT: (
        "InternalServerError InternalOperationError InternalExecutionError RetryableError "
        "OperationPreempted AnotherOperationInProgress ServerTimeout OSProvisioningTimedOut"
    ),
}
ERROR_CLASSES: Mapping[str, ErrorClass] = {
    code: error_class for error_class, codes in _CODES.items() for code in codes.split()
}
"""What a code means where neither market nor text matters."""

_BY_STATUS: Mapping[int, ErrorClass] = {
    401: ErrorClass.AUTH,
    403: ErrorClass.AUTH,
    408: ErrorClass.TRANSIENT,
    429: ErrorClass.THROTTLE,
}
_QUOTA_TEXTS = ("lowprioritycores", "cores quota", "total regional cores")
_THROTTLE_TEXTS = ("too many requests", "throttled", "retry after", "try again after")


def error_class(code: str, text: str, *, spot: bool = False) -> ErrorClass | None:
    """What a code and its text mean; None when no rule knows. A type that is "not available" is a
    lack of capacity on the spot market, and a wish that will never come true elsewhere."""
    if code == "SkuNotAvailable":
        return ErrorClass.CAPACITY_REGION if spot else ErrorClass.INVALID
    if code == "OperationNotAllowed":
        return _not_allowed(text.lower())
    return ERROR_CLASSES.get(code)


def refused(
    error: Mapping[str, Any], *, spot: bool = False, status: int = 0, retry_after_s: float = 0
) -> ProviderError:
    """The refusal that an error of the resource manager stands for: of an answer, of an operation
    that failed, or of a machine's instance view."""
    layers = [layer for layer in _layers(error) if layer[0]] or [(f"Http{status}", "no text")]
    meant = next(
        (layer for layer in reversed(layers) if error_class(*layer, spot=spot)), layers[-1]
    )
    found = error_class(*meant, spot=spot) or _by_status(status)
    code, text = meant
    return ProviderError(
        text or code,
        error_class=found or ErrorClass.TRANSIENT,
        raw_code=code,
        retry_after_s=retry_after_s or None,
        known=found is not None,
    )


def ended(name: str) -> ProviderError:
    """The machine of a key has ended: the key starts nothing any more."""
    return ProviderError(
        f"machine {name} has ended", error_class=ErrorClass.TRANSIENT, raw_code="Ended"
    )


@contextmanager
def told(*, spot: bool = False) -> Iterator[None]:
    """Turn what the SDK raises into a `ProviderError`, and what comes of reading an answer that is
    none of Azure's: something in between has spoken."""
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise _translated(error, spot=spot) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProviderError(
            f"an answer that cannot be read: {type(error).__name__}: {error}",
            error_class=ErrorClass.TRANSIENT,
            raw_code="UnreadableAnswer",
        ) from error


def is_gone(error: AzureError) -> bool:
    """Whether the resource manager says that there is no such resource, or nothing around it."""
    response: HttpResponse | None = getattr(error, "response", None)
    if response is None or response.status_code != 404:
        return False
    code = _body(response).get("code", "")
    return code in ("ResourceNotFound", "NotFound", "ResourceGroupNotFound")


# ------------------------------------------------------------------------------------ inside


def _not_allowed(text: str) -> ErrorClass | None:
    if any(part in text for part in _QUOTA_TEXTS):
        return ErrorClass.QUOTA
    return ErrorClass.THROTTLE if any(part in text for part in _THROTTLE_TEXTS) else None


def _by_status(status: int) -> ErrorClass | None:
    return ErrorClass.TRANSIENT if status >= 500 else _BY_STATUS.get(status)


def _layers(error: object) -> Iterator[tuple[str, str]]:
    """Code and text of each layer, the outer ones first."""
    if not isinstance(error, Mapping):
        return
    code, text = str(error.get("code") or ""), str(error.get("message") or "")
    yield code, text
    yield from _layers(error.get("innererror"))
    yield from _layers(_written_in(text))
    details = error.get("details")
    for inner in details if isinstance(details, list) else ():
        yield from _layers(inner)


def _written_in(text: str) -> object:
    """An error that is written as JSON in the text of another, as deployments do."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        inner = json.loads(text)
    except ValueError:
        return None
    return inner.get("error", inner) if isinstance(inner, dict) else None


def _translated(error: AzureError, *, spot: bool) -> ProviderError:
    from azure.core.exceptions import ClientAuthenticationError

    response: HttpResponse | None = getattr(error, "response", None)
    if response is not None:
        return refused(
            _body(response),
            spot=spot,
            status=response.status_code,
            retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
        )
    # Without an answer it is the credentials that failed, or the way to Azure.
    failed = isinstance(error, ClientAuthenticationError)
    return ProviderError(
        str(error),
        error_class=ErrorClass.AUTH if failed else ErrorClass.TRANSIENT,
        raw_code=type(error).__name__,
    )


def _body(response: HttpResponse) -> Mapping[str, Any]:
    try:
        body = json.loads(response.text())
    except ValueError:
        return {}
    error = body.get("error", body) if isinstance(body, dict) else {}
    return error if isinstance(error, dict) else {}


def _retry_after_s(header: str) -> float:
    """Seconds to wait, from either form of the header (RFC 9110, section 10.2.3); 0 = not said."""
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
