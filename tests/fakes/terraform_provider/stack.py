"""The other resources of a control plane, made for real by boto3: roles, functions, doors, events
and alarms.

What AWS chooses is read back, and whether each is there; of what was asked for, what is named here
alone, so that other changes from outside are not seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.terraform_provider.calls import Seen, State, asked, client, pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One type of resource, by the calls that make it, look at it and remove it."""

    service: str
    make: Callable[[Any, State], object]
    look: Callable[[Any, State], Seen | None]
    drop: Callable[[Any, State], object]
    change: Callable[[Any, State], object] | None = None
    """None = as `make`."""

    def read(self, state: State) -> Seen | None:
        found: Seen | None = asked(self.look, client(self.service), state)
        return found

    def write(self, state: State, *, new: bool) -> None:
        call = self.make if new or self.change is None else self.change
        call(client(self.service), state)

    def delete(self, state: State) -> None:
        self.drop(client(self.service), state)


def _same_json(ours: str, theirs: str | Mapping[str, Any]) -> str:
    """Ours when both say the same, however it is written."""
    told = json.loads(theirs) if isinstance(theirs, str) else theirs
    return ours if json.loads(ours) == told else json.dumps(told)


def _given(**words: Any) -> dict[str, Any]:
    """What is not left out."""
    return {name: value for name, value in words.items() if value is not None}


# ------------------------------------------------------------------------------------- roles


def _make_role(iam: Any, state: State) -> None:
    iam.create_role(
        **_given(
            RoleName=state["name"],
            Path=state["path"],
            Description=state["description"],
            AssumeRolePolicyDocument=state["assume_role_policy"],
            PermissionsBoundary=state["permissions_boundary"],
        ),
        Tags=pairs(state["tags_all"]),
    )


def _look_at_role(iam: Any, state: State) -> Seen:
    role = iam.get_role(RoleName=state["name"])["Role"]
    trust = _same_json(state["assume_role_policy"], role["AssumeRolePolicyDocument"])
    return {"id": role["RoleName"], "arn": role["Arn"], "assume_role_policy": trust}


def _look_at_role_policy(iam: Any, state: State) -> Seen:
    told = iam.get_role_policy(RoleName=state["role"], PolicyName=state["name"])
    return {
        "id": f"{state['role']}:{state['name']}",
        "policy": _same_json(state["policy"], told["PolicyDocument"]),
    }


def _make_profile(iam: Any, state: State) -> None:
    iam.create_instance_profile(InstanceProfileName=state["name"], Path=state["path"])
    iam.add_role_to_instance_profile(InstanceProfileName=state["name"], RoleName=state["role"])


def _look_at_profile(iam: Any, state: State) -> Seen:
    told = iam.get_instance_profile(InstanceProfileName=state["name"])["InstanceProfile"]
    (role,) = told["Roles"]
    return {"id": state["name"], "arn": told["Arn"], "role": role["RoleName"]}


def _drop_profile(iam: Any, state: State) -> None:
    words = {"InstanceProfileName": state["name"]}
    iam.remove_role_from_instance_profile(**words, RoleName=state["role"])
    iam.delete_instance_profile(**words)


# --------------------------------------------------------------------------------- functions


def _settings(state: State) -> dict[str, Any]:
    letters = state["dead_letter_config"]
    return {
        "FunctionName": state["function_name"],
        "Description": state["description"],
        "Role": state["role"],
        "Handler": state["handler"],
        "Runtime": state["runtime"],
        "MemorySize": int(state["memory_size"]),
        "Timeout": int(state["timeout"]),
        "Environment": {"Variables": state["environment"][0]["variables"]},
        "TracingConfig": {"Mode": state["tracing_config"][0]["mode"]},
        **({"DeadLetterConfig": {"TargetArn": letters[0]["target_arn"]}} if letters else {}),
    }


def _code(state: State) -> dict[str, Any]:
    return {
        "S3Bucket": state["s3_bucket"],
        "S3Key": state["s3_key"],
        "S3ObjectVersion": state["s3_object_version"],
    }


def _make_function(functions: Any, state: State) -> None:
    functions.create_function(
        **_settings(state), Code=_code(state), Architectures=state["architectures"]
    )


