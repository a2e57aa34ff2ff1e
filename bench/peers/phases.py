"""The phases by name: who runs in them and how many workers it has."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from bench.peers import files
from bench.peers.orchctl import DeepOrchctl, Orchctl, Served
from bench.peers.raw_sqlite import RawSqlite
from bench.peers.servers import NotInstalled, Servers
from bench.peers.work import DEPTH, Peer, Phase, measure

WORKERS = 8

OURS_1_NORMAL, RAW_1_NORMAL = "orchctl NORMAL, 1", "raw SQLite NORMAL, 1"
OURS_1_FULL, RAW_1_FULL = "orchctl FULL, 1", "raw SQLite FULL, 1"
OURS_8_FULL, RAW_8_FULL = "orchctl FULL, 8", "raw SQLite FULL, 8"
OURS_SERVED_8_FULL = "orchctl FULL, 8 requests"
OURS_DEEP = "orchctl NORMAL, 1, deep"

OTHERS: Mapping[str, tuple[str, str]] = {
    "PostgreSQL, 8": ("postgres", "Postgres"),
    "procrastinate, 8": ("procrastinate", "Procrastinate"),
    "PgQueuer, 8": ("pgqueuer", "PgQueuer"),
    "Redis AOF always, 8": ("redis", "Redis"),
    "beanstalkd -f 0, 8": ("beanstalkd", "Beanstalkd"),
}
"""Queues with servers: the module here and the class of each phase's peer."""

Make = Callable[[], Peer]


def prepare(
    folder: Path, names: Collection[str], deep: int, stack: ExitStack
) -> tuple[Mapping[str, Callable[[], Phase]], Mapping[str, str]]:
    """What runs each of these phases, and for those that cannot run here, why; `stack` ends what
    was started for them."""
    template = folder / "template.db"
    files.make(template, DEPTH)
    servers = Servers(folder, stack)
    # They run in this order, so those that are compared stand next to each other.
    makers: Mapping[str, tuple[Make, int]] = {
        OURS_DEEP: (partial(_deep, folder / "deep.db", deep, stack), 1),
        OURS_1_NORMAL: (partial(Orchctl, template, "normal"), 1),
        RAW_1_NORMAL: (partial(RawSqlite, template, "normal"), 1),
        OURS_1_FULL: (partial(Orchctl, template, "full"), 1),
        RAW_1_FULL: (partial(RawSqlite, template, "full"), 1),
        RAW_8_FULL: (partial(RawSqlite, template, "full", "processes"), WORKERS),
        OURS_8_FULL: (partial(Orchctl, template, "full"), WORKERS),
        OURS_SERVED_8_FULL: (partial(Served, template, "full"), WORKERS),
        **{name: (partial(_other, *which, servers), WORKERS) for name, which in OTHERS.items()},
    }
    phases: dict[str, Callable[[], Phase]] = {}
    missing: dict[str, str] = {}
    for name, (make, workers) in makers.items():
        if name in names:
            try:
                phases[name] = partial(measure, make(), workers)
            except NotInstalled as error:
                missing[name] = str(error)
    return phases, missing


def _deep(path: Path, depth: int, stack: ExitStack) -> Peer:
    files.make(path, depth)
    return stack.enter_context(closing(DeepOrchctl(path, "normal")))


def _other(module: str, name: str, servers: Servers) -> Peer:
    try:
        make = getattr(importlib.import_module(f"bench.peers.{module}"), name)
    except ModuleNotFoundError as error:
        reason = f"Python has no {error.name}: pip install -e '.[bench]'"
        raise NotInstalled(reason) from None
    peer: Peer = make(servers)
    return peer
