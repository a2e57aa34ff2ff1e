"""Lines 15 to 19: machines end, for certain, and none ends under a job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_bootstrap import wire
from control_plane.agents import Gone
from control_plane.core.model import JobState, MachineState
from control_plane.errors import Denied
from tests.build import policy, queue
from tests.invariants.world import ONE_ZONE, l4, ready_world, small_world
from tests.simulation.world import Crash

S = MachineState


# -------------------------------------------------------------------------- 15: four ends


def test_15_the_controller_ends_an_idle_machine_whose_agent_does_not() -> None:
    """The agent's own idle timer is the first of four ends; half a minute later the controller is
    the last. ClearML's and dstack's VMs had one end only and ran for ever."""
    world, (guest,), _ = ready_world(idle_timeout_s=120)
    (work,) = guest.claim()
    guest.finish(work)
    world.run(145)
    assert world.states() == [S.READY]
    world.run(60)
    assert world.alive() == []
    assert world.machine().state is S.TERMINATED
    assert world.machine().reason.code == "idle"  # type: ignore[union-attr]


def test_15_the_controller_ends_a_machine_past_its_life_even_under_a_job() -> None:
    """First it is drained, then, after a grace, ended; the job goes back unharmed."""
    world, (guest,), (job,) = ready_world(high=1, max_lifetime_s=1800)
    guest.claim()
    world.run(1800 - 70, step_s=30)
    assert world.states() == [S.DRAINING]
    world.run(400, step_s=30)
    assert not guest.vm.alive(world.clock.now())
    assert world.job(job).machine_losses == 0
    assert world.job(job).machine_id != guest.vm.machine_id


def test_15_the_controller_ends_a_silent_machine() -> None:
    """Three missed beats: what it ran is given back, and it is ended."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.run(95, beats=False)
    assert world.job(job).state is JobState.QUEUED
    world.run(30, beats=False)
    assert not guest.vm.alive(world.clock.now())


def test_15_every_launch_tells_the_provider_when_the_machine_must_be_gone() -> None:
    """With the control plane dead and an agent that hangs, the cloud's own limit still ends it."""
    world = small_world(max_lifetime_s=3600, spec=ONE_ZONE.but(life_limit=True))
    world.submit()
    world.tick()
    (request,) = world.provider.requests
    assert request.deadline == world.clock.now() + timedelta(seconds=600 + 3600)
    world.clock.advance(600 + 3600 + 1)
    assert world.alive() == []


def test_15_every_machine_is_told_its_own_limits_before_it_can_ask() -> None:
    """Boot time and maximum life travel in the start-up text, so that they hold for a machine that
    never reaches us; the agent's advice brings idle time and contact time."""
    _, (guest,), _ = ready_world(boot_timeout_s=300, max_lifetime_s=3600, idle_timeout_s=60)
    boot = guest.vm.boot
    assert (boot.boot_timeout_s, boot.max_lifetime_s) == (300, 3600)
    advice = guest.session.advice
    assert (advice.idle_timeout_s, advice.max_lifetime_s) == (60, 3600)
    assert 0 < advice.contact_timeout_s <= 600


def test_15_an_ended_machine_cannot_come_back() -> None:
    """Its session is over at its first word: the agent then ends the machine from inside."""
    world, (guest,), _ = ready_world()
    world.fleet.terminate(guest.vm.machine_id)
    with pytest.raises((Gone, Denied)):
        guest.beat()


# -------------------------------------------------------------------------- 16: drain first


def test_16_a_machine_is_closed_before_it_is_ended_so_no_job_slips_in() -> None:
    """It is cordoned, then its leases are looked at; a job that was claimed between the decision
    and the act keeps its machine.

    ClearML ended a machine that had just popped a job: the job was lost."""
    world, (guest,), _ = ready_world(idle_timeout_s=60)
    (work,) = guest.claim()
    guest.finish(work)
    world.clock.advance(100)
    guest.beat()
    late = []

    def submit_and_claim(name: str) -> None:
        if name == "planned":
            late.extend(world.submit())
            guest.claim()

    (tick,) = world.controller(checkpoint=submit_and_claim).tick()
    assert tick.plan
    assert [each.reason.code for each in tick.plan.terminations] == ["idle"]
    assert world.states() == [S.READY]
    assert world.job(late[0]).state is JobState.RUNNING
    assert guest.vm.stopping_at is None


