"""The table of permissions is exact: what the functions ask of AWS in a whole life is what it
lists, each right is missed when it is taken away, and none reaches what is somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
from ruamel.yaml import YAML

from infra.iam import render
from infra.iam.permissions import (
    ANY,
    FUNCTIONS,
    LAMBDA,
    PERMISSIONS,
    SCHEDULER,
    TRUST,
    actions,
    of,
    statements,
)
from tests.fakes.iam.policy import AccessDenied, Ask, Statement, allows, check
from tests.requires import ROOT
from tests.unit.infra.conftest import Recorded
from tests.unit.infra.roles import ACCOUNT, WORDS, machine, machine_policy, policy, role, without

pytestmark = pytest.mark.xdist_group("permissions")

REGION = "us-east-1"
OURS, THEIRS = "orchctl-test-research", "orchctl-other-research"


def _asks(recorded: Recorded, role: str) -> list[Ask]:
    """All that is asked in a role's name: by the program, and by AWS itself."""
    called = [ask for _, each in recorded.get(role, ()) for ask in each]
    return [*called, *_PLATFORM[role]]


def _by_lambda(function: str) -> list[Ask]:
    """What Lambda does in the name of every function: its log, and traces where they are on."""
    log = f"log-group:/aws/lambda/orchctl-test-{function}:log-stream:2026/01/01/[$LATEST]1"
    arn = f"arn:aws:logs:eu-central-1:{ACCOUNT}:{log}"
    return [
        *(Ask(action=f"logs:{each}", resource=arn) for each in ("CreateLogStream", "PutLogEvents")),
        *(
            Ask(action=f"xray:{each}", resource="*")
            for each in ("PutTraceSegments", "PutTelemetryRecords")
        ),
    ]


_INSTANCE = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0123456789abcdef0"
_PLATFORM: Mapping[str, Sequence[Ask]] = {
    **{function: _by_lambda(function) for function in FUNCTIONS},
    "interruption": [
        *_by_lambda("interruption"),
        Ask(action="sqs:SendMessage", resource=WORDS["${DeadLetters.Arn}"]),
    ],
    "life_limit": [
        Ask(
            action="ec2:TerminateInstances",
            resource=_INSTANCE,
            context={"aws:ResourceTag/orchctl-fleet": OURS},
        )
    ],
}
"""What AWS itself asks in the name of a role."""

EACH_RIGHT = [
    pytest.param(role, each, id=f"{role}-{each}") for role in TRUST for each in actions(role)
]


@pytest.mark.parametrize("name", TRUST)
def test_what_is_asked_is_what_the_table_lists(recorded: Recorded, name: str) -> None:
    assert {ask.action for ask in _asks(recorded, name)} == set(actions(name))


@pytest.mark.parametrize("name", TRUST)
def test_each_role_allows_all_that_is_asked_in_its_name(recorded: Recorded, name: str) -> None:
    allowed = policy(name)
    for ask in _asks(recorded, name):
        check(allowed, ask)


@pytest.mark.parametrize(("name", "action"), EACH_RIGHT)
def test_a_call_without_its_right_is_denied_by_name(
    recorded: Recorded, name: str, action: str
) -> None:
    less = without(policy(name), action)
    asked = [ask for ask in _asks(recorded, name) if ask.action == action]
    assert asked
    for ask in asked:
        with pytest.raises(AccessDenied, match=f"not authorized to perform {action} on"):
            check(less, ask)


@pytest.mark.parametrize("name", TRUST)
def test_no_resource_is_allowed_that_is_never_used(recorded: Recorded, name: str) -> None:
    asked = _asks(recorded, name)
    for statement in policy(name):
        for resource in statement["Resource"]:
            only: Statement = {**statement, "Resource": [resource]}
            used = [ask for ask in asked if allows([only], ask)]
            assert used, f"nothing of {name} uses {statement['Action']} on {resource}"


# ---------------------------------------------------------------------- what is somebody else's


def _tagged(recorded: Recorded) -> Iterator[tuple[str, Ask]]:
    """All that is asked of what has a fleet's label, or is to get one."""
    for name in TRUST:
        for ask in _asks(recorded, name):
            if any(key.endswith("/orchctl-fleet") for key in ask.context):
                yield name, ask


def test_nothing_is_done_to_what_another_deployment_has(recorded: Recorded) -> None:
    tried: set[str] = set()
    for name, ask in _tagged(recorded):
        theirs = {
            key: THEIRS if key.endswith("/orchctl-fleet") else value
            for key, value in ask.context.items()
        }
        assert not allows(policy(name), replace(ask, context=theirs)), ask
        tried.add(ask.action)
    assert tried == {
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateTags",
        "ec2:DeleteLaunchTemplate",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteVolume",
        "ec2:ReleaseAddress",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
    }


