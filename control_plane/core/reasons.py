"""Every sentence the planner says, in one place, so that CLI, API, dashboard and tests say the
same.

A code is for programs and never changes; a sentence is for people and names its figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from control_plane.core.model import (
    Cooldown,
    Machine,
    Need,
    Offer,
    Reason,
    Sighting,
    WaitingGroup,
)
from control_plane.core.policy import PoolPolicy, Window


def span(seconds: float) -> str:
    """Seconds as people say them: `45s`, `4m`, `1h 05m`, `2d 3h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def money(usd: Decimal) -> str:
    """US dollars to the cent, or to the hundredth of a cent where cents would say nothing."""
    return f"{usd:.2f} USD" if usd == 0 or abs(usd) >= Decimal("0.05") else f"{usd:.4f} USD"


def number(count: int, one: str, many: str) -> str:
    """A count with its noun: `1 machine`, `3 machines`."""
    return f"{count} {one if count == 1 else many}"


def need_text(need: Need) -> str:
    """A need in words, such as `2 x L4 with 24 GiB, 4 CPUs`."""
    parts = []
    if need.gpus:
        memory = f" with {need.gpu_memory_gib} GiB" if need.gpu_memory_gib else ""
        parts.append(f"{need.gpus} x {need.gpu_name or 'any GPU'}{memory}")
    if need.cpus:
        parts.append(number(need.cpus, "CPU", "CPUs"))
    if need.memory_mib:
        parts.append(f"{need.memory_mib / 1024:g} GiB memory")
    if need.disk_gib:
        parts.append(f"{need.disk_gib} GiB disk")
    if need.on_demand_only:
        parts.append("on-demand capacity")
    return ", ".join(parts) or "a machine"


def offer_text(offer: Offer) -> str:
    """An offer in words: `aws us-east-1d g6.xlarge spot 0.31 USD/hour`."""
    place = offer.zone or offer.region
    return (
        f"{offer.provider} {place} {offer.instance_type} {offer.market} "
        f"{money(offer.price_usd_hour)}/hour"
    )


def _reason(code: str, sentence: str, **numbers: object) -> Reason:
    return Reason(
        code=code, sentence=sentence, numbers={k: str(v) for k, v in numbers.items() if v != ""}
    )


# ------------------------------------------------------------------------------- buying


def jobs_wait(group: WaitingGroup, now: datetime) -> Reason:
    waited = span((now - group.oldest_at).total_seconds())
    jobs = number(group.count, "job waits", "jobs wait")
    least = "" if group.exact else "at least "
    return _reason(
        "jobs-wait",
        f"{least}{jobs} in {group.queue} for {need_text(group.need)}, the oldest for {waited}",
        queue=group.queue,
        jobs=group.count,
        oldest=waited,
    )


def chosen(why: Reason, offer: Offer, among: int) -> Reason:
    others = f", the best of {among} offers" if among > 1 else ""
    return _reason(
        why.code,
        f"{why.sentence}: {offer_text(offer)}{others}",
        **why.numbers,
        offer=offer.key,
        price_usd_hour=offer.price_usd_hour,
    )


def minimum(pool: PoolPolicy) -> Reason:
    low = pool.machines.low
    machines = number(low, "machine", "machines")
    return _reason("minimum", f"pool {pool.name} keeps at least {machines}", machines=low)


def warm(pool: PoolPolicy, window: Window, until: datetime) -> Reason:
    machines = number(window.machines, "machine", "machines")
    return _reason(
        "warm-window",
        f"pool {pool.name} is kept warm with {machines} until "
        f"{until:%Y-%m-%d %H:%M} UTC ({window.cron}, {window.timezone})",
        machines=window.machines,
        until=until.isoformat(),
    )


# ------------------------------------------------------------------------------- not buying


def deleting(autoscaler: str) -> Reason:
    return _reason("deleting", f"autoscaler {autoscaler} is being deleted")


def paused(autoscaler: str) -> Reason:
    return _reason(
        "paused", f"autoscaler {autoscaler} is paused (orchctl autoscaler resume {autoscaler})"
    )


def closed(pool: PoolPolicy, until: datetime) -> Reason:
    return _reason(
        "closed-window",
        f"pool {pool.name} is closed until {until:%Y-%m-%d %H:%M} UTC",
        until=until.isoformat(),
    )


def cap_machines(pool: PoolPolicy, there: int) -> Reason:
    return _reason(
        "cap-machines",
        f"pool {pool.name} has {number(there, 'machine', 'machines')}, its maximum is "
        f"{pool.machines_max}",
        machines=there,
        maximum=pool.machines_max,
    )


def cap_gpus(pool: PoolPolicy, there: int, offer: Offer) -> Reason:
    more = offer.capacity.gpus
    return _reason(
        "cap-gpus",
        f"pool {pool.name} has {number(there, 'GPU', 'GPUs')}; {more} more would pass its maximum "
        f"of {pool.gpus_max}",
        gpus=there,
        more=more,
        maximum=pool.gpus_max,
    )


def cap_hour(rate: Decimal, offer: Offer, cap: Decimal) -> Reason:
    total = rate + offer.price_usd_hour
    return _reason(
        "cap-hour",
        f"machines cost {money(rate)}/hour; one more at {money(offer.price_usd_hour)}/hour would "
        f"make {money(total)}/hour, over the budget of {money(cap)}/hour",
        rate_usd_hour=rate,
        price_usd_hour=offer.price_usd_hour,
        cap_usd_hour=cap,
    )


def cap_period(period: str, spent: Decimal, rate: Decimal, cap: Decimal) -> Reason:
    return _reason(
        f"cap-{period}",
        f"{money(spent)} is spent this {period}; at {money(rate)}/hour the budget of {money(cap)} "
        "would be passed within the hour",
        spent_usd=spent,
        rate_usd_hour=rate,
        cap_usd=cap,
    )


def budget_used_up(period: str, spent: Decimal, cap: Decimal) -> Reason:
    return _reason(
        f"budget-{period}",
        f"the budget of {money(cap)} for this {period} is used up: {money(spent)} is spent",
        spent_usd=spent,
        cap_usd=cap,
    )


def dead_pool(pool: PoolPolicy) -> Reason:
    return _reason(
        "dead-pool", f"pool {pool.name} matches no offer: nothing like it is sold where it may buy"
    )


def nothing_fits(pool: PoolPolicy, need: Need) -> Reason:
    return _reason(
        "nothing-fits", f"no available offer of pool {pool.name} can hold {need_text(need)}"
    )


def places_unknown(pool: PoolPolicy, problems: Sequence[str] = ()) -> Reason:
    because = f" ({'; '.join(problems)})" if problems else ""
    return _reason(
        "places-unknown",
        f"no place where pool {pool.name} may buy has answered{because}; what is there is unknown",
    )


def all_resting(pool: PoolPolicy, offers: int, soonest: Cooldown, now: datetime) -> Reason:
    wait = span((soonest.until - now).total_seconds())
    if soonest.key.startswith("boot/"):
        failed = number(soonest.count, "machine", "machines")
        code, what = "breaker-open", f"{failed} failed to boot"
    else:
        code, what = "no-capacity", f"refused with {soonest.code}"
    which = {1: "the one offer", 2: "both offers"}.get(offers, f"all {offers} offers")
    rest, first = ("rests", "it") if offers == 1 else ("rest", "the first")
    return _reason(
        code,
        f"{which} of pool {pool.name} {rest} after refusals; {first} is tried again in {wait}, "
        f"at {soonest.until:%H:%M} UTC ({soonest.key}: {what})",
        offers=offers,
        until=soonest.until.isoformat(),
        last_code=soonest.code,
    )


def no_ids(pool: PoolPolicy) -> Reason:
    return _reason(
        "no-ids",
        f"pool {pool.name} has to wait for the next plan: this one may name no further machine",
    )


def books_wrong(sighting: Sighting) -> Reason:
    return _reason(
        "books-wrong",
        f"{sighting.provider} shows machine {sighting.provider_id} of ours that no record "
        "explains; nothing is bought until it is gone",
        provider_id=sighting.provider_id,
    )


# ------------------------------------------------------------------------------- repairing


def adopted(machine: Machine, seen: Sighting) -> Reason:
    return _reason(
        "adopted",
        f"machine {machine.id} runs as {seen.provider_id}, although no answer to its launch was "
        "recorded",
        provider_id=seen.provider_id,
    )


def resumed(machine: Machine) -> Reason:
    return _reason(
        "resumed",
        f"the launch of machine {machine.id} is still open; it is taken up with the same key",
        attempt=machine.attempt,
    )


def never_launched(machine: Machine) -> Reason:
    sentence = f"machine {machine.id} was never launched: its provider does not know it"
    why = machine.reason
    if why is None:
        return _reason("never-launched", sentence)
    return _reason("never-launched", f"{sentence}; {why.sentence}", **why.numbers)


def launch_unanswered(machine: Machine, code: str, now: datetime) -> Reason:
    waited = span((now - machine.planned_at).total_seconds())
    last = f", the last refusal was {code}" if code else ""
    return _reason(
        "launch-unanswered",
        f"the launch of machine {machine.id} came to nothing within {waited}{last}",
        waited=waited,
        last_code=code,
    )


def launch_ended(machine: Machine) -> Reason:
    return _reason("launch-ended", f"machine {machine.id} ended before its launch was recorded")


def launch_unclear(machine: Machine, code: str, tries: int) -> Reason:
    return _reason(
        "launch-unclear",
        f"{machine.offer.provider} gave no clear answer to the launch of machine {machine.id} in "
        f"{tries} tries, the last was {code}; it is given up, and ended should it exist",
        tries=tries,
        last_code=code,
    )


def boot_failed(machine: Machine, now: datetime) -> Reason:
    since = machine.launched_at or machine.planned_at
    waited = span((now - since).total_seconds())
    return _reason(
        "boot-failed", f"machine {machine.id} did not register within {waited}", waited=waited
    )


def gone_while_booting(machine: Machine) -> Reason:
    return _reason("boot-failed", f"machine {machine.id} ended before its agent registered")


def interrupted(machine: Machine) -> Reason:
    return _reason("interrupted", f"{machine.offer.provider} took machine {machine.id} back")


def gone(machine: Machine) -> Reason:
    return _reason("gone", f"machine {machine.id} is gone, and not by our doing")


def silent(machine: Machine, now: datetime) -> Reason:
    last = machine.last_beat_at or machine.registered_at or machine.planned_at
    waited = span((now - last).total_seconds())
    return _reason("silent", f"machine {machine.id} was silent for {waited}", silent=waited)


def no_machine(machine_id: str) -> Reason:
    return _reason("no-machine", f"its machine {machine_id} no longer exists")


def ended(machine: Machine) -> Reason:
    return _reason("ended", f"machine {machine.id} ends")


def unknown(sighting: Sighting, now: datetime) -> Reason:
    age = span((now - sighting.created_at).total_seconds())
    return _reason(
        "unknown-machine",
        f"machine {sighting.provider_id} carries our label, is {age} old and has no open record",
        provider_id=sighting.provider_id,
        age=age,
    )


# ------------------------------------------------------------------------------- ending


def idle(machine: Machine, idle_s: int, timeout_s: int) -> Reason:
    return _reason(
        "idle",
        f"machine {machine.id} has been idle for {span(idle_s)}, its limit is {span(timeout_s)}",
        idle_s=idle_s,
        idle_timeout_s=timeout_s,
    )


def max_lifetime(machine: Machine, limit_s: int) -> Reason:
    return _reason(
        "max-lifetime",
        f"machine {machine.id} has reached its maximum life of {span(limit_s)}",
        max_lifetime_s=limit_s,
    )


def pool_removed(machine: Machine) -> Reason:
    return _reason("pool-removed", f"pool {machine.pool} is no longer declared")


def superfluous(pool: PoolPolicy, there: int) -> Reason:
    return _reason(
        "superfluous",
        f"pool {pool.name} has {number(there, 'machine', 'machines')}, over its maximum of "
        f"{pool.machines_max}",
        machines=there,
        maximum=pool.machines_max,
    )


# ------------------------------------------------------------------------------- reporting


def queue_report(
    queue: str,
    *,
    waiting: int,
    ripe: int,
    ready: int,
    booting: int,
    bought_for: int,
    left: int,
    exact: bool = True,
) -> Reason:
    """What became of one queue's waiting jobs, in one sentence; not `exact`: of those that were
    counted, and more wait."""
    parts = []
    if ready:
        parts.append(f"{number(ready, 'goes', 'go')} to machines that are up")
    if booting:
        parts.append(f"{number(booting, 'goes', 'go')} to machines that are booting")
    if bought_for:
        parts.append(f"machines are bought for {bought_for}")
    if left:
        parts.append(f"{left} cannot be served now")
    early = waiting - ready - booting - bought_for - left
    if early:
        parts.append(f"{number(early, 'waits', 'wait')} for a running machine to free up first")
    count = str(waiting) if exact else f"at least {waiting}"
    head = f"{queue}: nothing waits" if not waiting else f"{queue}: {count} waiting"
    return _reason(
        "queue",
        f"{head}; {', '.join(parts)}" if parts else head,
        waiting=waiting,
        ripe=ripe,
        ready=ready,
        booting=booting,
        bought_for=bought_for,
        left=left,
    )
