"""Lines 10 to 14: what is seen, what is not, and what may be done about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.core.check import check
from control_plane.core.model import JobState, Machine, MachineState
from control_plane.core.planner import plan
from control_plane.core.policy import CloudPolicy
from control_plane.errors import Conflict
from control_plane.ports import BootSettings, LaunchRequest
from control_plane.stores.memory import MemoryStore
from providers.simulated.machines import Vm
from providers.simulated.spec import CloudSpec
from tests.build import ago, group, lease, machine, offer, policy, pool, queue, snapshot
from tests.invariants.world import World, l4, ready_world, small_world

S = MachineState


def stray(world: World, *, fleet: str = "test-research") -> Vm:
    """A machine that carries a fleet's label and that no record of ours explains."""
    (sold, *_) = [each for each in world.provider.offers() if each.capacity.gpu_name == "L4"]
    world.cloud.launch(
        LaunchRequest(
            machine_id="m-unknown",
            key=f"{fleet}-elsewhere",
            offer=sold,
            disk_gib=100,
            deadline=world.clock.now() + timedelta(days=1),
            boot=BootSettings(
                server_url="https://control.test",
                machine_id="m-unknown",
                fleet=fleet,
                pool="l4",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=3600,
            ),
            cloud=CloudPolicy(provider="aws"),
        )
    )
    return world.cloud.vms[-1]


# -------------------------------------------------------------------------- 10: unknown


@pytest.mark.parametrize("how", ["refused", "broken", "throttled"])
def test_10_a_failed_listing_is_unknown_and_nothing_is_done_about_it(how: str) -> None:
    """No answer is not "no machines": nothing is lost, given back, ended or bought.

    KEDA read a scaler's error as zero and scaled to nothing."""
    world, guests, jobs = ready_world(2)
    for guest in guests:
        guest.claim()
    if how == "broken":
        world.provider.broken = "observe"
    else:
        codes = {"refused": "ServiceUnavailable", "throttled": "RequestLimitExceeded"}
        world.provider.refuses["observe"] = codes[how]
    world.submit(2)
    world.run(600)
    assert world.states() == [S.READY, S.READY]
    assert [world.job(job).state for job in jobs] == [JobState.RUNNING] * 2
    assert len(world.alive()) == 2
    assert world.refusals()[0].reason.code == "places-unknown"


def test_10_a_silent_region_is_held_and_the_others_go_on() -> None:
    """GCP names zones as `unreachable`: what is there stays as it is, what is elsewhere does
    not wait for it, and nothing is bought where nobody answers."""
    world = small_world(spec=CloudSpec())
    world.submit(1)
    world.tick()
    (guest,) = world.boot()
    here = guest.vm.offer.region
    guest.claim()
    world.cloud.partial(here)
    world.submit(1)
    world.run(120)
    assert world.machine(guest.vm.machine_id).state is S.READY
    (other,) = [vm for vm in world.alive() if vm is not guest.vm]
    assert other.offer.region != here


class _Amnesia(MemoryStore):
    """A store whose count of waiting jobs can fail."""

    fails = False

    def waiting_groups(self, *args: Any, **kwargs: Any) -> Any:
        if self.fails:
            raise OSError("the count cannot be read")
        return super().waiting_groups(*args, **kwargs)


def test_10_an_error_in_counting_jobs_is_not_zero_jobs() -> None:
    """KEDA again: whatever cannot be read stops the decision, it does not decide."""
    store = _Amnesia()
    world = small_world(store=store, idle_timeout_s=0)
    world.submit()
    world.tick()
    store.fails = True
    for _ in range(20):
        world.clock.advance(60)
        tick = world.tick()
        assert tick.plan is None
    assert len(world.alive()) == 1
    assert world.events("tick-failed")


def test_10_a_cloud_that_has_not_told_what_it_sells_refuses_no_job() -> None:
    """At a first start with the cloud away, its price list is unknown and not empty."""
    world = World()
    world.provider.refuses["offers"] = "ServiceUnavailable"
    world.apply(policy(l4()))
    (job,) = world.submit()
    assert world.job(job).state is JobState.QUEUED


# -------------------------------------------------------------------------- 11: strays


def test_11_the_cloud_is_listed_before_the_store_is_read() -> None:
    """A record written while the cloud is being listed is known to the decision, so the machine is
    no stray. Read the other way round, every launch of another thread could be taken for one."""
    world = small_world()
    late = stray(world)
    world.clock.advance(3600)

    def write_the_record(call: str) -> None:
        if call == "observe":
            world.provider.before = lambda call: None
            record = machine("m-unknown", S.READY, late.offer, provider_id=late.provider_id)
            now = world.clock.now()
            fresh = replace(record, last_beat_at=now, planned_at=now, launched_at=now)
            world.store.machine_put(fresh, expected_version=0, fence=None)

    world.provider.before = write_the_record
    tick = world.tick()
    assert tick.plan
    assert tick.plan.reaps == ()


