"""What is known of offers, and when somebody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy, merged
from control_plane.errors import Unavailable
from control_plane.system import LivePrices
from providers.simulated.clock import SimulatedClock
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.provider import SimulatedProvider
from tests.build import offer

AWS = CloudPolicy(provider="aws", regions=("us-east-1",))
SHIPPED, TODAY, LATER = (offer(price) for price in ("0.30", "0.25", "0.20"))


class Shop(SimulatedProvider):
    """Sells at the price of the day to whoever asks for a place, else as shipped."""

    def __init__(self) -> None:
        super().__init__(SimulatedCloud(1, SimulatedClock()), "aws")
        self.price = TODAY
        self.asked: list[Sequence[CloudPolicy]] = []
        self.silent = False

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        if not clouds:
            return [SHIPPED]
        self.asked.append(clouds)
        if self.silent:
            raise Unavailable("no answer")
        return [self.price]


class Counter:
    """A price book over one shop."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.at = datetime(2026, 5, 1, tzinfo=UTC)
        self.book = LivePrices({"aws": self.shop}, lambda names: [], lambda: self.at)

    def sold(self) -> list[Offer]:
        return list(self.book.offers([AWS]))

    def wait(self, minutes: float) -> None:
        self.at += timedelta(minutes=minutes)


def test_nobody_who_reads_waits_for_a_cloud() -> None:
    counter = Counter()
    assert counter.sold() == [SHIPPED]
    assert counter.shop.asked == []
    counter.book.refresh([AWS])
    assert counter.sold() == [TODAY]
    counter.shop.price = LATER
    counter.wait(60)
    assert counter.sold() == [TODAY]
    assert counter.shop.asked == [[AWS]]


def test_offers_are_asked_for_when_they_are_old() -> None:
    counter = Counter()
    counter.book.refresh([AWS])
    counter.shop.price = LATER
    counter.wait(4)
    counter.book.refresh([AWS])
    assert counter.sold() == [TODAY]
    counter.wait(2)
    counter.book.refresh([AWS])
    assert counter.sold() == [LATER]


def test_a_cloud_that_does_not_answer_keeps_its_offers_and_is_asked_again_in_a_minute() -> None:
    counter = Counter()
    counter.book.refresh([AWS])
    counter.wait(6)
    counter.shop.silent = True
    counter.book.refresh([AWS])
    counter.book.refresh([AWS])
    assert counter.sold() == [TODAY]
    assert len(counter.shop.asked) == 2
    counter.wait(1)
    counter.shop.silent, counter.shop.price = False, LATER
    counter.book.refresh([AWS])
    assert counter.sold() == [LATER]


def test_what_is_not_set_up_comes_from_the_catalogue() -> None:
    book = LivePrices({}, lambda names: [SHIPPED] if names == ["aws"] else [], lambda: Counter().at)
    book.refresh([AWS])
    assert list(book.offers([AWS])) == [SHIPPED]


def test_settings_of_one_account_are_asked_once_for_all_regions() -> None:
    west = CloudPolicy(provider="aws", regions=("us-west-2", "us-east-1"))
    other = CloudPolicy(provider="aws", regions=("us-east-1",), options={"subnets": "s-1"})
    everywhere = CloudPolicy(provider="gcp", options={"project": "p"})
    gcp = CloudPolicy(provider="gcp", regions=("us-central1",), options={"project": "p"})
    assert merged([west, gcp, AWS, other, everywhere]) == (
        CloudPolicy(provider="aws", regions=("us-east-1", "us-west-2")),
        other,
        everywhere,
    )


def test_a_cloud_that_takes_its_time_is_asked_by_one_only() -> None:
    counter = Counter()
    inner: list[int] = []

    class Slow(Shop):
        def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
            if clouds:
                counter.book.refresh([AWS])  # as another look would, meanwhile
                inner.append(len(self.asked))
            return super().offers(clouds)

    counter.shop = Slow()
    counter.book = LivePrices({"aws": counter.shop}, lambda names: [], lambda: counter.at)
    counter.book.refresh([AWS])
    assert inner == [0]
    assert counter.shop.asked == [[AWS]]
    assert counter.sold() == [TODAY]
