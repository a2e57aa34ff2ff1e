"""What each refusal of Compute Engine means; the table is that of the cloud reference, section 5.

A refusal comes in one of two ways: as an HTTP answer with a `reason`, or after HTTP 200 inside an
operation that is done, with a `code`. Both are looked up in the same table. A code that is not
there counts as `transient` and says so (`known=False`), with the raw text kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

_ZONE, _REGION = ErrorClass.CAPACITY_ZONE, ErrorClass.CAPACITY_REGION
_QUOTA, _AUTH, _INVALID = ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID
_THROTTLE, _TRANSIENT = ErrorClass.THROTTLE, ErrorClass.TRANSIENT

ERROR_CLASSES: Mapping[str, ErrorClass] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": _ZONE,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": _ZONE,
    "insufficientCapacity": _ZONE,
    "RESOURCE_NOT_READY": _ZONE,
    "IP_SPACE_EXHAUSTED": _ZONE,
    "IP_SPACE_EXHAUSTED_WITH_DETAILS": _ZONE,
    "QUOTA_EXCEEDED": _QUOTA,
    "quotaExceeded": _QUOTA,
    "authError": _AUTH,
    "UNAUTHENTICATED": _AUTH,
    "forbidden": _AUTH,
    "PERMISSION_DENIED": _AUTH,
    "IAM_PERMISSION_DENIED": _AUTH,
    "accessNotConfigured": _AUTH,
    "SERVICE_DISABLED": _AUTH,
    "billingNotEnabled": _AUTH,
    "BILLING_DISABLED": _AUTH,
    "invalid": _INVALID,
    "badRequest": _INVALID,
    "required": _INVALID,
    "notFound": _INVALID,
    "RESOURCE_NOT_FOUND": _INVALID,
    "VPC_NOT_FOUND": _INVALID,
    "conditionNotMet": _INVALID,
    "UNSUPPORTED_OPERATION": _INVALID,
    "INVALID_FIELD_VALUE": _INVALID,
    "rateLimitExceeded": _THROTTLE,
    "userRateLimitExceeded": _THROTTLE,
    "RESOURCE_OPERATION_RATE_EXCEEDED": _THROTTLE,
    "RESOURCE_EXHAUSTED": _THROTTLE,
    "internalError": _TRANSIENT,
    "backendError": _TRANSIENT,
    "INTERNAL_ERROR": _TRANSIENT,
    "resourceNotReady": _TRANSIENT,
    "resourceInUseByAnotherResource": _TRANSIENT,
    "alreadyExists": _TRANSIENT,
    "RESOURCE_ALREADY_EXISTS": _TRANSIENT,
    "Ended": _TRANSIENT,
    "NoAnswer": _TRANSIENT,
    "NoCredentials": _AUTH,
}
"""From raw code to class; the last three are our own. `alreadyExists` is looked up before anybody
hears of it."""

STATUS_CLASSES: Mapping[int, ErrorClass] = {
    400: _INVALID,
    401: _AUTH,
    404: _INVALID,
    409: _TRANSIENT,
    412: _INVALID,
    429: _THROTTLE,
    500: _TRANSIENT,
    502: _TRANSIENT,
    503: _TRANSIENT,
    504: _TRANSIENT,
}
"""What an HTTP status means where the reason is not in the table."""

NAME_IS_TAKEN = frozenset({"alreadyExists", "RESOURCE_ALREADY_EXISTS"})

_QUOTA_OF_ZERO_RESTS_S = 86_400.0
_LIMIT = re.compile(r"\bLimit: *([0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A refusal as the cloud worded it."""

    code: str
    text: str
    status: int = 0
    """Of the HTTP answer; 0 = it came inside an operation."""
    retry_after_s: float | None = None
    quota_limit: float | None = None
    """The limit that was met, where the cloud says it."""

    def error(self) -> ProviderError:
        """What to raise."""
        found = _by_text(self) or ERROR_CLASSES.get(self.code) or STATUS_CLASSES.get(self.status)
        code = self.code or f"HTTP {self.status}"
        return ProviderError(
            self.text or code,
            error_class=found or ErrorClass.TRANSIENT,
            raw_code=code,
            retry_after_s=self._rest_s(found),
            known=found is not None,
        )

    def _rest_s(self, found: ErrorClass | None) -> float | None:
        """A quota of 0 does not fill up again: waiting for it is of no use."""
        if found is ErrorClass.QUOTA and _limit(self) == 0:
            return _QUOTA_OF_ZERO_RESTS_S
        return self.retry_after_s


def _by_text(refused: Refused) -> ErrorClass | None:
    """Codes that mean several things, told apart by what is said."""
    code, text = refused.code, refused.text
    if code == "UNSUPPORTED_OPERATION" and "preempt" in text.lower():
        return _ZONE  # taken back while it was being made
    if code == "RESOURCE_NOT_FOUND" and "/instances/" in text:
        return _ZONE  # it was gone right after the insert
    if code == "insufficientCapacity" and "regions/" in text:
        return _REGION
    return None


def _limit(refused: Refused) -> float | None:
    if refused.quota_limit is not None:
        return refused.quota_limit
    found = _LIMIT.search(refused.text)
    return float(found[1].rstrip(".")) if found else None


def refusal(code: str, text: str) -> ProviderError:
    """The error for a code of our own."""
    return Refused(code=code, text=text).error()
