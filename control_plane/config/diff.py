"""What a new document changes, in its own words and units, and what it may cost at worst.

for line in describe(changes(old, new, offers)):
    print(line)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

from control_plane.config.units import (
    disk_text,
    duration_text,
    gpu_text,
    memory_text,
    range_text,
    usd_text,
)
from control_plane.core.model import Offer
from control_plane.core.policy import (
    Alert,
    Autoscaler,
    Budget,
    CloudPolicy,
    PoolPolicy,
    QueuePolicy,
    Range,
    Window,
)

_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two documents."""

    path: str
    """In the document's words, such as `pools.l4.machines.max`."""
    kind: str
    """`+` new, `-` gone, `~` another value."""
    old: str
    """As people write it; empty when new."""
    new: str
    """As people write it; empty when gone."""


def changes(
    old: Autoscaler | None, new: Autoscaler, offers: Sequence[Offer] = ()
) -> tuple[Change, ...]:
    """Every difference, in the order of the document; with offers, new clouds say what they sell.

    A queue, pool or alert that is new or gone as a whole is one change that sums it up. Without an
    old document everything is new.
    """
    before, after = _parts(old) if old else {}, _parts(new)
    remarks = _remarks(new, offers)
    return tuple(
        replace(change, new=f"{change.new} ({remarks[change.path]})")
        if change.new and change.path in remarks
        else change
        for path in [*after, *(path for path in before if path not in after)]
        for change in _part_changes(path, before.get(path), after.get(path))
    )


def describe(found: Sequence[Change]) -> tuple[str, ...]:
    """One line for each change, in columns."""
    width = max((len(change.path) for change in found), default=0)
    return tuple(f"{each.kind} {each.path:<{width}}  {_values(each)}".rstrip() for each in found)


def describe_worst_case(old: Decimal | None, new: Decimal, budget_usd_hour: Decimal) -> str:
    """`worst case 9.66 -> 14.49 USD/hour (+4.83), within budget 20 USD/hour`"""
    figure = price_text(new)
    if old is not None and old != new:
        step = price_text(abs(new - old))
        figure = f"{price_text(old)} -> {figure} USD/hour ({'+' if new > old else '-'}{step})"
    else:
        figure = f"{figure} USD/hour"
    budget = usd_text(budget_usd_hour, per="hour")
    if new <= budget_usd_hour:
        return f"worst case {figure}, within budget {budget}"
    return f"worst case {figure}, capped by budget {budget}"


def worst_case_usd_hour(policy: Autoscaler, offers: Iterable[Offer]) -> Decimal:
    """What all pools together could cost in an hour, if the budget did not hold them back.

    Each pool counts its most machines at the price of the dearest offer it accepts, or its most
    GPUs at the dearest price of one GPU, whichever is less. It is never too low; where a pool mixes
    large and small machines it may be a little too high.
    """
    listed = tuple(offers)
    return sum((_pool_worst_usd_hour(pool, listed) for pool in policy.pools.values()), Decimal(0))


def price_text(usd: Decimal) -> str:
    """A price for people: two decimals, four below a cent."""
    step = _CENT if usd == 0 or usd >= _CENT else _CENT * _CENT
    return f"{usd.quantize(step, ROUND_HALF_UP):f}"


def _pool_worst_usd_hour(pool: PoolPolicy, offers: Iterable[Offer]) -> Decimal:
    bought = [
        offer for offer in offers if pool.accepts(offer) and offer.capacity.gpus <= pool.gpus_max
    ]
    if not bought:
        return Decimal(0)
    by_machines = pool.machines_max * max(offer.price_usd_hour for offer in bought)
    if pool.gpu is None:
        return by_machines
    by_gpus = max(pool.gpus_max * offer.price_usd_hour / offer.capacity.gpus for offer in bought)
    return min(by_machines, by_gpus)


def _values(change: Change) -> str:
    return f"{change.old} -> {change.new}" if change.kind == "~" else change.new or change.old


# --------------------------------------------------------------------------------- parts

_Fields = Mapping[str, str]
"""Values as people write them, by field; what is not written is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A piece of a document that comes and goes as a whole."""

    fields: _Fields
    summary: str


def _part_changes(path: str, old: _Part | None, new: _Part | None) -> Iterator[Change]:
    if old and new:
        for field in [*new.fields, *(field for field in old.fields if field not in new.fields)]:
            was, now = old.fields.get(field, ""), new.fields.get(field, "")
            yield from _field_changes(f"{path}.{field}", was, now)
    elif new:
        yield Change(path=path, kind="+", old="", new=new.summary)
    elif old:
        yield Change(path=path, kind="-", old=old.summary, new="")


def _field_changes(path: str, old: str, new: str) -> Iterator[Change]:
    if old != new:
        yield Change(path=path, kind="~" if old and new else "+" if new else "-", old=old, new=new)


