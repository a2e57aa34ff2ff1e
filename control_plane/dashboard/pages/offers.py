"""Offers: what can be bought for each pool, at what price, and what is resting after a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.model import Cooldown, Offer
from control_plane.core.policy import PoolPolicy
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.pages.machines import market_badge
from control_plane.dashboard.parts import Cell, Empty, Table, badge, colour, dot, num, url

ROWS_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class OffersPage:
    """The list."""

    note: str
    tabs: Sequence[tuple[str, str, bool]]
    table: Table


def offers_page(deps: Deps, pool: str) -> OffersPage:
    """Offers that a pool accepts (all pools without one), the cheapest first."""
    pools = {
        name: policy
        for record in deps.store.autoscaler_list()
        for name, policy in record.policy.pools.items()
    }
    chosen = {pool: pools[pool]} if pool in pools else pools
    found = _accepted(deps, chosen)
    resting = {each.key: each for each in deps.store.cooldown_list()}
    now = deps.clock.now()
    return OffersPage(
        note=f"{fmt.plural(len(found), 'offer')}, cheapest first",
        tabs=[
            ("all pools", url("offers"), pool not in pools),
            *((name, url("offers", pool=name), name == pool) for name in pools),
        ],
        table=Table(
            columns=(
                ("Cloud", ""),
                ("Region", ""),
                ("Zone", ""),
                ("Type", ""),
                ("Has", ""),
                ("Market", ""),
                ("$/h", "num"),
                ("On demand", "num"),
                ("Now", ""),
            ),
            rows=[_row(each, resting, now) for each in found[:ROWS_MAX]],
            empty=Empty(
                text="No pool accepts any offer.", command="orchctl autoscaler validate config.yaml"
            ),
        ),
    )


def _accepted(deps: Deps, pools: Mapping[str, PoolPolicy]) -> Sequence[Offer]:
    offers = deps.prices.offers([cloud for each in pools.values() for cloud in each.clouds])
    mine = [each for each in offers if any(pool.accepts(each) for pool in pools.values())]
    return sorted(mine, key=lambda each: (each.price_usd_hour, each.key))


def _row(offer: Offer, resting: Mapping[str, Cooldown], now: datetime) -> Sequence[Cell]:
    on_demand = offer.on_demand_usd_hour
    return (
        Cell(text=dot(offer.provider, colour(offer.provider, 6))),
        Cell(text=offer.region or fmt.NOTHING),
        Cell(text=offer.zone or "any"),
        Cell(text=offer.instance_type),
        Cell(text=fmt.capacity(offer.capacity)),
        Cell(text=market_badge(offer.market)),
        num(fmt.money(offer.price_usd_hour)),
        num(fmt.NOTHING if on_demand is None else fmt.money(on_demand)),
        _rest(offer, resting, now),
    )


def _rest(offer: Offer, resting: Mapping[str, Cooldown], now: datetime) -> Cell:
    prefixes = (f"{offer.provider}/*", f"{offer.provider}/{offer.region}/*", offer.key)
    for key in prefixes:
        found = resting.get(key)
        if found and found.until > now:
            left = fmt.duration((found.until - now).total_seconds())
            return Cell(
                text=badge("resting", "warn"), sub=f"{found.code}, {left} left", tip=found.code
            )
    return Cell(text=badge("may be tried", "good"))
