"""One DynamoDB request until it is answered: repeats, a deadline, and errors people can act on.

botocore's own repeats are off: they know no deadline, cannot be counted, and would hide that an
earlier try may have gone through.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zlib import crc32

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's, for a service that was never reached
    HTTPClientError,
)

from control_plane.errors import InvalidInput, Unavailable
from control_plane.stores.dynamodb.items import Item, WireItem, decode_item
from control_plane.stores.figures import Figures

Client: TypeAlias = Any
"""A botocore client; botocore makes its methods at run time, so there is no type to name."""
Answer: TypeAlias = dict[str, Any]

DEADLINE_S = 10.0
"""How long one request is repeated before its caller hears `Unavailable`."""
CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 4.0
"""DynamoDB answers in milliseconds; a connection this slow is dead, and a new one is quicker."""
FIRST_WAIT_S = 0.025
LONGEST_WAIT_S = 1.0

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottlingError",
    }
)
_COLLISIONS = frozenset(
    {
        "ReplicatedWriteConflictException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
"""Another writer holds the item for a moment; nothing was written."""
_STRANGERS = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_WRONG_TABLE = (
    "does not match the schema",
    "does not have the specified index",
    "Missing the key",
    "Type mismatch for key",
    "Query condition missed key schema element",
)
_TOO_LARGE = ("Item size has exceeded", "Item size to update has exceeded")


def connect(
    *,
    region: str = "",
    endpoint_url: str = "",
    access_key: str = "",
    secret_key: str = "",
    connections: int = 32,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    read_timeout_s: float = READ_TIMEOUT_S,
) -> Client:
    """A DynamoDB client. What is left empty comes from where the AWS SDK looks for it: environment,
    profile, role. Any number of threads may use it; `connections` of them at once. Raises
    `Unavailable` when there is no region."""
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        tcp_keepalive=True,
        max_pool_connections=connections,
        parameter_validation=False,
        user_agent_extra="orchctl",
    )
    try:
        client = botocore.session.get_session().create_client(
            "dynamodb",
            region_name=region or None,
            endpoint_url=endpoint_url or None,
            aws_access_key_id=access_key or None,
            aws_secret_access_key=secret_key or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise Unavailable(
            f"DynamoDB cannot be used: {error}",
            fix="Set AWS_REGION (or the region in the settings), and check the endpoint URL.",
        ) from error
    client.meta.events.register("after-call.dynamodb", _check_sum)
    return client


def _check_sum(http_response: Any, **_: Any) -> None:
    # botocore reads what is no JSON as an empty answer: "there is no such item". Errors may come
    # from something before DynamoDB that sends no sum.
    told, found = http_response.headers.get("x-amz-crc32"), str(crc32(http_response.content))
    if told != found and (told or http_response.status_code == 200):
        raise ChecksumError(checksum_type="crc32", expected_checksum=told, actual_checksum=found)


class ConditionFailed(Exception):
    """A write's condition did not hold; nothing was written."""

    def __init__(self, wire: WireItem | None, *, unclear: bool) -> None:
        super().__init__("the condition did not hold")
        self.wire = wire
        self.unclear = unclear
        """Whether an earlier try of the same write got no answer: it may have been carried out, and
        somebody has changed the item since."""

    @property
    def old(self) -> Item | None:
        """The item as it is; None when there is none."""
        return None if self.wire is None else decode_item(self.wire)


