"""Lines 20 to 27: a job is never lost, never run twice at once, and never waits for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent_bootstrap import wire
from control_plane.core.model import Job, JobSpec, JobState, MachineState, Market, Need, Reason
from control_plane.core.policy import GpuRange, MarketPolicy, Range
from control_plane.errors import Conflict, Refused, StaleEpoch
from control_plane.ports import Place
from control_plane.service import RETURNS_MAX, Submission
from control_plane.stores.sqlite import SqliteStore
from tests.build import policy, pool, queue
from tests.invariants.world import ONE_ZONE, Guest, World, l4, ready_world, small_world

S = MachineState
J = JobState


# -------------------------------------------------------------------------- 20: epochs


def test_20_a_late_writer_is_refused_at_every_door() -> None:
    """A claim is a lease with an epoch: when the job was given to somebody else, the former holder
    can write no start, log, artifact or end, and is told that the job is no longer its own."""
    world, (late,), (job,) = ready_world(high=2)
    (work,) = late.claim()
    key, record = f"{work.job_id}:{work.epoch}", late.machine
    world.service.give_back(
        world.job(job), work.epoch, outcome="lost", reason=Reason(code="silent", sentence="silent")
    )
    agents = world.agents
    for write in (
        lambda: agents.start(record, job.id, wire.Started(work.epoch)),
        lambda: agents.log(record, job.id, work.epoch, 0, b"late"),
        lambda: agents.artifact(record, job.id, work.epoch, "late", b"late"),
        lambda: agents.finish(record, job.id, wire.Finished(work.epoch, "succeeded", 0)),
    ):
        with pytest.raises(StaleEpoch):
            write()
    assert agents.beat(record, wire.Beat([key])).lost == [key]
    assert world.job(job).state is J.QUEUED


def test_20_the_former_attempt_cannot_end_the_next_one() -> None:
    """Also when the same machine holds the job again: the epoch decides, not the name."""
    world, (guest,), (job,) = ready_world()
    (first,) = guest.claim()
    guest.finish(first, "returned")
    (second,) = guest.claim()
    assert second.epoch == first.epoch + 1
    with pytest.raises(StaleEpoch):
        guest.finish(first, "failed", 1)
    assert world.job(job).state is J.RUNNING


# -------------------------------------------------------------------------- 21: never lost


def test_21_a_claim_whose_answer_was_lost_is_answered_again() -> None:
    """The job is leased, not popped: the agent that never heard of it gets it with its next claim,
    under the same epoch.

    ClearML's agents pop destructively: an answer that was lost took the job with it."""
    world, (guest,), (job,) = ready_world()
    record = guest.machine
    lost = world.agents.claim(record, wire.Claim([], 1)).jobs
    again = world.agents.claim(record, wire.Claim([], 1)).jobs
    assert [work.job_id for work in lost] == [job.id]
    assert again == lost
    assert world.job(job).attempt == 1


def test_21_a_job_whose_agent_died_with_the_answer_comes_back() -> None:
    """Nobody ever asks again: the lease ends with the machine, and the job waits in its place."""
    world, (guest,), (job,) = ready_world()
    world.agents.claim(guest.machine, wire.Claim([], 1))
    world.run(120, beats=False)
    assert world.job(job).state is J.QUEUED
    assert world.job(job).position == job.position


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_21_there_is_one_lease_at_a_time(kind: str, tmp_path: Path) -> None:
    """Machines that ask at once share the jobs without one getting what another has; see also the
    conformance suite, where eight threads do so."""
    store = SqliteStore(tmp_path / "store.db", durability="normal") if kind == "sqlite" else None
    world = small_world(high=3, store=store)
    world.submit(2)
    world.tick()
    guests = world.boot()
    world.submit(1)
    world.tick()
    guests += world.boot()
    claimed = [work.job_id for _ in range(2) for guest in guests for work in guest.claim()]
    assert len(claimed) == len(set(claimed)) == 3
    leases = world.store.job_leases()
    assert len({lease.machine_id for lease in leases}) == 3
    world.store.close()


# -------------------------------------------------------------------------- 22: given back


@pytest.mark.parametrize(
    ("end", "outcome"), [("interrupted", "interrupted"), ("silent", "lost"), ("vanished", "lost")]
)
def test_22_a_lost_machine_gives_the_job_back_in_its_place(end: str, outcome: str) -> None:
    """At once, before those that came later, with the next attempt, and not as its failure."""
    world, (guest,), (job,) = ready_world(high=1)
    guest.claim()
    world.submit(2)
    if end == "interrupted":
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
    elif end == "vanished":
        world.cloud.shut_down(guest.vm.provider_id)
        world.clock.advance(20)
    else:
        world.clock.advance(91)
        world.controller().tick()  # it has just begun: agents get their time
        world.clock.advance(91)
    world.tick()
    if world.job(job).state is not J.QUEUED:
        world.run(95, beats=False)
    given = world.job(job)
    assert given.state is J.QUEUED
    assert (given.failures, given.machine_losses) == (0, 1)
    assert given.queued_at == job.queued_at
    assert world.store.job_attempts(job.id)[0].outcome == outcome
    assert world.store.job_list(queue="default", states=frozenset({J.QUEUED})).items[0].id == job.id
    world.run(60, beats=False)
    (next_guest,) = world.boot()
    (work,) = next_guest.claim()
    assert (work.job_id, work.attempt) == (job.id, 2)


