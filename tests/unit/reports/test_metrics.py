"""The figures for Prometheus agree with the store, the loop and the agents' story."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from control_plane.core.model import JobSpec, Need
from control_plane.loop_figures import BOUNDS_S, LoopFigures
from control_plane.reports.metrics import metrics_text
from control_plane.service import Submission
from control_plane.stores.memory import MemoryStore
from providers.simulated.clock import EPOCH
from tests.build import policy, queue
from tests.invariants.world import World, l4, ready_world, small_world


def samples(world: World, loop: LoopFigures | None = None) -> dict[tuple[str, ...], float]:
    """Every figure, by its name and the values of its labels."""
    text = metrics_text(world.store, world.clock.now(), loop).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_kind_of_waiting_is_told_apart() -> None:
    world, (guest,), (first,) = ready_world()
    guest.claim()
    world.submit(2)
    spec = JobSpec(command="true", need=Need(gpus=1))
    later = world.clock.now().replace(year=2030)
    world.service.submit(Submission(spec=spec, not_before=later))
    world.service.submit(Submission(spec=spec, depends_on=(first.id,)))
    world.clock.advance(60)
    found = samples(world)
    names = ("depth", "delayed", "blocked", "running", "wait_seconds")
    assert [found[f"orchctl_queue_{name}", "default"] for name in names] == [3, 1, 1, 1, 60]


def test_quantiles_of_waits_are_those_of_the_jobs_claimed_last() -> None:
    """Four jobs, claimed 10, 20, 30 and 40 seconds after they were handed in."""
    world, (guest,), (first,) = ready_world()
    world.service.cancel(first.id)
    world.submit(4)
    for _ in range(4):
        world.clock.advance(10)
        (work,) = guest.claim()
        guest.finish(work)
    found = samples(world)
    shares = ("0.5", "0.9", "0.99")
    assert [found["orchctl_queue_waited_seconds", share, "default"] for share in shares] == [
        20,
        40,
        40,
    ]


def test_a_queue_that_nothing_was_claimed_from_has_no_quantiles() -> None:
    world = World()
    world.apply(policy(l4(), queue("default")))
    assert not [key for key in samples(world) if key[0] == "orchctl_queue_waited_seconds"]


def test_calls_of_the_store_are_counted_by_operation() -> None:
    world = small_world()
    for _ in range(3):
        world.store.job_leases()
    found = samples(world)
    assert found["orchctl_store_calls_total", "job_leases"] == 3
    assert found["orchctl_store_seconds_total", "job_leases"] > 0
    assert found["orchctl_store_write_units_total", "job_leases"] == 0


def test_launches_are_counted_by_what_they_came_to() -> None:
    """Two offers: the first is refused, the second gives a machine; later none is left."""
    world = small_world()
    world.cloud.fail_next("InsufficientInstanceCapacity", 1, call="launch")
    world.submit()
    world.tick()
    assert len(world.cloud.vms) == 1
    found = samples(world, world.reconciler.figures)
    results = {key[1]: value for key, value in found.items() if key[0] == "orchctl_launches_total"}
    assert results == {"launched": 1, "refused": 1, "failed": 0}


def test_a_machine_that_the_cloud_took_is_one_interruption_with_or_without_a_notice() -> None:
    for notice_s in (0, 60):
        world, (guest,), _ = ready_world()
        world.cloud.interrupt(guest.vm.provider_id, notice_s=notice_s)
        world.run(600, beats=False)
        found = samples(world, world.reconciler.figures)
        assert found[("orchctl_interruptions_total",)] == 1


def test_a_machine_that_ends_for_idleness_is_none() -> None:
    world, _, _ = ready_world(idle_timeout_s=0)
    world.service.queue_clear("default")
    world.run(600)
    assert world.alive() == []
    assert samples(world, world.reconciler.figures)[("orchctl_interruptions_total",)] == 0


def test_looks_are_counted_by_how_long_they_took() -> None:
    figures = LoopFigures()
    for seconds in (0.005, 0.01, 0.02, 2.0, 500.0):
        figures.look(seconds)
    world = World(store=MemoryStore())
    found = samples(world, figures)
    name = "orchctl_reconcile_duration_seconds"
    counts = [found[f"{name}_bucket", str(bound)] for bound in BOUNDS_S]
    assert counts == [2, 3, 3, 3, 3, 4, 4, 4, 4]
    assert found[f"{name}_bucket", "+Inf"] == 5
    assert found[(f"{name}_count",)] == 5
    assert found[(f"{name}_sum",)] == 502.035


def test_every_look_of_the_loop_is_counted() -> None:
    world = small_world()
    for _ in range(3):
        world.tick()
    assert world.clock.now() == EPOCH
    assert sum(world.reconciler.figures.read().looks) == 3
