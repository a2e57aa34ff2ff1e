"""What a look does beside its plan: it lets jobs go, and forgets what is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from control_plane.core.model import JobSpec, JobState, Need
from control_plane.service import Submission
from control_plane.stores.memory import MemoryStore
from tests.build import policy, queue
from tests.invariants.world import World, l4, small_world


def test_a_job_whose_time_has_come_is_let_go_and_waiting_agents_are_told() -> None:
    world = small_world()
    at = world.clock.now() + timedelta(minutes=10)
    spec = JobSpec(command="true", need=Need(gpus=1))
    job, _ = world.service.submit(Submission(spec=spec, not_before=at))
    world.tick()
    assert world.cloud.vms == ()
    world.clock.advance(601)
    wakes = world.wakes
    world.tick()
    assert world.wakes > wakes
    assert len(world.cloud.vms) == 1
    assert world.job(job).queued_at == job.queued_at


def test_a_look_says_how_long_the_job_has_waited_that_waits_longest() -> None:
    world = small_world()
    (quiet,) = world.controller().tick()
    world.submit()
    world.clock.advance(90)
    world.submit()
    (bought,) = world.controller().tick()
    assert (quiet.waited_s, bought.waited_s) == (0, 90)


def test_a_job_waits_for_those_it_depends_on() -> None:
    """Nothing is bought for it until they have succeeded."""
    world = small_world()
    (first,) = world.submit()
    spec = JobSpec(command="true", need=Need(gpus=1))
    second, _ = world.service.submit(Submission(spec=spec, depends_on=(first.id,)))
    assert second.state is JobState.BLOCKED
    world.tick()
    assert len(world.cloud.vms) == 1
    (guest,) = world.boot()
    (work,) = guest.claim()
    guest.finish(work)
    assert world.job(second).state is JobState.QUEUED


class _Stuck(MemoryStore):
    """A store in which one job can never be let go."""

    def job_release(self, **kwargs: Any) -> int:
        raise ValueError("this job cannot be let go")


def test_a_job_that_cannot_be_let_go_keeps_no_machine_waiting() -> None:
    world = small_world(store=_Stuck())
    world.submit()
    world.tick()
    assert len(world.cloud.vms) == 1
    (event,) = world.events("release-failed")
    assert event.text == "ValueError: this job cannot be let go"


class _Forgetful(MemoryStore):
    """A store that cannot keep a plan."""

    def plan_put(self, *args: Any, **kwargs: Any) -> None:
        raise OSError("no room for plans")


def test_a_fault_while_acting_gives_the_lease_back() -> None:
    """What one controller cannot do another one may try at once."""
    world = small_world(store=_Forgetful())
    (tick,) = world.reconciler.tick()
    assert tick.done is not None
    assert tick.done.errors == ["OSError: no room for plans"]
    held = world.store.shared_read().leases["autoscaler/research"]
    assert (held.fence.owner, held.fence.generation) == ("", 1)


def test_what_is_deleted_is_forgotten_by_the_process_at_once() -> None:
    """Its queue is one made by hand from now on, without a policy and without limits."""
    world = World()
    world.apply(policy(l4(), queue(max_running=1)))
    world.fleet.delete("research")
    assert world.service.policy_of("default") is not None
    world.tick()
    assert world.service.policy_of("default") is None
    freed = world.store.queue_get("default")
    assert (freed.autoscaler, freed.max_running) == ("", None)


def test_a_retry_waits_for_nothing() -> None:
    """What the first one depended on is done; it would be odd to wait for that again."""
    world = small_world()
    (first,) = world.submit()
    spec = JobSpec(command="true", need=Need(gpus=1))
    second, _ = world.service.submit(Submission(spec=spec, depends_on=(first.id,)))
    world.service.cancel(first.id)
    assert world.job(second).state is JobState.CANCELLED
    again = world.service.retry(second.id, actor="ann")
    assert again.state is JobState.QUEUED
    assert again.depends_on == ()
    (event,) = world.store.event_list(subject=again.id).items
    assert (event.text, event.actor) == (f"retry of {second.id}", "ann")


def test_limits_of_the_document_become_those_of_the_queue() -> None:
    """Each change is a new version of the queue's record; taking it out of the document takes the
    limits off."""
    world = World()
    versions = []
    for parts in (
        (queue(max_running=4),),
        (queue(max_running=4, max_running_per_owner=2),),
        (queue(max_running=4, max_running_per_owner=2), queue("other")),
        (queue("other"),),
    ):
        world.apply(policy(l4(), *parts))
        record = world.store.queue_get("default")
        versions.append((record.version, record.max_running, record.max_running_per_owner))
    assert versions == [(1, 4, None), (2, 4, 2), (2, 4, 2), (3, None, None)]
    assert world.store.queue_get("other").version == 1


def test_the_same_document_again_repairs_the_queues() -> None:
    """A crash may have come between writing the document and writing its queues."""
    world = World()
    declared = policy(l4(), queue(max_running=4))
    world.apply(declared)
    record = world.store.queue_get("default")
    world.store.queue_put(replace(record, max_running=9, version=2), expected_version=1)
    world.apply(declared)
    assert world.store.queue_get("default").max_running == 4


def test_a_queue_at_its_limit_buys_nothing_more() -> None:
    world = World()
    world.apply(policy(l4(), queue(max_running=2)))
    world.submit(4)
    world.tick()
    assert len(world.cloud.vms) == 2
    for guest in world.boot():
        guest.claim()
    world.tick()
    assert len(world.cloud.vms) == 2
