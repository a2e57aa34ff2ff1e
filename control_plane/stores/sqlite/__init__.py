"""Everything durable in one SQLite file: the store of the embedded control plane."""

from __future__ import annotations

from pathlib import Path

from control_plane.ports import Store
from control_plane.stores.sqlite.autoscalers import Autoscalers
from control_plane.stores.sqlite.control import Control
from control_plane.stores.sqlite.database import Database, Durability
from control_plane.stores.sqlite.jobs import Jobs
from control_plane.stores.sqlite.ledger import Ledger
from control_plane.stores.sqlite.machines import Machines
from control_plane.stores.sqlite.queues import Queues


class SqliteStore(Autoscalers, Queues, Jobs, Machines, Ledger, Control):
    """`ports.Store` in the file `path`, which is made when missing.

    Any number of threads may call it, and other processes may have the file open. Every write is
    one transaction: a crash at any instant leaves all of it or nothing. Raises `Unavailable` when
    the file is damaged, was written by a newer orchctl, or stays locked by another process."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        super().__init__(Database(path, durability=durability))

    def close(self) -> None:
        """Let go of the file. Further calls raise `Unavailable`."""
        self._database.close()


_: type[Store] = SqliteStore

__all__ = ["Durability", "SqliteStore"]
