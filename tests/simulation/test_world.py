"""One trouble at a time: what must come of each crash, stall, silence and lost answer.

The random histories (`test_seeds.py`) find what nobody thought of; here stands what was found.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import JobState, Machine, Need
from control_plane.reconcile import Tick
from control_plane.stores.sqlite import SqliteStore
from providers.simulated.spec import CloudSpec
from tests.simulation.histories import History
from tests.simulation.invariants import Watch
from tests.simulation.world import CHECKPOINTS, Controller, World

GPU = Need(gpus=1)
DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {pools: [l4]}
pools:
  l4:
    gpu: L4:1
    clouds: {simulated: {}}
    machines: {max: 2}
    idle_timeout: 2m
    boot_timeout: 5m
budget: {hour: 5 USD}
"""


def deployment(spec: CloudSpec | None = None) -> tuple[World, Watch]:
    """One cloud, one queue, at most two machines; every step is watched."""
    world = World(3, clouds={"simulated": spec or CloudSpec()})
    watch = Watch(world)
    world.apply(DOCUMENT)
    return world, watch


def to_the_end(world: World, watch: Watch) -> None:
    """Until nothing waits, runs or costs money."""
    assert world.run_until(lambda: all(job.state in JOB_ENDED for job in world.jobs()))
    assert world.run_until(lambda: not world.alive() and not world.machines())
    watch.at_rest()


def the_machine(world: World) -> Machine:
    (machine,) = world.machines()
    return machine


# ------------------------------------------------------------------------------ the world itself


def test_one_seed_is_one_story() -> None:
    """Bit for bit: chance, time and order come from the seed alone."""
    stories = []
    for _ in range(2):
        history = History(5, steps=8)
        history.play()
        stories.append(list(history.world.story()))
    assert stories[0] == stories[1]
    assert len(stories[0]) > 20


def test_another_seed_is_another_story() -> None:
    one, other = World(1), World(2)
    for world in (one, other):
        world.apply(DOCUMENT)
        world.submit("default", "work 60", GPU)
        world.run(600)
    assert list(one.story()) != list(other.story())


def test_every_store_tells_the_same_story(tmp_path: Path) -> None:
    """Memory and SQLite are the same to everything above them, through crashes and all."""
    stories = []
    for store in (None, SqliteStore(tmp_path / "orchctl.db")):
        history = History(5, steps=6, store=store)
        history.play()
        stories.append(list(history.world.story()))
        history.world.store.close()
    assert stories[0] == stories[1]


# ------------------------------------------------------------------------------ controllers


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_controller_may_die_anywhere(checkpoint: str) -> None:
    """One job, one machine, one entry in the books, whatever the crash interrupts."""
    world, watch = deployment()
    world.crash_controller(checkpoint)
    watch.accepted.add(world.submit("default", "work 200", GPU).id)
    to_the_end(world, watch)
    (cloud,) = world.clouds.values()
    assert len(cloud.vms) == 1
    assert [job.state for job in world.jobs()] == [JobState.SUCCEEDED]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_a_controller_that_wakes_up_late_does_no_harm(checkpoint: str) -> None:
    """It stands still for longer than its lease while another one takes over, then goes on."""
    world, watch = deployment()
    world.add_controller()
    world.stall_controller(checkpoint, 400)
    watch.accepted.add(world.submit("default", "work 600", GPU).id)
    to_the_end(world, watch)
    (cloud,) = world.clouds.values()
    assert len(cloud.vms) == 1


def test_two_controllers_look_and_everything_is_done_once() -> None:
    """Whoever comes first does it; to the other there is nothing left to do."""
    world, watch = deployment()
    world.add_controller()
    looked: Counter[str] = Counter()
    done: Counter[tuple[str, str]] = Counter()

    def ticked(controller: Controller, tick: Tick) -> None:
        watch.ticked(controller, tick)
        plan = tick.plan
        looked[controller.owner] += plan is not None
        if plan is not None:
            done.update(("launch", each.machine_id) for each in plan.launches)
            done.update(("requeue", each.job_id) for each in plan.requeues)
            done.update((each.state.value, each.machine_id) for each in plan.marks)

    world.ticked = ticked
    for _ in range(4):
        watch.accepted.add(world.submit("default", "work 60", GPU).id)
    to_the_end(world, watch)
    assert set(looked) == {"controller-1", "controller-2"}
    assert min(looked.values()) > 5
    assert set(done.values()) == {1}
    assert len([what for what, _ in done if what == "launch"]) == 2


# ------------------------------------------------------------------------------ clouds


@pytest.mark.parametrize("refusal", ["RequestLimitExceeded", "AuthFailure", "InternalError"])
def test_a_refused_repeat_is_no_proof_that_the_first_call_did_nothing(refusal: str) -> None:
    """The answer to a launch is lost, its repeats are refused at the door. Moving on to the next
    offer would make a second machine."""
    world, watch = deployment(CloudSpec(listing_lag_s=90))
    (cloud,) = world.clouds.values()
    cloud.drop_next_answer(call="launch")
    world.submit("default", "work 60", GPU)
    world.run(2)
    cloud.fail_next(refusal, 3, call="launch")
    to_the_end(world, watch)
    assert len({vm.machine_id for vm in cloud.vms}) == len(cloud.vms)


