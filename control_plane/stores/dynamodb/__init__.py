"""Everything durable in one DynamoDB table: the store of the serverless control plane."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from control_plane.ports import Clock, OperationFigures, Store
from control_plane.stores.dynamodb.access import Access
from control_plane.stores.dynamodb.autoscalers import Autoscalers
from control_plane.stores.dynamodb.calls import Client
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.control import Control
from control_plane.stores.dynamodb.deliveries import Deliveries
from control_plane.stores.dynamodb.history import History
from control_plane.stores.dynamodb.layout import INDEXES
from control_plane.stores.dynamodb.ledger import Ledger
from control_plane.stores.dynamodb.machines import Machines
from control_plane.stores.dynamodb.parts import Settings
from control_plane.stores.dynamodb.queues import Queues
from control_plane.stores.dynamodb.transfers import Transfers
from control_plane.stores.figures import counted


@counted
class DynamoStore(
    Transfers, Machines, Queues, Autoscalers, Ledger, Control, Access, Deliveries, History
):
    """`ports.Store` in the table `table`, which must be there (`create_table`).

    Any number of threads and processes may call it. Every operation is one conditional write, or
    several in an order in which a crash between any two loses nothing. Raises `Unavailable` when
    DynamoDB does not answer, does not let us in, or has no such table."""

    def __init__(
        self,
        client: Client,
        *,
        table: str,
        clock: Clock,
        ready_shards: int = 1,
        retention: timedelta = timedelta(days=90),
    ) -> None:
        settings = Settings(ready_shards=ready_shards, retention=retention)
        super().__init__(TableClient(client, table, indexes=INDEXES), clock, settings)

    def figures(self) -> Mapping[str, OperationFigures]:
        return self._figures.read()

    def close(self) -> None:
        """Let go of the connections."""
        self._table.close()


_: type[Store] = DynamoStore

__all__ = ["INDEXES", "DynamoStore"]
