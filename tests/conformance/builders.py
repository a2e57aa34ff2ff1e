"""Records for store tests, with everything filled in that a test does not care about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.model import (
    Capacity,
    Event,
    Job,
    JobSpec,
    JobState,
    Machine,
    MachineState,
    Market,
    Need,
    Offer,
    PriceInterval,
    QueueRecord,
    Reason,
)
from control_plane.core.policy import Autoscaler, AutoscalerRecord
from control_plane.ports import Ending, Place, Store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BOX = Capacity(gpus=1, gpu_name="L4", gpu_memory_gib=24, cpus=8, memory_mib=32_768, disk_gib=100)
QUEUED = frozenset({JobState.QUEUED})
ONE_GPU = Need(gpus=1)
DONE = Ending(outcome="succeeded", exit_code=0)
LOST = Ending(outcome="lost", reason=Reason(code="silent", sentence="m-1 was silent for 90 s."))
BECAUSE = Reason(code="asked", sentence="ann asked for it.")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job(job_id: str, queue: str = "q", *, need: Need = ONE_GPU, **changes: Any) -> Job:
    changes.setdefault("submitted_at", NOW)
    changes.setdefault("queued_at", changes["submitted_at"])
    return Job(id=job_id, queue=queue, spec=JobSpec(command="true", need=need), **changes)


def queue(store: Store, name: str = "q", **changes: Any) -> None:
    record = QueueRecord(name=name, created_at=NOW, **changes)
    store.queue_put(record, expected_version=0)


def enqueue(store: Store, *job_ids: str, queue: str = "q", **changes: Any) -> list[Job]:
    return [store.job_enqueue(job(job_id, queue, **changes))[0] for job_id in job_ids]


def offer(**changes: Any) -> Offer:
    values: dict[str, Any] = {
        "provider": "aws",
        "region": "us-east-1",
        "zone": "us-east-1d",
        "instance_type": "g6.xlarge",
        "capacity": BOX,
        "price_usd_hour": Decimal("0.31"),
        "on_demand_usd_hour": Decimal("0.80"),
    }
    return Offer(**{**values, **changes})


def machine_record(machine_id: str = "m-1", **changes: Any) -> Machine:
    values: dict[str, Any] = {
        "autoscaler": "a",
        "pool": "p",
        "state": MachineState.READY,
        "offers": (offer(),),
        "planned_at": NOW,
        "idle_since": NOW,
    }
    return Machine(id=machine_id, **{**values, **changes})


def machine(store: Store, machine_id: str = "m-1", **changes: Any) -> Machine:
    return store.machine_put(machine_record(machine_id, **changes), expected_version=0, fence=None)


def claim(
    store: Store,
    *queues: str,
    machine_id: str = "m-1",
    free: Capacity = BOX,
    limit: int = 1,
    now: datetime = NOW,
) -> list[Job]:
    return list(store.job_claim(machine_id, queues or ("q",), free, limit=limit, now=now))


def claim_order(store: Store, name: str = "q") -> list[str]:
    """Ids of what waits in a queue, read page by page."""
    ids: list[str] = []
    cursor = ""
    while True:
        page = store.job_list(queue=name, states=QUEUED, cursor=cursor, limit=3)
        ids += [each.id for each in page.items]
        cursor = page.cursor
        if not cursor:
            return ids


def move(store: Store, job_id: str, where: str, of: str = "", queue: str = "q") -> Job:
    place = Place(where=where, job_id=of)
    return store.job_move(job_id, queue=queue, place=place, expected_version=None, now=NOW)


def interval(machine_id: str = "m-1", start: datetime = NOW, price: str = "0.31") -> PriceInterval:
    return PriceInterval(
        machine_id=machine_id,
        autoscaler="a",
        pool="p",
        provider="aws",
        region="us-east-1",
        zone="us-east-1d",
        instance_type="g6.xlarge",
        market=Market.SPOT,
        total=BOX,
        price_usd_hour=Decimal(price),
        on_demand_usd_hour=Decimal("0.80"),
        started_at=start,
    )


def event(text: str, kind: str = "job", subject: str = "j-1") -> Event:
    return Event(at=NOW, kind=kind, subject=subject, text=text)


def autoscaler(version: int, name: str = "a", document: str = "name: a") -> AutoscalerRecord:
    return AutoscalerRecord(
        name=name,
        version=version,
        document=document,
        policy=Autoscaler(name=name, queues={}, pools={}),
        applied_at=NOW,
    )
