"""Messages on their way: signed, sent once each, again while nobody takes them, given up in the
end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.alerts import Delivery, DeliveryState
from control_plane.errors import Unavailable
from control_plane.stores.memory import MemoryStore
from control_plane.webhooks import signatures
from control_plane.webhooks.courier import ATTEMPTS_MAX, Aside, Courier, pause, slack_text
from control_plane.webhooks.post import Post
from control_plane.webhooks.secrets import EnvironmentSecrets
from tests.api.world import ManualClock
from tests.conformance.builders import NOW, delivery
from tests.unit.webhooks.receiver import Receiver

SECRET = b"s" * 32


@dataclass
class Office:
    """A store with one message, a receiver, and a courier between them."""

    receiver: Receiver
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment["ORCHCTL_SECRET_PAGER"] = f"{self.receiver.url}/page"
        self.courier = self.another()

    def another(self) -> Courier:
        secrets = EnvironmentSecrets(self.environment)
        return Courier(self.store, self.clock, secrets, Post(local=True), secret=SECRET)

    def write(self, message_id: str = "20260301.x.a.1.0", **changes: Any) -> None:
        record = delivery(message_id, due_at=NOW, **changes)
        self.store.delivery_put(record, expected_version=0)

    def attend(self) -> Delivery:
        """A round; the message that is first in the log."""
        self.courier.attend(self.store.shared_read().deliveries)
        return self.store.delivery_list()[0]


@pytest.fixture
def office() -> Iterator[Office]:
    with Receiver() as receiver:
        yield Office(receiver)


def test_a_message_is_signed_as_the_standard_has_it(office: Office) -> None:
    office.write(fix="orchctl job report j-1")
    sent = office.attend()
    (asked,) = office.receiver.asked
    secret = signatures.new_secret(signatures.hooks_key(SECRET), "alert", "secret://pager")
    message = signatures.check_standard(asked.headers, asked.body, [secret], NOW)
    assert message == sent.id
    assert asked.path == "/page"
    assert json.loads(asked.body) == {
        "type": "orchctl.job-failed",
        "timestamp": NOW.isoformat(),
        "data": {
            "autoscaler": "a",
            "subject": "j-1",
            "text": "job j-1 failed",
            "fix": "orchctl job report j-1",
        },
    }
    assert (sent.state, sent.status, sent.attempts) == (DeliveryState.SENT, 200, 1)
    assert sent.ended_at == NOW
    assert not office.store.shared_read().deliveries


def test_a_message_to_slack_is_text_and_nobody_is_called_by_it(office: Office) -> None:
    office.write(channel="slack", text="job <!channel> & co", fix="x")
    office.attend()
    (asked,) = office.receiver.asked
    assert json.loads(asked.body) == {"text": "a: job &lt;!channel&gt; &amp; co\nx"}
    assert "webhook-signature" not in asked.headers
    assert slack_text(delivery(text="ok", fix="")) == "a: ok"


def test_what_was_refused_comes_again_under_the_same_id(office: Office) -> None:
    office.write()
    office.receiver.answer(503)
    waiting = office.attend()
    assert (waiting.state, waiting.status, waiting.attempts) == (DeliveryState.WAITING, 503, 1)
    assert waiting.problem == "the receiver answered 503"
    office.attend()
    assert len(office.receiver.asked) == 1, "it is not due"
    office.clock.at = waiting.due_at
    assert office.attend().state is DeliveryState.SENT
    first, second = office.receiver.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]


def test_what_nobody_takes_is_given_up(office: Office) -> None:
    office.write()
    for _ in range(ATTEMPTS_MAX):
        office.receiver.answer(500)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        last = office.attend()
        assert last.attempts == attempt
        office.clock.at = last.due_at
    assert last.state is DeliveryState.GIVEN_UP
    assert last.ended_at is not None
    office.attend()
    assert len(office.receiver.asked) == ATTEMPTS_MAX
    assert timedelta(hours=8) < last.ended_at - NOW < timedelta(hours=11)


def test_a_receiver_that_is_gone_is_left_alone(office: Office) -> None:
    office.write()
    office.receiver.answer(410)
    assert office.attend().state is DeliveryState.GIVEN_UP


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404])
def test_only_a_good_answer_counts(office: Office, status: int) -> None:
    office.write()
    office.receiver.answer(status, {"Location": f"{office.receiver.url}/other"})
    assert office.attend().state is DeliveryState.WAITING
    assert len(office.receiver.asked) == 1


def test_a_secret_that_is_not_there_is_named_and_waited_for(office: Office) -> None:
    office.write(target="secret://ops/pager-2")
    missing = office.attend()
    assert missing.state is DeliveryState.WAITING
    assert "no secret ops/pager-2" in missing.problem
    assert "set ORCHCTL_SECRET_OPS_PAGER_2" in missing.problem
    office.environment["ORCHCTL_SECRET_OPS_PAGER_2"] = office.receiver.url
    office.clock.at = missing.due_at
    assert office.attend().state is DeliveryState.SENT


def test_an_address_is_never_in_the_log(office: Office) -> None:
    address = f"{office.receiver.url}/T0/B0/token"
    for number, wrong in enumerate(
        ("http://127.0.0.1:1/T0/token", "ftp://token", "https:///token")
    ):
        office.environment[f"ORCHCTL_SECRET_P{number}"] = wrong
        office.write(f"2026030{number}", target=f"secret://p{number}")
    office.environment["ORCHCTL_SECRET_PAGER"] = address
    office.write("20260309")
    office.receiver.answer(500)
    office.attend()
    log = office.store.delivery_list()
    assert all(each.problem for each in log)
    assert "token" not in repr(log)


def test_of_many_controllers_one_sends(office: Office) -> None:
    office.write()
    seen = office.store.shared_read().deliveries
    couriers = [office.another() for _ in range(6)]
    threads = [threading.Thread(target=each.attend, args=(seen,)) for each in couriers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(office.receiver.asked) == 1


def test_one_that_died_after_sending_is_sent_again_under_the_same_id(office: Office) -> None:
    """Nothing tells a message that went out from one that did not: its receiver knows the id."""
    office.write()
    begun = office.courier._begin(office.store.shared_read().deliveries[0])
    office.courier._try(begun)
    office.clock.at = begun.due_at
    assert office.attend().state is DeliveryState.SENT
    first, second = office.receiver.asked
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_round_has_room_for_some(office: Office) -> None:
    for number in range(13):
        office.write(f"20260301.{number:02}")
    office.attend()
    assert len(office.receiver.asked) == 10
    office.attend()
    assert len(office.receiver.asked) == 13


def test_a_store_that_does_not_answer_stops_nobody(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    office.write()
    seen = office.store.shared_read().deliveries

    def away(*_: Any, **__: Any) -> None:
        raise Unavailable("the store is away")

    office.store.delivery_put = away  # type: ignore[method-assign]
    office.courier.attend(seen)
    assert "not attended to" in caplog.text
    assert not office.receiver.asked


def test_a_courier_aside_keeps_nobody_waiting(office: Office) -> None:
    begun, go_on, rounds = threading.Event(), threading.Event(), []

    class Slow(Courier):
        def attend(self, waiting: Any) -> None:
            rounds.append(waiting)
            begun.set()
            assert go_on.wait(10)

    slow = Slow(office.store, office.clock, EnvironmentSecrets({}), Post(), secret=SECRET)
    aside = Aside(slow)
    aside.attend([delivery()])
    assert begun.wait(10)
    aside.attend([delivery()])
    go_on.set()
    aside.close()
    assert len(rounds) == 1


def test_pauses_grow_and_differ() -> None:
    grown = [pause("a", attempt).total_seconds() for attempt in range(1, ATTEMPTS_MAX)]
    assert grown == sorted(grown)
    assert 30 <= grown[0] <= 36
    assert 21_600 <= grown[-1] <= 25_920
    assert pause("a", 1) == pause("a", 1)
    assert len({pause(str(number), 1) for number in range(50)}) > 25
