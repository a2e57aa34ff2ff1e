"""Sends what alerts have written down: again while nobody takes it, with growing pauses, until it
is given up.

An attempt is counted in the store before it is made, on condition that nobody else has counted it.
So of several controllers one sends; one that dies in between leaves a message that is sent once
more under the same id, by which its receiver knows it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus

from control_plane.core.alerts import Delivery, DeliveryState
from control_plane.errors import Conflict, OrchctlError
from control_plane.ports import Clock, Secrets, Store
from control_plane.webhooks import signatures

log = logging.getLogger("orchctl.alerts")

AT_ONCE = 10
"""Messages sent side by side, and in one round: a receiver that is slow holds the loop of a
function for one timeout at most."""
PAUSES_S = (30, 120, 600, 1800, 7200, 21_600)
"""After the first attempt, the second and so on. After the last one it is given up: whoever is away
for nine hours looks into the log."""
ATTEMPTS_MAX = len(PAUSES_S) + 1
JITTER = 0.2
"""Pauses are longer by up to this part, so that what failed together does not come back so."""
PROBLEM_MAX = 200

Post = Callable[[str, bytes, Mapping[str, str]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What came of one attempt."""

    status: int = 0
    problem: str = ""
    """Empty = it was taken."""
    is_last: bool = False
    """Whether the receiver wants no more of it."""


class Courier:
    """Attends to messages. One at a time for each store is enough; more do no harm."""

    def __init__(
        self, store: Store, clock: Clock, secrets: Secrets, post: Post, *, secret: bytes
    ) -> None:
        """`secret` is the server's, as the API has it: it makes the secrets that sign."""
        self._store = store
        self._clock = clock
        self._secrets = secrets
        self._post = post
        self._key = signatures.hooks_key(secret)

    def attend(self, waiting: Sequence[Delivery]) -> None:
        """Send what is due, a round of it, and write down what came of it. Never raises."""
        now = self._clock.now()
        due = [each for each in waiting if each.due_at <= now][:AT_ONCE]
        if due:
            with ThreadPoolExecutor(len(due), thread_name_prefix="alert") as pool:
                list(pool.map(self._attend, due))

    def _attend(self, seen: Delivery) -> None:
        try:
            begun = self._begin(seen)
            ended = self._ended(begun, self._try(begun))
            self._store.delivery_put(ended, expected_version=begun.version)
        except Conflict:
            return  # another controller sends it
        except Exception:
            # The store does not answer, or has been closed: the message waits there.
            log.exception("a message was not attended to")

    def _begin(self, seen: Delivery) -> Delivery:
        attempt = seen.attempts + 1
        begun = replace(
            seen,
            attempts=attempt,
            due_at=self._clock.now() + pause(seen.id, attempt),
            version=seen.version + 1,
        )
        self._store.delivery_put(begun, expected_version=seen.version)
        return begun

    def _try(self, message: Delivery) -> _Outcome:
        try:
            address = self._secrets.resolve(message.target)
            body, headers = self._written(message)
            status = self._post(address, body, headers)
        except OrchctlError as error:
            return _Outcome(problem=" - ".join(filter(None, (error.message, error.fix))))
        if 200 <= status < 300:
            return _Outcome(status=status)
        is_gone = status == HTTPStatus.GONE  # as the standard has it
        return _Outcome(status=status, problem=f"the receiver answered {status}", is_last=is_gone)

    def _ended(self, begun: Delivery, came: _Outcome) -> Delivery:
        if not came.problem:
            state = DeliveryState.SENT
        elif came.is_last or begun.attempts >= ATTEMPTS_MAX:
            state = DeliveryState.GIVEN_UP
            log.warning("message %s is given up: %s", begun.id, came.problem)
        else:
            state = DeliveryState.WAITING
        return replace(
            begun,
            state=state,
            status=came.status,
            problem=came.problem[:PROBLEM_MAX],
            ended_at=None if state is DeliveryState.WAITING else self._clock.now(),
            version=begun.version + 1,
        )

    def _written(self, message: Delivery) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of a message, as its channel wants them."""
        common = {"Content-Type": "application/json", "User-Agent": "orchctl"}
        if message.channel == "slack":
            return json.dumps({"text": slack_text(message)}).encode(), common
        body = json.dumps(
            {
                "type": f"orchctl.{message.kind}",
                "timestamp": message.created_at.isoformat(),
                "data": {
                    "autoscaler": message.autoscaler,
                    "subject": message.subject,
                    "text": message.text,
                    "fix": message.fix,
                },
            }
        ).encode()
        secret = signatures.new_secret(self._key, signatures.ALERT, message.target)
        now = self._clock.now()
        return body, {**common, **signatures.standard_headers(secret, message.id, now, body)}


class Aside:
    """Lets a courier attend in a thread of its own, a round at a time: nobody waits for it."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="alerts")
        self._busy = threading.Lock()

    def attend(self, waiting: Sequence[Delivery]) -> None:
        """As the courier does it; nothing while a round is under way: what waits comes again."""
        if self._busy.acquire(blocking=False):
            self._pool.submit(self._round, waiting)

    def close(self) -> None:
        """Wait for the end of the round, and begin none any more."""
        self._pool.shutdown()

    def _round(self, waiting: Sequence[Delivery]) -> None:
        try:
            self._courier.attend(waiting)
        finally:
            self._busy.release()


def pause(message_id: str, attempt: int) -> timedelta:
    """From an attempt to the next one. Its chance part follows from the message alone."""
    draw = hashlib.sha256(f"{message_id} {attempt}".encode()).digest()[0] / 255
    return timedelta(seconds=PAUSES_S[min(attempt, len(PAUSES_S)) - 1] * (1 + JITTER * draw))


def slack_text(message: Delivery) -> str:
    """A message in Slack's own writing, where three characters would be read as commands:
    https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    text = f"{message.autoscaler}: {message.text}" + (f"\n{message.fix}" if message.fix else "")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