def _change_function(functions: Any, state: State) -> None:
    functions.update_function_configuration(**_settings(state))
    functions.update_function_code(FunctionName=state["function_name"], **_code(state))


def _look_at_function(functions: Any, state: State) -> Seen:
    told = functions.get_function_configuration(FunctionName=state["function_name"])
    return {
        "id": told["FunctionName"],
        "arn": told["FunctionArn"],
        "invoke_arn": told["FunctionArn"],
        "memory_size": told["MemorySize"],
        "timeout": told["Timeout"],
        "handler": told["Handler"],
        "environment": [{"variables": told["Environment"]["Variables"]}],
    }


def _make_invoke_config(functions: Any, state: State) -> None:
    functions.put_function_event_invoke_config(
        FunctionName=state["function_name"],
        MaximumRetryAttempts=int(state["maximum_retry_attempts"]),
        MaximumEventAgeInSeconds=int(state["maximum_event_age_in_seconds"]),
    )


def _look_at_invoke_config(functions: Any, state: State) -> Seen:
    told = functions.get_function_event_invoke_config(FunctionName=state["function_name"])
    return {"id": state["function_name"], "maximum_retry_attempts": told["MaximumRetryAttempts"]}


def _make_permission(functions: Any, state: State) -> None:
    functions.add_permission(
        StatementId=state["statement_id"],
        Action=state["action"],
        FunctionName=state["function_name"],
        Principal=state["principal"],
        SourceArn=state["source_arn"],
    )


def _look_at_permission(functions: Any, state: State) -> Seen | None:
    told = json.loads(functions.get_policy(FunctionName=state["function_name"])["Policy"])
    found = [each for each in told["Statement"] if each["Sid"] == state["statement_id"]]
    return {"id": state["statement_id"]} if found else None


# -------------------------------------------------------------------------------------- doors


def _look_at_api(doors: Any, state: State) -> Seen | None:
    for each in doors.get_apis()["Items"]:
        if each["Name"] == state["name"]:
            return {
                "id": each["ApiId"],
                "api_endpoint": each["ApiEndpoint"],
                "execution_arn": f"arn:aws:execute-api:::{each['ApiId']}",
            }
    return None


def _make_integration(doors: Any, state: State) -> None:
    doors.create_integration(
        ApiId=state["api_id"],
        IntegrationType=state["integration_type"],
        IntegrationUri=state["integration_uri"],
        PayloadFormatVersion=state["payload_format_version"],
        TimeoutInMillis=int(state["timeout_milliseconds"]),
    )


def _look_at_integration(doors: Any, state: State) -> Seen | None:
    for each in doors.get_integrations(ApiId=state["api_id"])["Items"]:
        return {"id": each["IntegrationId"], "integration_uri": each["IntegrationUri"]}
    return None


def _make_route(doors: Any, state: State) -> None:
    doors.create_route(ApiId=state["api_id"], RouteKey=state["route_key"], Target=state["target"])


def _look_at_route(doors: Any, state: State) -> Seen | None:
    for each in doors.get_routes(ApiId=state["api_id"])["Items"]:
        if each["RouteKey"] == state["route_key"]:
            return {"id": each["RouteId"], "target": each["Target"]}
    return None


def _make_stage(doors: Any, state: State) -> None:
    (limits,), (log,) = state["default_route_settings"], state["access_log_settings"]
    doors.create_stage(
        ApiId=state["api_id"],
        StageName=state["name"],
        AutoDeploy=state["auto_deploy"],
        AccessLogSettings={"DestinationArn": log["destination_arn"], "Format": log["format"]},
        DefaultRouteSettings={
            "ThrottlingBurstLimit": int(limits["throttling_burst_limit"]),
            "ThrottlingRateLimit": float(limits["throttling_rate_limit"]),
        },
    )


def _look_at_stage(doors: Any, state: State) -> Seen:
    told = doors.get_stage(ApiId=state["api_id"], StageName=state["name"])
    return {"id": told["StageName"], "auto_deploy": told["AutoDeploy"]}


# -------------------------------------------------------------------- events, queues, logs


def _look_at_rule(events: Any, state: State) -> Seen:
    told, pattern = events.describe_rule(Name=state["name"]), state["event_pattern"]
    return {
        "id": told["Name"],
        "arn": told["Arn"],
        "schedule_expression": told.get("ScheduleExpression") or None,
        "event_pattern": pattern and _same_json(pattern, told["EventPattern"]),
    }


