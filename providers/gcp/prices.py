"""What is for sale now: the shipped catalogue, joined with what the cloud says of each zone.

Asked for are the types that a zone sells, the Spot price of each (`advice.capacityHistory`; it
moves about once a day, so it is kept for an hour) and the quotas. On-demand prices stay those of
the catalogue. What cannot be read leaves the catalogue's figure as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from providers.catalog.loader import load_offers
from providers.gcp.client import Client
from providers.gcp.launch import attached, project_of, sold_on_demand
from providers.gcp.names import region_of
from providers.gcp.quotas import region

_SIDE_BY_SIDE = 8
_AT_A_TIME = 60
"""Prices asked for at one look, the oldest first; the rest wait for the next looks."""
_KEPT = timedelta(hours=1)
_ASKED_AGAIN = timedelta(minutes=5)
_NANO = Decimal("1e-9")

_Key = tuple[str, str, str]
_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


def catalogue(regions: Iterable[str] = ()) -> Sequence[Offer]:
    """What the shipped table has for these regions (none = all), without what is not sold so."""
    wanted = frozenset(regions)
    return [
        offer
        for offer in load_offers(["gcp"])
        if (not wanted or offer.region in wanted)
        and (offer.market is Market.SPOT or sold_on_demand(offer.instance_type))
    ]


class Shop:
    """Live offers, with a memory for Spot prices."""

    def __init__(self, client: Client, now: Callable[[], datetime], *, patience_s: float) -> None:
        self._client = client
        # Its own threads: a listing must not stand in line behind a hundred prices.
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="gcp-prices")
        self._now = now
        self._patience_s = patience_s
        self._prices: dict[_Key, tuple[datetime, Decimal | None]] = {}
        self._lock = threading.Lock()

    def offers(self, cloud: CloudPolicy) -> Sequence[Offer]:
        """What these settings may buy."""
        offers, project = catalogue(cloud.regions), project_of(cloud.options)
        names = sorted({offer.region for offer in offers})
        regions = self._asked(names, lambda name: region(self._client, project, name))
        allowed = [o for o in offers if o.region not in regions or not regions[o.region].bars(o)]
        zones = {offer.zone for offer in allowed if offer.zone}
        zones |= {zone for each in regions.values() for zone in each.zones}
        sold = self._asked(sorted(zones), lambda zone: self._sold(project, zone))
        return self._priced(project, [each for o in allowed for each in _placed(o, sold)])

    def _asked(
        self, questions: Sequence[_Question], ask: Callable[[_Question], _Answer]
    ) -> Mapping[_Question, _Answer]:
        """Answers to questions asked side by side; those that fail or take too long are missing."""
        asked = {self._pool.submit(ask, question): question for question in questions}
        done, late = wait(asked, timeout=self._patience_s)
        for each in late:
            each.cancel()
        good = (each for each in done if not isinstance(each.exception(), ProviderError))
        return {asked[each]: each.result() for each in good}

    def _sold(self, project: str, zone: str) -> frozenset[str]:
        """Names of all machine types and GPUs that a zone sells."""
        names = set[str]()
        for service in ("MachineTypes", "AcceleratorTypes"):
            for page in self._client.pages(service, "list", project=project, zone=zone):
                names |= {thing.name for thing in page.items}
        return frozenset(names)

    def _priced(self, project: str, offers: Sequence[Offer]) -> Sequence[Offer]:
        """With the Spot price of now. An N1 with GPUs has several, so it stays as it is."""
        spots = {
            (project, offer.zone, offer.instance_type)
            for offer in offers
            if offer.market is Market.SPOT and not _attached(offer)
        }
        now = self._now()
        with self._lock:
            until = {key: known[0] for key, known in self._prices.items()}
        stale = [(until[key], key) for key in spots if key in until and until[key] <= now]
        asked = [*sorted(spots - {*until}), *(key for _, key in sorted(stale))][:_AT_A_TIME]
        self._asked(asked, lambda key: self._ask_price(key, now))
        with self._lock:
            prices = {key: self._prices[key][1] for key in spots if key in self._prices}
        return [
            _at(offer, prices.get((project, offer.zone, offer.instance_type))) for offer in offers
        ]

    def _ask_price(self, key: _Key, now: datetime) -> None:
        try:
            price, kept = spot_price(self._client, *key), _KEPT
        except ProviderError:
            price, kept = self._prices.get(key, (now, None))[1], _ASKED_AGAIN
        with self._lock:
            self._prices[key] = (now + kept, price)


def _attached(offer: Offer) -> str:
    return attached(offer.instance_type, offer.capacity.gpu_name)


def _goods(offer: Offer) -> frozenset[str]:
    """What a zone must sell for an offer to be had."""
    return frozenset({offer.instance_type, _attached(offer)} - {""})


def _placed(offer: Offer, sold: Mapping[str, frozenset[str]]) -> Iterator[Offer]:
    """Where an offer is to be had. One of a whole region becomes one for each zone that is known to
    sell it: an instance is made in a zone, and its name is unique in that zone only."""
    if offer.zone:
        if offer.zone not in sold or _goods(offer) <= sold[offer.zone]:
            yield offer
        return
    for zone, goods in sorted(sold.items()):
        if region_of(zone) == offer.region and _goods(offer) <= goods:
            yield replace(offer, zone=zone)


def _at(offer: Offer, price: Decimal | None) -> Offer:
    """The same offer at another Spot price; one above the list price shows an outdated table, and
    nobody pays more than list."""
    if price is None or offer.market is not Market.SPOT or _attached(offer):
        return offer
    listed = offer.on_demand_usd_hour
    return replace(offer, price_usd_hour=price if listed is None else min(price, listed))


def spot_price(client: Client, project: str, zone: str, instance_type: str) -> Decimal | None:
    """US dollars an hour of one machine type on Spot in one zone, now; None = the cloud does not
    say. Raises `ProviderError`."""
    asked = {
        "types": ["PRICE"],
        "instance_properties": {
            "machine_type": instance_type,
            "scheduling": {"provisioning_model": "SPOT"},
        },
        "location_policy": {"location": f"zones/{zone}"},
    }
    answer = client.call(
        "Advice",
        "capacity_history",
        project=project,
        region=region_of(zone),
        capacity_history_request_resource=asked,
    )
    last = max(answer.price_history, key=_began, default=None)
    return _usd(last.list_price) if last is not None else None


def _began(record: Any) -> str:
    return str(record.interval.start_time)


def _usd(money: Any) -> Decimal | None:
    price = Decimal(money.units) + Decimal(money.nanos) * _NANO
    return price.normalize() if money.currency_code == "USD" and price > 0 else None
