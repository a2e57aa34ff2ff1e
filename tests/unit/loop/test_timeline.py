"""A job's story: its ordinary life from the job and its attempts, the rest from the log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from agent_bootstrap import wire
from control_plane.core.model import Attempt, Event, Job, JobSpec, JobState, Need, Reason
from control_plane.ports import Place
from control_plane.service import Submission
from control_plane.timeline import job_timeline
from tests.build import NOW
from tests.invariants.world import World, ready_world, small_world


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def why(sentence: str) -> Reason:
    return Reason(code="test", sentence=sentence)


def job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "j-1",
        "queue": "default",
        "spec": JobSpec(command="true"),
        "owner": "ann",
        "submitted_at": NOW,
        "queued_at": NOW,
    }
    return Job(**values | changes)


def attempt(number: int, leased_s: float, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "job_id": "j-1",
        "number": number,
        "epoch": number,
        "queue": "default",
        "owner": "ann",
        "machine_id": f"m-{number}",
        "need": Need(),
        "leased_at": at(leased_s),
    }
    return Attempt(**values | changes)


def said(events: Sequence[Event]) -> list[tuple[float, str]]:
    return [((event.at - NOW).total_seconds(), event.text) for event in events]


def told(world: World, of: Job) -> list[str]:
    """What is told of a job in a world."""
    events = world.store.event_list(subject=of.id).items
    found = job_timeline(world.job(of), world.store.job_attempts(of.id), events)
    return [event.text for event in found]


def test_a_job_that_waits_was_queued_by_its_owner() -> None:
    (event,) = job_timeline(job(), [], [])
    assert event == Event(at=NOW, kind="job", subject="j-1", text="queued in default", actor="ann")


def test_what_it_waits_for_is_said() -> None:
    depends = job(depends_on=("j-a", "j-b"), queued_at=at(60), not_before=at(90))
    assert said(job_timeline(depends, [], [])) == [
        (0, "queued in default"),
        (0, "waits for j-a, j-b to succeed"),
        (0, "waits until 2026-11-02 12:01:30 UTC"),
        (60, "everything it depends on has succeeded"),
    ]


def test_a_job_of_three_attempts_tells_of_each() -> None:
    """One that failed, one whose machine was lost before it began, one that goes on."""
    attempts = [
        attempt(1, 5, started_at=at(6), ended_at=at(10), reason=why("exit code 1")),
        attempt(2, 11, ended_at=at(30), reason=why("machine m-2 was silent for 95s")),
        attempt(3, 40, started_at=at(41)),
    ]
    running = job(state=JobState.RUNNING, machine_id="m-3", epoch=3)
    assert said(job_timeline(running, attempts, [])) == [
        (0, "queued in default"),
        (6, "running on m-1"),
        (10, "given back to default: exit code 1"),
        (11, "given to m-2"),
        (30, "given back to default: machine m-2 was silent for 95s"),
        (41, "running on m-3"),
    ]


def test_the_last_attempt_of_an_ended_job_is_its_end() -> None:
    ended = job(
        state=JobState.SUCCEEDED,
        machine_id="m-1",
        epoch=1,
        finished_at=at(9),
        reason=why("exit code 0"),
    )
    attempts = [attempt(1, 1, started_at=at(2), ended_at=at(9), reason=why("exit code 0"))]
    assert said(job_timeline(ended, attempts, [])) == [
        (0, "queued in default"),
        (2, "running on m-1"),
        (9, "succeeded: exit code 0"),
    ]


def test_a_job_that_was_given_back_and_cancelled_then_was_given_back_first() -> None:
    given_back = attempt(1, 1, started_at=at(2), ended_at=at(9), reason=why("silent"))
    cancelled = job(
        state=JobState.CANCELLED, epoch=1, finished_at=at(20), reason=why("queue was cleared")
    )
    assert said(job_timeline(cancelled, [given_back], []))[-2:] == [
        (9, "given back to default: silent"),
        (20, "cancelled: queue was cleared"),
    ]


def test_what_the_log_tells_is_not_told_twice() -> None:
    """The controller writes down what it gives back; its line stands, with its number."""
    lost = attempt(1, 1, started_at=at(2), ended_at=at(9), reason=why("silent"))
    stored = Event(
        at=at(9.1), kind="job", subject="j-1", text="given back to default: silent", seq=7
    )
    found = job_timeline(job(), [lost], [stored])
    assert said(found)[-1] == (9.1, "given back to default: silent")
    assert [event.seq for event in found] == [0, 0, 7]


def test_the_story_of_a_job_told_by_the_product_itself() -> None:
    """Moved, run, failed, run again, cancelled while it runs: the log has only what people did."""
    world, (guest,), _ = ready_world()
    spec = JobSpec(command="true", need=Need(gpus=1), max_attempts=2)
    made, _ = world.service.submit(Submission(spec=spec, owner="ann"))
    world.service.move(made.id, place=Place(where="top"), actor="ann")
    for seconds in (1, 2):
        world.clock.advance(seconds)
        (work,) = guest.claim()
        if seconds == 1:
            world.clock.advance(1)
            guest.finish(work, "failed", 3)
    world.clock.advance(1)
    world.service.cancel(made.id, actor="bob")
    guest.finish(work, "cancelled", -15)
    assert told(world, made) == [
        "queued",
        "moved to default, top",
        f"running on {guest.vm.machine_id}",
        "given back to default: exit code 3",
        f"running on {guest.vm.machine_id}",
        "cancel requested",
        "cancelled: exit code -15",
    ]
    stored = world.store.event_list(subject=made.id).items
    assert [event.text for event in stored] == ["cancel requested", "moved to default, top"]


def test_cancelled_while_it_waited_is_said_once_and_by_whom() -> None:
    world = small_world()
    made, cleared = world.submit(2)
    world.service.cancel(made.id, actor="bob")
    world.service.queue_clear("default")
    assert told(world, made) == ["queued in default", "cancelled"]
    assert told(world, cleared) == ["queued in default", "cancelled: queue default was cleared"]


def test_an_interruption_and_an_exhausted_job_stand_in_the_log_too() -> None:
    """They are unusual: whoever watches the log sees them without asking for the job."""
    world = small_world()
    (made,) = world.submit(max_machine_losses=2)
    machines = []
    for _ in range(2):
        world.tick()
        (guest,) = world.boot()
        guest.claim()
        machines.append(guest.vm.machine_id)
        world.cloud.interrupt(guest.vm.provider_id, notice_s=0)
        world.clock.advance(10)
        world.tick()
        world.clock.advance(200)
    assert world.job(made).state is JobState.EXHAUSTED
    stored = [event.text for event in reversed(world.store.event_list(subject=made.id).items)]
    assert stored == [
        f"given back to default: aws took machine {machines[0]} back",
        "exhausted: lost its machine 2 times, which is its limit; the last time: aws took machine "
        f"{machines[1]} back",
    ]
    story = told(world, made)
    assert [text for text in story if text in stored] == stored
    assert len(story) == 5


def test_a_notice_from_the_agent_itself_writes_no_event_of_the_job() -> None:
    world, (guest,), (made,) = ready_world()
    (work,) = guest.claim()
    guest._agents.notice(guest.machine, wire.Notice("spot", 120))
    guest.finish(work, "interrupted", 0)
    assert world.store.event_list(subject=made.id).items == ()
    text = f"given back to default: machine {guest.vm.machine_id} was interrupted"
    assert told(world, made)[-1] == text