def _make_target(events: Any, state: State) -> None:
    (retry,), letters = state["retry_policy"], state["dead_letter_config"]
    target = {
        "Id": state["target_id"],
        "Arn": state["arn"],
        **({"DeadLetterConfig": {"Arn": letters[0]["arn"]}} if letters else {}),
        "RetryPolicy": {
            "MaximumEventAgeInSeconds": int(retry["maximum_event_age_in_seconds"]),
            "MaximumRetryAttempts": int(retry["maximum_retry_attempts"]),
        },
    }
    events.put_targets(Rule=state["rule"], Targets=[target])


def _look_at_target(events: Any, state: State) -> Seen | None:
    for each in events.list_targets_by_rule(Rule=state["rule"])["Targets"]:
        if each["Id"] == state["target_id"]:
            return {"id": f"{state['rule']}-{each['Id']}", "arn": each["Arn"]}
    return None


def _make_queue(queues: Any, state: State) -> None:
    attributes = {
        "MessageRetentionPeriod": str(int(state["message_retention_seconds"])),
        "SqsManagedSseEnabled": str(state["sqs_managed_sse_enabled"]).lower(),
    }
    queues.create_queue(QueueName=state["name"], Attributes=attributes)


def _look_at_queue(queues: Any, state: State) -> Seen:
    url = queues.get_queue_url(QueueName=state["name"])["QueueUrl"]
    told = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    kept = int(told["MessageRetentionPeriod"])
    return {"id": url, "url": url, "arn": told["QueueArn"], "message_retention_seconds": kept}


def _look_at_queue_policy(queues: Any, state: State) -> Seen | None:
    asked_for = {"QueueUrl": state["queue_url"], "AttributeNames": ["Policy"]}
    told = queues.get_queue_attributes(**asked_for).get("Attributes", {})
    if "Policy" not in told:
        return None
    return {"id": state["queue_url"], "policy": _same_json(state["policy"], told["Policy"])}


def _make_log(logs: Any, state: State) -> None:
    logs.create_log_group(logGroupName=state["name"])
    _keep_log(logs, state)


def _keep_log(logs: Any, state: State) -> None:
    days = int(state["retention_in_days"])
    logs.put_retention_policy(logGroupName=state["name"], retentionInDays=days)


def _look_at_log(logs: Any, state: State) -> Seen | None:
    told = logs.describe_log_groups(logGroupNamePrefix=state["name"])["logGroups"]
    for each in told:
        if each["logGroupName"] == state["name"]:
            arn = each["arn"].removesuffix(":*")
            return {"id": state["name"], "arn": arn, "retention_in_days": each["retentionInDays"]}
    return None


def _make_alarm(alarms: Any, state: State) -> None:
    alarms.put_metric_alarm(
        AlarmName=state["alarm_name"],
        AlarmDescription=state["alarm_description"],
        Namespace=state["namespace"],
        MetricName=state["metric_name"],
        Dimensions=[{"Name": k, "Value": v} for k, v in state["dimensions"].items()],
        Statistic=state["statistic"],
        ComparisonOperator=state["comparison_operator"],
        Threshold=float(state["threshold"]),
        Period=int(state["period"]),
        EvaluationPeriods=int(state["evaluation_periods"]),
        TreatMissingData=state["treat_missing_data"],
        AlarmActions=state["alarm_actions"] or [],
        OKActions=state["ok_actions"] or [],
    )


def _look_at_alarm(alarms: Any, state: State) -> Seen | None:
    for each in alarms.describe_alarms(AlarmNames=[state["alarm_name"]])["MetricAlarms"]:
        return {
            "id": each["AlarmName"],
            "arn": each["AlarmArn"],
            "threshold": each["Threshold"],
            "period": each["Period"],
        }
    return None


