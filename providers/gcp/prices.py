"""What is for sale now: the shipped catalogue, joined with what the cloud says of each zone.

Asked for are the types that a zone sells, the Spot price of each (`advice.capacityHistory`; it
moves about once a day, so it is kept for an hour), the quotas, and once a day the prices on demand
(`billing.py`). What cannot be read leaves the catalogue's figure as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from control_plane.core.model import Market, Offer
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from providers.catalog.loader import load_offers
from providers.gcp.billing import COMPUTE_ENGINE, PriceList
from providers.gcp.client import Client
from providers.gcp.launch import attached, machine_type, project_of, sold_on_demand
from providers.gcp.names import region_of, zones_of
from providers.gcp.quotas import region
from providers.side_by_side import side_by_side

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
    """What the shipped table has for these regions (none = all), without what is not sold so. What
    it has for a whole region is tried in all of its zones: whether one sells it nobody was asked,
    and an instance is made in a zone."""
    wanted = frozenset(regions)
    return [each for each in _anywhere() if not wanted or each.region in wanted]


@cache
def _anywhere() -> Sequence[Offer]:
    return [
        each for offer in _listed(()) for each in _placed(offer, zones_of(offer.region), sold={})
    ]


def _listed(regions: Iterable[str]) -> Sequence[Offer]:
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
        self._list = PriceList(client, now)
        self._prices: dict[_Key, tuple[datetime, Decimal | None]] = {}
        self._lock = threading.Lock()

    def offers(self, cloud: CloudPolicy) -> Sequence[Offer]:
        """What these settings may buy."""
        offers, project = _listed(cloud.regions), project_of(cloud.options)
        names = sorted({offer.region for offer in offers})
        regions = self._asked(names, lambda name: region(self._client, project, name))
        allowed = [o for o in offers if o.region not in regions or not regions[o.region].bars(o)]
        zones = {name: regions[name].zones if name in regions else zones_of(name) for name in names}
        everywhere = {offer.zone for offer in allowed} | {
            z for each in zones.values() for z in each
        }
        sold = self._asked(sorted(everywhere - {""}), lambda zone: self._sold(project, zone))
        placed = [each for o in allowed for each in _placed(o, zones[o.region], sold)]
        self._asked([COMPUTE_ENGINE], lambda _: self._list.refresh())
        listed = [_listed_at(each, self._list.on_demand(each)) for each in placed]
        return self._priced(project, listed)

    def _asked(
        self, questions: Sequence[_Question], ask: Callable[[_Question], _Answer]
    ) -> Mapping[_Question, _Answer]:
        """Answers to questions asked side by side; those that fail or take too long are missing."""
        return side_by_side(self._pool, questions, ask, deadline_s=self._patience_s)[0]

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
    return frozenset({machine_type(offer.instance_type), _attached(offer)} - {""})


def _placed(
    offer: Offer, zones: Sequence[str], sold: Mapping[str, frozenset[str]]
) -> Iterator[Offer]:
    """Where an offer is to be had: in its zone, or in those of its region, as far as they do not
    say that they sell no such thing."""
    for zone in [offer.zone] if offer.zone else zones:
        if zone not in sold or _goods(offer) <= sold[zone]:
            yield replace(offer, zone=zone)


def _listed_at(offer: Offer, usd_hour: Decimal | None) -> Offer:
    """The same offer where the machine costs so much on demand."""
    if usd_hour is None:
        return offer
    spot = offer.market is Market.SPOT
    price = min(offer.price_usd_hour, usd_hour) if spot else usd_hour
    return replace(offer, price_usd_hour=price, on_demand_usd_hour=usd_hour)


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
