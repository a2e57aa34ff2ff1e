"""A store in the middle of its work, for what must take all of it along."""

from __future__ import annotations

from dataclasses import replace

from control_plane.core.alerts import DeliveryState
from control_plane.core.model import Artifact, Cooldown, ErrorClass, JobState, MachineState, Need
from control_plane.ports import Fence, PlanRecord, Store
from tests.conformance.builders import (
    BECAUSE,
    DONE,
    NOW,
    at,
    autoscaler,
    back,
    claim,
    delivery,
    enqueue,
    event,
    federation,
    hook,
    interval,
    job,
    machine,
    move,
    queue,
    run,
    token,
)

ARTIFACT = Artifact(name="out.bin", size_bytes=3, sha256="ab", blob="jobs/ended/1/artifacts/ab")


def plan(number: int) -> PlanRecord:
    return PlanRecord(id=f"p-{number}", autoscaler="a", at=at(number), plan="{}", snapshot="[1]")


def make_busy(store: Store) -> Fence:
    """A store in the middle of its work, with something of every kind and state."""
    store.token_put(token(), expected_version=0)
    store.token_put(token(token_id="t-2"), expected_version=0)
    store.federation_put(federation(), expected_version=0)
    store.hook_put(hook(), expected_version=0)
    store.delivery_put(delivery(), expected_version=0)
    store.delivery_put(delivery("20260301.budget.a.a.1"), expected_version=0)
    store.delivery_put(
        delivery("20260301.budget.a.a.1", version=2, state=DeliveryState.SENT), expected_version=1
    )
    store.autoscaler_put(autoscaler(1), expected_version=0)
    store.autoscaler_remove("a")
    store.autoscaler_put(autoscaler(1, document="declared again"), expected_version=0)
    store.autoscaler_put(autoscaler(2, document="and changed"), expected_version=1)
    store.autoscaler_put(autoscaler(1, name="gone"), expected_version=0)
    store.autoscaler_remove("gone")
    queue(store, autoscaler="a", max_running=6)
    queue(store, "other", paused=True)
    fence = store.lease_take("a", "one", ttl_s=30, now=NOW)
    assert fence is not None
    store.cooldown_put(Cooldown(key="x/*", error_class=ErrorClass.QUOTA, code="Q", until=at(9)))
    machine(store)
    machine(store, "m-2", state=MachineState.TERMINATED, planned_at=at(-50))
    make_jobs(store)
    store.machine_beat("m-1", now=at(77))
    store.price_open(interval(start=at(-60), price="0.29"))
    store.price_open(interval())
    store.price_open(interval("m-2"))
    store.price_close("m-2", at=at(5))
    for number in range(3):
        store.plan_put(plan(number))
        store.event_append(event(f"event {number}"))
    return fence


def make_jobs(store: Store) -> None:
    """Ended, running, leased, given back, moved, aged, delayed, blocked and cancelled ones."""
    store.job_enqueue(job("ended"), idempotency_key="key of the ended")
    [held] = claim(store, now=at(1))
    ending = replace(DONE, artifacts=(ARTIFACT,))
    store.job_finish("ended", held.epoch, ending, state=JobState.SUCCEEDED, now=at(2))
    enqueue(store, "failed", "running", "leased", "returned", owner="ann", submitted_at=at(-200))
    run(store, "failed", state=JobState.FAILED, now=at(3))
    [held] = claim(store, now=at(4))
    store.job_start("running", held.epoch, now=at(5))
    claim(store, now=at(6))
    store.job_cancel("leased", reason=BECAUSE, now=at(7))
    [held] = claim(store, now=at(8))
    back(store, held, now=at(9))
    store.queue_promote("q", waiting_since=at(-100), now=at(10))
    store.job_enqueue(job("keyed", priority=-1), idempotency_key="key of the waiting")
    enqueue(store, "x", "y", "z", submitted_at=at(5), labels={"team": "vision"})
    move(store, "z", "after", "x")
    enqueue(store, "delayed", not_before=at(5000))
    enqueue(store, "blocked", depends_on=("running", "x"))
    enqueue(store, "blocked-too", queue="other", depends_on=("blocked",))
    enqueue(store, "elsewhere", queue="other", need=Need(cpus=1))
    enqueue(store, "cancelled")
    store.job_cancel("cancelled", reason=BECAUSE, now=at(11))
