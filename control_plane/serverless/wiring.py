"""Settings to adapters, for each function. What a function does not need is not imported, since an
import is paid for at every cold start."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control_plane.blobs.s3 import S3Blobs
from control_plane.blobs.s3 import connect as connect_s3
from control_plane.clouds import cloud_providers
from control_plane.core.snapshot import Timing
from control_plane.ports import Provider
from control_plane.serverless.price_book import SavedPrices
from control_plane.serverless.settings import ServerlessSettings
from control_plane.serverless.shared import Bell
from control_plane.service import Service
from control_plane.stores.dynamodb import INDEXES, DynamoStore
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.client import TableClient
from control_plane.system import SystemClock, TimeOrderedIds

if TYPE_CHECKING:
    from control_plane.observe import Eyes

LEASE_S = 240
"""A machine silent for this long has lost its jobs. Each beat is paid for, and of machines that AWS
takes the loop hears without them."""

IDLE_LOOK_S = 600
"""A look is billed while clouds think, more for each region than for all else of a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every function has."""

    settings: ServerlessSettings
    clock: SystemClock
    ids: TimeOrderedIds
    table: TableClient
    store: DynamoStore
    blobs: S3Blobs
    prices: SavedPrices
    timing: Timing

    @property
    def installation(self) -> str:
        """What the labels of its machines begin with."""
        return f"orchctl-{self.settings.installation}"

    def bell(self, wake: Callable[[], None]) -> Bell:
        """`wake` starts the loop somewhere else."""
        return Bell(self.table, self.clock.now, wake)

    def service(self, changed: Callable[[], None]) -> Service:
        """Queues and jobs; `changed` as it says there."""
        return Service(self.store, self.prices, self.clock, self.ids, changed)

    def eyes(self, providers: Mapping[str, Provider]) -> Eyes:
        """What looks for a decision; without providers it sees the books alone."""
        from control_plane.observe import CLOUD_CALLS, Eyes
        from control_plane.spending import Spending

        return Eyes(
            store=self.store,
            providers=providers,
            prices=self.prices,
            spending=Spending(self.store),
            ids=self.ids,
            timing=self.timing,
            pool=ThreadPoolExecutor(CLOUD_CALLS, thread_name_prefix="cloud"),
        )


def parts(settings: ServerlessSettings) -> Parts:
    """Connect to the table; to the bucket when it is needed first."""
    clock = SystemClock()
    client = connect()
    blobs = S3Blobs(connect_s3, settings.bucket)
    return Parts(
        settings=settings,
        clock=clock,
        ids=TimeOrderedIds(clock.now),
        table=TableClient(client, settings.table, indexes=INDEXES),
        store=DynamoStore(client, table=settings.table, clock=clock),
        blobs=blobs,
        prices=SavedPrices(blobs, lambda: cloud_providers(clock.now), clock.now),
        timing=Timing(lease_s=LEASE_S, idle_look_s=IDLE_LOOK_S),
    )


def controller_name() -> str:
    """Of this process and no other: a frozen function that wakes up later has lost its lease."""
    return f"lambda-{uuid.uuid4().hex[:12]}"
