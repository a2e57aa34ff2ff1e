"""Prices that one function writes down and the others read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from control_plane.blobs.memory import MemoryBlobs
from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import Unavailable
from control_plane.serverless.price_book import READ_AGAIN, SavedPrices, save_prices
from providers.simulated.clock import SimulatedClock
from tests.build import offer

AWS = CloudPolicy(provider="aws", regions=("us-east-1",))
GCP = CloudPolicy(provider="gcp", regions=("us-central1",))


class Seller:
    """A provider, as far as it has offers."""

    def __init__(self, *offers: Offer) -> None:
        self.sells = list(offers)
        self.silent = False

    def offers(self, clouds: Sequence[CloudPolicy]) -> Sequence[Offer]:
        if not clouds:
            return [offer("9.99")]
        if self.silent:
            raise TimeoutError("no answer")
        return list(self.sells)


class World:
    def __init__(self, **sellers: Any) -> None:
        self.blobs = MemoryBlobs()
        self.clock = SimulatedClock()
        self.sellers = sellers
        self.book = self.reader()

    def reader(self) -> SavedPrices:
        return SavedPrices(self.blobs, lambda: self.sellers, self.clock.now)

    def save(self, *clouds: CloudPolicy) -> Any:
        return save_prices(self.blobs, self.sellers, clouds)


def test_what_was_saved_is_read() -> None:
    world = World(aws=Seller(offer("0.30"), offer("0.40", zone="us-east-1b")))
    assert world.save(AWS) == {"aws us-east-1": 2}
    assert world.book.offers([AWS]) == [offer("0.30"), offer("0.40", zone="us-east-1b")]


def test_before_anything_was_saved_the_catalogue_counts() -> None:
    world = World(aws=Seller(offer("0.30")), gcp=Seller())
    assert world.book.offers([AWS]) == [offer("9.99")]
    world.save(AWS)
    assert world.book.offers([GCP]) == [offer("9.99")]


def test_new_prices_are_seen_after_a_while() -> None:
    seller = Seller(offer("0.30"))
    world = World(aws=seller)
    world.save(AWS)
    assert world.book.offers([AWS]) == [offer("0.30")]
    seller.sells = [offer("0.20")]
    world.save(AWS)
    assert world.book.offers([AWS]) == [offer("0.30")]
    world.clock.advance(READ_AGAIN / timedelta(seconds=1))
    assert world.book.offers([AWS]) == [offer("0.20")]


def test_a_cloud_that_does_not_answer_keeps_its_last_prices() -> None:
    aws, gcp = Seller(offer("0.30")), Seller(offer("0.50", provider="gcp"))
    world = World(aws=aws, gcp=gcp)
    world.save(AWS, GCP)
    aws.silent, gcp.sells = True, [offer("0.60", provider="gcp")]
    assert world.save(AWS, GCP) == {
        "aws us-east-1": "TimeoutError: no answer",
        "gcp us-central1": 1,
    }
    book = world.reader()
    assert book.offers([AWS]) == [offer("0.30")]
    assert book.offers([GCP]) == [offer("0.60", provider="gcp")]


def test_clouds_that_no_document_names_any_more_are_forgotten() -> None:
    world = World(aws=Seller(offer("0.30")), gcp=Seller(offer("0.50", provider="gcp")))
    world.save(AWS, GCP)
    world.save(GCP)
    assert world.reader().offers([AWS]) == [offer("9.99")]


def test_a_bucket_that_does_not_answer_leaves_what_is_known() -> None:
    world = World(aws=Seller(offer("0.30")))
    world.save(AWS)
    assert world.book.offers([AWS]) == [offer("0.30")]

    class Silent(MemoryBlobs):
        def get(self, key: str) -> bytes:
            raise Unavailable("S3 does not answer")

    world.book._blobs = Silent()
    world.clock.advance(READ_AGAIN / timedelta(seconds=1))
    assert world.book.offers([AWS]) == [offer("0.30")]
