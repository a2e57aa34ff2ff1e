"""The roles of a deployment, written from the table of permissions. `make docs` writes
`infra/iam/roles.yml`, which serverless.yml includes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from infra.iam.permissions import TRUST, statements

ROLES = Path(__file__).with_name("roles.yml")
HEAD = "# Made from infra/iam/permissions.py by `make docs`; a test compares.\n"

CLOUDFORMATION = {
    "table": "${Table.Arn}",
    "bucket": "${Bucket.Arn}",
    "dead_letters": "${DeadLetters.Arn}",
    "reconcile": "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:"
    "${self:service}-${sls:stage}-reconcile",
    "prefix": "${self:service}-${sls:stage}",
    "region": "${AWS::Region}",
    "machine_role": "${MachineRole.Arn}",
    "life_limit_role": "${LifeLimitRole.Arn}",
    "partition": "${AWS::Partition}",
    "account": "${AWS::AccountId}",
    "installation": "${self:custom.installation}",
}
_NAMES = {"life_limit": "${self:service}-life-limit-${sls:stage}"}
"""Of roles that documents name."""


def role_id(role: str) -> str:
    """The logical id of a role."""
    return "".join(word.title() for word in role.split("_")) + "Role"


def cloudformation() -> str:
    """The roles as a part of a CloudFormation template."""
    text = io.StringIO()
    writer = YAML()
    writer.width = 4096
    writer.representer.ignore_aliases = lambda _: True
    writer.dump({"Resources": {role_id(role): _role(role) for role in TRUST}}, text)
    return HEAD + text.getvalue()


def _role(role: str) -> Mapping[str, object]:
    named = {"RoleName": _NAMES[role]} if role in _NAMES else {}
    policy = {
        "Version": "2012-10-17",
        "Statement": [*map(_subbed, statements(role, CLOUDFORMATION))],
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            **named,
            "Description": f"What orchctl's {role.replace('_', ' ')} may do",
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [_trust(role)]},
            "Policies": [{"PolicyName": role, "PolicyDocument": policy}],
        },
    }


def _trust(role: str) -> Mapping[str, object]:
    """A service that acts for many accounts takes up the role for this one alone."""
    mine = {"StringEquals": {"aws:SourceAccount": _sub("${AWS::AccountId}")}}
    return {
        "Effect": "Allow",
        "Principal": {"Service": TRUST[role]},
        "Action": "sts:AssumeRole",
        **({"Condition": mine} if TRUST[role] == "scheduler.amazonaws.com" else {}),
    }


def _subbed(statement: dict[str, object]) -> dict[str, object]:
    """With what CloudFormation fills in marked as such."""
    resources = statement["Resource"]
    assert isinstance(resources, list)
    return {**statement, "Resource": [_sub(each) for each in resources]}


def _sub(text: str) -> object:
    return {"Fn::Sub": text} if "${AWS::" in text or ".Arn}" in text else text


def main() -> None:
    """Write them."""
    ROLES.write_text(cloudformation(), encoding="utf-8")
