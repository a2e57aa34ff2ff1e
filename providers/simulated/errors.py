"""The refusals of the simulated cloud: codes as real clouds use them, and what each one means."""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

ERROR_CLASSES: Mapping[str, ErrorClass] = {
    "InsufficientInstanceCapacity": ErrorClass.CAPACITY_ZONE,
    "ZONE_RESOURCE_POOL_EXHAUSTED": ErrorClass.CAPACITY_ZONE,
    "ZonalAllocationFailed": ErrorClass.CAPACITY_ZONE,
    "AllocationFailed": ErrorClass.CAPACITY_REGION,
    "SkuNotAvailable": ErrorClass.CAPACITY_REGION,
    "MaxSpotInstanceCountExceeded": ErrorClass.QUOTA,
    "QuotaExceeded": ErrorClass.QUOTA,
    "VcpuLimitExceeded": ErrorClass.QUOTA,
    "AuthFailure": ErrorClass.AUTH,
    "ExpiredToken": ErrorClass.AUTH,
    "UnauthorizedOperation": ErrorClass.AUTH,
    "IdempotentParameterMismatch": ErrorClass.INVALID,
    "InvalidParameterValue": ErrorClass.INVALID,
    "Unsupported": ErrorClass.INVALID,
    "RequestLimitExceeded": ErrorClass.THROTTLE,
    "TooManyRequests": ErrorClass.THROTTLE,
    "AnswerLost": ErrorClass.TRANSIENT,
    "Ended": ErrorClass.TRANSIENT,
    "InternalError": ErrorClass.TRANSIENT,
    "InvalidInstanceID.NotFound": ErrorClass.TRANSIENT,
    "ServiceUnavailable": ErrorClass.TRANSIENT,
}
"""From raw code to class. `InvalidInstanceID.NotFound` is transient because a listing lags behind a
launch: it is no proof that the machine does not exist."""


def error_class(code: str) -> ErrorClass:
    """What a raw code means; an unknown one counts as transient."""
    return ERROR_CLASSES.get(code, ErrorClass.TRANSIENT)


def refusal(code: str, message: str, *, retry_after_s: float | None = None) -> ProviderError:
    """The error to raise for a raw code."""
    return ProviderError(
        message,
        error_class=error_class(code),
        raw_code=code,
        retry_after_s=retry_after_s,
        known=code in ERROR_CLASSES,
    )
