"""The roles of a deployment as CloudFormation makes them from `infra/iam/roles.yml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from infra.iam.render import ROLES, role_id
from tests.fakes.iam.policy import Statement
from tests.unit.infra.plane import BUCKET, REGION, STAGE, TABLE

RESOURCES = ROLES.parents[1] / "lambda" / "resources.yml"
ACCOUNT = "123456789012"
WORDS: Mapping[str, str] = {
    "${Table.Arn}": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{TABLE}",
    "${Bucket.Arn}": f"arn:aws:s3:::{BUCKET}",
    "${DeadLetters.Arn}": f"arn:aws:sqs:{REGION}:{ACCOUNT}:orchctl-{STAGE}-dead-letters",
    "${MachineRole.Arn}": f"arn:aws:iam::{ACCOUNT}:role/orchctl-machine-{STAGE}",
    "${LifeLimitRole.Arn}": f"arn:aws:iam::{ACCOUNT}:role/orchctl-life-limit-{STAGE}",
    "${AWS::Partition}": "aws",
    "${AWS::Region}": REGION,
    "${AWS::AccountId}": ACCOUNT,
    "${self:service}": "orchctl",
    "${sls:stage}": STAGE,
    "${self:custom.installation}": STAGE,
}


def role(name: str) -> Mapping[str, Any]:
    """The properties of a role."""
    return dict(_resolved(_roles()[role_id(name)]["Properties"]))


def policy(name: str) -> list[Statement]:
    """The statements of its policy."""
    (only,) = role(name)["Policies"]
    return list(only["PolicyDocument"]["Statement"])


def machine() -> Mapping[str, Any]:
    """The properties of the role of machines, which is with the other parts of a deployment."""
    resources = YAML(typ="safe", pure=True).load(RESOURCES.read_text(encoding="utf-8"))
    return dict(resources["Resources"]["MachineRole"]["Properties"])


def machine_policy() -> list[Statement]:
    """What it may do."""
    policies = machine().get("Policies", [])
    return [s for each in policies for s in each["PolicyDocument"]["Statement"]]


def without(statements: list[Statement], action: str) -> list[Statement]:
    """The same with one action taken away."""
    kept = [{**each, "Action": [a for a in each["Action"] if a != action]} for each in statements]
    return [each for each in kept if each["Action"]]


@cache
def _roles() -> Mapping[str, Any]:
    document = YAML(typ="safe", pure=True).load(ROLES.read_text(encoding="utf-8"))
    return dict(document["Resources"])


def _resolved(part: Any) -> Any:
    if isinstance(part, str):
        for name, word in WORDS.items():
            part = part.replace(name, word)
        return part
    if isinstance(part, list):
        return list(map(_resolved, part))
    if isinstance(part, dict):
        if set(part) == {"Fn::Sub"}:
            return _resolved(part["Fn::Sub"])
        return {name: _resolved(each) for name, each in part.items()}
    return part
