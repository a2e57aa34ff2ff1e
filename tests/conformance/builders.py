"""Records for store tests, with everything filled in that a test does not care about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from control_plane.core.access import ApiToken, Federation, Grant, Role, Rule
from control_plane.core.alerts import Delivery
from control_plane.core.hooks import Hook
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
    WaitingGroup,
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


def end(
    store: Store, held: Job, state: JobState = JobState.SUCCEEDED, *, now: datetime = NOW
) -> Job:
    """Finish a claimed job in a final state."""
    ending = DONE if state is JobState.SUCCEEDED else Ending(outcome="failed", exit_code=1)
    store.job_finish(held.id, held.epoch, ending, state=state, now=now)
    return store.job_get(held.id)


def run(
    store: Store, *job_ids: str, state: JobState = JobState.SUCCEEDED, now: datetime = NOW
) -> None:
    """Claim and finish what stands first in `q`, which must be these jobs."""
    for job_id in job_ids:
        [held] = claim(store, now=now)
        assert held.id == job_id
        end(store, held, state, now=now)


def back(store: Store, held: Job, *, now: datetime = NOW) -> Job:
    """Give a claimed job back because its machine was lost."""
    return store.job_requeue(held.id, held.epoch, LOST, need=held.spec.need, now=now)


def listed(store: Store, *, limit: int = 3, **query: Any) -> list[Job]:
    """All jobs of a listing, read page by page."""
    jobs: list[Job] = []
    cursor = ""
    while True:
        page = store.job_list(cursor=cursor, limit=limit, **query)
        assert len(page.items) <= limit
        assert cursor != page.cursor or not cursor, "it would go on for ever"
        jobs += page.items
        cursor = page.cursor
        if not cursor:
            return jobs


def ids(jobs: Iterable[Job]) -> list[str]:
    return [each.id for each in jobs]


def claim_order(store: Store, name: str = "q", *, limit: int = 3) -> list[str]:
    """Ids of what waits in a queue, read page by page."""
    return ids(listed(store, queue=name, states=QUEUED, limit=limit))


def tampered(cursor: str) -> list[str]:
    """What a cursor may have become on its way through people's hands."""
    middle = len(cursor) // 2
    touched = "A" if cursor[middle] != "A" else "B"
    return [
        cursor[:middle] + touched + cursor[middle + 1 :],
        cursor[:-1],
        cursor[1:],
        cursor + "A",
        cursor + "=",
        cursor.swapcase(),
        "x",
        "é",
        "!!!!",
        "\0",
    ]


def events(store: Store, *, limit: int = 2, **query: str) -> list[Event]:
    """All events of a listing, read page by page."""
    found: list[Event] = []
    cursor = ""
    while True:
        page = store.event_list(cursor=cursor, limit=limit, **query)  # type: ignore[arg-type]
        assert len(page.items) <= limit
        assert cursor != page.cursor or not cursor, "it would go on for ever"
        found += page.items
        cursor = page.cursor
        if not cursor:
            return found


def groups(store: Store, *queues: str, now: datetime = NOW, **changes: Any) -> list[WaitingGroup]:
    changes.setdefault("ripe_before", {})
    return list(store.waiting_groups(queues or ("q",), now=now, **changes))


def counts(store: Store, name: str = "q") -> tuple[int, int, int, int]:
    """Waiting, of those delayed, blocked, running: what a small queue is counted exactly by."""
    stats = store.queue_stats()[name]
    assert stats.exact
    return stats.waiting, stats.delayed, stats.blocked, stats.running


def change_queue(store: Store, name: str = "q", **changes: Any) -> None:
    """Write a queue's record anew with changes."""
    record = store.queue_get(name)
    changed = replace(record, **changes, version=record.version + 1)
    store.queue_put(changed, expected_version=record.version)


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


def token(version: int = 1, token_id: str = "t-1", name: str = "alice") -> ApiToken:
    return ApiToken(
        id=token_id,
        name=name,
        sha256="ab" * 32,
        grant=Grant(role=Role.SUBMITTER, queues=("q", "other")),
        created_at=NOW,
        created_by="admin",
        expires_at=at(1000),
        version=version,
    )


def federation(version: int = 1, name: str = "github") -> Federation:
    return Federation(
        name=name,
        issuer="https://token.actions.githubusercontent.com",
        audience="https://orchctl.example",
        rules=(
            Rule(
                claims={"repository": ("acme/train", "acme/eval"), "ref": ("refs/heads/*",)},
                grant=Grant(role=Role.OPERATOR, queues=("*",)),
            ),
        ),
        applied_at=NOW,
        applied_by="admin",
        version=version,
    )


def hook(version: int = 1, name: str = "deploy", **changes: Any) -> Hook:
    values: dict[str, Any] = {
        "name": name,
        "id": "h-1",
        "on": ("push", "release.published"),
        "repositories": ("acme/*",),
        "refs": ("refs/heads/main",),
        "queue": "q",
        "spec": JobSpec(command="make train", need=Need(gpus=1), env={"A": "b"}),
        "labels": {"by": "hook"},
        "rotated_at": at(5),
        "applied_at": NOW,
        "applied_by": "admin",
        "version": version,
    }
    return Hook(**(values | changes))


def delivery(
    delivery_id: str = "20260301.job-failed.a.j-1.0", version: int = 1, **changes: Any
) -> Delivery:
    values: dict[str, Any] = {
        "id": delivery_id,
        "autoscaler": "a",
        "kind": "job-failed",
        "subject": "j-1",
        "text": "job j-1 failed",
        "channel": "webhook",
        "target": "secret://pager",
        "created_at": NOW,
        "due_at": at(30),
        "version": version,
    }
    return Delivery(**(values | changes))