def test_16_a_cordoned_machine_gets_no_job() -> None:
    """From the cordon on a claim comes back empty, also one that was under way by then: the store
    looks at the machine in the same step in which it gives out the job."""
    world, (guest,), (job,) = ready_world()
    before = guest.machine
    world.fleet.drain(guest.vm.machine_id)
    assert world.agents.claim(before, wire.Claim([], 1)).jobs == []
    assert guest.claim() == []
    assert world.job(job).state is JobState.QUEUED


def test_16_a_crash_after_the_cordon_ends_the_machine_all_the_same() -> None:
    """The cordon is durable: whoever comes next finishes what was begun."""
    world, (guest,), _ = ready_world(idle_timeout_s=60)
    (work,) = guest.claim()
    guest.finish(work)
    world.clock.advance(100)
    guest.beat()

    def die(name: str) -> None:
        if name == "cordoned":
            raise Crash

    with pytest.raises(Crash):
        world.controller(checkpoint=die).tick()
    assert world.states() == [S.DRAINING]
    world.run(60)
    assert world.alive() == []


def test_16_taking_a_pool_out_of_the_document_lets_its_jobs_end() -> None:
    """Its machines drain: the agent goes on with its job, takes no other, and leaves then."""
    world, (guest,), (job,) = ready_world()
    (work,) = guest.claim()
    world.apply(policy(l4("other"), queue("default", "other")))
    world.run(3600, step_s=30)
    assert world.machine(guest.vm.machine_id).state is S.DRAINING
    assert guest.beat().advice.max_lifetime_s >= 86_400
    guest.finish(work)
    assert world.job(job).state is JobState.SUCCEEDED
    world.run(60)
    assert not guest.vm.alive(world.clock.now())


# -------------------------------------------------------------------------- 17: until gone


def test_17_terminate_is_repeated_until_the_cloud_says_that_it_is_gone() -> None:
    """An error, a lost call or a cloud that forgets is followed by the next call, and only a
    positive answer closes the record and its price."""
    world, (guest,), _ = ready_world()
    world.provider.refuses["terminate"] = "InternalError"
    world.fleet.terminate(guest.vm.machine_id)
    world.run(120)
    assert world.provider.calls["terminate"] >= 6
    assert world.states()[0] is S.TERMINATING
    world.provider.refuses.clear()
    world.run(60)
    closed = world.machine(guest.vm.machine_id)
    assert closed.state is S.TERMINATED
    assert closed.ended_at
    assert guest.vm.stopped_at
    assert closed.ended_at >= guest.vm.stopped_at


def test_17_a_listing_that_does_not_show_it_is_no_proof() -> None:
    """While its region does not answer, the record stays open and terminate is repeated."""
    world, (guest,), _ = ready_world()
    world.cloud.partial("us-east-1")
    world.fleet.terminate(guest.vm.machine_id)
    world.run(300)
    assert world.machine(guest.vm.machine_id).state is S.TERMINATING
    world.cloud.readable("us-east-1")
    world.run(10)
    assert world.machine(guest.vm.machine_id).state is S.TERMINATED


def test_17_one_failing_terminate_blocks_and_resets_no_other() -> None:
    """The first of three cannot be ended; the other two are, in the same look, and its own time to
    repeat is its own."""
    world, guests, _ = ready_world(3)
    for guest in guests:
        world.fleet.terminate(guest.vm.machine_id)
    world.cloud.fail_next("InternalError", 1, call="terminate")
    tick = world.tick()
    assert tick.done
    assert len(tick.done.errors) == 1
    assert [guest.vm.stopping_at is None for guest in guests] == [True, False, False]
    world.run(20)
    assert all(guest.vm.stopping_at for guest in guests)