def test_nothing_is_done_to_what_has_no_label(recorded: Recorded) -> None:
    for name, ask in _tagged(recorded):
        bare = {key: value for key, value in ask.context.items() if "orchctl-" not in key}
        assert not allows(policy(name), replace(ask, context=bare)), ask


def test_what_exists_gets_no_label_of_ours() -> None:
    ask = Ask(
        action="ec2:CreateTags",
        resource=_INSTANCE,
        context={"aws:RequestTag/orchctl-fleet": OURS},
    )
    assert not allows(policy("reconcile"), ask)


@pytest.mark.parametrize("service", ["lambda.amazonaws.com", "ecs-tasks.amazonaws.com"])
def test_roles_are_lent_to_their_service_alone(recorded: Recorded, service: str) -> None:
    lent = [ask for ask in _asks(recorded, "reconcile") if ask.action == "iam:PassRole"]
    assert {ask.resource for ask in lent} == {
        WORDS["${MachineRole.Arn}"],
        WORDS["${LifeLimitRole.Arn}"],
    }
    for ask in lent:
        other = replace(ask, context={"iam:PassedToService": service})
        assert not allows(policy("reconcile"), other)
        assert not allows(policy("reconcile"), replace(ask, resource=f"{ask.resource}-admin"))


@pytest.mark.parametrize("table", ["orchctl-other-table", "orchctl-test-table-2"])
def test_no_other_table_is_read(table: str) -> None:
    arn = WORDS["${Table.Arn}"].rpartition("/")[0] + f"/{table}"
    for function in FUNCTIONS:
        for each in (arn, f"{arn}/index/ready"):
            assert not allows(policy(function), Ask(action="dynamodb:Query", resource=each))


def test_only_the_api_reads_what_jobs_leave() -> None:
    log = f"{WORDS['${Bucket.Arn}']}/jobs/j-1/1/log/.part-1"
    may = [each for each in TRUST if allows(policy(each), Ask(action="s3:GetObject", resource=log))]
    assert may == ["api"]


# ------------------------------------------------------------------------------ the table itself


def test_no_action_has_a_wildcard() -> None:
    for name in TRUST:
        for action in actions(name):
            service, _, verb = action.partition(":")
            assert service.isalnum(), action
            assert verb.isalnum(), action


def test_each_wildcard_resource_says_why_and_no_other_does() -> None:
    for each in PERMISSIONS:
        assert (each.resources == (ANY,)) == bool(each.wide), each
        assert each.why
        assert each.by in ("", LAMBDA, SCHEDULER)


def test_each_right_of_a_role_stands_in_one_place() -> None:
    for name in TRUST:
        pairs = [(a, r, str(p.condition)) for p in of(name) for a in p.actions for r in p.resources]
        assert len(pairs) == len(set(pairs))


def test_a_word_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError):
        statements("api", {"table": "t"})


def test_the_roles_are_the_rendered_ones() -> None:
    assert render.ROLES.read_text(encoding="utf-8") == render.cloudformation(), "run: make docs"


@pytest.mark.parametrize(("name", "service"), TRUST.items())
def test_each_role_is_taken_up_by_one_service(name: str, service: str) -> None:
    (trust,) = role(name)["AssumeRolePolicyDocument"]["Statement"]
    assert (trust["Effect"], trust["Action"]) == ("Allow", "sts:AssumeRole")
    assert trust["Principal"] == {"Service": service}
    if service == "scheduler.amazonaws.com":
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def test_machines_have_a_role_that_may_do_nothing_and_that_only_ec2_lends() -> None:
    (trust,) = machine()["AssumeRolePolicyDocument"]["Statement"]
    assert trust == {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    assert machine_policy() == []
    assert not {"ManagedPolicyArns", "Policies"} & set(machine())


def test_what_lambda_does_in_a_role_is_what_the_deployment_switches_on() -> None:
    told = YAML(typ="safe", pure=True).load((ROOT / "serverless.yml").read_text(encoding="utf-8"))
    kept = {name for name, each in told["functions"].items() if "onError" in each}
    assert kept == {name for name in FUNCTIONS if "sqs:SendMessage" in actions(name)}
    assert set(told["functions"]) == set(FUNCTIONS)
    for name, each in told["functions"].items():
        assert each["role"] == render.role_id(name)
    assert "tracing" in told["provider"]
