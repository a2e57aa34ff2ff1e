"""Old jobs are forgotten with their blobs, an hour apart, and nothing else is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from control_plane.blobs.memory import MemoryBlobs
from control_plane.errors import NotFound
from control_plane.prune import BATCH, Pruner
from control_plane.stores.memory import MemoryStore
from tests.invariants.world import World, small_world
from tests.unit.loop.recording import Recording

KEEP = timedelta(days=90)


def deployment() -> tuple[World, Recording, MemoryBlobs, Pruner]:
    store = Recording(MemoryStore())
    world = small_world(store=store.as_store)
    blobs = MemoryBlobs()
    return world, store, blobs, Pruner(world.store, blobs, world.clock, keep=KEEP)


def test_a_job_is_forgotten_with_its_blobs_when_its_time_is_over() -> None:
    world, _, blobs, pruner = deployment()
    (old,) = world.submit()
    world.service.cancel(old.id)
    blobs.put(f"jobs/{old.id}/1/log", b"old")
    world.clock.advance(KEEP.total_seconds() - 60)
    (young,) = world.submit()
    blobs.put(f"jobs/{young.id}/1/log", b"young")
    pruner.prune()
    assert world.job(old).id == old.id
    world.clock.advance(3600)
    pruner.prune()
    with pytest.raises(NotFound):
        world.job(old)
    assert blobs.size(f"jobs/{old.id}/1/log") == 0
    assert blobs.get(f"jobs/{young.id}/1/log") == b"young"


def test_between_two_rounds_nothing_is_asked() -> None:
    world, store, _, pruner = deployment()
    pruner.prune()
    with store.during() as calls:
        for _ in range(59):
            world.clock.advance(60)
            pruner.prune()
        assert calls == []
        world.clock.advance(60)
        pruner.prune()
    assert calls == ["history_old", "history_prune"]


def test_a_full_batch_is_followed_by_the_next_at_once() -> None:
    """Much to forget is forgotten in steps, so that nobody waits for long."""
    world, store, _, pruner = deployment()
    for job in world.submit(BATCH + 1):
        world.service.cancel(job.id)
    world.clock.advance(KEEP.total_seconds() + 1)
    with store.during() as calls:
        for _ in range(3):
            pruner.prune()
    assert calls == ["history_old", "history_prune"] * 2
    assert world.store.job_list().items == ()


def test_blobs_go_before_the_jobs_by_which_they_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever dies in between leaves jobs without blobs, not blobs that nobody knows of."""
    world, _, blobs, pruner = deployment()
    (job,) = world.submit()
    world.service.cancel(job.id)
    blobs.put(f"jobs/{job.id}/1/log", b"old")
    world.clock.advance(KEEP.total_seconds() + 1)
    with monkeypatch.context() as dying:
        dying.setattr(blobs, "remove", raises)
        pruner.prune()
    assert world.job(job).id == job.id
    world.clock.advance(3600)
    pruner.prune()
    assert blobs.size(f"jobs/{job.id}/1/log") == 0
    with pytest.raises(NotFound):
        world.job(job)


def raises(*_: Any, **__: Any) -> Any:
    raise OSError("not now")


class _Broken(MemoryStore):
    history_prune = raises


def test_what_cannot_be_forgotten_is_logged_and_tried_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = small_world(store=_Broken())
    pruner = Pruner(world.store, MemoryBlobs(), world.clock, keep=KEEP)
    pruner.prune()
    pruner.prune()
    assert [record.message for record in caplog.records] == ["old jobs were not forgotten"]