def test_11_a_young_unknown_machine_is_left_alone() -> None:
    """Its record may be on its way: nothing is said or done within the grace time."""
    world = small_world()
    young = stray(world)
    for _ in range(4):
        world.clock.advance(30)
        world.tick()
    assert young.alive(world.clock.now())
    assert not world.events("books-wrong")


def test_11_only_our_own_label_is_acted_on() -> None:
    """Whatever else lives in the account is none of our business, for ever."""
    world = small_world()
    theirs = stray(world, fleet="somebody-elses")
    world.run(3600, step_s=60)
    assert theirs.alive(world.clock.now())


# -------------------------------------------------------------------------- 12: last look


def test_12_an_unknown_machine_is_ended_in_two_phases() -> None:
    """First seen, then announced and noted, and only when it is still unexplained later, ended."""
    world = small_world()
    unknown = stray(world)
    world.clock.advance(121)
    world.tick()
    assert unknown.stopping_at is None
    assert "it is ended in 2m" in world.events("books-wrong")[0].text
    world.clock.advance(119)
    world.controller().tick()
    assert unknown.stopping_at is None
    world.clock.advance(2)
    world.tick()
    assert unknown.stopping_at == world.clock.now()


def test_12_a_record_that_turns_up_saves_the_machine_at_the_last_look() -> None:
    """Between the plan and the act its record is read again: what is explained by then is kept."""
    world = small_world()
    unknown = stray(world)
    world.clock.advance(121)
    world.tick()
    world.clock.advance(121)

    def write_the_record(name: str) -> None:
        if name == "planned":
            record = machine("m-unknown", S.READY, unknown.offer, provider_id=unknown.provider_id)
            world.store.machine_put(record, expected_version=0, fence=None)

    world.controller(checkpoint=write_the_record).tick()
    assert unknown.stopping_at is None


@pytest.mark.parametrize("place", ["listing", "look-up"])
def test_12_a_record_without_machine_is_gone_only_on_a_positive_answer(place: str) -> None:
    """A listing that leaves it out proves nothing; only "it does not exist" does."""
    world, (guest,), (job,) = ready_world(spec=CloudSpec(listing_lag_s=600, regions={"r": ("r1",)}))
    guest.claim()
    if place == "look-up":
        world.provider.refuses["sighting"] = "InternalError"
    for _ in range(30):
        world.clock.advance(10)
        guest.beat()
        world.tick()
    assert world.machine().state is S.READY
    world.provider.refuses.clear()
    world.clock.advance(300)
    guest.beat()
    world.cloud.shut_down(guest.vm.provider_id)
    world.clock.advance(4000)  # by now the cloud has forgotten it
    guest.beat()
    world.tick()
    assert world.machine(guest.vm.machine_id).state is S.TERMINATED
    assert world.job(job).state is JobState.QUEUED


def test_12_a_new_machine_is_not_asked_for_one_by_one_while_listings_lag() -> None:
    """A thousand launched at once would be a thousand more calls at every look."""
    world = small_world(high=5, spec=CloudSpec(listing_lag_s=60, regions={"r": ("r1",)}))
    world.submit(20)
    world.tick()
    assert world.states() == [S.BOOTING] * 5
    before = world.provider.calls["sighting"]
    world.clock.advance(10)
    world.tick()
    assert world.provider.calls["sighting"] == before
    # What no listing shows after that is asked for: it may be gone.
    world.clock.advance(15)
    world.tick()
    assert world.provider.calls["sighting"] == before + 5
    assert world.states() == [S.BOOTING] * 5


# -------------------------------------------------------------------------- 13: the books


def test_13_books_that_do_not_add_up_stop_buying_and_say_so() -> None:
    """While something of ours is alive that no record explains, nothing is bought: an alarm and the
    refusal say why, and buying goes on when it is cleared up.

    ClearML bought on beside machines that its books did not know, 16 on a cap of 1."""
    world = small_world()
    unknown = stray(world)
    world.clock.advance(121)
    world.submit()
    tick = world.tick()
    assert tick.plan
    assert tick.plan.launches == ()
    assert tick.plan.refusals[0].reason.code == "books-wrong"
    (alarm,) = world.events("books-wrong")
    assert (alarm.kind, alarm.subject) == ("error", "research")
    assert unknown.provider_id in alarm.text
    world.run(200)
    assert [vm.machine_id for vm in world.alive()] != ["m-unknown"]
    assert S.BOOTING in world.states()
    assert len(world.events("books-wrong")) == 1


