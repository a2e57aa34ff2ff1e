"""Checks that need two places of a document at once.

They read the plain data, not the parsed document, so they speak up even while something else is
wrong; a value that is not what it should be is left to the parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from control_plane.config.errors import Problem, did_you_mean
from control_plane.config.schema import default_machines_max
from control_plane.config.units import UnitError, duration_text, parse_duration_s
from control_plane.config.yaml_tree import Loc, Tree
from control_plane.core.policy import PoolPolicy


def cross_problems(tree: Tree) -> Iterator[Problem]:
    """All problems between places, in no order."""
    for queue in _keys(tree.at("queues")):
        yield from _queue_pools(tree, queue)
    for pool in _keys(tree.at("pools")):
        yield from _clouds(tree, pool)
        yield from _machine_bounds(tree, pool)
        yield from _lifetimes(tree, pool)
    for at, alert in enumerate(_items(tree.at("alerts"))):
        yield from _channel(tree, at, alert)


def _queue_pools(tree: Tree, queue: str) -> Iterator[Problem]:
    pools = _keys(tree.at("pools"))
    names = _items(tree.at("queues", queue, "pools"))
    for at, name in enumerate(names):
        if not isinstance(name, str):
            continue
        loc: Loc = ("queues", queue, "pools", at)
        if name in names[:at]:
            yield tree.problem(loc, f"`{name[:40]}` is listed twice", fix="keep the first")
        elif name not in pools:
            why = f"the pools of this document: {', '.join(pools) or 'none'}"
            fix = did_you_mean(name, pools) or "add it under `pools`, or name another one"
            yield tree.problem(loc, f"there is no pool `{name[:40]}`", why=why, fix=fix)


def _clouds(tree: Tree, pool: str) -> Iterator[Problem]:
    loc: Loc = ("pools", pool, "clouds")
    clouds = tree.at(*loc)
    if clouds == {}:
        why = "without a cloud there is nowhere to buy a machine"
        fix = "add one, such as `local: {}` or `aws: {regions: [us-east-1]}`"
        yield tree.problem(loc, "`clouds` is empty", why=why, fix=fix)
    for cloud in _keys(clouds):
        regions = _items(tree.at(*loc, cloud, "regions"))
        for at, region in enumerate(regions):
            if region in regions[:at]:
                place = (*loc, cloud, "regions", at)
                yield tree.problem(place, f"`{region}` is listed twice", fix="keep the first")


def _machine_bounds(tree: Tree, pool: str) -> Iterator[Problem]:
    written = _whole(tree.at("pools", pool, "machines", "max"))
    most = default_machines_max() if written is None else written
    limit = f"max` is {most}" + (" unless it is written" if written is None else "")
    fix = "raise `machines.max`, or lower this"
    low = _whole(tree.at("pools", pool, "machines", "min"))
    if low is not None and low > most:
        loc: Loc = ("pools", pool, "machines", "min")
        yield tree.problem(loc, f"`min` is {low}, but `{limit}", fix=fix)
    for at, _ in enumerate(_items(tree.at("pools", pool, "warm"))):
        loc = ("pools", pool, "warm", at, "machines")
        kept = _whole(tree.at(*loc))
        if kept is not None and kept > most:
            what = f"this keeps {kept} machines warm, but `machines.{limit}"
            yield tree.problem(loc, what, fix=fix)


def _lifetimes(tree: Tree, pool: str) -> Iterator[Problem]:
    usual = PoolPolicy(name="", clouds=())
    boot_s = _seconds(tree.at("pools", pool, "boot_timeout"), usual.boot_timeout_s)
    life_s = _seconds(tree.at("pools", pool, "max_lifetime"), usual.max_lifetime_s)
    written = "max_lifetime" if tree.at("pools", pool, "max_lifetime") else "boot_timeout"
    if life_s <= boot_s:
        yield tree.problem(
            ("pools", pool, written),
            f"`max_lifetime` ({duration_text(life_s)}) ends before `boot_timeout` does "
            f"({duration_text(boot_s)})",
            why="a machine would be ended before its agent has reported",
            fix="make `max_lifetime` the longer one",
        )


def _channel(tree: Tree, at: int, alert: Any) -> Iterator[Problem]:
    channels = [name for name in ("slack", "webhook") if name in _keys(alert)]
    if isinstance(alert, dict) and len(channels) != 1:
        what = "two channels in one alert" if channels else "this alert has no channel"
        fix = "write an alert for each channel" if channels else "add `slack: secret://NAME`"
        why = "an alert takes one of: slack, webhook"
        yield tree.problem(("alerts", at), what, why=why, fix=fix)


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: Any, usual: int) -> int:
    try:
        return parse_duration_s(value) if isinstance(value, str) else usual
    except UnitError:
        return usual
