"""The Terraform module makes the same stack as `serverless.yml`: what is changed in one of them has
to be changed in the other one too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.terraform import Terraform
from tests.terraform.test_modules import GIVEN

pytestmark = pytest.mark.xdist_group("terraform")

Resources = Mapping[str, list[Mapping[str, Any]]]
"""By type."""


@pytest.fixture(scope="module")
def ours(terraform: Terraform) -> Resources:
    words = [f"-var={name}={json.dumps(value)}" for name, value in GIVEN["control-plane"].items()]
    plan = terraform.plan("modules/control-plane", *words)
    return _by_type((each["type"], each["change"]["after"]) for each in plan["resource_changes"])


@pytest.fixture(scope="module")
def theirs(template: Path) -> Resources:
    resources = json.loads(template.read_text())["Resources"].values()
    return _by_type((each["Type"], each.get("Properties", {})) for each in resources)


def test_functions(ours: Resources, theirs: Resources) -> None:
    names = ("function_name", "handler", "timeout", "memory_size", "runtime", "architectures")
    words = ("FunctionName", "Handler", "Timeout", "MemorySize", "Runtime", "Architectures")

    terraform, framework = ours["aws_lambda_function"], theirs["AWS::Lambda::Function"]

    assert _fields(terraform, names) == _fields(framework, words)
    assert {each["tracing_config"][0]["mode"] for each in terraform} == set(
        map(_tracing, framework)
    )
    assert len(terraform) == 4


def test_what_functions_are_told(terraform: Terraform, theirs: Resources) -> None:
    """The names of variables; the module's are asked of its sources, as their values are not known
    before an apply."""
    source = (terraform.folder("modules/control-plane") / "functions.tf").read_text()
    said = source.partition("environment = ")[2].partition("}")[0]
    told = {line.split("=")[0].strip() for line in said.splitlines() if "ORCHCTL_" in line}

    for each in theirs["AWS::Lambda::Function"]:
        assert set(each["Environment"]["Variables"]) == told


def test_retries(ours: Resources, theirs: Resources) -> None:
    terraform = {
        each["function_name"].rpartition("-")[2]: each["maximum_retry_attempts"]
        for each in ours["aws_lambda_function_event_invoke_config"]
    }
    framework = {
        str(each["FunctionName"]).partition("LambdaFunction")[0].rpartition("'")[2].lower(): each[
            "MaximumRetryAttempts"
        ]
        for each in theirs["AWS::Lambda::EventInvokeConfig"]
    }

    assert terraform == framework


def test_what_starts_functions(ours: Resources, theirs: Resources) -> None:
    rules = ours["aws_cloudwatch_event_rule"]
    framework = theirs["AWS::Events::Rule"]

    assert _texts(each["schedule_expression"] for each in rules) == _texts(
        each.get("ScheduleExpression") for each in framework
    )
    assert [json.loads(each["event_pattern"]) for each in rules if each["event_pattern"]] == [
        each["EventPattern"] for each in framework if "EventPattern" in each
    ]


def test_alarms(ours: Resources, theirs: Resources) -> None:
    names = ("namespace", "metric_name", "statistic", "period", "comparison_operator", "threshold")
    words = ("Namespace", "MetricName", "Statistic", "Period", "ComparisonOperator", "Threshold")

    assert _fields(
        ours["aws_cloudwatch_metric_alarm"], (*names, "treat_missing_data", "evaluation_periods")
    ) == _fields(
        theirs["AWS::CloudWatch::Alarm"], (*words, "TreatMissingData", "EvaluationPeriods")
    )


def test_table(ours: Resources, theirs: Resources) -> None:
    (table,), (framework,) = ours["aws_dynamodb_table"], theirs["AWS::DynamoDB::Table"]
    (index,), (other,) = table["global_secondary_index"], framework["GlobalSecondaryIndexes"]

    assert [table["hash_key"], table["range_key"]] == _keys(framework)
    assert [index["hash_key"], index["range_key"]] == _keys(other)
    assert set(index["non_key_attributes"]) == set(other["Projection"]["NonKeyAttributes"])
    assert table["billing_mode"] == framework["BillingMode"]
    assert table["deletion_protection_enabled"] is framework["DeletionProtectionEnabled"] is True
    assert (
        table["ttl"][0]["attribute_name"] == (framework["TimeToLiveSpecification"]["AttributeName"])
    )
    backups = framework["PointInTimeRecoverySpecification"]
    assert table["point_in_time_recovery"][0]["enabled"] is backups["PointInTimeRecoveryEnabled"]


def test_what_is_kept_for_how_long(ours: Resources, theirs: Resources) -> None:
    """Logs, and what jobs leave in the bucket."""
    (lifecycle,) = ours["aws_s3_bucket_lifecycle_configuration"]
    bucket = next(each for each in theirs["AWS::S3::Bucket"] if "LifecycleConfiguration" in each)
    rules = bucket["LifecycleConfiguration"]["Rules"]

    assert {
        each["filter"][0]["prefix"]: each["expiration"][0]["days"]
        for each in lifecycle["rule"]
        if each["expiration"]
    } == {each["Prefix"]: each["ExpirationInDays"] for each in rules if "ExpirationInDays" in each}
    assert {each["retention_in_days"] for each in ours["aws_cloudwatch_log_group"]} == {
        each["RetentionInDays"] for each in theirs["AWS::Logs::LogGroup"]
    }


def _by_type(found: Iterator[tuple[str, Mapping[str, Any]]]) -> Resources:
    sorted_out: dict[str, list[Mapping[str, Any]]] = {}
    for kind, each in found:
        sorted_out.setdefault(kind, []).append(each)
    return sorted_out


def _fields(found: list[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, ...]]:
    return sorted(tuple(json.dumps(each[name]) for name in names) for each in found)


def _texts(found: Iterator[str | None]) -> list[str]:
    return sorted(each for each in found if each)


def _tracing(function: Mapping[str, Any]) -> str:
    return str(function.get("TracingConfig", {}).get("Mode", "PassThrough"))


def _keys(told: Mapping[str, Any]) -> list[str]:
    return [each["AttributeName"] for each in told["KeySchema"]]
