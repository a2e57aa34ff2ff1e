"""Everything durable in one SQLite file: the store of the embedded control plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from control_plane.ports import OperationFigures, Store
from control_plane.stores.figures import counted
from control_plane.stores.sqlite.access import Access
from control_plane.stores.sqlite.attempts import Attempts
from control_plane.stores.sqlite.autoscalers import Autoscalers
from control_plane.stores.sqlite.control import Control
from control_plane.stores.sqlite.database import Database, Durability
from control_plane.stores.sqlite.deliveries import Deliveries
from control_plane.stores.sqlite.jobs import Jobs
from control_plane.stores.sqlite.leases import Leases
from control_plane.stores.sqlite.ledger import Ledger
from control_plane.stores.sqlite.machines import Machines
from control_plane.stores.sqlite.queues import Queues
from control_plane.stores.sqlite.transfers import Transfers


@counted
class SqliteStore(
    Autoscalers,
    Queues,
    Jobs,
    Leases,
    Attempts,
    Machines,
    Ledger,
    Control,
    Access,
    Deliveries,
    Transfers,
):
    """`ports.Store` in the file `path`, which is made when missing.

    Any number of threads may call it, and other processes may have the file open. Every write is
    one transaction: a crash at any instant leaves all of it or nothing. Raises `Unavailable` when
    the file is damaged, was written by a newer orchctl, or stays locked by another process."""

    def __init__(self, path: Path, *, durability: Durability = "full") -> None:
        super().__init__(Database(path, durability=durability))

    def figures(self) -> Mapping[str, OperationFigures]:
        return self._figures.read()

    def together(self, work: Callable[[], None]) -> None:
        """Let all that `work` does with this store, in the thread it is called in, be one trip to
        the disk. Nothing of it may be told to anybody before this returns; when this raises, it is
        not known what was done. `work` may be called a second time."""
        self._database.together(work)

    def together_now(self, work: Callable[[], None]) -> Sequence[Callable[[], None]] | None:
        """`together` without waiting: what has to be called, in any thread, until it is safe; None
        when nothing was done because somebody else is writing."""
        return self._database.together_now(work)

    def close(self) -> None:
        """Let go of the file. Further calls raise `Unavailable`."""
        self._database.close()


_: type[Store] = SqliteStore

__all__ = ["Durability", "SqliteStore"]
