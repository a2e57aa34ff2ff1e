"""Store files with jobs waiting in them, written by our own store: ours and raw SQLite start from
copies of the same one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from bench.peers.work import PAYLOAD_BYTES
from control_plane.core.model import (
    Capacity,
    Job,
    JobSpec,
    Machine,
    MachineState,
    Need,
    Offer,
    QueueRecord,
)
from control_plane.stores.sqlite import SqliteStore

QUEUE = "bench"
FREE = Capacity(gpus=8, gpu_name="L4", gpu_memory_gib=24, cpus=32, memory_mib=65_536, disk_gib=500)
NEED = Need(gpus=1)
MACHINES = 8
_FIRST = "000000001"
"""The number of the job that all others are made after; no two payloads are alike."""


def machine_id(worker: int) -> str:
    """Every worker is a machine of its own."""
    return f"m-{worker}"


def make(path: Path, depth: int) -> None:
    """A store file with `depth` waiting jobs. The first goes in through the port; the others are
    rows after it, written in bulk: what is measured is claiming."""
    now = datetime.now(UTC)
    store = SqliteStore(path, durability="normal")
    store.queue_put(QueueRecord(name=QUEUE, created_at=now), expected_version=0)
    for worker in range(MACHINES):
        store.machine_put(_machine(machine_id(worker), now), expected_version=0, fence=None)
    spec = JobSpec(command=f"./train --seed {_FIRST} ".ljust(PAYLOAD_BYTES, "x"), need=NEED)
    job = Job(id=f"job-{_FIRST}", queue=QUEUE, spec=spec, submitted_at=now, queued_at=now)
    store.job_enqueue(job)
    store.close()
    _multiply(path, job.id, depth)
    _check(path, depth)


def copy(template: Path, path: Path) -> None:
    """A copy that is on the disk: nothing of it is written later, while somebody is measured."""
    shutil.copyfile(template, path)
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def ended(path: Path) -> int:
    """Jobs of which both the row and the attempt's row say that they succeeded."""
    connection = sqlite3.connect(path)
    (count,) = connection.execute(
        # `cross join` begins with the attempts: they are few where the queue is deep.
        "select count(*) from attempts cross join jobs on id = job_id and attempt = number "
        "where state = 'succeeded' and outcome = 'succeeded'"
    ).fetchone()
    connection.close()
    return int(count)


def _multiply(path: Path, first: str, depth: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    row = dict(connection.execute("select * from jobs where id = ?", (first,)).fetchone())
    values = {
        name: f"replace(?, '{_FIRST}', printf('%09d', n))"
        if isinstance(value, str) and _FIRST in value
        else "?"
        for name, value in row.items()
    }
    position = float(row["position"])
    values["position"] = "? + n"
    row["position"] = position - 1
    connection.execute(
        "with recursive numbers(n) as (select 2 union all select n + 1 from numbers where n < ?) "
        f"insert into jobs ({', '.join(values)}) select {', '.join(values.values())} from numbers",
        (depth, *row.values()),
    )
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def _check(path: Path, depth: int) -> None:
    store = SqliteStore(path)
    waiting = store.queue_stats()[QUEUE].waiting
    store.close()
    if waiting != depth:
        raise RuntimeError(f"{waiting} jobs wait in {path}, not {depth}")


def _machine(name: str, now: datetime) -> Machine:
    offer = Offer(
        provider="aws",
        region="us-east-1",
        zone="us-east-1d",
        instance_type="g6.48xlarge",
        capacity=FREE,
        price_usd_hour=Decimal("13.35"),
    )
    return Machine(
        id=name,
        autoscaler="bench",
        pool="bench",
        state=MachineState.READY,
        offers=(offer,),
        planned_at=now,
        idle_since=now,
    )
