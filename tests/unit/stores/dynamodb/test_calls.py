"""Repeats, the deadline and the texts of errors: the real SDK against a server that plays a script.

Time is virtual: only the connections are real.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from control_plane.errors import InvalidInput, OrchctlError, Unavailable
from control_plane.ports import OperationFigures
from control_plane.stores.dynamodb.calls import Client, TransactionRefused, connect
from control_plane.stores.dynamodb.client import Delete, Put, TableClient
from control_plane.stores.dynamodb.expressions import ABSENT
from tests.emulators.unreliable import CUT, Step, Unreliable, hear, refuse
from tests.unit.stores.dynamodb.line import Clock, line_to

FOUND = hear({"Item": {"pk": {"S": "a"}, "sk": {"S": "b"}}}, forward=False)
NOTHING = hear({}, forward=False)
SLOW_DOWN = refuse(400, "ProvisionedThroughputExceededException", "slow down")


@pytest.fixture
def script() -> Iterator[Unreliable]:
    """A DynamoDB that knows only its script."""
    server = Unreliable()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(script: Unreliable, clock: Clock) -> Iterator[TableClient]:
    with line_to(script.url, clock=clock) as made:
        yield made


def figures(table: TableClient) -> OperationFigures:
    return table.figures.read()["other"]


@pytest.mark.parametrize(
    "trouble",
    [
        SLOW_DOWN,
        refuse(400, "ThrottlingException"),
        refuse(400, "RequestLimitExceeded"),
        refuse(400, "TransactionConflictException"),
        refuse(500, "InternalServerError"),
        refuse(503, "ServiceUnavailable"),
        Step(forward=False, says=(502, b"<html>a load balancer</html>")),
        Step(forward=False, says=(200, b'{"Item": '), garbled=True),
        CUT,
    ],
)
def test_trouble_that_passes_is_waited_out(
    table: TableClient, script: Unreliable, clock: Clock, trouble: Step
) -> None:
    script.script = [trouble, trouble, FOUND]
    assert table.get("a", "b") == {"pk": "a", "sk": "b"}
    assert len(script.seen) == 3
    assert len(clock.slept) == 2
    assert figures(table).retries == 2


def test_throttles_are_counted_apart(table: TableClient, script: Unreliable) -> None:
    script.script = [SLOW_DOWN, CUT, refuse(500, "InternalServerError"), FOUND]
    table.get("a", "b")
    assert figures(table).throttles == 1
    assert figures(table).retries == 3


def test_waits_grow_are_drawn_and_stay_below_a_second(
    table: TableClient, script: Unreliable, clock: Clock
) -> None:
    script.script = [SLOW_DOWN] * 12 + [FOUND]
    table.get("a", "b")
    longest = [min(1.0, 0.025 * 2**n) for n in range(12)]
    assert all(0 < slept < most for slept, most in zip(clock.slept, longest, strict=True))
    assert len({slept / most for slept, most in zip(clock.slept, longest, strict=True)}) == 12


def test_after_the_deadline_it_says_what_was_throttled_for_how_long_and_what_to_do(
    table: TableClient, script: Unreliable, clock: Clock
) -> None:
    script.script = [SLOW_DOWN] * 1000
    with pytest.raises(Unavailable) as refusal:
        table.put({"pk": "a", "sk": "b"})
    waited = sum(clock.slept)
    assert 9 < waited <= 10
    assert refusal.value.message == (
        f"DynamoDB throttled PutItem on table 'jobs' for {waited:.1f} s "
        f"({len(script.seen)} tries): ProvisionedThroughputExceededException: slow down"
    )
    assert "maximum throughput" in refusal.value.fix
    assert figures(table).throttles == len(script.seen)
    assert figures(table).retries == len(script.seen) - 1


def test_nobody_there_is_said_after_the_deadline(clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        line_to(f"http://127.0.0.1:{port}", clock=clock) as table,
        pytest.raises(
            Unavailable, match=r"did not answer GetItem on table 'jobs' for \d"
        ) as refusal,
    ):
        table.get("a", "b")
    assert "network" in refusal.value.fix
    assert figures(table).throttles == 0


def test_an_answer_that_never_comes_is_asked_for_again(script: Unreliable) -> None:
    over = threading.Event()
    script.script = [Step(forward=False, after=over.wait, answer=False), FOUND]
    with line_to(script.url, read_timeout_s=0.2) as table:
        assert table.get("a", "b") is not None
    over.set()


@pytest.mark.parametrize(
    ("code", "message", "kind", "says", "fix"),
    [
        ("ResourceNotFoundException", "no", Unavailable, "no DynamoDB table 'jobs'", "region"),
        ("AccessDeniedException", "no", Unavailable, "dynamodb:PutItem", "allows dynamodb:PutItem"),
        ("UnrecognizedClientException", "bad token", Unavailable, "bad token", "credentials"),
        ("ExpiredTokenException", "old", Unavailable, "ExpiredTokenException: old", "credentials"),
        ("InvalidSignatureException", "clock", Unavailable, "let us in", "credentials"),
        (
            "ValidationException",
            "One or more parameter values were invalid: Missing the key id in the item",
            Unavailable,
            "not one of orchctl's: One or more",
            "name",
        ),
        (
            "ValidationException",
            "Item size has exceeded the maximum allowed size",
            InvalidInput,
            "400 KB",
            "smaller",
        ),
    ],
)
def test_a_refusal_for_good_is_told_at_once(
    table: TableClient,
    script: Unreliable,
    code: str,
    message: str,
    kind: type[OrchctlError],
    says: str,
    fix: str,
) -> None:
    script.script = [refuse(400, code, message)]
    with pytest.raises(kind) as refusal:
        table.put({"pk": "a", "sk": "b"})
    assert says in refusal.value.message
    assert fix in refusal.value.fix
    assert len(script.seen) == 1


def test_a_fault_of_ours_is_not_dressed_up(table: TableClient, script: Unreliable) -> None:
    script.script = [refuse(400, "ValidationException", "Invalid ConditionExpression")]
    with pytest.raises(ClientError, match="Invalid ConditionExpression"):
        table.put({"pk": "a", "sk": "b"}, condition=ABSENT)


def test_no_credentials_are_told_at_once(
    script: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    client = connect(region="eu-central-1", endpoint_url=script.url)
    table = TableClient(client, "jobs")
    with pytest.raises(Unavailable, match="dynamodb:GetItem on table 'jobs': Unable to locate"):
        table.get("a", "b")
    table.close()
    assert script.seen == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: connect(), "must specify a region"),
        (lambda: connect(region="x", endpoint_url="not an address"), "not an address"),
    ],
)
def test_a_client_that_cannot_be_made_says_why(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Client], says: str
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(Unavailable, match=says) as refusal:
        make()
    assert "AWS_REGION" in refusal.value.fix


def cancelled(*codes: str) -> Step:
    return refuse(
        400,
        "TransactionCanceledException",
        "Transaction cancelled",
        CancellationReasons=[{"Code": code} for code in codes],
    )


@pytest.mark.parametrize(
    ("code", "throttles"),
    [
        ("TransactionConflict", 0),
        ("ThrottlingError", 1),
        ("ProvisionedThroughputExceeded", 1),
    ],
)
def test_a_transaction_that_met_another_is_repeated_under_its_token(
    table: TableClient, script: Unreliable, code: str, throttles: int
) -> None:
    script.script = [cancelled("None", code), NOTHING]
    table.transact(Put(item={"pk": "a", "sk": "b"}), Delete(key=("a", "c")))
    (_, first), (_, second) = script.seen
    assert first == second
    assert figures(table).throttles == throttles


def test_a_transaction_whose_condition_fails_is_refused_whatever_else_happened(
    table: TableClient, script: Unreliable
) -> None:
    script.script = [cancelled("TransactionConflict", "ConditionalCheckFailed")]
    with pytest.raises(TransactionRefused) as refusal:
        table.transact(Put(item={"pk": "a", "sk": "b"}), Delete(key=("a", "c")))
    assert refusal.value.failed == {1: None}


def test_a_transaction_cancelled_by_our_fault_is_not_dressed_up(
    table: TableClient, script: Unreliable
) -> None:
    script.script = [cancelled("ValidationError")]
    with pytest.raises(ClientError, match="Transaction cancelled"):
        table.transact(Put(item={"pk": "a", "sk": "b"}))