def test_five_lost_answers_make_no_second_machine() -> None:
    """The launch is given up; what came of it is found, put in the books and ended."""
    world, watch = deployment(CloudSpec(listing_lag_s=90))
    (cloud,) = world.clouds.values()
    cloud.drop_next_answer(5, call="launch")
    world.submit("default", "work 60", GPU)
    to_the_end(world, watch)
    given_up = world.store.machine_get(cloud.vms[0].machine_id)
    assert given_up.attempt == 1
    assert given_up.reason is not None
    assert given_up.reason.code == "launch-unclear"


def test_a_machine_that_ended_before_anybody_saw_it_is_in_the_books() -> None:
    """Its answer was lost, and it is taken before a listing shows it."""
    world, watch = deployment(CloudSpec(listing_lag_s=90))
    (cloud,) = world.clouds.values()
    cloud.drop_next_answer(5, call="launch")
    world.submit("default", "work 60", GPU)
    world.run(30)
    cloud.interrupt(cloud.vms[0].provider_id, notice_s=0)
    to_the_end(world, watch)  # where the books are compared with the bill


def test_a_launch_ended_by_hand_is_looked_for_until_a_listing_must_show_it() -> None:
    """Somebody terminates it two minutes after it was planned, but only seconds after its call."""
    world, watch = deployment(CloudSpec(listing_lag_s=90))
    (cloud,) = world.clouds.values()
    cloud.fail_next("InternalError", 3, call="launch")
    cloud.drop_next_answer(call="launch")
    world.submit("default", "work 60", GPU)
    world.run_until(lambda: bool(cloud.vms), step_s=1)
    world.fleet.terminate(the_machine(world).id, actor="ann")
    to_the_end(world, watch)


def test_what_fails_again_and_again_is_noted_once() -> None:
    """A machine cannot be ended while its region is silent for long: that is one line."""
    world, _ = deployment()
    (cloud,) = world.clouds.values()
    world.submit("default", "work 60", GPU)
    world.run(120)
    machine = the_machine(world)
    cloud.partial(machine.offer.region)
    world.fleet.terminate(machine.id, actor="ann")
    world.run(600)
    noted = world.store.event_list(kind="error", subject=machine.id).items
    assert [event.text for event in noted] == [
        f"ServiceUnavailable: {machine.offer.region} does not answer"
    ]
    assert len(world.store.plan_list("research", limit=200)) < 10


# ------------------------------------------------------------------------------ machines and clocks


def test_a_job_is_not_sent_where_it_can_never_be_bought() -> None:
    """Three interruptions send a job to on-demand capacity, unless the budget forbids that."""
    world, watch = deployment()
    world.apply(DOCUMENT.replace("hour: 5 USD", "hour: 0.60 USD"))
    job = world.submit("default", "work 3000", GPU)
    (cloud,) = world.clouds.values()
    for _ in range(3):
        world.run_until(lambda: world.store.job_get(job.id).state is JobState.RUNNING, step_s=5)
        cloud.interrupt(the_machine(world).id, notice_s=0)
        world.run(120)
    to_the_end(world, watch)
    assert world.store.job_get(job.id).state is JobState.SUCCEEDED


def test_a_job_of_a_silent_machine_runs_again_and_its_late_result_is_refused() -> None:
    world, watch = deployment()
    job = world.submit("default", "work 200", GPU)
    world.run(120)
    first = the_machine(world).id
    with world.cut_off(first):
        world.run(300)
    to_the_end(world, watch)
    attempts = world.store.job_attempts(job.id)
    assert [attempt.outcome for attempt in attempts] == ["lost", "succeeded"]
    assert attempts[0].machine_id == first


@pytest.mark.parametrize("ahead_s", [600.0, -600.0])
def test_a_wrong_clock_loses_nothing(ahead_s: float) -> None:
    """The control plane's clock jumps ten minutes ahead, or stands still for ten."""
    world, watch = deployment()
    for _ in range(4):
        watch.accepted.add(world.submit("default", "work 300", GPU).id)
    world.run(120)
    world.set_ahead(ahead_s)
    world.run(900)
    world.set_ahead(0)
    assert world.run_until(lambda: all(job.state in JOB_ENDED for job in world.jobs()))
    assert world.run_until(lambda: not world.alive() and not world.machines())
    assert {job.state for job in world.jobs()} == {JobState.SUCCEEDED}
    watch.step()


def test_a_machine_ends_although_the_control_plane_is_gone() -> None:
    """Nobody answers any more: the agent's own timers end its machine, even while it works."""
    world, _ = deployment()
    world.submit("default", "work 90000", GPU)
    world.run(120)
    assert world.alive()
    world.controllers.clear()
    with world.cut_off():
        world.run(timedelta(minutes=15).total_seconds())
        assert not world.alive()