STACK: Mapping[str, Made] = {
    "aws_iam_role": Made(
        service="iam",
        make=_make_role,
        look=_look_at_role,
        drop=lambda iam, state: iam.delete_role(RoleName=state["name"]),
    ),
    "aws_iam_role_policy": Made(
        service="iam",
        make=lambda iam, state: iam.put_role_policy(
            RoleName=state["role"], PolicyName=state["name"], PolicyDocument=state["policy"]
        ),
        look=_look_at_role_policy,
        drop=lambda iam, state: iam.delete_role_policy(
            RoleName=state["role"], PolicyName=state["name"]
        ),
    ),
    "aws_iam_instance_profile": Made(
        service="iam", make=_make_profile, look=_look_at_profile, drop=_drop_profile
    ),
    "aws_lambda_function": Made(
        service="lambda",
        make=_make_function,
        change=_change_function,
        look=_look_at_function,
        drop=lambda functions, state: functions.delete_function(
            FunctionName=state["function_name"]
        ),
    ),
    "aws_lambda_function_event_invoke_config": Made(
        service="lambda",
        make=_make_invoke_config,
        look=_look_at_invoke_config,
        drop=lambda functions, state: functions.delete_function_event_invoke_config(
            FunctionName=state["function_name"]
        ),
    ),
    "aws_lambda_permission": Made(
        service="lambda",
        make=_make_permission,
        look=_look_at_permission,
        drop=lambda functions, state: functions.remove_permission(
            FunctionName=state["function_name"], StatementId=state["statement_id"]
        ),
    ),
    "aws_apigatewayv2_api": Made(
        service="apigatewayv2",
        make=lambda doors, state: doors.create_api(
            Name=state["name"],
            Description=state["description"],
            ProtocolType=state["protocol_type"],
        ),
        look=_look_at_api,
        drop=lambda doors, state: doors.delete_api(ApiId=state["id"]),
    ),
    "aws_apigatewayv2_integration": Made(
        service="apigatewayv2",
        make=_make_integration,
        look=_look_at_integration,
        drop=lambda doors, state: doors.delete_integration(
            ApiId=state["api_id"], IntegrationId=state["id"]
        ),
    ),
    "aws_apigatewayv2_route": Made(
        service="apigatewayv2",
        make=_make_route,
        look=_look_at_route,
        drop=lambda doors, state: doors.delete_route(ApiId=state["api_id"], RouteId=state["id"]),
    ),
    "aws_apigatewayv2_stage": Made(
        service="apigatewayv2",
        make=_make_stage,
        look=_look_at_stage,
        drop=lambda doors, state: doors.delete_stage(
            ApiId=state["api_id"], StageName=state["name"]
        ),
    ),
    "aws_cloudwatch_event_rule": Made(
        service="events",
        make=lambda events, state: events.put_rule(
            Name=state["name"],
            Description=state["description"],
            **_given(
                ScheduleExpression=state["schedule_expression"],
                EventPattern=state["event_pattern"],
            ),
        ),
        look=_look_at_rule,
        drop=lambda events, state: events.delete_rule(Name=state["name"]),
    ),
    "aws_cloudwatch_event_target": Made(
        service="events",
        make=_make_target,
        look=_look_at_target,
        drop=lambda events, state: events.remove_targets(
            Rule=state["rule"], Ids=[state["target_id"]]
        ),
    ),
    "aws_sqs_queue": Made(
        service="sqs",
        make=_make_queue,
        look=_look_at_queue,
        drop=lambda queues, state: queues.delete_queue(QueueUrl=state["url"]),
    ),
    "aws_sqs_queue_policy": Made(
        service="sqs",
        make=lambda queues, state: queues.set_queue_attributes(
            QueueUrl=state["queue_url"], Attributes={"Policy": state["policy"]}
        ),
        look=_look_at_queue_policy,
        drop=lambda queues, state: queues.set_queue_attributes(
            QueueUrl=state["queue_url"], Attributes={"Policy": ""}
        ),
    ),
    "aws_cloudwatch_log_group": Made(
        service="logs",
        make=_make_log,
        change=_keep_log,
        look=_look_at_log,
        drop=lambda logs, state: logs.delete_log_group(logGroupName=state["name"]),
    ),
    "aws_cloudwatch_metric_alarm": Made(
        service="cloudwatch",
        make=_make_alarm,
        look=_look_at_alarm,
        drop=lambda alarms, state: alarms.delete_alarms(AlarmNames=[state["alarm_name"]]),
    ),
}
"""By the names of their types."""