def test_13_a_second_machine_under_one_record_is_a_wrong_book_too() -> None:
    """The record explains one of them; the other is announced and ended, the first one works on."""
    world, (guest,), _ = ready_world()
    twin = stray(world)
    twin.machine_id = guest.vm.machine_id
    world.run(130)
    assert world.events("books-wrong")
    world.run(150)
    assert twin.stopping_at is not None
    assert guest.vm.stopping_at is None


# -------------------------------------------------------------------------- 14: isolation

ODD: tuple[dict[str, Any], ...] = (
    {"provider_id": ""},
    {"launched_at": None},
    {"registered_at": None, "last_beat_at": None},
    {"attempt": 99},
    {"pool": "no-such-pool"},
    {"operation": "operation-of-long-ago"},
    {"offers": (offer(provider="no-such-cloud"),)},
    {"interruption_at": ago(7200), "terminating_at": ago(9000)},
    {"planned_at": ago(-7200)},
    {"capacity": replace(offer().capacity, gpus=0, cpus=0, memory_mib=0)},
)
"""What a row should never say, and some day does."""


@pytest.mark.parametrize("state", S)
def test_14_no_row_however_odd_keeps_the_others_from_being_served(state: MachineState) -> None:
    """A machine's record may be in any state with any field wrong: jobs are still bought for.

    Ray: one instance in a state that its reconciler did not expect stopped all scaling for 14 h."""
    declared = policy(pool(high=20))
    for odd in ODD:
        bad = machine("m-odd", state, **odd)
        for leases in ((), (lease("m-odd"),)):
            before = snapshot(group(1), policy=declared, machines=(bad,), leases=leases)
            made = plan(before)
            assert made.launches or _serves(bad), odd
            assert check(made, before) == (), odd


def _serves(bad: Machine) -> bool:
    """Whether the odd machine itself is what the job may wait for."""
    return bad.state in (S.PLANNED, S.LAUNCHING, S.BOOTING, S.READY)


class _OneBadRow(MemoryStore):
    """A store that refuses every write to one machine."""

    bad = ""

    def machine_put(self, machine: Machine, **kwargs: Any) -> Machine:
        if machine.id == self.bad:
            raise ValueError("this row cannot be written")
        return super().machine_put(machine, **kwargs)


def test_14_a_row_that_cannot_be_written_stops_only_itself() -> None:
    """The others are ended and bought all the same, and the log names the one that could not."""
    store = _OneBadRow()
    world, guests, _ = ready_world(2, store=store, high=6)
    for guest in guests:
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
    store.bad = guests[0].vm.machine_id
    world.submit(2)
    tick = world.tick()
    assert tick.done
    assert any(store.bad in error for error in tick.done.errors)
    assert world.machine(guests[1].vm.machine_id).state is S.TERMINATED
    assert [event.subject for event in world.events("action-failed")][-1] == store.bad


@pytest.mark.parametrize("call", ["observe", "sighting", "offers"])
def test_14_one_broken_cloud_does_not_stop_the_others(call: str) -> None:
    """Whatever a cloud's adapter raises, at whichever call: the other cloud's machines are looked
    after and bought."""
    world = World("aws", "gcp", spec=CloudSpec(regions={"r": ("r1",)}, remembered_s=1))
    world.apply(policy(l4("first"), l4("second", "gcp"), queue("default", "first", "second")))
    world.submit()
    world.tick()
    (guest,) = world.boot()
    world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
    world.provider.broken = call
    world.cloud.set_capacity(0)
    world.submit(2)
    for _ in range(2):
        world.clock.advance(20)
        tick = world.tick()
        assert tick.plan, tick.done
    assert "gcp" in [vm.offer.provider for vm in world.alive()]


def test_14_one_broken_autoscaler_does_not_stop_the_others() -> None:
    """Its fault is noted under its name; the next one is looked at in the same round."""
    world = World()
    world.apply(policy(l4()))
    broken = replace(policy(l4("other"), queue("broken", "other")), name="a-broken-one")
    world.apply(broken)
    world.submit()
    take = world.store.lease_take

    def lease_take(name: str, *args: Any, **kwargs: Any) -> Any:
        if "broken" in name:
            raise Conflict("no lease today")
        return take(name, *args, **kwargs)

    world.store.lease_take = lease_take  # type: ignore[method-assign]
    world.reconciler.tick()
    assert len(world.alive()) == 1
    assert world.events("tick-failed")[0].subject == "a-broken-one"
