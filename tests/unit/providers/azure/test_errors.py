"""Every code of the table, alone and over real HTTP; where in an answer it is looked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from providers.azure.errors import ERROR_CLASSES, refused
from tests.unit.providers.azure.conftest import World

ZONE, REGION, QUOTA = ErrorClass.CAPACITY_ZONE, ErrorClass.CAPACITY_REGION, ErrorClass.QUOTA
AUTH, INVALID, THROTTLE = ErrorClass.AUTH, ErrorClass.INVALID, ErrorClass.THROTTLE
TRANSIENT = ErrorClass.TRANSIENT

LOW_PRIORITY = (
    "Operation could not be completed as it results in exceeding approved LowPriorityCores quota. "
    "Additional details - Deployment Model: Resource Manager, Location: eastus, Current Limit: 0"
)
FAMILY = (
    "Operation could not be completed as it results in exceeding approved "
    "standardNCASv3_T4Family Cores quota."
)
TOTAL = (
    "Operation could not be completed as it results in exceeding approved "
    "Total Regional Cores quota."
)

REFERENCE = [
    ("ZonalAllocationFailed", ZONE, 409),
    ("OverconstrainedZonalAllocationRequest", ZONE, 409),
    ("AllocationFailed", REGION, 409),
    ("OverconstrainedAllocationRequest", REGION, 409),
    ("SpotPriceGreaterThanProvidedMaxPrice", REGION, 409),
    ("QuotaExceeded", QUOTA, 409),
    ("PublicIPCountLimitReached", QUOTA, 400),
    ("AuthorizationFailed", AUTH, 403),
    ("InvalidAuthenticationToken", AUTH, 401),
    ("InvalidAuthenticationTokenTenant", AUTH, 401),
    ("ExpiredAuthenticationToken", AUTH, 401),
    ("LinkedAuthorizationFailed", AUTH, 403),
    ("ReadOnlyDisabledSubscription", AUTH, 409),
    ("SubscriptionNotRegistered", AUTH, 409),
    ("MissingSubscriptionRegistration", AUTH, 409),
    ("RequestDisallowedByPolicy", AUTH, 403),
    ("AzureSpotFeatureNotEnabledForSubscription", AUTH, 409),
    ("InvalidParameter", INVALID, 400),
    ("InvalidTemplate", INVALID, 400),
    ("BadRequest", INVALID, 400),
    ("ImageNotFound", INVALID, 404),
    ("PlatformImageNotFound", INVALID, 404),
    ("VMImageNotFound", INVALID, 404),
    ("PropertyChangeNotAllowed", INVALID, 409),
    ("AzureSpotIsNotSupportedForThisVMSize", INVALID, 409),
    ("MaxPriceValueInvalid", INVALID, 400),
    ("ResourceGroupNotFound", INVALID, 404),
    ("TooManyRequests", THROTTLE, 429),
    ("InternalServerError", TRANSIENT, 500),
    ("InternalOperationError", TRANSIENT, 500),
    ("InternalExecutionError", TRANSIENT, 500),
    ("RetryableError", TRANSIENT, 429),
    ("OperationPreempted", TRANSIENT, 409),
    ("AnotherOperationInProgress", TRANSIENT, 409),
    ("ServerTimeout", TRANSIENT, 504),
    ("OSProvisioningTimedOut", TRANSIENT, 409),
    # Beyond the project's cloud reference.
    ("InvalidResourceReference", INVALID, 400),
    ("LocationNotAvailableForResourceType", INVALID, 400),
    ("SubscriptionNotFound", AUTH, 404),
    ("ScopeLocked", AUTH, 409),
    ("SubnetIsFull", REGION, 400),
]
"""Code, class, and the status that the fake sends it with."""

BY_TEXT = [
    ("OperationNotAllowed", LOW_PRIORITY, QUOTA),
    ("OperationNotAllowed", FAMILY, QUOTA),
    ("OperationNotAllowed", TOTAL, QUOTA),
    ("OperationNotAllowed", "LowPriorityCores: 0 of 0 are left", QUOTA),
    ("OperationNotAllowed", "Total Regional Cores: 0 of 10 are left", QUOTA),
    ("OperationNotAllowed", "The request was throttled: try again after '5' minutes.", THROTTLE),
    ("OperationNotAllowed", "Too many requests for this subscription.", THROTTLE),
]


def wrapped(code: str, message: str = "why") -> dict[str, Any]:
    return {
        "code": "DeploymentFailed",
        "message": "At least one resource deployment operation failed.",
        "details": [
            {
                "code": "Conflict",
                "message": "conflict",
                "details": [{"code": code, "message": message}],
            }
        ],
    }


def launched(world: World, market: Market = Market.SPOT) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        world.provider.launch(world.request(market=market))
    return caught.value


def test_reference_has_every_code_of_the_table() -> None:
    assert {code: expected for code, expected, _ in REFERENCE} == dict(ERROR_CLASSES)


@pytest.mark.parametrize(("code", "expected", "_status"), REFERENCE)
def test_code_has_its_class(code: str, expected: ErrorClass, _status: int) -> None:
    error = refused({"code": code, "message": "why"})
    assert (error.error_class, error.raw_code, error.known) == (expected, code, True)
    assert str(error) == "why"


@pytest.mark.parametrize(("code", "text", "expected"), BY_TEXT)
def test_text_decides_where_the_code_says_nothing(
    code: str, text: str, expected: ErrorClass
) -> None:
    error = refused({"code": code, "message": text})
    assert (error.error_class, error.raw_code, error.known) == (expected, code, True)


@pytest.mark.parametrize(("spot", "expected"), [(True, REGION), (False, INVALID)])
def test_size_that_is_not_available_is_capacity_on_the_spot_market_only(
    spot: bool, expected: ErrorClass
) -> None:
    assert refused({"code": "SkuNotAvailable"}, spot=spot).error_class is expected


@pytest.mark.parametrize("code", [code for code, _, _ in REFERENCE] + ["SkuNotAvailable"])
def test_innermost_code_decides(code: str) -> None:
    plain = refused({"code": code, "message": "why"}, spot=True)
    inner = refused(wrapped(code), spot=True)
    assert (inner.error_class, inner.raw_code) == (plain.error_class, code)
    assert str(inner) == "why"


def test_text_rules_hold_for_inner_layers_too() -> None:
    error = refused(wrapped("OperationNotAllowed", LOW_PRIORITY))
    assert (error.error_class, str(error)) == (QUOTA, LOW_PRIORITY)


def test_known_code_counts_more_than_a_deeper_unknown_one() -> None:
    error = {"code": "AllocationFailed", "message": "a", "details": [{"code": "Strange"}]}
    assert (refused(error).raw_code, refused(error).known) == ("AllocationFailed", True)


def test_error_in_the_text_of_another_is_found() -> None:
    inner = '{"error": {"code": "ZonalAllocationFailed", "message": "no room"}}'
    error = refused({"code": "ResourceDeploymentFailure", "message": inner})
    assert (error.error_class, error.raw_code, str(error)) == (
        ZONE,
        "ZonalAllocationFailed",
        "no room",
    )


@pytest.mark.parametrize("text", ["{not json", '{"error": 3}', "{}", '["a"]'])
def test_text_that_only_looks_like_an_error_is_a_text(text: str) -> None:
    error = refused({"code": "AllocationFailed", "message": text})
    assert (error.raw_code, str(error)) == ("AllocationFailed", text)


def test_error_in_innererror_is_found() -> None:
    error = refused({"code": "Conflict", "innererror": {"code": "QuotaExceeded"}})
    assert (error.error_class, error.raw_code) == (QUOTA, "QuotaExceeded")


def test_unknown_code_says_so_and_keeps_its_text() -> None:
    error = refused({"code": "StrangeThing", "message": "the moon"}, status=409)
    assert (error.error_class, error.raw_code, error.known) == (TRANSIENT, "StrangeThing", False)
    assert str(error) == "the moon"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AUTH),
        (403, AUTH),
        (408, TRANSIENT),
        (429, THROTTLE),
        (500, TRANSIENT),
        (503, TRANSIENT),
    ],
)
def test_status_speaks_for_an_unknown_code(status: int, expected: ErrorClass) -> None:
    error = refused({"code": "StrangeThing"}, status=status)
    assert (error.error_class, error.known) == (expected, True)


@pytest.mark.parametrize("error", [{}, {"code": None}, {"code": ""}, {"details": [{}]}])
def test_answer_without_a_code_has_its_status(error: dict[str, Any]) -> None:
    found = refused(error, status=418)
    assert (found.error_class, found.raw_code, found.known) == (TRANSIENT, "Http418", False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "message", "details", "innererror", "error"]), inner
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(error=st.dictionaries(st.sampled_from(["code", "message", "details"]), JSON))
def test_no_error_is_too_odd_to_be_told(error: dict[str, Any]) -> None:
    found = refused(error, status=500)
    assert found.raw_code
    assert isinstance(found.error_class, ErrorClass)


# --------------------------------------------------------------------------------- over HTTP


@pytest.mark.parametrize(("code", "expected", "status"), REFERENCE)
def test_code_comes_through_the_sdk(
    world: World, code: str, expected: ErrorClass, status: int
) -> None:
    put = "virtual_machines_create_or_update"
    world.cloud.fail_next(code, status=status, call=put, message="why")
    error = launched(world)
    assert (error.error_class, error.raw_code, str(error)) == (expected, code, "why")
    assert world.calls(put) == 1, "a launch is sent once, whatever comes back"
    assert world.kinds() == []


@pytest.mark.parametrize(("code", "text", "expected"), BY_TEXT)
def test_text_comes_through_the_sdk(
    world: World, code: str, text: str, expected: ErrorClass
) -> None:
    world.cloud.fail_next(code, message=text, call="virtual_machines_create_or_update")
    assert launched(world).error_class is expected


@pytest.mark.parametrize("market", list(Market))
def test_size_not_available_comes_through_the_sdk(world: World, market: Market) -> None:
    world.cloud.fail_next("SkuNotAvailable", call="virtual_machines_create_or_update")
    expected = REGION if market is Market.SPOT else INVALID
    assert launched(world, market).error_class is expected


def test_wrapped_error_comes_through_the_sdk(world: World) -> None:
    details = wrapped("QuotaExceeded")["details"]
    call = "virtual_machines_create_or_update"
    world.cloud.fail_next("DeploymentFailed", details=details, call=call)
    error = launched(world)
    assert (error.error_class, error.raw_code) == (QUOTA, "QuotaExceeded")


def test_throttled_call_says_how_long_to_wait(world: World) -> None:
    world.cloud.fail_next("TooManyRequests", status=429, retry_after_s=17)
    error = launched(world)
    assert (error.error_class, error.retry_after_s) == (THROTTLE, 17)
    assert len(world.cloud.calls) == 1, "nobody but the controller repeats"


@pytest.mark.parametrize(
    ("size", "market", "quota", "market_quota"),
    [
        ("Standard_NC4as_T4_v3", Market.SPOT, "lowPriorityCores", "LowPriorityCores"),
        ("Standard_NC4as_T4_v3", Market.ON_DEMAND, "cores", "Total Regional Cores"),
    ],
)
def test_quota_of_the_fake_is_told_apart(
    world: World, size: str, market: Market, quota: str, market_quota: str
) -> None:
    world.cloud.set_quota("eastus", quota, 3)
    error = launched(world, market)
    assert (error.error_class, error.raw_code) == (QUOTA, "OperationNotAllowed")
    assert market_quota in str(error)