class TransactionRefused(Exception):
    """A condition in a transaction did not hold; nothing was written."""

    def __init__(self, failed: Mapping[int, WireItem | None]) -> None:
        super().__init__(f"the conditions of operations {sorted(failed)} did not hold")
        self.wires = failed

    @property
    def failed(self) -> Mapping[int, Item | None]:
        """The position of each operation whose condition did not hold, and the item as it is."""
        return {at: wire and decode_item(wire) for at, wire in self.wires.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The source of time and chance; tests bring their own."""

    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    chance: random.Random = field(default_factory=random.SystemRandom)
    deadline_s: float = DEADLINE_S


class Patience:
    """How long one request has been tried, and when to stop."""

    def __init__(self, waiting: Waiting, *, table: str, action: str, figures: Figures) -> None:
        self._waiting = waiting
        self._table = table
        self._action = action
        self._figures = figures
        self._began = waiting.monotonic()
        self._tries = 0

    def wait(self, why: str, *, throttled: bool) -> None:
        """Wait before the next try: exponential backoff with full jitter (AWS architecture blog,
        "Exponential backoff and jitter"). Raises `Unavailable` when the deadline would pass."""
        self._figures.add(throttles=int(throttled))
        self._tries += 1
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (self._tries - 1))
        pause = self._waiting.chance.uniform(0.0, longest)
        waited = self._waiting.monotonic() - self._began
        if waited + pause > self._waiting.deadline_s:
            raise self._given_up(why, waited, throttled=throttled)
        self._waiting.sleep(pause)
        self._figures.add(retries=1)

    def _given_up(self, why: str, waited: float, *, throttled: bool) -> Unavailable:
        tries = f"{self._tries} {'try' if self._tries == 1 else 'tries'}"
        what = "throttled" if throttled else "did not answer"
        return Unavailable(
            f"DynamoDB {what} {self._action} on table {self._table!r} for {waited:.1f} s "
            f"({tries}): {why}",
            fix=(
                "Try again in a minute: an on-demand table grows with its load. If it lasts, raise "
                "the table's maximum throughput or the account's quota."
                if throttled
                else "Check the network, the region and the endpoint URL, then try again."
            ),
        )


class Calls:
    """Sends requests about one table."""

    def __init__(self, client: Client, table: str, figures: Figures, waiting: Waiting) -> None:
        self._client = client
        self._table = table
        self._figures = figures
        self._waiting = waiting

    def patience(self, action: str) -> Patience:
        """For an action that is repeated with a part of its request."""
        return Patience(self._waiting, table=self._table, action=action, figures=self._figures)

    def send(self, action: str, request: Mapping[str, Any]) -> Answer:
        """The answer to one request, for example `PutItem`. Raises `ConditionFailed`,
        `TransactionRefused`, `Unavailable`, and `InvalidInput` for an item that is too large. Any
        other refusal is a fault of this program and is raised as botocore's `ClientError`."""
        method = getattr(self._client, _METHODS[action])
        patience = self.patience(action)
        unclear = False
        while True:
            try:
                answer: Answer = method(**request)
            except ClientError as error:
                why, throttled = self._repeatable(action, error, unclear=unclear)
                unclear = unclear or _status(error) >= 500
            except (HTTPClientError, ConnectionError, ChecksumError) as error:
                why, throttled, unclear = str(error), False, True
            except BotoCoreError as error:
                raise self._no_way_in(action, str(error)) from error
            else:
                return answer
            patience.wait(why, throttled=throttled)

    def _repeatable(self, action: str, error: ClientError, *, unclear: bool) -> tuple[str, bool]:
        """Why to try again, and whether that is because of throttling; raises when not."""
        code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        why = f"{code}: {text}"
        if code == "ConditionalCheckFailedException":
            raise ConditionFailed(error.response.get("Item"), unclear=unclear) from None
        if code == "TransactionCanceledException":
            code = _collision(error)
        if code in _THROTTLES or code in _COLLISIONS:
            return why, code in _THROTTLES
        if _status(error) >= 500:
            return why, False
        raise self._refusal(action, error, code, text) from error

    def _refusal(self, action: str, error: Exception, code: str, text: str) -> Exception:
        if code == "ResourceNotFoundException":
            return Unavailable(
                f"there is no DynamoDB table {self._table!r} in this account and region",
                fix="Check the table's name, the region and the account; deploy makes the table.",
            )
        if code in _STRANGERS:
            return self._no_way_in(action, f"{code}: {text}")
        if any(part in text for part in _TOO_LARGE):
            return InvalidInput(
                "this is larger than the 400 KB that DynamoDB holds in one item",
                fix="Make it smaller: put large inputs into the source or an artifact.",
            )
        if any(part in text for part in _WRONG_TABLE):
            return Unavailable(
                f"the DynamoDB table {self._table!r} is not one of orchctl's: {text}",
                fix="Check the table's name: ours has keys pk and sk and an index.",
            )
        return error

    def _no_way_in(self, action: str, text: str) -> Unavailable:
        return Unavailable(
            f"DynamoDB does not let us in for dynamodb:{action} on table {self._table!r}: {text}",
            fix=f"Check the AWS credentials, and that their role allows dynamodb:{action} on it.",
        )


_METHODS = {
    "BatchGetItem": "batch_get_item",
    "BatchWriteItem": "batch_write_item",
    "CreateTable": "create_table",
    "DeleteItem": "delete_item",
    "DescribeTable": "describe_table",
    "DescribeTimeToLive": "describe_time_to_live",
    "GetItem": "get_item",
    "PutItem": "put_item",
    "Query": "query",
    "TransactWriteItems": "transact_write_items",
    "UpdateItem": "update_item",
    "UpdateTimeToLive": "update_time_to_live",
}


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _collision(error: ClientError) -> str:
    """Why a transaction was cancelled, when a repeat may go through; raises for good reasons."""
    reasons = list(enumerate(error.response.get("CancellationReasons", ())))
    failed = {at: each for at, each in reasons if each["Code"] == "ConditionalCheckFailed"}
    if failed:
        raise TransactionRefused({at: each.get("Item") for at, each in failed.items()}) from None
    codes: set[str] = {each["Code"] for _, each in reasons}
    return min(codes & (_THROTTLES | _COLLISIONS), default="TransactionCanceledException")