def test_22_losses_without_end_become_exhausted_with_the_history() -> None:
    """A bound on attempts that ended by the machine's fault; every one of them stays readable."""
    world = small_world()
    (job,) = world.submit(max_machine_losses=3)
    for _ in range(3):
        world.tick()
        (guest,) = world.boot()
        guest.claim()
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
        world.tick()
    ended = world.job(job)
    assert (ended.state, ended.failures) == (J.EXHAUSTED, 0)
    assert ended.reason
    assert "lost its machine 3 times" in ended.reason.sentence
    outcomes = [attempt.outcome for attempt in world.store.job_attempts(job.id)]
    assert outcomes == ["interrupted"] * 3


def test_22_a_job_that_is_always_given_back_ends_too() -> None:
    """Longer than any machine's life, say: nobody's fault, but not for ever."""
    world, (guest,), (job,) = ready_world()
    for _ in range(RETURNS_MAX):
        (work,) = guest.claim()
        guest.finish(work, "returned")
    ended = world.job(job)
    assert ended.state is J.EXHAUSTED
    assert ended.reason
    assert f"given back {RETURNS_MAX} times" in ended.reason.sentence


# -------------------------------------------------------------------------- 23: the notice


def test_23_a_notice_closes_the_machine_and_brings_the_next_one_at_once() -> None:
    """The machine takes no new job from the notice on, another one is bought without waiting for
    its end, and the job comes back when its agent says so. (That the job gets its SIGTERM and the
    time left is proved with real processes.)"""
    world, (busy, free), (job, waiting) = ready_world(2)
    (work,) = busy.claim()
    for guest in (busy, free):
        world.agents.notice(guest.machine, wire.Notice("spot", 110))
    assert free.claim() == []
    world.tick()
    assert world.job(waiting).state is J.QUEUED
    assert len(world.cloud.vms) == 3
    busy.finish(work, "interrupted", 143)
    assert (world.job(job).state, world.job(job).machine_losses) == (J.QUEUED, 1)
    world.tick()
    assert len(world.cloud.vms) == 4


def test_23_after_three_interruptions_the_next_attempt_is_on_demand() -> None:
    """By then another spot machine is likelier to waste the work again than to save money."""
    world = small_world()
    (job,) = world.submit()
    for _ in range(3):
        world.tick()
        (guest,) = world.boot()
        assert guest.vm.offer.market is Market.SPOT
        guest.claim()
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
        world.tick()
    assert world.job(job).spec.need.on_demand_only
    world.tick()
    (guest,) = world.boot()
    assert guest.vm.offer.market is Market.ON_DEMAND
    assert [work.job_id for work in guest.claim()] == [job.id]


def test_23_a_job_is_not_forced_onto_what_is_not_sold_on_demand() -> None:
    """Its queue has an on-demand pool, but none whose machines can hold it: it stays on spot,
    rather than wait for ever."""
    world = World(spec=ONE_ZONE)
    big = pool("big", gpu=GpuRange(name="L4", count=Range(low=4)), market=MarketPolicy.SPOT)
    world.apply(policy(l4("small"), big, queue("default", "small", "big")))
    (job,) = world.submit(need=Need(gpus=4))
    for _ in range(4):
        world.tick()
        (guest,) = world.boot()
        guest.claim()
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
        world.tick()
    assert not world.job(job).spec.need.on_demand_only
    world.tick()
    (guest,) = world.boot()
    assert [work.job_id for work in guest.claim()] == [job.id]


# -------------------------------------------------------------------------- 24: cancel


@pytest.mark.parametrize(
    ("when", "state"), [("waits", J.CANCELLED), ("runs", J.RUNNING), ("ended", J.SUCCEEDED)]
)
def test_24_cancel_ends_a_job_wherever_it_is_and_the_state_tells(
    when: str, state: JobState
) -> None:
    """A waiting job at once; a running one through its agent (SIGTERM, grace, SIGKILL to the whole
    tree: proved with real processes); one that ended stays as it ended."""
    world, (guest,), (job,) = ready_world()
    work = None if when == "waits" else guest.claim()[0]
    if when == "ended" and work:
        guest.finish(work)
    world.service.cancel(job.id, actor="ann")
    assert world.job(job).state is state
    if when == "runs" and work:
        assert guest.beat().cancel == [job.id]
        guest.finish(work, "cancelled", 143)
        ended = world.job(job)
        assert (ended.state, ended.exit_code) == (J.CANCELLED, 143)


