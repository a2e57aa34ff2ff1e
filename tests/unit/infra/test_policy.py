"""The evaluator that other tests judge roles with decides as the IAM User Guide says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.iam.asks import Account, Call, asks
from tests.fakes.iam.policy import AccessDenied, Ask, allows, check

ACCOUNT = Account(id="123456789012", machine_role="arn:aws:iam::123456789012:role/machine")


def statement(effect: str = "Allow", **changes: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*", **changes}


ASK = Ask(action="s3:GetObject", resource="arn:aws:s3:::b/a/b", context={"aws:RequestTag/x": "one"})


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([], False),
        ([statement()], True),
        ([statement(), statement("Deny")], False),
        ([statement(Action="s3:*")], True),
        ([statement(Action="s3:getobject")], True),
        ([statement(Action="s3:GetObjectAcl")], False),
        ([statement(Action="s3:Get?bject")], True),
        ([statement(Action=["s3:PutObject", "s3:GetObject"])], True),
        ([statement(Resource="*")], True),
        ([statement(Resource="arn:aws:s3:::b/a")], False),
        ([statement(Resource="arn:aws:s3:::B/*")], False),
        ([statement(Resource=["arn:aws:s3:::c/*", "arn:aws:s3:::b/a/?"])], True),
        ([statement(Resource="arn:aws:*:b/a/b")], False),
        ([statement(Condition={"StringEquals": {"aws:RequestTag/x": "one"}})], True),
        ([statement(Condition={"StringEquals": {"AWS:requesttag/X": ["two", "one"]}})], True),
        ([statement(Condition={"StringEquals": {"aws:RequestTag/x": "o*"}})], False),
        ([statement(Condition={"StringLike": {"aws:RequestTag/x": "o*"}})], True),
        ([statement(Condition={"StringLike": {"aws:RequestTag/y": "*"}})], False),
        (
            [statement(Condition={"StringLike": {"aws:RequestTag/x": "*", "aws:other": "*"}})],
            False,
        ),
        ([statement(), statement("Deny", Condition={"StringLike": {"aws:absent": "*"}})], True),
    ],
)
def test_decision(statements: list[dict[str, Any]], allowed: bool) -> None:
    assert allows(statements, ASK) is allowed


def test_any_of_several_values_is_enough_where_it_is_said() -> None:
    ask = Ask(action="a:B", resource="*", context={"aws:TagKeys": ("one", "two")})
    some = {"ForAnyValue:StringEquals": {"aws:TagKeys": ["two", "three"]}}
    none = {"ForAnyValue:StringEquals": {"aws:TagKeys": "four"}}
    assert allows([statement(Action="a:B", Resource="*", Condition=some)], ask)
    assert not allows([statement(Action="a:B", Resource="*", Condition=none)], ask)


@pytest.mark.parametrize(
    "unread",
    [
        {"NotAction": "s3:*"},
        {"Condition": {"ForAllValues:StringEquals": {"aws:RequestTag/x": "one"}}},
        {"Resource": "arn:aws:s3:::b/${aws:username}"},
    ],
)
def test_what_it_does_not_know_is_an_error(unread: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not known here|NotAction"):
        allows([statement(**unread)], ASK)


def test_a_refusal_names_action_and_resource() -> None:
    with pytest.raises(AccessDenied, match=r"s3:GetObject on arn:aws:s3:::b/a/b because no policy"):
        check([], ASK)


def test_a_transaction_asks_for_each_of_its_steps() -> None:
    steps = [{kind: {"TableName": "t"}} for kind in ("Put", "Update", "Delete", "ConditionCheck")]
    call = Call(
        service="dynamodb",
        operation="TransactWriteItems",
        region="eu-west-1",
        parameters={"TransactItems": steps},
    )
    assert [ask.action for ask in asks(call, ACCOUNT)] == [
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
        "dynamodb:DeleteItem",
        "dynamodb:ConditionCheckItem",
    ]


@pytest.mark.parametrize("refused", ["", "NoSuchKey"])
def test_only_an_object_that_is_not_there_asks_for_the_list(refused: str) -> None:
    call = Call(
        service="s3",
        operation="GetObject",
        region="eu-west-1",
        parameters={"Bucket": "b", "Key": "k"},
        refused=refused,
    )
    wanted = ["s3:GetObject"] + (["s3:ListBucket"] if refused else [])
    assert [ask.action for ask in asks(call, ACCOUNT)] == wanted


def test_a_call_that_nobody_has_looked_up_is_an_error() -> None:
    call = Call(service="s3", operation="DeleteBucket", region="eu-west-1", parameters={})
    with pytest.raises(KeyError):
        asks(call, ACCOUNT)