# -------------------------------------------------------------------------- 18: busy


def test_18_a_machine_that_registers_at_the_last_moment_keeps_its_job() -> None:
    """It is over its boot time when the decision is made, and has a job when it is carried out:
    the lease is looked at before the end, and it works on."""
    world = small_world(boot_timeout_s=60, high=1)
    (job,) = world.submit()
    world.tick()
    world.clock.advance(65)

    def register_between(name: str) -> None:
        if name == "planned":
            world.guest(world.cloud.vms[0].machine_id).claim()

    (tick,) = world.controller(checkpoint=register_between).tick()
    assert tick.plan
    assert [each.reason.code for each in tick.plan.terminations] == ["boot-failed"]
    assert world.job(job).state is JobState.RUNNING
    assert world.cloud.vms[0].stopping_at is None
    world.run(30)
    assert world.states() == [S.READY]


def test_18_a_lowered_maximum_drains_and_never_kills() -> None:
    """Machines beyond the new maximum end when their jobs have."""
    world, guests, jobs = ready_world(3)
    works = [guest.claim()[0] for guest in guests]
    world.apply(policy(l4(high=1)))
    world.run(1200, step_s=30)
    assert len(world.alive()) == 3
    assert [world.job(job).state for job in jobs] == [JobState.RUNNING] * 3
    for guest, work in zip(guests, works, strict=True):
        guest.finish(work)
    world.run(60)
    assert len(world.alive()) == 1


def test_18_a_queue_that_changes_hands_takes_no_job_from_a_machine() -> None:
    """The former owner's machine still runs a job of the queue: the new owner sees a lease on a
    machine that is not its own, and leaves it alone."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.apply(policy(l4(), queue("elsewhere", "l4")))
    taker = policy(l4("mine"), queue("default", "mine"))
    world.fleet.apply("taker", replace(taker, name="taker"), expected_version=None)
    for _ in range(10):
        world.clock.advance(30)
        guest.beat()
        world.reconciler.tick()
    assert world.job(job).state is JobState.RUNNING
    assert guest.running


def test_18_after_its_own_absence_the_controller_calls_nobody_silent() -> None:
    """The computer slept for an hour, the machines did not beat because nobody answered: they get
    their time again before anything is taken from them."""
    world, (guest,), (job,) = ready_world()
    guest.claim()
    world.tick()
    world.clock.advance(3600)
    world.tick()
    assert world.job(job).state is JobState.RUNNING
    guest.beat()
    world.run(60)
    assert world.states() == [S.READY]
    world.run(100, beats=False)
    assert world.job(job).state is JobState.QUEUED


# -------------------------------------------------------------------------- 19: idle time


def test_19_jobs_that_begin_and_end_between_two_looks_count_as_work() -> None:
    """The store keeps when the last job ended: a machine that runs one short job after the other is
    never idle, although no look ever finds it busy. Samples would have ended it."""
    world, (guest,), _ = ready_world(idle_timeout_s=60)
    for _ in range(30):
        world.clock.advance(20)
        guest.beat()
        for work in guest.claim():
            guest.finish(work)
        world.submit()
        for work in guest.claim():
            guest.finish(work)
        world.tick()
    assert [vm.provider_id for vm in world.alive()] == [guest.vm.provider_id]
    world.run(130)
    assert world.alive() == []


def test_19_a_person_who_protects_a_machine_keeps_it() -> None:
    """Idle or not; until the protection is taken away again."""
    world, (guest,), _ = ready_world(idle_timeout_s=60)
    for work in guest.claim():
        guest.finish(work)
    world.fleet.protect(guest.vm.machine_id, protected=True)
    world.run(600, step_s=20)
    assert not guest.leave().agreed
    assert len(world.alive()) == 1
    world.fleet.protect(guest.vm.machine_id, protected=False)
    assert guest.leave().agreed
