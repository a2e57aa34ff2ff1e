"""Every row of the table of refusals, and one refusal of each class over real HTTP."""

from __future__ import annotations

import json

import pytest
from google.cloud import compute_v1

from control_plane.core.model import ErrorClass
from control_plane.core.policy import CloudPolicy
from providers.gcp.ending import deed
from providers.gcp.errors import Refused
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.connection import to
from tests.unit.providers.gcp.conftest import World, refused

ZONE, REGION = ErrorClass.CAPACITY_ZONE, ErrorClass.CAPACITY_REGION
QUOTA, AUTH, INVALID = ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.INVALID
THROTTLE, TRANSIENT = ErrorClass.THROTTLE, ErrorClass.TRANSIENT

ROWS = [
    ("ZONE_RESOURCE_POOL_EXHAUSTED", 0, "", ZONE),
    ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", 0, "", ZONE),
    ("insufficientCapacity", 503, "", ZONE),
    ("UNSUPPORTED_OPERATION", 0, "Instance was preempted while it was being created.", ZONE),
    ("RESOURCE_NOT_FOUND", 0, "'projects/p/zones/z/instances/x' was not found", ZONE),
    ("RESOURCE_NOT_READY", 0, "", ZONE),
    ("IP_SPACE_EXHAUSTED", 0, "", ZONE),
    ("IP_SPACE_EXHAUSTED_WITH_DETAILS", 0, "", ZONE),
    ("insufficientCapacity", 503, "no room in regions/us-east5", REGION),
    ("QUOTA_EXCEEDED", 0, "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 4.0 globally.", QUOTA),
    ("quotaExceeded", 403, "Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region r.", QUOTA),
    ("authError", 401, "", AUTH),
    ("", 401, "", AUTH),
    ("forbidden", 403, "", AUTH),
    ("PERMISSION_DENIED", 0, "", AUTH),
    ("IAM_PERMISSION_DENIED", 403, "", AUTH),
    ("accessNotConfigured", 403, "", AUTH),
    ("SERVICE_DISABLED", 403, "", AUTH),
    ("billingNotEnabled", 403, "", AUTH),
    ("BILLING_DISABLED", 403, "", AUTH),
    ("invalid", 400, "", INVALID),
    ("badRequest", 400, "", INVALID),
    ("required", 400, "", INVALID),
    ("somethingElse", 400, "", INVALID),
    ("RESOURCE_NOT_FOUND", 0, "'projects/p/global/images/family/old' was not found", INVALID),
    ("RESOURCE_NOT_FOUND", 0, "'projects/p/regions/r/subnetworks/s' was not found", INVALID),
    ("RESOURCE_NOT_FOUND", 0, "'projects/p/zones/z/machineTypes/t' was not found", INVALID),
    ("notFound", 404, "", INVALID),
    ("VPC_NOT_FOUND", 0, "", INVALID),
    ("conditionNotMet", 412, "", INVALID),
    ("UNSUPPORTED_OPERATION", 0, "This is not supported.", INVALID),
    ("rateLimitExceeded", 403, "", THROTTLE),
    ("userRateLimitExceeded", 403, "", THROTTLE),
    ("", 429, "", THROTTLE),
    ("RESOURCE_OPERATION_RATE_EXCEEDED", 0, "", THROTTLE),
    ("RESOURCE_EXHAUSTED", 429, "", THROTTLE),
    ("internalError", 500, "", TRANSIENT),
    ("", 500, "", TRANSIENT),
    ("", 502, "", TRANSIENT),
    ("backendError", 503, "", TRANSIENT),
    ("INTERNAL_ERROR", 0, "", TRANSIENT),
    ("resourceNotReady", 400, "", TRANSIENT),
    ("alreadyExists", 409, "", TRANSIENT),
    ("RESOURCE_ALREADY_EXISTS", 0, "", TRANSIENT),
]


@pytest.mark.parametrize(("code", "status", "text", "expected"), ROWS)
def test_each_row_of_the_table(code: str, status: int, text: str, expected: ErrorClass) -> None:
    error = Refused(code=code, status=status, text=text).error()
    assert (error.error_class, error.known) == (expected, True)
    assert error.raw_code == (code or f"HTTP {status}")
    assert text in str(error)


@pytest.mark.parametrize(("code", "status"), [("NEVER_HEARD_OF", 0), ("neverHeardOf", 403)])
def test_unknown_code_is_transient_and_says_so(code: str, status: int) -> None:
    error = Refused(code=code, status=status, text="raw words of the cloud").error()
    assert (error.error_class, error.known, error.raw_code) == (TRANSIENT, False, code)
    assert str(error) == "raw words of the cloud"


