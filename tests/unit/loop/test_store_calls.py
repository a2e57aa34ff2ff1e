"""What a look and the hot requests cost, counted in calls of the store.

Each call is money where the store is a remote one, so the lists are exact: a new call has to be
written down here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent_bootstrap import wire
from control_plane import execute
from control_plane.core.model import JobState
from control_plane.core.policy import Autoscaler
from control_plane.kept import KEPT_FOR
from control_plane.preview import right_now
from control_plane.stores.memory import MemoryStore
from tests.build import policy, queue
from tests.invariants.world import Guest, World, l4
from tests.unit.loop.recording import Recording

IDLE = ["shared_read", "job_release", "fleet_read", "waiting_groups"]


def recorded(*parts: Any) -> tuple[World, Recording]:
    """A world with one autoscaler that has looked once."""
    store = Recording(MemoryStore())
    world = World(store=store.as_store)
    world.apply(policy(*(parts or (l4(),))))
    world.tick()
    return world, store


def with_machine(*parts: Any) -> tuple[World, Recording, Guest]:
    """The same with one machine that is up and idle, which the loop has seen."""
    world, store = recorded(*parts)
    (job,) = world.submit()
    world.tick()
    (guest,) = world.boot()
    (work,) = guest.claim()
    guest.finish(work)
    assert world.job(job).state is JobState.SUCCEEDED
    world.tick()
    return world, store, guest


# -------------------------------------------------------------------------- the loop


def test_an_idle_look_makes_four_calls_and_writes_nothing() -> None:
    world, store = recorded()
    with store.during() as calls:
        world.tick()
    assert calls == IDLE
    assert store.writes == ["job_release"]


def test_releasing_jobs_is_a_look_too_while_none_is_held_back() -> None:
    """The one call of an idle look that could write finds nothing to move."""
    world, _ = recorded()
    assert world.store.job_release(now=world.clock.now()) == 0


def test_a_look_at_several_queues_asks_for_all_of_them_at_once() -> None:
    world, store = recorded(l4(), queue("default"), queue("other"), queue("third"))
    with store.during() as calls:
        world.tick()
    assert calls == IDLE


def test_every_autoscaler_costs_two_reads_more() -> None:
    world, store = recorded()
    world.apply(_named("other"))
    world.reconciler.tick()
    with store.during() as calls:
        world.reconciler.tick()
    assert calls == [*IDLE, "fleet_read", "waiting_groups"]


def _named(name: str) -> Autoscaler:
    return replace(policy(l4(f"{name}-l4"), queue(name, f"{name}-l4")), name=name)


def test_a_look_at_an_idle_machine_reads_the_money_too_and_writes_nothing() -> None:
    world, store, guest = with_machine()
    guest.beat()
    with store.during() as calls:
        tick = world.tick()
    assert tick.plan is not None
    assert tick.plan.empty
    assert calls == [*IDLE, "prices_begun"]
    assert store.writes == ["job_release"]


def test_a_quiet_fleet_is_looked_at_on_a_read_that_may_lag() -> None:
    """At half the cost; only where nothing was to be done at the last look."""
    world, store, guest = with_machine()
    guest.beat()
    world.tick()
    with store.during() as calls:
        world.tick()
    assert calls == [*IDLE, "prices_begun"]
    assert store.asked[2] == ("fleet_read", {"sure": False})


def test_whatever_is_done_is_decided_on_a_sure_read() -> None:
    """The lagging read only shows that there is something; then it is read anew."""
    world, store = recorded()
    world.tick()
    world.submit()
    with store.during() as calls:
        world.tick()
    reads = [asked["sure"] for name, asked in store.asked if name == "fleet_read"]
    assert reads == [False, True]
    assert calls.index("lease_take") > calls.index("fleet_read", calls.index("fleet_read") + 1)
    with store.during():
        world.controller("fresh").tick()
    assert ("fleet_read", {"sure": True}) in store.asked


def test_an_acting_look_takes_the_lease_late_and_gives_it_back() -> None:
    world, store = recorded()
    world.submit()
    with store.during() as calls:
        world.tick()
    assert store.writes[:2] == ["job_release", "lease_take"]
    assert calls[-1] == "lease_release"
    assert calls.count("lease_take") == 1


def test_a_look_that_acts_for_long_renews_its_lease_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten launches of half a minute each, were they all made in one look: at the start and three
    times on the way."""
    monkeypatch.setattr(execute, "ACT_S", 600.0)
    world, store = recorded(l4(high=10))
    world.submit(10)

    def take_long(name: str) -> None:
        if name == "before-launch":
            world.clock.advance(30)

    with store.during() as calls:
        world.controller(checkpoint=take_long).tick()
    assert calls.count("lease_take") == 4


def test_the_executor_reads_what_rests_once_however_many_machines_it_launches() -> None:
    world, store = recorded(l4(high=12))
    world.submit(12)
    with store.during() as calls:
        world.tick()
    assert len(world.cloud.vms) == 12
    assert calls.count("cooldown_list") == 1


