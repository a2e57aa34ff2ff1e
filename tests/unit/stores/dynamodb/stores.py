"""A whole store on a table of its own, and what it spends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.core.model import (
    Capacity,
    Job,
    JobSpec,
    Machine,
    MachineState,
    Need,
    QueueRecord,
    Source,
)
from control_plane.stores.dynamodb import INDEXES, DynamoStore
from control_plane.stores.dynamodb.table import create_table
from control_plane.system import SystemClock, TimeOrderedIds
from tests.conformance.builders import machine_record

IDS = TimeOrderedIds(lambda: datetime.now(UTC))
BOX = Capacity(gpus=64, gpu_name="L4", gpu_memory_gib=24, cpus=64, memory_mib=262_144)
NEED = Need(gpus=1, gpu_name="L4", cpus=4, memory_mib=16_384)


def now() -> datetime:
    return datetime.now(UTC)


def make_store(client: Any, table: str, **settings: Any) -> DynamoStore:
    create_table(client, table, INDEXES)
    return DynamoStore(client, table=table, clock=SystemClock(), **settings)


def with_queue(store: DynamoStore, name: str = "research", **limits: int) -> DynamoStore:
    store.queue_put(QueueRecord(name=name, created_at=now(), **limits), expected_version=0)
    return store


def ready_machine(store: DynamoStore) -> Machine:
    record = machine_record(IDS.new("m"), state=MachineState.READY)
    return store.machine_put(record, expected_version=0, fence=None)


def typical(queue: str = "research", **changes: Any) -> Job:
    """A job as people submit them."""
    spec = JobSpec(
        command="python train.py --model resnet50 --epochs 90 --batch-size 256 --lr 3e-4 --seed 17 "
        "--out out/",
        need=NEED,
        env={"WANDB_MODE": "offline", "OMP_NUM_THREADS": "4", "DATA_ROOT": "/data/imagenet"},
        source=Source(
            kind="git",
            blob="sources/9f2c4e1ab0d37756f1c2e88a4b5d6e7f00112233445566778899aabbccddeeff",
            sha256="9f2c4e1ab0d37756f1c2e88a4b5d6e7f00112233445566778899aabbccddeeff",
            remote="git@github.com:acme/vision.git",
            commit="4f2c1d9e8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f3e",
            summary="acme/vision @ 4f2c1d9 + 38 changed lines, 2 new files",
        ),
        requirements=("torch==2.9.1", "torchvision==0.24.1", "numpy>=2", "pillow", "wandb==0.23.0"),
    )
    at = now()
    values: dict[str, Any] = {
        "id": IDS.new("j"),
        "queue": queue,
        "spec": spec,
        "name": "resnet50 sweep",
        "owner": "ann",
        "labels": {"team": "vision"},
        "submitted_at": at,
        "queued_at": at,
    }
    return Job(**{**values, **changes})


def small(queue: str = "research", **changes: Any) -> Job:
    return typical(queue, **{"spec": JobSpec(command="true", need=NEED), **changes})


@dataclass
class Bill:
    """What some calls have come to."""

    reads: float = 0.0
    writes: float = 0.0
    conflicts: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """By DynamoDB's action."""


@contextmanager
def billed(*stores: DynamoStore) -> Iterator[Bill]:
    """What the stores spend inside."""
    bill = Bill()

    def count(model: Any, **_: Any) -> None:
        bill.requests[model.name] += 1

    client = stores[0]._table._client
    before = [_sums(store) for store in stores]
    client.meta.events.register("before-call.dynamodb", count, unique_id=id(bill))
    try:
        yield bill
    finally:
        client.meta.events.unregister("before-call.dynamodb", unique_id=id(bill))
    for store, (reads, writes, conflicts) in zip(stores, before, strict=True):
        after = _sums(store)
        bill.reads += after[0] - reads
        bill.writes += after[1] - writes
        bill.conflicts += int(after[2] - conflicts)


def _sums(store: DynamoStore) -> tuple[float, float, float]:
    figures = list(store.figures().values())
    return (
        sum(each.read_units for each in figures),
        sum(each.write_units for each in figures),
        sum(each.conflicts for each in figures),
    )


def ago(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)
