"""The one table of what each part of a deployment may do in AWS, and why. Roles of `serverless.yml`
and of the Terraform module, and the pages about them, are made from it (`make docs`).

It is exact: tests run the functions through a whole life, see everything that they ask of AWS, and
compare (`tests/unit/infra/test_permissions.py`). Resources and conditions: the service
authorization reference of each service.

Names in braces stand for what a deployment is made of; each renderer knows its own words for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TABLE = "{table}"
READY_INDEX = "{table}/index/ready"
BUCKET = "{bucket}"
JOBS, SOURCES, PRICES = "{bucket}/jobs/*", "{bucket}/sources/*", "{bucket}/prices/*"
FLEETS = "orchctl-{installation}-*"
"""The label that all machines of a deployment carry: `orchctl-fleet`."""
EC2 = "arn:{partition}:ec2:*:{account}:"
ANY = "*"

FUNCTIONS = ("api", "reconcile", "interruption", "prices")

TRUST: Mapping[str, str] = {
    **dict.fromkeys(FUNCTIONS, "lambda.amazonaws.com"),
    "life_limit": "scheduler.amazonaws.com",
}
"""Who takes up each role: the functions, and what ends a machine at its deadline when nobody else
does."""

LAMBDA = "Lambda"
SCHEDULER = "EventBridge Scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One right, for the roles that need it."""

    roles: tuple[str, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    why: str
    condition: Mapping[str, Mapping[str, str | tuple[str, ...]]] = field(default_factory=dict)
    wide: str = ""
    """Why the resource is `*`, where it is: AWS knows nothing narrower for the action."""
    by: str = ""
    """Who makes the call in the role's name; empty = the function's own program."""


def _resources(*kinds: str) -> tuple[str, ...]:
    return tuple(f"{EC2}{kind}/*" for kind in kinds)


_LABELLED = {"StringLike": {"aws:RequestTag/orchctl-fleet": FLEETS}}
_OURS = {"StringLike": {"aws:ResourceTag/orchctl-fleet": FLEETS}}
_MADE = _resources("instance", "network-interface", "volume")
_USED = ("arn:{partition}:ec2:*::image/*", *_resources("security-group", "subnet"))
_DESCRIBING = "EC2 knows no resource for its Describe actions"

PERMISSIONS: tuple[Permission, ...] = (
    Permission(
        roles=FUNCTIONS,
        actions=("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"),
        resources=(TABLE,),
        why="reads queues, jobs, machines and the ledger",
    ),
    Permission(
        roles=("api", "reconcile"),
        actions=("dynamodb:Query",),
        resources=(READY_INDEX,),
        why="finds the jobs that wait, in their order",
    ),
    Permission(
        roles=FUNCTIONS,
        actions=("dynamodb:PutItem", "dynamodb:UpdateItem"),
        resources=(TABLE,),
        why="writes what has changed, and notes what happened",
    ),
    Permission(
        roles=("api", "reconcile"),
        actions=("dynamodb:DeleteItem",),
        resources=(TABLE,),
        why="takes away what is over: queues, autoscalers, the open record of an ended machine",
    ),
    Permission(
        roles=("reconcile",),
        actions=("dynamodb:ConditionCheckItem",),
        resources=(TABLE,),
        why="writes a machine only while it holds the right to act",
    ),
    Permission(
        roles=("api",),
        actions=("s3:GetObject",),
        resources=(JOBS, PRICES, SOURCES),
        why="gives out logs, artifacts and sources of jobs, large ones by addresses that it signs; "
        "today's prices",
    ),
    Permission(
        roles=("api",),
        actions=("s3:PutObject",),
        resources=(JOBS, SOURCES),
        why="takes in logs, artifacts and sources of jobs, large ones by addresses that it signs",
    ),
    Permission(
        roles=("reconcile",),
        actions=("s3:GetObject",),
        resources=(PRICES,),
        why="today's prices",
    ),
    Permission(
        roles=("prices",),
        actions=("s3:GetObject", "s3:PutObject"),
        resources=(PRICES,),
        why="keeps the last prices of a cloud that does not answer, and writes today's",
    ),
    Permission(
        roles=("api", "prices"),
        actions=("s3:ListBucket",),
        resources=(BUCKET,),
        why="where a log ends; and that an object is not there, which S3 else calls denied",
    ),
    Permission(
        roles=("api", "interruption"),
        actions=("lambda:InvokeFunction",),
        resources=("{reconcile}",),
        why="wakes the loop when something has changed",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:RunInstances",),
        resources=(*_MADE, *_resources("spot-instances-request")),
        condition=_LABELLED,
        why="launches machines, only under this deployment's label",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:CreateFleet",),
        resources=(*_resources("fleet"), *_MADE),
        condition=_LABELLED,
        why="launches whichever of several spot machines AWS has most of, under the same label",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:CreateFleet", "ec2:RunInstances"),
        resources=_USED,
        why="launches them from an image, into a network",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:CreateLaunchTemplate",),
        resources=_resources("launch-template"),
        condition=_LABELLED,
        why="what a fleet launches from",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:CreateFleet", "ec2:RunInstances"),
        resources=_resources("launch-template"),
        condition=_OURS,
        why="launches from this deployment's launch templates and no others",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:CreateTags",),
        resources=(*_resources("fleet", "launch-template", "spot-instances-request"), *_MADE),
        condition={
            **_LABELLED,
            "StringEquals": {
                "ec2:CreateAction": ("CreateFleet", "CreateLaunchTemplate", "RunInstances")
            },
        },
        why="labels what a launch makes, as part of it",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ec2:TerminateInstances",),
        resources=_resources("instance"),
        condition=_OURS,
        why="ends this deployment's machines and no others",
    ),
    Permission(
        roles=("reconcile", "prices"),
        actions=("ec2:DescribeAvailabilityZones",),
        resources=(ANY,),
        wide=_DESCRIBING,
        why="which zone a name stands for in this account",
    ),
    Permission(
        roles=("reconcile",),
        actions=(
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeInstances",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
        ),
        resources=(ANY,),
        wide=_DESCRIBING,
        why="finds its machines, and what to launch new ones from, in which subnet",
    ),
    Permission(
        roles=("prices",),
        actions=(
            "ec2:DescribeAddresses",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSpotPriceHistory",
            "ec2:DescribeVolumes",
        ),
        resources=(ANY,),
        wide=_DESCRIBING,
        why="what is sold where at which price, and what machines left behind",
    ),
    Permission(
        roles=("prices",),
        actions=(
            "ec2:DeleteLaunchTemplate",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteVolume",
            "ec2:ReleaseAddress",
        ),
        resources=_resources("elastic-ip", "launch-template", "network-interface", "volume"),
        condition=_OURS,
        why="removes what this deployment's machines left behind",
    ),
    Permission(
        roles=("prices",),
        actions=("servicequotas:GetServiceQuota",),
        resources=(ANY,),
        wide="Service Quotas knows no resource for reading",
        why="leaves out what the account may not buy",
    ),
    Permission(
        roles=("reconcile",),
        actions=("iam:PassRole",),
        resources=("{machine_role}",),
        condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        why="gives machines the role by which they prove who they are; it may do nothing",
    ),
    Permission(
        roles=("reconcile",),
        actions=("iam:PassRole",),
        resources=("{life_limit_role}",),
        condition={"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}},
        why="lets a schedule end a machine at its deadline",
    ),
    Permission(
        roles=("reconcile",),
        actions=("iam:CreateServiceLinkedRole",),
        resources=(
            "arn:{partition}:iam::{account}:role/aws-service-role/"
            "ec2fleet.amazonaws.com/AWSServiceRoleForEC2Fleet",
            "arn:{partition}:iam::{account}:role/aws-service-role/"
            "spot.amazonaws.com/AWSServiceRoleForEC2Spot",
        ),
        condition={
            "StringEquals": {"iam:AWSServiceName": ("ec2fleet.amazonaws.com", "spot.amazonaws.com")}
        },
        why="an account that buys spot machines for the first time gets EC2's own roles for it",
    ),
    Permission(
        roles=("reconcile",),
        actions=("scheduler:CreateSchedule", "scheduler:DeleteSchedule"),
        resources=("arn:{partition}:scheduler:*:{account}:schedule/default/i-*",),
        why="ends a machine at its deadline, whatever becomes of this deployment",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ssm:GetParameter",),
        resources=("arn:{partition}:ssm:*::parameter/aws/service/deeplearning/*",),
        why="the newest image with a driver",
    ),
    Permission(
        roles=("reconcile",),
        actions=("ssm:GetParameter",),
        resources=("arn:{partition}:ssm:{region}:{account}:parameter/orchctl/{installation}/*",),
        why="where alerts go: the addresses of this deployment's receivers",
    ),
    Permission(
        roles=FUNCTIONS,
        actions=("logs:CreateLogStream", "logs:PutLogEvents"),
        resources=(
            "arn:{partition}:logs:{region}:{account}:log-group:/aws/lambda/{prefix}-{role}:*",
        ),
        why="writes its log and its figures",
        by=LAMBDA,
    ),
    Permission(
        roles=FUNCTIONS,
        actions=("xray:PutTelemetryRecords", "xray:PutTraceSegments"),
        resources=(ANY,),
        wide="X-Ray knows no resource for writing traces",
        why="writes traces, where they are switched on",
        by=LAMBDA,
    ),
    Permission(
        roles=("interruption",),
        actions=("sqs:SendMessage",),
        resources=("{dead_letters}",),
        why="keeps an event that could not be acted on",
        by=LAMBDA,
    ),
    Permission(
        roles=("life_limit",),
        actions=("ec2:TerminateInstances",),
        resources=_resources("instance"),
        condition=_OURS,
        why="ends a machine at its deadline",
        by=SCHEDULER,
    ),
)

_NAME = re.compile(r"(?<!\$)\{(\w+)\}")


def of(role: str) -> tuple[Permission, ...]:
    """What one role may do."""
    return tuple(each for each in PERMISSIONS if role in each.roles)


def actions(role: str) -> tuple[str, ...]:
    """The actions that one role may do, each once."""
    return tuple(sorted({action for each in of(role) for action in each.actions}))


def statements(role: str, words: Mapping[str, str]) -> list[dict[str, object]]:
    """The statements of a role's policy; `words` for the names in braces. Raises `KeyError` for a
    name without a word."""
    words = {**words, "role": role}
    return [
        {
            "Effect": "Allow",
            "Action": sorted(each.actions),
            "Resource": [_filled(resource, words) for resource in each.resources],
            **({"Condition": _condition(each, words)} if each.condition else {}),
        }
        for each in of(role)
    ]


def _condition(permission: Permission, words: Mapping[str, str]) -> dict[str, object]:
    return {
        operator: {
            key: _filled(value, words)
            if isinstance(value, str)
            else [_filled(each, words) for each in value]
            for key, value in tests.items()
        }
        for operator, tests in permission.condition.items()
    }


def _filled(text: str, words: Mapping[str, str]) -> str:
    return _NAME.sub(lambda found: words[found[1]], text)
