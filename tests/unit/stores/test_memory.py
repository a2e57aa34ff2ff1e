"""What the memory store does where the port leaves a choice."""

from __future__ import annotations

from itertools import pairwise

import pytest

from control_plane.core.model import Need
from control_plane.stores.memory import MemoryStore
from tests.conformance.builders import (
    BECAUSE,
    at,
    claim,
    counts,
    end,
    enqueue,
    groups,
    job,
    machine,
    queue,
)

CPU = Need(cpus=1)


@pytest.fixture
def store() -> MemoryStore:
    """A store with queue `q` and one ready machine `m-1`."""
    made = MemoryStore()
    queue(made)
    machine(made)
    return made


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (1, [(5, 1, False), (0, 1, True)]),
        (2, [(5, 2, False), (0, 1, True)]),
        (3, [(5, 2, True), (0, 1, False), (0, 1, True)]),
        (6, [(5, 2, True), (0, 4, True), (0, 1, True)]),
    ],
)
def test_counting_stops_at_its_limit_and_the_last_group_of_the_need_says_so(
    store: MemoryStore, limit: int, found: list[tuple[int, int, bool]]
) -> None:
    enqueue(store, "a", "b", "c", "d")
    enqueue(store, "e", "f", priority=5)
    enqueue(store, "cpu", need=CPU)
    cut = [(group.priority, group.count, group.exact) for group in groups(store, limit=limit)]
    assert cut == found


def test_a_head_that_was_delayed_waits_since_its_time(store: MemoryStore) -> None:
    enqueue(store, "j", not_before=at(10))
    store.job_release(now=at(20))
    assert store.queue_heads(["q"]) == {"q": at(10)}


def test_many_ways_through_a_net_of_jobs_are_walked_once(store: MemoryStore) -> None:
    """Twenty layers of eight jobs, each of which depends on the whole layer before: 8^20 ways."""
    layers = [[f"j-{layer:02}-{number}" for number in range(8)] for layer in range(20)]
    enqueue(store, *layers[0])
    for before, layer in pairwise(layers):
        enqueue(store, *layer, depends_on=tuple(before))
    assert counts(store) == (8, 0, 152, 0)
    store.job_cancel(layers[0][0], reason=BECAUSE, now=at(1))
    assert counts(store) == (7, 0, 0, 0)


def test_nothing_is_kept_of_jobs_that_are_forgotten(store: MemoryStore) -> None:
    """A simulated year must not fill the memory."""
    store.job_enqueue(job("a", not_before=at(1)), idempotency_key="k")
    store.job_enqueue(job("b", depends_on=("a",)))
    store.queue_promote("q", waiting_since=at(2), now=at(3))
    for _ in range(2):
        [held] = claim(store, now=at(5))
        end(store, held, now=at(6))
    store.history_prune(["a", "b"], before=at(9))
    of_jobs = (store._jobs, store._ids, store._jobs_by_key, store._keys, store._artifacts)
    of_waiting = (store._let_go, store._promoted_at, store._dependents)
    assert not any((*of_jobs, *of_waiting))
