"""What AWS asks for the parts of a deployment, in US dollars: list prices of us-east-1 without any
free tier, as its pricing pages said on 2026-11-22.

Everything in `docs/` that is a cost of the control plane is computed from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

_MILLION = Decimal(1_000_000)

WRITE = Decimal("0.625") / _MILLION
READ = Decimal("0.125") / _MILLION
"""Per unit: "Amazon DynamoDB pricing", on-demand throughput, standard table class."""
STORED_GB_MONTH = Decimal("0.25")
BACKUP_GB_MONTH = Decimal("0.20")
"""The same page: data storage, and continuous backups (point-in-time recovery)."""

INVOCATION = Decimal("0.20") / _MILLION
GB_SECOND: Mapping[str, Decimal] = {
    "x86_64": Decimal("0.0000166667"),
    "arm64": Decimal("0.0000133334"),
}
""""AWS Lambda pricing": requests, and duration by architecture."""

API_REQUEST = Decimal("1.00") / _MILLION
""""Amazon API Gateway pricing": HTTP APIs, up to 300 million a month, each started 512 KB."""

SCHEDULED_RULE = Decimal(0)
""""Amazon EventBridge pricing": events of AWS's own, which is what a scheduled rule sends."""

OBJECT_WRITTEN = Decimal("5.00") / _MILLION
OBJECT_READ = Decimal("0.40") / _MILLION
""""Amazon S3 pricing", S3 Standard: PUT and LIST requests; GET and all others."""

LOG_GB = Decimal("0.50")
""""Amazon CloudWatch pricing": collect, standard log class."""
METRIC_MONTH = Decimal("0.30")
ALARM_MONTH = Decimal("0.10")
"""The same page: a custom metric, for the hours in which it is sent; a standard alarm."""

TRACE = Decimal("5.00") / _MILLION
""""AWS X-Ray pricing": traces recorded."""

EVENT_OVERHEAD_BYTES = 26
""""CloudWatch Logs quotas": what each event counts beside its text."""
PLATFORM_LINES = 3
PLATFORM_BYTES = 330
"""START, END and REPORT of an invocation: three events of about this many bytes together."""
