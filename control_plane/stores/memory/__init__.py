"""Everything durable, in dicts: the store of the simulator and of tests."""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.ports import OperationFigures, Store
from control_plane.stores.figures import counted
from control_plane.stores.memory.access import Access
from control_plane.stores.memory.autoscalers import Autoscalers
from control_plane.stores.memory.control import Control
from control_plane.stores.memory.hooks import Hooks
from control_plane.stores.memory.jobs import Jobs
from control_plane.stores.memory.ledger import Ledger
from control_plane.stores.memory.machines import Machines
from control_plane.stores.memory.queues import Queues
from control_plane.stores.memory.transfers import Transfers


@counted
class MemoryStore(Autoscalers, Queues, Jobs, Machines, Ledger, Control, Access, Hooks, Transfers):
    """`ports.Store` that lives as long as the process. Any number of threads may call it."""

    def figures(self) -> Mapping[str, OperationFigures]:
        return self._figures.read()

    def close(self) -> None:
        """Nothing to let go of."""


_: type[Store] = MemoryStore

__all__ = ["MemoryStore"]
