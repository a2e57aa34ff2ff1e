"""What the codes of AWS mean, and how what botocore raises becomes a `ProviderError`.

Codes: "Error codes for the Amazon EC2 API" and "Common errors" of the API references; the classes
are those of the project's cloud reference, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError

ENDED = "Ended"
"""Our own code: the machine of a launch key has ended."""
UNREADABLE = "UnreadableAnswer"
"""Our own code: an answer of no kind that AWS gives, from something in front of it."""
TOKEN_OF_ENDED = "IdempotentInstanceTerminated"
"""What EC2 may say to a token whose machine has ended, in place of the first answer."""
TOKEN_MISMATCH = "IdempotentParameterMismatch"
NO_SUCH_INSTANCE = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})

ERROR_CLASSES: Mapping[str, ErrorClass] = {
    "InsufficientCapacity": ErrorClass.CAPACITY_ZONE,
    "InsufficientFreeAddressesInSubnet": ErrorClass.CAPACITY_ZONE,
    "InsufficientHostCapacity": ErrorClass.CAPACITY_ZONE,
    "InsufficientInstanceCapacity": ErrorClass.CAPACITY_ZONE,
    "InsufficientVolumeCapacity": ErrorClass.CAPACITY_ZONE,
    "ReservationCapacityExceeded": ErrorClass.CAPACITY_ZONE,
    "SpotMaxPriceTooLow": ErrorClass.CAPACITY_ZONE,
    "UnfulfillableCapacity": ErrorClass.CAPACITY_ZONE,
    "AddressLimitExceeded": ErrorClass.QUOTA,
    "InstanceLimitExceeded": ErrorClass.QUOTA,
    "MaxFleetCountExceeded": ErrorClass.QUOTA,
    "MaxSpotInstanceCountExceeded": ErrorClass.QUOTA,
    "NetworkInterfaceLimitExceeded": ErrorClass.QUOTA,
    "VcpuLimitExceeded": ErrorClass.QUOTA,
    "VolumeLimitExceeded": ErrorClass.QUOTA,
    "AccessDenied": ErrorClass.AUTH,
    "AccessDeniedException": ErrorClass.AUTH,
    "AuthFailure": ErrorClass.AUTH,
    "Blocked": ErrorClass.AUTH,
    "ExpiredToken": ErrorClass.AUTH,
    "ExpiredTokenException": ErrorClass.AUTH,
    "IncompleteSignature": ErrorClass.AUTH,
    "InvalidClientTokenId": ErrorClass.AUTH,
    "MissingAuthenticationToken": ErrorClass.AUTH,
    "OptInRequired": ErrorClass.AUTH,
    "PendingVerification": ErrorClass.AUTH,
    "RequestExpired": ErrorClass.AUTH,
    "SignatureDoesNotMatch": ErrorClass.AUTH,
    "UnauthorizedOperation": ErrorClass.AUTH,
    "UnrecognizedClientException": ErrorClass.AUTH,
    TOKEN_MISMATCH: ErrorClass.INVALID,
    "MissingInput": ErrorClass.INVALID,
    "MissingParameter": ErrorClass.INVALID,
    "OperationNotPermitted": ErrorClass.INVALID,
    "ParamValidationError": ErrorClass.INVALID,
    "ParameterNotFound": ErrorClass.INVALID,
    "UnknownParameter": ErrorClass.INVALID,
    "Unsupported": ErrorClass.INVALID,
    "UnsupportedOperation": ErrorClass.INVALID,
    "VPCIdNotSpecified": ErrorClass.INVALID,
    "VPCResourceNotSpecified": ErrorClass.INVALID,
    "ValidationException": ErrorClass.INVALID,
    "EC2ThrottledException": ErrorClass.THROTTLE,
    "RequestLimitExceeded": ErrorClass.THROTTLE,
    "Throttling": ErrorClass.THROTTLE,
    "ThrottlingException": ErrorClass.THROTTLE,
    "TooManyRequestsException": ErrorClass.THROTTLE,
    ENDED: ErrorClass.TRANSIENT,
    "DeadlineExceeded": ErrorClass.TRANSIENT,
    TOKEN_OF_ENDED: ErrorClass.TRANSIENT,
    "IncorrectInstanceState": ErrorClass.TRANSIENT,
    "InternalError": ErrorClass.TRANSIENT,
    "InternalFailure": ErrorClass.TRANSIENT,
    "InvalidInstanceID.NotFound": ErrorClass.TRANSIENT,
    "InvalidLaunchTemplateId.NotFound": ErrorClass.TRANSIENT,
    "InvalidLaunchTemplateName.NotFoundException": ErrorClass.TRANSIENT,
    "InvalidNetworkInterface.InUse": ErrorClass.TRANSIENT,
    "RequestTimeout": ErrorClass.TRANSIENT,
    "ServerInternal": ErrorClass.TRANSIENT,
    "ServiceUnavailable": ErrorClass.TRANSIENT,
    UNREADABLE: ErrorClass.TRANSIENT,
    "Unavailable": ErrorClass.TRANSIENT,
    "VolumeInUse": ErrorClass.TRANSIENT,
}
"""From raw code to class. `InvalidInstanceID.NotFound` is transient because listings lag behind a
launch: by itself it is no proof that the machine does not exist. So do launch templates, which are
made when they are missing."""

_PREFIXES: Mapping[str, ErrorClass] = {
    "AuthFailure.": ErrorClass.AUTH,
    "Invalid": ErrorClass.INVALID,
}
"""Codes that come in many forms: `InvalidParameterValue`, `InvalidAMIID.NotFound` and so on."""
_STATUSES: Mapping[str, ErrorClass] = {
    "401": ErrorClass.AUTH,
    "403": ErrorClass.AUTH,
    "429": ErrorClass.THROTTLE,
    **{str(status): ErrorClass.TRANSIENT for status in (500, 502, 503, 504)},
}
"""An answer that says nothing but its HTTP status, from something in front of the service."""
_CREDENTIALS = frozenset(
    {
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
"""What botocore raises when it finds no usable credentials."""
_LONGEST_MESSAGE = 500


def error_class(code: str, message: str = "") -> ErrorClass | None:
    """What a raw code means; None for one that is in no table."""
    if code == "InvalidParameterValue" and "Invalid IAM Instance Profile" in message:
        return ErrorClass.TRANSIENT  # a profile made a moment ago is not known everywhere yet
    by_prefix = (found for prefix, found in _PREFIXES.items() if code.startswith(prefix))
    return ERROR_CLASSES.get(code) or _STATUSES.get(code) or next(by_prefix, None)


def refusal(
    code: str,
    message: str,
    *,
    retry_after_s: float | None = None,
    whole_region: bool = False,
    means: ErrorClass | None = None,
) -> ProviderError:
    """The error to raise for a raw code. Without capacity in a `whole_region`, no zone of it has
    any; `means` is for a place where a code means something else than the table says."""
    found = means or error_class(code, message)
    if found is ErrorClass.CAPACITY_ZONE and whole_region:
        found = ErrorClass.CAPACITY_REGION
    return ProviderError(
        f"{code}: {message[:_LONGEST_MESSAGE]}",
        error_class=found or ErrorClass.TRANSIENT,
        raw_code=code,
        retry_after_s=retry_after_s,
        known=found is not None,
    )


def code_of(error: Any) -> str:
    """The code in a botocore `ClientError`."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def answered(*, whole_region: bool = False) -> Iterator[None]:
    """Whatever botocore raises inside comes out as `ProviderError`."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _refused(error, whole_region=whole_region) from error
    except BotoCoreError as error:
        raise _unanswered(error) from error
    except (ResponseParserError, LookupError) as error:
        raise refusal(UNREADABLE, f"{type(error).__name__}: {error}") from error


def _refused(error: Any, *, whole_region: bool) -> ProviderError:
    message = str(error.response.get("Error", {}).get("Message", ""))
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    wait = str(headers.get("retry-after", ""))
    return refusal(
        code_of(error),
        f"{error.operation_name}: {message}",
        retry_after_s=float(wait) if wait.isdecimal() else None,
        whole_region=whole_region,
    )


def _unanswered(error: Exception) -> ProviderError:
    """No answer, or none that can be read: whether the call was carried out is unclear. Without
    credentials it was never made."""
    code = type(error).__name__
    means = ErrorClass.AUTH if code in _CREDENTIALS else error_class(code) or ErrorClass.TRANSIENT
    return refusal(code, str(error), means=means)