def test_jobs_age_by_a_call_only_when_one_is_due() -> None:
    """Nothing is asked of a queue whose jobs have not waited for a step yet."""
    world, store = recorded(l4(), queue(ageing_s=600))
    world.fleet.pause("research", paused=True)
    (job,) = world.submit()
    world.clock.advance(590)
    with store.during() as calls:
        world.tick()
    assert "queue_promote" not in calls
    world.clock.advance(20)
    with store.during() as calls:
        world.tick()
    assert calls.count("queue_promote") == 1
    assert world.job(job).priority == 1
    with store.during() as calls:
        world.tick()
    assert "queue_promote" not in calls


def test_a_deep_queue_is_counted_as_far_as_it_can_matter() -> None:
    """Two machines of four cores could run eight; five hundred are counted at least."""
    world, store = recorded(l4(high=2))
    world.submit(600)
    with store.during():
        tick = world.tick()
    (asked,) = {asked["limit"] for name, asked in store.asked if name == "waiting_groups"}
    assert asked == 500
    assert tick.plan is not None
    assert len(tick.plan.launches) == 2
    assert tick.plan.launches[0].reason.sentence.startswith("at least 500 jobs wait in default ")
    (report,) = tick.plan.reports
    assert report.reason.sentence.startswith("default: at least 500 waiting; ")


def test_what_is_counted_to_the_end_is_told_without_a_doubt() -> None:
    world, _ = recorded(l4(high=2))
    world.submit(499)
    tick = world.tick()
    assert tick.plan is not None
    assert tick.plan.launches[0].reason.sentence.startswith("499 jobs wait in default ")
    assert tick.plan.reports[0].reason.sentence.startswith("default: 499 waiting; ")


def test_a_preview_of_a_deep_queue_says_at_least_too() -> None:
    world, _ = recorded(l4(high=2))
    world.submit(600)
    text = right_now(world.reconciler._eyes, world.clock, policy(l4(high=2)))
    assert text.startswith("at least 500 jobs wait 0s in default -> would launch 2 machines")


# -------------------------------------------------------------------------- hot requests


def test_a_submission_is_one_call() -> None:
    """Its queue and document were read for the one before."""
    world, store = recorded()
    world.submit()
    with store.during() as calls:
        world.submit()
    assert calls == ["job_enqueue"]


def test_a_claim_is_three_calls() -> None:
    """Who it is, what it has, what it gets; the document was read for the one before."""
    _, store, guest = with_machine()
    guest.claim()
    with store.during() as calls:
        guest._agents.claim(guest.machine, wire.Claim([], 32))
    assert calls == ["machine_get", "job_leases", "job_claim"]


def test_a_claim_of_a_machine_for_several_queues_ranks_them_by_their_heads() -> None:
    _, store, guest = with_machine(l4(), queue("default"), queue("urgent", priority=5))
    with store.during() as calls:
        guest.claim()
    assert calls == ["machine_get", "job_leases", "queue_heads", "job_claim"]


def test_a_machine_takes_from_the_most_urgent_queue_that_has_a_head() -> None:
    """By priority, and one step for each `ageing` that its longest waiter has waited; where that is
    equal, by name."""
    bulk, urgent = queue("bulk", ageing_s=600), queue("urgent", priority=2, ageing_s=600)
    world, _, guest = with_machine(l4(high=1), queue("default"), bulk, urgent)
    taken = []
    world.submit(queue="bulk")
    world.clock.advance(1199)
    world.submit(2, queue="urgent")
    for _ in range(3):
        (work,) = guest.claim()
        guest.finish(work)
        taken.append(work.queue)
        world.clock.advance(1)
    assert taken == ["urgent", "bulk", "urgent"]


def test_a_beat_looks_at_the_jobs_it_is_for_and_at_nothing_else() -> None:
    world, store, guest = with_machine()
    world.submit()
    guest.claim()
    with store.during() as calls:
        guest.beat()
    assert calls == ["machine_get", "machine_beat", "job_leases"]


def test_a_job_from_its_claim_to_its_end_writes_no_event() -> None:
    world, store, guest = with_machine()
    (job,) = world.submit()
    with store.during() as calls:
        (work,) = guest.claim()
        guest.finish(work)
    assert "event_append" not in calls
    assert world.store.event_list(subject=job.id).items == ()


def test_a_changed_document_reaches_agents_of_the_same_process_at_once() -> None:
    world, _, guest = with_machine()
    (job,) = world.submit()
    world.apply(_nothing_for_the_machine())
    assert guest.claim() == []
    assert world.job(job).state is JobState.QUEUED


def test_a_changed_document_reaches_agents_of_another_process_within_seconds() -> None:
    """That one has its own memory of the document, for as long as `KEPT_FOR`."""
    world, store, guest = with_machine()
    world.submit(2)
    World(store=store.as_store).apply(_nothing_for_the_machine())
    assert len(guest.claim()) == 1
    world.clock.advance(KEPT_FOR.total_seconds())
    assert guest.claim() == []
    assert KEPT_FOR.total_seconds() <= 5


def _nothing_for_the_machine() -> Autoscaler:
    return policy(l4(), l4("other"), queue("default", "other"))
