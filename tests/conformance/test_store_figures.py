"""Every store counts what its calls come to."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from control_plane.errors import Conflict, StaleEpoch
from control_plane.ports import Store
from tests.conformance.builders import BECAUSE, NOW, claim, enqueue, job, machine, queue


def calls(store: Store) -> dict[str, int]:
    return {name: figures.calls for name, figures in store.figures().items() if figures.calls}


def test_every_call_is_counted_by_its_operation(store: Store) -> None:
    assert calls(store) == {}
    queue(store)
    machine(store)
    enqueue(store, "a", "b", "c")
    claim(store)
    store.queue_clear("q", now=NOW, reason=BECAUSE)
    store.fleet_read()
    assert calls(store) == {
        "queue_put": 1,
        "machine_put": 1,
        "job_enqueue": 3,
        "job_claim": 1,
        "queue_clear": 1,
        "fleet_read": 1,
    }


def test_the_time_of_a_call_is_counted(store: Store) -> None:
    queue(store)
    began = time.perf_counter()
    for number in range(20):
        enqueue(store, f"j-{number}")
    took = time.perf_counter() - began
    assert took / 20 < store.figures()["job_enqueue"].seconds <= took


def test_conflicts_are_counted_and_other_errors_are_calls(store: Store) -> None:
    queue(store)
    there = machine(store)
    [stored] = enqueue(store, "a")
    with pytest.raises(Conflict):
        store.machine_put(there, expected_version=there.version + 1, fence=None)
    for _ in range(2):
        with pytest.raises(Conflict):
            store.job_enqueue(job("a"))
    [held] = claim(store)
    with pytest.raises(StaleEpoch):
        store.job_start(stored.id, held.epoch + 1, now=NOW)
    assert claim(store, "nowhere") == []
    figures = store.figures()
    assert (figures["machine_put"].calls, figures["machine_put"].conflicts) == (2, 1)
    assert (figures["job_enqueue"].calls, figures["job_enqueue"].conflicts) == (3, 2)
    assert (figures["job_start"].calls, figures["job_start"].conflicts) == (1, 1)
    assert (figures["job_claim"].calls, figures["job_claim"].conflicts) == (2, 0)


def test_figures_once_read_do_not_change(store: Store) -> None:
    queue(store)
    before = store.figures()
    enqueue(store, "a")
    assert "job_enqueue" not in before
    assert store.figures()["job_enqueue"].calls == 1


@pytest.mark.usefixtures("jumpy_threads")
def test_calls_of_many_threads_are_all_counted(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.queue_list(), range(200)))
    assert calls(store) == {"queue_list": 200}