def _remarks(policy: Autoscaler, offers: Sequence[Offer]) -> dict[str, str]:
    """What each cloud of each pool sells, by path; nothing of clouds without a price list."""
    listed = {offer.provider for offer in offers}
    return {
        f"pools.{pool.name}.clouds.{cloud.provider}": _sold(replace(pool, clouds=(cloud,)), offers)
        for pool in policy.pools.values()
        for cloud in pool.clouds
        if cloud.provider in listed
    }


def _sold(pool: PoolPolicy, offers: Sequence[Offer]) -> str:
    bought = [offer for offer in offers if pool.accepts(offer)]
    if not bought:
        return "no offer fits"
    count = "1 offer" if len(bought) == 1 else f"{len(bought)} offers"
    best = min(bought, key=lambda offer: offer.price_usd_hour)
    return f"{count}, cheapest {best.market} {price_text(best.price_usd_hour)} USD/hour"


def _parts(policy: Autoscaler) -> dict[str, _Part]:
    return {
        **{f"queues.{queue.name}": _queue_part(queue) for queue in policy.queues.values()},
        **{f"pools.{pool.name}": _pool_part(pool) for pool in policy.pools.values()},
        "budget": _listed_part(_budget(policy.budget)),
        **{f"alerts[{at}]": _listed_part(_alert(each)) for at, each in enumerate(policy.alerts)},
    }


def _listed_part(fields: _Fields) -> _Part:
    return _Part(fields=fields, summary=_listed(fields))


def _queue_part(queue: QueuePolicy) -> _Part:
    fields, usual = _queue(queue), _queue(QueuePolicy(name="", pools=()))
    said = {field: value for field, value in fields.items() if usual.get(field) != value}
    return _Part(fields=fields, summary=_listed(said))


def _pool_part(pool: PoolPolicy) -> _Part:
    kind = gpu_text(pool.gpu) if pool.gpu else "no GPU"
    clouds = ", ".join(cloud.provider for cloud in pool.clouds)
    count = "1 machine" if pool.machines_max == 1 else f"{pool.machines_max} machines"
    price = pool.max_price_usd_hour
    each = "" if price is None else f" of up to {usd_text(price, per='hour')}"
    return _Part(
        fields=_pool(pool), summary=f"{kind} in {clouds}; {pool.market}; up to {count}{each}"
    )


def _listed(fields: _Fields) -> str:
    return ", ".join(f"{field} {value}" for field, value in fields.items())


def _queue(queue: QueuePolicy) -> _Fields:
    return _written(
        {
            "pools": ", ".join(queue.pools),
            "priority": str(queue.priority),
            "launch_after": duration_text(queue.launch_after_s),
            "jobs_per_machine": str(queue.jobs_per_machine or ""),
            "ageing": duration_text(queue.ageing_s),
            "max_running": str(queue.max_running or ""),
            "max_running_per_owner": str(queue.max_running_per_owner or ""),
        }
    )


def _pool(pool: PoolPolicy) -> _Fields:
    price = pool.max_price_usd_hour
    return _written(
        {
            "gpu": gpu_text(pool.gpu) if pool.gpu else "",
            "cpu": "" if pool.cpus == Range() else range_text(pool.cpus),
            "memory": ""
            if pool.memory_mib == Range()
            else range_text(pool.memory_mib, memory_text),
            "disk": disk_text(pool.disk_gib),
            **{f"clouds.{cloud.provider}": _cloud(cloud) for cloud in pool.clouds},
            "market": pool.market.value,
            "max_price": "" if price is None else usd_text(price, per="hour"),
            "machines.min": str(pool.machines.low),
            "machines.max": str(pool.machines_max),
            "gpus_max": str(pool.gpus_max),
            "idle_timeout": duration_text(pool.idle_timeout_s),
            "boot_timeout": duration_text(pool.boot_timeout_s),
            "max_lifetime": duration_text(pool.max_lifetime_s),
            **{f"warm[{at}]": _window(window) for at, window in enumerate(pool.warm)},
            **{f"closed[{at}]": _window(window) for at, window in enumerate(pool.closed)},
        }
    )


def _cloud(cloud: CloudPolicy) -> str:
    options = [f"{name} {value}" for name, value in sorted(cloud.options.items())]
    return ", ".join([*cloud.regions, *options]) or "anywhere"


def _window(window: Window) -> str:
    text = f"`{window.cron}` for {duration_text(window.duration_s)}, {window.timezone}"
    return f"{text}, {window.machines} kept" if window.machines else text


def _budget(budget: Budget) -> _Fields:
    return {
        "hour": usd_text(budget.hour_usd),
        "day": usd_text(budget.day_usd),
        "month": usd_text(budget.month_usd),
        "at_limit": budget.at_limit.value,
    }


def _alert(alert: Alert) -> _Fields:
    return {alert.channel: alert.target, "on": ", ".join(alert.on)}


def _written(fields: _Fields) -> _Fields:
    return {field: value for field, value in fields.items() if value}


def usual_fields() -> Mapping[str, str]:
    """The defaults of queues, pools and the budget as people write them, by field."""
    pool, queue = PoolPolicy(name="", clouds=()), QueuePolicy(name="", pools=())
    return {**_pool(pool), **_queue(queue), **_budget(Budget())}
