"""The control plane is killed at every boundary of a launch and of an end, and while the cloud
holds back the answer to each call of theirs; then it is started again over the same files.

Whatever the instant: one machine at most at any time and one in all, the job is done once, and
nothing is left at the cloud. Every build kills a few times at each cloud, `ORCHCTL_LONG=1`
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.clouds.world import CLOUDS
from tests.conftest import LONG
from tests.crash.cloud_server import Fate, fork, launch
from tests.crash.cloud_world import World

LAUNCHING = (
    ("observed", 1),
    ("leased", 2),
    ("planned", 2),
    ("intent-written", 1),
    ("intents-committed", 2),
    ("before-launch", 1),
    ("launch-answered", 1),
    ("launch-recorded", 1),
    ("executed", 2),
)
"""Boundaries on the way to a machine. The second passing of some is the one with a launch."""
ENDING = ("cordoned", "before-terminate", "terminate-called")
"""Boundaries on the way to its end."""
MAKING = ("RunInstances", "CreateFleet", "instances.insert", "virtual_machines_create_or_update")
ENDS = ("TerminateInstances", "instances.delete", "virtual_machines_delete")
"""The calls after which the cloud is another one."""
CALLS_MAX = 60
"""More than any launch or end takes."""
LAUNCHERS = 8

EVERYWHERE = sorted(CLOUDS)
each_cloud = pytest.mark.parametrize("cloud", EVERYWHERE)


@pytest.fixture
def world(cloud: str, tmp_path: Path) -> Iterator[World]:
    with closing(World(cloud, tmp_path)) as world:
        yield world


# --------------------------------------------------------------------------- at every boundary


@pytest.mark.parametrize("cloud", EVERYWHERE if LONG else ["gcp"])
@pytest.mark.parametrize(("boundary", "nth"), LAUNCHING if LONG else [("launch-answered", 1)])
def test_killed_on_the_way_to_a_machine(world: World, boundary: str, nth: int) -> None:
    """Killed between intent, call and record, it finishes what it had begun."""
    world.start(Fate(pause_at="observed", kill_at=boundary, nth=nth))
    job = world.submit()
    world.go_on()
    world.wait_killed()
    world.start()
    world.one_machine_did_it(job)


@each_cloud
@pytest.mark.long
@pytest.mark.parametrize("boundary", ENDING)
def test_killed_on_the_way_to_an_end(world: World, boundary: str) -> None:
    """Killed while it ends a machine, it ends it for sure afterwards."""
    world.start(Fate(kill_at=boundary))
    world.drain(world.submit())
    world.wait_killed()
    world.start()
    world.all_gone()


# ------------------------------------------------------------ while the cloud holds its answer


@each_cloud
def test_killed_while_a_machine_is_being_made(world: World) -> None:
    """The machine exists, and nobody has heard of it."""
    job = begun_launch(world)
    world.holds.hold_next(*MAKING)
    world.go_on()
    world.until(lambda: world.holds.held, "the launch is called")
    started_again(world)
    world.one_machine_did_it(job)


@each_cloud
def test_killed_while_a_machine_is_being_ended(world: World) -> None:
    begun_end(world)
    world.holds.hold_next(*ENDS)
    world.go_on()
    world.until(lambda: world.holds.held, "the end is called")
    started_again(world)
    world.all_gone()


@each_cloud
@pytest.mark.long
def test_killed_under_each_call_of_a_launch(cloud: str, tmp_path: Path) -> None:
    """One call after the other, until a launch is through without coming to the next one."""
    held = []
    for nth in range(CALLS_MAX):
        with closing(World(cloud, folder(tmp_path, nth))) as world:
            job = begun_launch(world)
            world.holds.hold_next(skip=nth)
            world.go_on()
            world.until(lambda: world.holds.held or world.recorded(), "the launch goes on")
            if not world.holds.held:
                print(cloud, held)  # noqa: T201 - shown with `-s`
                assert set(held) & set(MAKING), held
                return
            held.append(world.holds.held)
            started_again(world)
            world.one_machine_did_it(job)
    pytest.fail("a launch never comes to its end")


@each_cloud
@pytest.mark.long
def test_killed_under_each_call_of_an_end(cloud: str, tmp_path: Path) -> None:
    held = []
    for nth in range(CALLS_MAX):
        with closing(World(cloud, folder(tmp_path, nth))) as world:
            begun_end(world)
            world.holds.hold_next(skip=nth)
            world.go_on()
            world.until(lambda: world.holds.held or world.ended(), "the end goes on")
            if not world.holds.held:
                print(cloud, held)  # noqa: T201 - shown with `-s`
                assert set(held) & set(ENDS), held
                return
            held.append(world.holds.held)
            started_again(world)
            world.all_gone()
    pytest.fail("an end never comes to its end")


def begun_launch(world: World) -> str:
    """A control plane that is about to call the cloud for a job's machine."""
    world.start(Fate(pause_at="before-launch"))
    job = world.submit()
    world.wait_paused()
    return job


def begun_end(world: World) -> None:
    """A control plane that is about to call the cloud for a machine's end."""
    world.start(Fate(pause_at="before-terminate"))
    world.drain(world.submit())
    world.wait_paused()


def started_again(world: World) -> None:
    """Killed while it waits for an answer, which then goes nowhere."""
    world.kill()
    world.holds.release()
    world.start()


def folder(parent: Path, nth: int) -> Path:
    """A directory for one of many worlds."""
    made = parent / f"{nth}"
    made.mkdir()
    return made


# ----------------------------------------------------------------------- eight at the same time


@pytest.mark.parametrize("cloud", EVERYWHERE if LONG else ["azure"])
def test_many_processes_launch_one_machine(world: World, tmp_path: Path) -> None:
    """Eight processes that know nothing of one another carry out one launch: one machine."""
    request = world.request()
    names = [f"{number}" for number in range(LAUNCHERS)]
    processes = [fork(launch, world.place(), request, tmp_path, name) for name in names]
    world.until(lambda: all((tmp_path / f"{name}.ready").exists() for name in names), "all start")
    (tmp_path / "go").touch()
    world.until(lambda: all((tmp_path / f"{name}.done").exists() for name in names), "all end")
    for process in processes:
        process.join()
    said = {(tmp_path / f"{name}.done").read_text() for name in names}
    assert said == world.made
    assert len(said) == 1
    assert world.cloud.violations() == []
