"""Every store keeps the promises about jobs: one lease at a time, none lost, none in doubt."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from control_plane.core.codec import to_json
from control_plane.core.lifecycle import DEAD_LETTERS, IllegalTransition
from control_plane.core.model import (
    Artifact,
    Capacity,
    Job,
    JobSpec,
    JobState,
    MachineState,
    Market,
    Need,
    Reason,
    Source,
)
from control_plane.errors import Conflict, InvalidInput, NotFound, StaleEpoch
from control_plane.ports import Ending, Store
from tests.conformance.builders import (
    BECAUSE,
    BOX,
    DONE,
    LOST,
    NOW,
    ONE_GPU,
    QUEUED,
    at,
    back,
    claim,
    claim_order,
    counts,
    end,
    enqueue,
    ids,
    job,
    listed,
    machine,
    queue,
    run,
    tampered,
)

ANYTHING = Need()
Calls = tuple[Callable[[], object], ...]


@pytest.fixture
def ready(store: Store) -> Store:
    """A store with one queue `q` and one ready machine `m-1`."""
    queue(store)
    machine(store)
    return store


# ------------------------------------------------------------------------------ enqueue, get


def test_a_job_comes_back_as_it_was_stored_field_by_field(ready: Store) -> None:
    spec = JobSpec(
        command="python train.py --lr 3e-4 && echo 'ü'",
        need=Need(
            gpus=2, gpu_name="A100", gpu_memory_gib=80, cpus=3, memory_mib=5, disk_gib=7,
            share_ppm=11, on_demand_only=True,
        ),
        env={"LR": "1e-3", "EMPTY": ""},
        source=Source(kind="git", blob="sources/x", sha256="ab", remote="r", commit="c"),
        python="3.11",
        requirements=("numpy==2", "x"),
        artifacts=("out/*",),
        timeout_s=5,
        grace_s=6,
        max_attempts=7,
        max_machine_losses=8,
    )  # fmt: skip
    new = replace(
        job("j-1"),
        spec=spec,
        name="sweep",
        owner="ann",
        labels={"team": "vision"},
        priority=-3,
        not_before=at(1.5),
        reason=Reason(code="c", sentence="s", numbers={"n": "1"}),
        cloned_from="j-0",
    )
    stored, fresh = ready.job_enqueue(new)
    assert fresh
    assert stored == replace(new, position=stored.position)
    assert ready.job_get("j-1") == stored


def test_the_same_idempotency_key_makes_one_job_whatever_became_of_it(ready: Store) -> None:
    first, _ = ready.job_enqueue(job("j-1"), idempotency_key="k")
    assert ready.job_enqueue(job("j-2"), idempotency_key="k") == (first, False)
    [leased] = claim(ready)
    ended = end(ready, leased, now=at(1))
    assert ready.job_enqueue(job("j-3"), idempotency_key="k") == (ended, False)
    with pytest.raises(NotFound):
        ready.job_get("j-2")


def test_jobs_without_a_key_are_all_kept(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2")
    assert claim_order(ready) == ["j-1", "j-2"]


def test_an_unknown_queue_is_refused(ready: Store) -> None:
    with pytest.raises(NotFound):
        ready.job_enqueue(job("j-1", "nowhere"))


def test_a_used_id_is_refused_and_the_first_job_stays(ready: Store) -> None:
    [first] = enqueue(ready, "j-1")
    with pytest.raises(Conflict):
        ready.job_enqueue(job("j-1", priority=9))
    assert ready.job_get("j-1") == first


def test_the_position_in_the_record_given_is_ignored(ready: Store) -> None:
    enqueue(ready, "j-1")
    ready.job_enqueue(job("j-2", position=-100.0))
    assert claim_order(ready) == ["j-1", "j-2"]


def test_the_state_in_the_record_given_is_ignored(ready: Store) -> None:
    [stored] = enqueue(ready, "j-1", state=JobState.FAILED)
    assert stored.state is JobState.QUEUED
    assert ids(claim(ready)) == ["j-1"]


def sized(job_id: str, size: int) -> Job:
    """A job that is so many bytes of JSON large."""
    small = job(job_id)
    room = size - len(json.dumps(to_json(small), separators=(",", ":")))
    return replace(small, spec=replace(small.spec, command="true" + "x" * room))


def test_a_job_of_256_kib_of_json_is_kept_through_its_whole_life(ready: Store) -> None:
    new = sized("j-1", 256 * 1024)
    assert len(json.dumps(to_json(new), separators=(",", ":"))) == 256 * 1024
    stored, _ = ready.job_enqueue(new)
    assert ready.job_get("j-1") == stored
    [held] = claim(ready)
    assert held.spec == stored.spec
    assert back(ready, held).spec == stored.spec
    run(ready, "j-1")
    assert ready.job_get("j-1").spec == stored.spec


def test_a_job_too_large_to_be_kept_is_invalid_and_leaves_no_trace(ready: Store) -> None:
    with pytest.raises(InvalidInput):
        ready.job_enqueue(sized("j-1", 1024 * 1024), idempotency_key="k")
    with pytest.raises(NotFound):
        ready.job_get("j-1")
    assert counts(ready) == (0, 0, 0, 0)
    assert ready.job_enqueue(job("j-2"), idempotency_key="k")[1]


def test_text_that_is_no_unicode_is_invalid(ready: Store) -> None:
    with pytest.raises(InvalidInput):
        ready.job_enqueue(job("j-1", name="half a character: \ud83d"))
    assert claim_order(ready) == []


@pytest.mark.usefixtures("jumpy_threads")
def test_threads_that_submit_with_one_key_make_one_job(ready: Store) -> None:
    def submit(number: int) -> tuple[Job, bool]:
        return ready.job_enqueue(job(f"j-{number}"), idempotency_key="k")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert [new for _, new in answers].count(True) == 1
    assert len({stored.id for stored, _ in answers}) == 1
    assert claim_order(ready) == [answers[0][0].id]


def test_an_unknown_job_is_not_found_by_any_operation(ready: Store) -> None:
    calls: Calls = (
        lambda: ready.job_get("x"),
        lambda: ready.job_start("x", 1, now=NOW),
        lambda: ready.job_finish("x", 1, DONE, state=JobState.SUCCEEDED, now=NOW),
        lambda: ready.job_requeue("x", 1, LOST, need=ANYTHING, now=NOW),
        lambda: ready.job_cancel("x", reason=BECAUSE, now=NOW),
    )
    for call in calls:
        with pytest.raises(NotFound):
            call()
    assert ready.job_attempts("x") == ()
    assert ready.job_artifacts("x") == ()


# ------------------------------------------------------------------------------------ claim


def test_a_claim_leases_the_job_and_opens_an_attempt(ready: Store) -> None:
    [waiting] = enqueue(ready, "j-1", owner="ann")
    [leased] = claim(ready, now=at(5))
    assert leased == replace(
        waiting,
        state=JobState.LEASED,
        version=waiting.version + 1,
        epoch=1,
        attempt=1,
        machine_id="m-1",
        leased_at=at(5),
    )
    assert ready.job_get("j-1") == leased
    [attempt] = ready.job_attempts("j-1")
    assert (attempt.number, attempt.epoch, attempt.owner, attempt.machine_id) == (
        1,
        1,
        "ann",
        "m-1",
    )
    assert (attempt.need, attempt.leased_at, attempt.ended_at) == (ONE_GPU, at(5), None)
    assert attempt.queued_at == NOW
    [lease] = ready.job_leases()
    assert (lease.job_id, lease.epoch, lease.machine_id, lease.queue) == ("j-1", 1, "m-1", "q")
    assert (lease.need, lease.leased_at) == (ONE_GPU, at(5))


def test_claims_walk_the_queues_as_given_and_each_in_its_order(ready: Store) -> None:
    queue(ready, "other")
    enqueue(ready, "low-1", "low-2", need=ANYTHING)
    enqueue(ready, "high", need=ANYTHING, priority=5)
    enqueue(ready, "elsewhere", queue="other", need=ANYTHING, priority=99)
    claimed = claim(ready, "q", "other", limit=10)
    assert [each.id for each in claimed] == ["high", "low-1", "low-2", "elsewhere"]


def test_a_claim_stops_at_its_limit(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2", "j-3", need=ANYTHING)
    assert [each.id for each in claim(ready, limit=2)] == ["j-1", "j-2"]
    assert claim(ready, limit=0) == []
    assert claim_order(ready) == ["j-3"]


def test_an_unknown_queue_in_a_claim_is_passed_over(ready: Store) -> None:
    enqueue(ready, "j-1")
    assert [each.id for each in claim(ready, "nowhere", "q")] == ["j-1"]


@pytest.mark.parametrize(
    ("need", "fits"),
    [
        (Need(), True),
        (Need(gpus=1), True),
        (Need(gpus=2), False),
        (Need(gpus=1, gpu_name="L4"), True),
        (Need(gpus=1, gpu_name="A100"), False),
        (Need(gpu_name="A100"), True),  # a name without a GPU asks for nothing
        (Need(gpus=1, gpu_memory_gib=24), True),
        (Need(gpus=1, gpu_memory_gib=26), True),  # 26 * 9 = 234 <= 24 * 10
        (Need(gpus=1, gpu_memory_gib=27), False),  # 27 * 9 = 243 > 24 * 10
        (Need(cpus=8), True),
        (Need(cpus=9), False),
        (Need(memory_mib=32_768), True),
        (Need(memory_mib=32_769), False),
        (Need(disk_gib=100), True),
        (Need(disk_gib=101), False),
        (Need(share_ppm=1_000_000), True),
        (Need(share_ppm=1_000_001), False),
        (Need(on_demand_only=True), True),
    ],
)
def test_a_claim_passes_over_what_does_not_fit(ready: Store, need: Need, fits: bool) -> None:
    assert BOX.fits(need) is fits, "the store and the core must say the same"
    enqueue(ready, "j-1", need=need)
    enqueue(ready, "j-2", need=ANYTHING)
    assert [each.id for each in claim(ready)] == ["j-1" if fits else "j-2"]


def test_on_demand_only_jobs_stay_off_spot_machines(ready: Store) -> None:
    enqueue(ready, "j-1", need=Need(on_demand_only=True))
    assert claim(ready, free=replace(BOX, market=Market.SPOT)) == []
    assert [each.id for each in claim(ready)] == ["j-1"]


def test_one_claim_fills_a_machine_and_no_more(ready: Store) -> None:
    four = Capacity(gpus=4, cpus=8, memory_mib=1000)
    enqueue(ready, "three-gpus", need=Need(gpus=3, cpus=1))
    enqueue(ready, "two-gpus", need=Need(gpus=2, cpus=1))
    enqueue(ready, "one-gpu", "one-more", need=Need(gpus=1, cpus=1))
    enqueue(ready, "cpu-only", need=Need(cpus=6))
    enqueue(ready, "cpu-more", need=Need(cpus=1))
    claimed = claim(ready, free=four, limit=10)
    assert [each.id for each in claimed] == ["three-gpus", "one-gpu", "cpu-only"]


def test_jobs_that_state_nothing_share_a_machine_by_their_share(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2", "j-3", need=Need(share_ppm=400_000))
    assert [each.id for each in claim(ready, limit=10)] == ["j-1", "j-2"]


def test_a_paused_queue_gives_nothing_until_it_is_resumed(ready: Store) -> None:
    enqueue(ready, "j-1")
    record = ready.queue_get("q")
    ready.queue_put(replace(record, paused=True, version=2), expected_version=1)
    assert claim(ready) == []
    ready.queue_put(replace(record, paused=False, version=3), expected_version=2)
    assert [each.id for each in claim(ready)] == ["j-1"]


def test_a_job_is_not_claimed_before_its_time(ready: Store) -> None:
    enqueue(ready, "later", not_before=at(10))
    enqueue(ready, "now", need=ANYTHING)
    assert [each.id for each in claim(ready, limit=5)] == ["now"]
    assert claim(ready, now=at(9.999999)) == []
    assert [each.id for each in claim(ready, now=at(10))] == ["later"]


@pytest.mark.parametrize("state", sorted(set(MachineState) - {MachineState.READY}))
def test_only_a_ready_machine_gets_jobs(store: Store, state: MachineState) -> None:
    queue(store)
    machine(store, state=state)
    enqueue(store, "j-1")
    assert claim(store) == []
    assert claim_order(store) == ["j-1"]


def test_a_machine_drained_after_it_asked_gets_nothing(ready: Store) -> None:
    enqueue(ready, "j-1")
    ready.machine_put(
        replace(ready.machine_get("m-1"), state=MachineState.DRAINING),
        expected_version=1,
        fence=None,
    )
    assert claim(ready) == []


def test_a_claim_for_an_unknown_machine_is_not_found(ready: Store) -> None:
    with pytest.raises(NotFound):
        claim(ready, machine_id="m-9")


@pytest.mark.usefixtures("jumpy_threads")
def test_eight_threads_never_get_the_same_job_and_leave_none(ready: Store) -> None:
    waiting = [f"j-{number:03}" for number in range(120)]
    enqueue(ready, *waiting, need=ANYTHING)
    for number in range(8):
        machine(ready, f"worker-{number}")

    def drain(number: int) -> list[str]:
        mine: list[str] = []
        # A claim that lost its races may come back empty while something waits.
        while (got := claim(ready, machine_id=f"worker-{number}", limit=3)) or counts(ready)[0]:
            mine += ids(got)
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(drain, range(8)))
    assert sorted(each for mine in taken for each in mine) == waiting
    for number, mine in enumerate(taken):
        leases = ready.job_leases(machine_id=f"worker-{number}")
        assert sorted(lease.job_id for lease in leases) == sorted(mine)


# ----------------------------------------------------------------------- start, finish, requeue


def test_a_start_is_written_once(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    ready.job_start("j-1", leased.epoch, now=at(3))
    running = ready.job_get("j-1")
    assert (running.state, running.started_at) == (JobState.RUNNING, at(3))
    assert running.version == leased.version + 1
    ready.job_start("j-1", leased.epoch, now=at(9))
    assert ready.job_get("j-1") == running
    assert ready.job_attempts("j-1")[0].started_at == at(3)
    assert [lease.job_id for lease in ready.job_leases()] == ["j-1"]


def test_a_finish_ends_job_attempt_and_lease(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    artifact = Artifact(name="a.txt", size_bytes=3, sha256="ab", blob="artifacts/j-1/a.txt")
    ending = replace(DONE, artifacts=(artifact,))
    ready.job_finish("j-1", leased.epoch, ending, state=JobState.SUCCEEDED, now=at(7))
    ended = ready.job_get("j-1")
    assert (ended.state, ended.exit_code, ended.finished_at) == (JobState.SUCCEEDED, 0, at(7))
    assert (ended.machine_id, ended.failures, ended.machine_losses) == ("m-1", 0, 0)
    assert ready.job_leases() == ()
    assert ready.job_artifacts("j-1") == (artifact,)
    [attempt] = ready.job_attempts("j-1")
    assert (attempt.outcome, attempt.exit_code, attempt.ended_at) == ("succeeded", 0, at(7))


def test_a_repeated_finish_changes_nothing(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    ended = end(ready, leased, now=at(7))
    assert end(ready, leased, JobState.FAILED, now=at(9)) == ended
    assert ready.job_attempts("j-1")[0].ended_at == at(7)


@pytest.mark.usefixtures("jumpy_threads")
def test_of_many_endings_of_one_lease_the_first_counts(ready: Store) -> None:
    enqueue(ready, "j-1")
    [held] = claim(ready)

    def finish(second: int) -> Job:
        return end(ready, held, now=at(second))

    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(finish, range(1, 9)))
    assert ended == [ready.job_get("j-1")] * 8
    [attempt] = ready.job_attempts("j-1")
    assert attempt.ended_at == ended[0].finished_at
    assert ready.machine_get("m-1").idle_since == ended[0].finished_at


@pytest.mark.usefixtures("jumpy_threads")
def test_a_job_that_is_cancelled_while_it_is_claimed_is_one_or_the_other(ready: Store) -> None:
    names = [f"j-{number}" for number in range(12)]
    enqueue(ready, *names, need=ANYTHING)

    def cancel(name: str) -> Job:
        return ready.job_cancel(name, reason=BECAUSE, now=at(1))

    with ThreadPoolExecutor(4) as pool:
        claims = [pool.submit(claim, ready, limit=4) for _ in range(3)]
        list(pool.map(cancel, reversed(names)))
    claimed = {each.id for one in claims for each in one.result()}
    for name in names:
        stored = ready.job_get(name)
        if name in claimed:
            assert (stored.state, stored.cancel_requested) == (JobState.LEASED, True)
        else:
            assert (stored.state, stored.attempt) == (JobState.CANCELLED, 0)


def test_a_job_does_not_finish_as_something_that_goes_on(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    with pytest.raises(IllegalTransition):
        ready.job_finish("j-1", leased.epoch, DONE, state=JobState.QUEUED, now=at(1))
    assert ready.job_get("j-1") == leased


def test_failures_and_machine_losses_are_counted_apart(ready: Store) -> None:
    enqueue(ready, "j-1")
    for outcome in ("failed", "interrupted", "lost", "returned"):
        [leased] = claim(ready)
        ending = Ending(outcome=outcome)
        back = ready.job_requeue("j-1", leased.epoch, ending, need=ONE_GPU, now=at(1))
    assert (back.failures, back.machine_losses, back.attempt) == (1, 2, 4)
    [leased] = claim(ready)
    lost = Ending(outcome="lost")
    ready.job_finish("j-1", leased.epoch, lost, state=JobState.EXHAUSTED, now=at(2))
    ended = ready.job_get("j-1")
    assert (ended.failures, ended.machine_losses) == (1, 3)
    outcomes = [attempt.outcome for attempt in ready.job_attempts("j-1")]
    assert outcomes == ["failed", "interrupted", "lost", "returned", "lost"]


def test_a_job_given_back_stands_where_it_stood(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2", "j-3", submitted_at=at(-60))
    [first] = claim(ready)
    enqueue(ready, "j-4")
    back = ready.job_requeue("j-1", first.epoch, LOST, need=ONE_GPU, now=at(100))
    assert claim_order(ready) == ["j-1", "j-2", "j-3", "j-4"]
    assert (back.state, back.machine_id, back.leased_at) == (JobState.QUEUED, "", None)
    assert (back.priority, back.position, back.queued_at) == (0, first.position, at(-60))
    assert back.reason == LOST.reason
    [again] = claim(ready)
    assert (again.id, again.epoch, again.attempt) == ("j-1", 2, 2)
    assert again.reason is None


def test_a_job_given_back_may_need_something_else(ready: Store) -> None:
    enqueue(ready, "j-1")
    spot = replace(BOX, market=Market.SPOT)
    [leased] = claim(ready, free=spot)
    steady = replace(ONE_GPU, on_demand_only=True)
    back = ready.job_requeue("j-1", leased.epoch, LOST, need=steady, now=at(1))
    assert back.spec == replace(leased.spec, need=steady)
    assert claim(ready, free=spot) == []
    [again] = claim(ready)
    assert again.spec.need == steady
    assert [each.need for each in ready.job_attempts("j-1")] == [ONE_GPU, steady]


def test_a_repeated_requeue_returns_the_stored_job(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    back = ready.job_requeue("j-1", leased.epoch, LOST, need=ONE_GPU, now=at(1))
    again = ready.job_requeue("j-1", leased.epoch, LOST, need=ONE_GPU, now=at(2))
    assert again == back
    assert again.machine_losses == 1


def test_a_late_writer_is_refused_after_its_job_was_given_back(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    back = ready.job_requeue("j-1", leased.epoch, LOST, need=ONE_GPU, now=at(1))
    with pytest.raises(StaleEpoch):
        ready.job_start("j-1", leased.epoch, now=at(2))
    with pytest.raises(StaleEpoch):
        ready.job_finish("j-1", leased.epoch, DONE, state=JobState.SUCCEEDED, now=at(2))
    assert ready.job_get("j-1") == back


def test_a_late_writer_is_refused_after_the_next_attempt_began(ready: Store) -> None:
    enqueue(ready, "j-1")
    [old] = claim(ready)
    ready.job_requeue("j-1", old.epoch, LOST, need=ONE_GPU, now=at(1))
    [new] = claim(ready)
    calls: Calls = (
        lambda: ready.job_start("j-1", old.epoch, now=at(2)),
        lambda: ready.job_finish("j-1", old.epoch, DONE, state=JobState.SUCCEEDED, now=at(2)),
        lambda: ready.job_requeue("j-1", old.epoch, LOST, need=ONE_GPU, now=at(2)),
    )
    for call in calls:
        with pytest.raises(StaleEpoch):
            call()
    assert ready.job_get("j-1") == new


def test_a_late_finish_is_refused_when_the_job_was_given_back_and_cancelled(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    ready.job_requeue("j-1", leased.epoch, LOST, need=ONE_GPU, now=at(1))
    gone = ready.job_cancel("j-1", reason=BECAUSE, now=at(2))
    with pytest.raises(StaleEpoch):
        ready.job_finish("j-1", leased.epoch, DONE, state=JobState.SUCCEEDED, now=at(3))
    assert ready.job_get("j-1") == gone


def test_a_finished_job_is_not_given_back(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    ended = end(ready, leased, now=at(1))
    with pytest.raises(StaleEpoch):
        ready.job_requeue("j-1", leased.epoch, LOST, need=ONE_GPU, now=at(2))
    assert ready.job_get("j-1") == ended


@pytest.mark.parametrize("epoch", [2, 99, 0, -1])
def test_an_epoch_that_was_never_given_is_refused(ready: Store, epoch: int) -> None:
    enqueue(ready, "j-1")
    [held] = claim(ready)
    calls: Calls = (
        lambda: ready.job_start("j-1", epoch, now=at(2)),
        lambda: ready.job_finish("j-1", epoch, DONE, state=JobState.SUCCEEDED, now=at(2)),
        lambda: ready.job_requeue("j-1", epoch, LOST, need=ONE_GPU, now=at(2)),
    )
    for call in calls:
        with pytest.raises(StaleEpoch):
            call()
    assert ready.job_get("j-1") == held
    assert end(ready, held).state is JobState.SUCCEEDED


def test_only_the_machine_that_has_it_starts_and_ends_a_job(ready: Store) -> None:
    enqueue(ready, "j-1")
    [held] = claim(ready)

    def start(machine_id: str) -> Job:
        ready.job_start("j-1", held.epoch, now=at(2), machine_id=machine_id)
        return ready.job_get("j-1")

    def finish(machine_id: str) -> Job:
        ready.job_finish(
            *("j-1", held.epoch, DONE),
            state=JobState.SUCCEEDED,
            now=at(3),
            machine_id=machine_id,
        )
        return ready.job_get("j-1")

    for act in (start, finish):
        with pytest.raises(StaleEpoch):
            act("m-2")
    assert ready.job_get("j-1") == held
    assert start("m-1").state is JobState.RUNNING
    ended = finish("m-1")
    assert ended.state is JobState.SUCCEEDED
    for act in (start, finish):
        with pytest.raises(StaleEpoch):
            act("m-2")
    assert finish("m-1") == ended


def test_a_job_that_was_never_claimed_has_no_lease_to_use(ready: Store) -> None:
    enqueue(ready, "j-1")
    calls: Calls = (
        lambda: ready.job_start("j-1", 0, now=NOW),
        lambda: ready.job_finish("j-1", 0, DONE, state=JobState.SUCCEEDED, now=NOW),
        lambda: ready.job_requeue("j-1", 0, LOST, need=ONE_GPU, now=NOW),
    )
    for call in calls:
        with pytest.raises(StaleEpoch):
            call()


def test_artifacts_are_those_of_the_last_ended_attempt(ready: Store) -> None:
    enqueue(ready, "j-1")
    first = Artifact(name="one", size_bytes=1, sha256="1", blob="b/1")
    claim(ready)
    ready.job_requeue("j-1", 1, replace(LOST, artifacts=(first,)), need=ONE_GPU, now=at(1))
    assert ready.job_artifacts("j-1") == (first,)
    claim(ready)
    assert ready.job_artifacts("j-1") == (first,)
    ready.job_finish("j-1", 2, DONE, state=JobState.SUCCEEDED, now=at(2))
    assert ready.job_artifacts("j-1") == ()


# ----------------------------------------------------------------------------------- cancel


def test_a_waiting_job_is_cancelled_at_once(ready: Store) -> None:
    enqueue(ready, "j-1")
    gone = ready.job_cancel("j-1", reason=BECAUSE, now=at(4))
    assert (gone.state, gone.finished_at, gone.reason) == (JobState.CANCELLED, at(4), BECAUSE)
    assert gone.version == 2
    assert claim(ready) == []


def test_a_held_job_is_asked_to_end_and_ends_as_its_agent_says(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    asked = ready.job_cancel("j-1", reason=BECAUSE, now=at(4))
    assert (asked.state, asked.cancel_requested) == (JobState.LEASED, True)
    assert ready.job_cancel("j-1", reason=BECAUSE, now=at(5)) == asked
    ending = Ending(outcome="cancelled", exit_code=143)
    ready.job_finish("j-1", leased.epoch, ending, state=JobState.CANCELLED, now=at(6))
    gone = ready.job_get("j-1")
    assert (gone.exit_code, gone.reason, gone.finished_at) == (143, BECAUSE, at(6))


def test_a_lease_tells_that_its_job_is_to_end(ready: Store) -> None:
    for name in ("j-1", "j-2"):
        enqueue(ready, name)
    claim(ready)
    claim(ready)
    ready.job_cancel("j-1", reason=BECAUSE, now=at(4))
    wanted = {"j-1": True, "j-2": False}
    for leases in (ready.job_leases(), ready.job_leases(machine_id="m-1"), ready.fleet_read()[1]):
        assert {each.job_id: each.cancel_requested for each in leases} == wanted


def test_a_wish_to_cancel_stays_with_a_job_that_is_given_back(ready: Store) -> None:
    enqueue(ready, "j-1")
    [held] = claim(ready)
    ready.job_cancel("j-1", reason=BECAUSE, now=at(4))
    returned = back(ready, held, now=at(5))
    assert (returned.state, returned.cancel_requested) == (JobState.QUEUED, True)
    gone = ready.job_cancel("j-1", reason=BECAUSE, now=at(6))
    assert (gone.state, gone.finished_at) == (JobState.CANCELLED, at(6))
    assert claim(ready) == []


def test_an_ended_job_stays_as_it_ended(ready: Store) -> None:
    enqueue(ready, "j-1")
    [leased] = claim(ready)
    ended = end(ready, leased, now=at(1))
    assert ready.job_cancel("j-1", reason=BECAUSE, now=at(2)) == ended


# ---------------------------------------------------------------------------------- reading


def test_jobs_are_listed_newest_first_by_id_page_by_page(ready: Store) -> None:
    queue(ready, "other")
    for number in (2, 4, 0, 6, 3, 1, 5):
        name = "other" if number == 3 else "q"
        # Ids are made in order of time; where a clock disagrees, they decide.
        enqueue(ready, f"j-{number}", queue=name, submitted_at=at(-number))
    newest = ["j-6", "j-5", "j-4", "j-3", "j-2", "j-1", "j-0"]
    for limit in (1, 3, 7, 100):
        assert ids(listed(ready, limit=limit)) == newest
    assert ids(listed(ready, queue="q", limit=2)) == [each for each in newest if each != "j-3"]
    assert ids(listed(ready, queue="other")) == ["j-3"]


def test_a_listing_misses_and_repeats_nothing_while_new_jobs_come(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2", "j-3", "j-4")
    first = ready.job_list(limit=2)
    enqueue(ready, "j-5")
    seen, cursor = ids(first.items), first.cursor
    while cursor:
        page = ready.job_list(limit=2, cursor=cursor)
        seen, cursor = seen + ids(page.items), page.cursor
    assert seen == ["j-4", "j-3", "j-2", "j-1"]


def test_jobs_are_found_by_state_and_machine(ready: Store) -> None:
    machine(ready, "m-2")
    enqueue(ready, "j-1", "j-2", "j-3", "j-4")
    ready.job_enqueue(job("j-5", depends_on=("j-4",)))
    claim(ready)
    claim(ready)
    claim(ready, machine_id="m-2")
    ready.job_finish("j-1", 1, DONE, state=JobState.SUCCEEDED, now=at(1))

    def found(**query: object) -> list[str]:
        return ids(listed(ready, limit=2, **query))

    assert found(machine_id="m-1") == ["j-2", "j-1"]
    assert found(machine_id="m-2", states=frozenset({JobState.LEASED})) == ["j-3"]
    ended_or_held = frozenset({JobState.LEASED, JobState.SUCCEEDED})
    assert found(states=ended_or_held) == ["j-3", "j-2", "j-1"]
    assert found(queue="q", states=frozenset({JobState.BLOCKED})) == ["j-5"]
    assert found(queue="q", states=frozenset({JobState.BLOCKED, JobState.QUEUED})) == ["j-5", "j-4"]
    assert found(states=frozenset({JobState.QUEUED})) == ["j-4"]
    assert found(queue="q", states=QUEUED, machine_id="m-1") == []
    assert found(queue="nowhere") == []


def test_dead_letters_are_kept_with_their_reason_and_found(ready: Store) -> None:
    enqueue(ready, "fails", "exhausts", "fine", "waits")
    reason = Reason(code="oom", sentence="the kernel killed it: 12 GiB of 8 GiB")
    for name, state in (("fails", JobState.FAILED), ("exhausts", JobState.EXHAUSTED)):
        [held] = claim(ready)
        assert held.id == name
        ending = Ending(outcome="lost", exit_code=137, reason=reason)
        ready.job_finish(name, held.epoch, ending, state=state, now=at(5))
    run(ready, "fine")
    dead = listed(ready, states=DEAD_LETTERS)
    assert ids(dead) == ["fails", "exhausts"]
    assert [each.reason for each in dead] == [reason, reason]
    assert [each.exit_code for each in dead] == [137, 137]
    assert ids(listed(ready, queue="q", states=frozenset({JobState.EXHAUSTED}))) == ["exhausts"]
    assert ready.job_get("fails").finished_at == at(5)


def test_the_waiting_line_is_listed_in_claim_order(ready: Store) -> None:
    enqueue(ready, "a", "b", "c")
    enqueue(ready, "d", "e", priority=2)
    enqueue(ready, "f", "g", priority=1)
    for limit in (1, 2, 7):
        assert claim_order(ready, limit=limit) == ["d", "e", "f", "g", "a", "b", "c"]


def test_a_cursor_that_was_touched_or_belongs_elsewhere_is_invalid(ready: Store) -> None:
    enqueue(ready, "j-1", "j-2", "j-3")
    cursor = ready.job_list(limit=1).cursor
    line = ready.job_list(queue="q", states=QUEUED, limit=1).cursor
    for wrong in (*tampered(cursor), line):
        with pytest.raises(InvalidInput):
            ready.job_list(limit=1, cursor=wrong)
    for wrong in (*tampered(line), cursor):
        with pytest.raises(InvalidInput):
            ready.job_list(queue="q", states=QUEUED, limit=1, cursor=wrong)
    with pytest.raises(InvalidInput):
        ready.job_list(queue="q", limit=1, cursor=cursor)


def test_leases_are_listed_oldest_first_for_one_machine_or_all(ready: Store) -> None:
    machine(ready, "m-2")
    enqueue(ready, "j-1", "j-2", "j-3")
    claim(ready, now=at(2))
    claim(ready, machine_id="m-2", now=at(1))
    claim(ready, now=at(3))
    ready.job_start("j-3", 1, now=at(4))
    assert [lease.job_id for lease in ready.job_leases()] == ["j-2", "j-1", "j-3"]
    assert [lease.job_id for lease in ready.job_leases(machine_id="m-1")] == ["j-1", "j-3"]
    assert ready.job_leases(machine_id="m-9") == ()


def test_attempts_are_found_by_the_time_they_overlap(ready: Store) -> None:
    enqueue(ready, "early", "open", "late")
    for start in (0, 10, 20):
        claim(ready, now=at(start))
    ready.job_finish("early", 1, DONE, state=JobState.SUCCEEDED, now=at(5))
    ready.job_finish("late", 1, DONE, state=JobState.SUCCEEDED, now=at(25))

    def found(start: float, end: float) -> list[str]:
        return [each.job_id for each in ready.attempts_between(at(start), at(end))]

    assert found(-10, 0) == []
    assert found(-10, 1) == ["early"]
    assert found(4, 11) == ["early", "open"]
    assert found(5, 20) == ["open"]
    assert found(24, 99) == ["open", "late"]
    assert found(25, 99) == ["open"]