def test_24_a_cancelled_job_does_not_come_back_with_the_loss_of_its_machine() -> None:
    """Cancel was asked for, then the machine died: it ends as cancelled and runs nowhere again."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.service.cancel(job.id)
    world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
    world.tick()
    assert world.job(job).state is J.CANCELLED
    world.run(60)
    assert len(world.cloud.vms) == 1


# -------------------------------------------------------------------------- 25: order


def _run_one(guest: Guest) -> str:
    (work,) = guest.claim()
    guest.finish(work)
    return work.job_id


def test_25_priority_then_order() -> None:
    """Higher first; equals in the order in which they came."""
    world, (guest,), (first,) = ready_world(high=1)
    second, third = world.submit(2)
    urgent = _submit(world, priority=5)
    assert [_run_one(guest) for _ in range(4)] == [urgent.id, first.id, second.id, third.id]


@pytest.mark.parametrize("between", ["jobs", "queues"])
def test_25_ageing_ends_starvation(between: str) -> None:
    """A stream of more urgent work never ends, twice what the one machine can do: what waits gains
    a step with each span of ageing, and runs in the end."""
    low = queue("low", "l4", ageing_s=600)
    high = queue("high", "l4", priority=3, ageing_s=600)
    world = World(spec=ONE_ZONE)
    world.apply(policy(l4(high=1), low, high))
    where = {"jobs": ("low", 3), "queues": ("high", 0)}[between]
    (starving,) = world.submit(queue="low")
    world.tick()
    (guest,) = world.boot()
    for _ in range(80):
        _submit(world, queue=where[0], priority=where[1])
        _submit(world, queue=where[0], priority=where[1])
        world.clock.advance(60)
        guest.beat()
        world.tick()
        if _run_one(guest) == starving.id:
            return
    raise AssertionError("it never ran")


def test_25_a_move_is_atomic_and_conditional() -> None:
    """Two people reorder at once: the second one works on an old picture and is told so."""
    world = small_world()
    one, two, three = world.submit(3)
    world.service.move(three.id, place=Place(where="top"), expected_version=three.version)
    with pytest.raises(Conflict):
        world.service.move(
            three.id, place=Place(where="after", job_id=one.id), expected_version=three.version
        )
    line = world.store.job_list(queue="default", states=frozenset({J.QUEUED})).items
    assert [job.id for job in line] == [three.id, one.id, two.id]


# -------------------------------------------------------------------------- 26: once


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_26_the_same_key_makes_one_job(kind: str, tmp_path: Path) -> None:
    """Sent twice, because the first answer was lost, it is one job, also when it has long ended."""
    store = SqliteStore(tmp_path / "store.db", durability="normal") if kind == "sqlite" else None
    world = small_world(store=store)
    job = Submission(spec=JobSpec(command="true", need=Need(gpus=1)))
    first, new = world.service.submit(job, idempotency_key="once")
    second, again = world.service.submit(job, idempotency_key="once")
    assert (new, again) == (True, False)
    assert second.id == first.id
    world.service.cancel(first.id)
    third, _ = world.service.submit(job, idempotency_key="once")
    assert (third.id, third.state) == (first.id, J.CANCELLED)
    world.store.close()


# -------------------------------------------------------------------------- 27: impossible


@pytest.mark.parametrize(
    ("need", "word"),
    [
        (Need(gpus=9), "at most 1 x L4"),
        (Need(gpus=1, gpu_name="H100"), "at most 1 x L4"),
        (Need(gpus=1, memory_mib=1_000_000), "16 GiB memory"),
    ],
)
def test_27_a_job_no_pool_can_ever_run_is_refused_with_the_nearest_there_is(
    need: Need, word: str
) -> None:
    """At the door, not after a week in the queue."""
    world = small_world()
    with pytest.raises(Refused, match=word):
        world.submit(need=need)
    assert world.store.job_list().items == ()


@pytest.mark.parametrize(
    "caps",
    [
        {"budget": {"hour_usd": "0.20"}},
        {"gpus_max": 0},
        {"high": 0},
    ],
)
def test_27_what_the_caps_can_never_allow_is_refused_too(caps: dict[str, object]) -> None:
    """Sold it is, but the document may never buy it: waiting would be for nothing."""
    world = World(spec=ONE_ZONE)
    budget = caps.pop("budget", None)
    world.apply(policy(l4(**caps), budget=budget))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="within its caps"):
        world.submit()


def test_27_what_becomes_impossible_later_says_so_at_the_next_look() -> None:
    """The document changed under a waiting job: the plan names the reason, nothing is silent."""
    world = small_world()
    world.submit()
    world.apply(policy(l4(gpus_max=0)))
    (refusal,) = world.refusals()
    assert (refusal.subject, refusal.reason.code) == ("default", "cap-gpus")


def _submit(world: World, *, queue: str = "default", priority: int = 0) -> Job:
    spec = JobSpec(command="true", need=Need(gpus=1))
    job, _ = world.service.submit(Submission(spec=spec, queue=queue, priority=priority))
    return replace(job)