def test_quota_of_zero_rests_for_a_day() -> None:
    by_text = Refused(code="quotaExceeded", status=403, text="exceeded.  Limit: 0.0 in region r.")
    by_figure = Refused(code="QUOTA_EXCEEDED", text="exceeded", quota_limit=0.0)
    other = Refused(code="QUOTA_EXCEEDED", text="exceeded.  Limit: 0.5", quota_limit=4.0)
    assert [each.error().retry_after_s for each in (by_text, by_figure, other)] == [
        86_400,
        86_400,
        None,
    ]


def test_limit_of_zero_is_read_from_the_details_of_an_operation() -> None:
    details = [{"errorInfo": {"reason": "x"}}, {"quotaInfo": {"limit": 0.0}}]
    error = {"code": "QUOTA_EXCEEDED", "message": "no more", "errorDetails": details}
    text = {
        "name": "operation-1",
        "status": "DONE",
        "insertTime": "2026-01-05T00:00:00.000-08:00",
        "error": {"errors": [error]},
    }
    refused_insert = deed(compute_v1.Operation.from_json(json.dumps(text))).refused
    assert refused_insert is not None
    assert refused_insert.error().retry_after_s == 86_400


def test_operation_that_failed_without_a_code_is_judged_by_its_status() -> None:
    text = {
        "name": "operation-1",
        "status": "DONE",
        "insertTime": "2026-01-05T00:00:00.000-08:00",
        "httpErrorStatusCode": 503,
        "httpErrorMessage": "SERVICE UNAVAILABLE",
    }
    refused_insert = deed(compute_v1.Operation.from_json(json.dumps(text))).refused
    assert refused_insert is not None
    assert refused_insert.error().raw_code == "HTTP 503"
    assert refused_insert.error().error_class is TRANSIENT


OVER_HTTP = [
    ("ZONE_RESOURCE_POOL_EXHAUSTED", ZONE),
    ("QUOTA_EXCEEDED", QUOTA),
    ("quotaExceeded", QUOTA),
    ("forbidden", AUTH),
    ("accessNotConfigured", AUTH),
    ("IAM_PERMISSION_DENIED", AUTH),
    ("invalid", INVALID),
    ("conditionNotMet", INVALID),
    ("VPC_NOT_FOUND", INVALID),
    ("rateLimitExceeded", THROTTLE),
    ("tooManyRequests", THROTTLE),
    ("RESOURCE_OPERATION_RATE_EXCEEDED", THROTTLE),
    ("backendError", TRANSIENT),
    ("internalError", TRANSIENT),
    ("INTERNAL_ERROR", TRANSIENT),
]


@pytest.mark.parametrize(("code", "expected"), OVER_HTTP)
def test_refused_insert_over_http(
    world: World, provider: GcpProvider, code: str, expected: ErrorClass
) -> None:
    world.cloud.fail_next(code, call="instances.insert")
    error = refused(lambda: provider.launch(world.request()))
    assert (error.error_class, error.raw_code, error.known) == (expected, code, True)
    assert world.empty()


@pytest.mark.parametrize(("code", "status"), [("neverHeardOf", 403), ("NEVER_HEARD_OF", 0)])
def test_unknown_code_over_http(
    world: World, provider: GcpProvider, code: str, status: int
) -> None:
    world.cloud.fail_next(code, call="instances.insert", message="raw words", status=status)
    error = refused(lambda: provider.launch(world.request()))
    assert (error.error_class, error.raw_code, error.known) == (TRANSIENT, code, False)
    assert str(error) == "raw words"


def test_retry_after_is_heard(world: World, provider: GcpProvider) -> None:
    world.cloud.fail_next("tooManyRequests", retry_after_s=17)
    assert refused(lambda: provider.launch(world.request())).retry_after_s == 17


def test_credentials_that_are_refused(world: World, provider: GcpProvider) -> None:
    world.cloud.fail_next("authError")
    error = refused(lambda: provider.observe("fleet-a", world.clouds()))
    assert error.error_class is AUTH


def test_nobody_answers() -> None:
    lonely = GcpProvider(to("http://127.0.0.1:9"), version="1")
    clouds = [CloudPolicy(provider="gcp", regions=("us-east5",), options={"project": "acme-ml"})]
    error = refused(lambda: lonely.observe("fleet-a", clouds))
    assert (error.error_class, error.raw_code) == (TRANSIENT, "NoAnswer")
