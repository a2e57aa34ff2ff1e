"""Every store guards machine records: versions, fences, allowed moves, and what agents write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.core.lifecycle import IllegalTransition
from control_plane.core.model import Capacity, JobState, MachineState, Reason
from control_plane.errors import Conflict, FencedOut, NotFound
from control_plane.ports import Store
from tests.conformance.builders import (
    BOX,
    DONE,
    LOST,
    NOW,
    ONE_GPU,
    at,
    claim,
    end,
    enqueue,
    machine,
    machine_record,
    offer,
    queue,
)


def test_a_machine_comes_back_as_it_was_stored_field_by_field(store: Store) -> None:
    reason = Reason(code="c", sentence="s", numbers={"n": "1"})
    record = machine_record(
        offers=(offer(), offer(zone="", on_demand_usd_hour=None)),
        attempt=2,
        provider_id="i-1",
        operation="op",
        instance="x",
        capacity=BOX,
        launched_at=at(1),
        registered_at=at(2),
        last_beat_at=at(3),
        idle_since=at(4),
        hold_until=at(5),
        interruption_at=at(6),
        terminating_at=at(7),
        ended_at=at(8.25),
        protected=True,
        reason=reason,
        launch_reason=reason,
    )
    assert store.machine_put(record, expected_version=0, fence=None) == record
    assert store.machine_get("m-1") == record


def test_each_write_counts_the_version_up(store: Store) -> None:
    first = machine(store)
    second = store.machine_put(replace(first, protected=True), expected_version=1, fence=None)
    assert (first.version, second.version) == (1, 2)
    assert store.machine_get("m-1") == second


@pytest.mark.parametrize("expected", [0, 2])
def test_a_write_over_another_version_is_a_conflict(store: Store, expected: int) -> None:
    record = machine(store)
    with pytest.raises(Conflict):
        store.machine_put(replace(record, protected=True), expected_version=expected, fence=None)
    assert store.machine_get("m-1") == record


def test_a_machine_that_is_not_there_cannot_be_changed(store: Store) -> None:
    with pytest.raises(Conflict):
        store.machine_put(machine_record(), expected_version=1, fence=None)
    with pytest.raises(NotFound):
        store.machine_get("m-1")
    with pytest.raises(NotFound):
        store.machine_beat("m-1", now=NOW)


def test_a_move_the_lifecycle_forbids_is_refused_and_changes_nothing(store: Store) -> None:
    record = machine(store, state=MachineState.TERMINATING)
    with pytest.raises(IllegalTransition):
        store.machine_put(
            replace(record, state=MachineState.READY, pool="x"), expected_version=1, fence=None
        )
    assert store.machine_get("m-1") == record
    gone = replace(record, state=MachineState.TERMINATED)
    assert store.machine_put(gone, expected_version=1, fence=None).version == 2


def test_a_fenced_write_needs_the_current_fence(store: Store) -> None:
    old = store.lease_take("a", "one", ttl_s=30, now=NOW)
    assert old is not None
    record = store.machine_put(machine_record(), expected_version=0, fence=old)
    new = store.lease_take("a", "two", ttl_s=30, now=at(31))
    assert new is not None
    with pytest.raises(FencedOut):
        store.machine_put(replace(record, protected=True), expected_version=1, fence=old)
    assert store.machine_get("m-1") == record
    assert store.machine_put(record, expected_version=1, fence=new).version == 2
    store.lease_release(new)
    with pytest.raises(FencedOut):
        store.machine_put(record, expected_version=2, fence=new)


def test_a_fence_that_was_never_taken_is_refused(store: Store) -> None:
    fence = store.lease_take("a", "one", ttl_s=30, now=NOW)
    assert fence is not None
    for forged in (
        replace(fence, name="b"),
        replace(fence, owner="two"),
        replace(fence, generation=2),
    ):
        with pytest.raises(FencedOut):
            store.machine_put(machine_record(), expected_version=0, fence=forged)
    assert store.machine_list() == ()


def test_machines_are_listed_oldest_first_and_ended_ones_left_out(store: Store) -> None:
    machine(store, "m-3", planned_at=at(1))
    machine(store, "m-2", planned_at=at(1))
    machine(store, "m-1", planned_at=at(2), autoscaler="b")
    machine(store, "dead", planned_at=at(0), state=MachineState.TERMINATED)
    machine(store, "never", planned_at=at(3), state=MachineState.LAUNCH_FAILED)
    machine(store, "going", planned_at=at(4), state=MachineState.TERMINATING)

    def ids(**query: object) -> list[str]:
        return [each.id for each in store.machine_list(**query)]  # type: ignore[arg-type]

    assert ids() == ["m-2", "m-3", "m-1", "going"]
    assert ids(autoscaler="b") == ["m-1"]
    assert ids(open_only=False) == ["dead", "m-2", "m-3", "m-1", "never", "going"]
    assert ids(limit=2) == ["m-2", "m-3"]


@pytest.mark.parametrize("sure", [True, False])
def test_the_fleet_is_read_whole_with_all_its_leases(store: Store, sure: bool) -> None:
    assert [list(part) for part in store.fleet_read(sure=sure)] == [[], []]
    queue(store)
    machine(store, "m-2", planned_at=at(5))
    machine(store, "m-1", planned_at=at(9), autoscaler="b")
    machine(store, "dead", state=MachineState.TERMINATED)
    machine(store, "never", state=MachineState.LAUNCH_FAILED)
    machine(store, "going", planned_at=at(7), state=MachineState.TERMINATING)
    enqueue(store, "j-1", "j-2", "j-3", "waits")
    claim(store, machine_id="m-1", now=at(20))
    claim(store, machine_id="m-2", now=at(10))
    [ended] = claim(store, machine_id="m-2", now=at(30))
    end(store, ended, now=at(31))
    store.machine_beat("m-2", now=at(40))
    machines, leases = store.fleet_read(sure=sure)
    assert list(machines) == list(store.machine_list())
    assert [each.id for each in machines] == ["m-2", "going", "m-1"]
    assert machines[0].last_beat_at == at(40)
    assert list(leases) == list(store.job_leases())
    assert [(each.job_id, each.machine_id) for each in leases] == [("j-2", "m-2"), ("j-1", "m-1")]


def test_a_lease_on_a_closed_machine_is_part_of_the_fleet(store: Store) -> None:
    """Who looks gives its job back: a lease that nobody saw would never end."""
    queue(store)
    record = machine(store)
    enqueue(store, "j-1")
    claim(store)
    gone = replace(record, state=MachineState.TERMINATED)
    store.machine_put(gone, expected_version=1, fence=None)
    machines, leases = store.fleet_read()
    assert list(machines) == []
    assert [each.job_id for each in leases] == ["j-1"]


# ------------------------------------------------------------- what agents write, in between


def test_a_beat_never_goes_back_and_does_not_count_the_version(store: Store) -> None:
    machine(store)
    store.machine_beat("m-1", now=at(10))
    assert store.machine_get("m-1").last_beat_at == at(10)
    store.machine_beat("m-1", now=at(5))
    beaten = store.machine_get("m-1")
    assert (beaten.last_beat_at, beaten.version) == (at(10), 1)
    assert store.machine_get("m-1") == beaten


def test_a_write_keeps_the_newer_beat(store: Store) -> None:
    seen = machine(store, last_beat_at=at(1))
    store.machine_beat("m-1", now=at(10))
    written = store.machine_put(replace(seen, protected=True), expected_version=1, fence=None)
    assert (written.last_beat_at, written.protected) == (at(10), True)
    newer = replace(written, last_beat_at=at(20))
    assert store.machine_put(newer, expected_version=2, fence=None).last_beat_at == at(20)
    assert store.machine_get("m-1").last_beat_at == at(20)


def test_idle_time_starts_when_the_machine_becomes_ready(store: Store) -> None:
    booting = machine(store, state=MachineState.BOOTING, idle_since=None)
    ready = replace(booting, state=MachineState.READY, idle_since=at(9))
    assert store.machine_put(ready, expected_version=1, fence=None).idle_since == at(9)
    assert store.machine_get("m-1").idle_since == at(9)


def test_a_claim_ends_the_idle_time_and_the_last_ending_starts_it(store: Store) -> None:
    queue(store)
    machine(store)
    claim(store)
    assert store.machine_get("m-1").idle_since == NOW, "a claim that brought nothing"
    enqueue(store, "j-1", "j-2")
    claim(store, now=at(1))
    claim(store, now=at(1))
    assert store.machine_get("m-1").idle_since is None
    store.job_finish("j-1", 1, DONE, state=JobState.SUCCEEDED, now=at(5))
    assert store.machine_get("m-1").idle_since is None
    store.job_requeue("j-2", 1, LOST, need=ONE_GPU, now=at(7))
    idle = store.machine_get("m-1")
    assert (idle.idle_since, idle.version) == (at(7), 1)
    store.job_requeue("j-2", 1, LOST, need=ONE_GPU, now=at(9))
    assert store.machine_get("m-1").idle_since == at(7), "a repeat changes nothing"


@pytest.mark.parametrize("state", [MachineState.READY, MachineState.DRAINING])
def test_a_write_does_not_bring_back_an_idle_time_that_a_claim_ended(
    store: Store, state: MachineState
) -> None:
    queue(store)
    seen = machine(store)
    enqueue(store, "j-1")
    claim(store)
    written = store.machine_put(replace(seen, state=state), expected_version=1, fence=None)
    assert written.idle_since is None
    assert store.machine_get("m-1").idle_since is None


def test_a_write_does_not_lose_an_idle_time_that_an_ending_started(store: Store) -> None:
    queue(store)
    machine(store)
    enqueue(store, "j-1")
    claim(store)
    draining = replace(store.machine_get("m-1"), state=MachineState.DRAINING)
    seen = store.machine_put(draining, expected_version=1, fence=None)
    assert seen.idle_since is None
    store.job_finish("j-1", 1, DONE, state=JobState.SUCCEEDED, now=at(5))
    ready = replace(seen, state=MachineState.READY)
    assert store.machine_put(ready, expected_version=2, fence=None).idle_since == at(5)


def test_jobs_can_end_when_the_record_of_their_machine_is_closed(store: Store) -> None:
    queue(store)
    record = machine(store)
    enqueue(store, "j-1")
    claim(store)
    store.machine_put(replace(record, state=MachineState.LOST), expected_version=1, fence=None)
    store.job_requeue("j-1", 1, LOST, need=ONE_GPU, now=at(7))
    assert store.job_leases() == ()


def test_what_the_agent_found_is_kept(store: Store) -> None:
    booting = machine(store, state=MachineState.BOOTING)
    found = Capacity(gpus=1, gpu_name="L4", gpu_memory_gib=22, cpus=4, memory_mib=16_000)
    ready = replace(booting, state=MachineState.READY, capacity=found)
    store.machine_put(ready, expected_version=1, fence=None)
    assert store.machine_get("m-1").total == found
