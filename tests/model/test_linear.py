"""The judge of concurrent histories can say no, says yes where it must, and always comes to an end.

Every refusal here differs from a history that is accepted by one answer only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from control_plane.core.model import Capacity, JobState, Need
from tests.conformance.builders import NOW
from tests.model import reads, spec
from tests.model.linear import NEVER, Call, NotLinearizable, Undecided, check, partitions
from tests.model.unlocked import check_unlocked
from tests.model.world import Answer, Operation, Refusal, World, agrees, step

ROOM = Capacity(gpus=4, cpus=8, memory_mib=1000)


def begun() -> World:
    """Two queues and two machines."""
    world = World()
    for queue in ("q", "r"):
        world, _ = step(world, spec.PutQueue(queue=queue, expected_version=0))
    for machine in ("m-1", "m-2"):
        world, _ = step(world, spec.PutMachine(machine=machine, ready=True, now=NOW))
    return world


def enqueue(job: str, queue: str = "q", **changes: Any) -> spec.Enqueue:
    return spec.Enqueue(job=job, queue=queue, now=NOW, **changes)


def claim(machine: str = "m-1", *queues: str, limit: int = 1) -> spec.Claim:
    return spec.Claim(machine=machine, queues=queues or ("q",), free=ROOM, limit=limit, now=NOW)


def finish(job: str, epoch: int = 1) -> spec.Finish:
    return spec.Finish(job=job, epoch=epoch, state=JobState.SUCCEEDED, now=NOW)


def move(job: str, where: str, **changes: Any) -> spec.Move:
    return spec.Move(job=job, queue="q", where=where, now=NOW, **changes)


def in_turn(*operations: Operation) -> list[Call]:
    """Calls one after another, with the right answers."""
    world = begun()
    calls: list[Call] = []
    for index, operation in enumerate(operations):
        world, answer = step(world, operation)
        at = 10 * index
        calls.append(
            Call(client=0, operation=operation, invoked=at, returned=at + 5, answer=answer)
        )
    return calls


def answering(calls: list[Call], index: int, answer: Answer) -> list[Call]:
    """The same calls with one other answer."""
    assert not agrees(calls[index].answer, answer)
    return [*calls[:index], replace(calls[index], answer=answer), *calls[index + 1 :]]


def overlapping(*calls: Call) -> list[Call]:
    """The same calls, all under way at once."""
    return [replace(call, client=client, invoked=0) for client, call in enumerate(calls)]


def refused(calls: Sequence[Call], *, window: int = 0) -> None:
    judge = partial(check_unlocked, window=window) if window else check
    with pytest.raises(NotLinearizable):
        judge(calls, begun())


# ----------------------------------------------------------------------------------------- no


def test_a_job_claimed_twice_is_refused_overlapping_or_not() -> None:
    calls = in_turn(enqueue("j-1"), claim("m-1"), claim("m-2"))
    check(calls, begun())
    [got] = calls[1].answer
    twice = answering(calls, 2, (got._replace(machine="m-2"),))
    refused(twice)
    refused([twice[0], *overlapping(*twice[1:])])
    refused(answering(calls, 2, (got._replace(machine="m-2", epoch=2, attempt=2, version=3),)))


def test_a_lost_job_is_refused() -> None:
    calls = in_turn(enqueue("j-1"), reads.Get(job="j-1"), claim())
    check(calls, begun())
    refused(answering(calls, 2, ()))
    refused(answering(calls, 1, Refusal(frozenset({"NotFound"}))))


def test_a_claim_out_of_order_is_refused() -> None:
    calls = in_turn(enqueue("j-1"), enqueue("j-2"), enqueue("j-3", priority=1), claim(), claim())
    check(calls, begun())
    first, second = calls[3].answer, calls[4].answer
    assert first[0].id == "j-3"
    refused(answering(answering(calls, 3, second), 4, first))
    [taken] = second
    refused(answering(calls, 4, (taken._replace(id="j-2"),)))


def test_claims_that_overlap_may_come_in_either_order() -> None:
    calls = in_turn(enqueue("j-1"), enqueue("j-2"), claim("m-1"), claim("m-2"))
    [one], [two] = calls[2].answer, calls[3].answer
    swapped = answering(calls, 2, (two._replace(machine="m-1"),))
    swapped = answering(swapped, 3, (one._replace(machine="m-2"),))
    refused(swapped)
    check([*swapped[:2], *overlapping(*swapped[2:])], begun())


def test_a_late_finish_that_is_accepted_is_refused() -> None:
    requeue = spec.Requeue(job="j-1", epoch=1, outcome="lost", need=Need(), now=NOW)
    calls = in_turn(enqueue("j-1"), claim(), requeue, claim("m-2"), finish("j-1", 1))
    check(calls, begun())
    refused(answering(calls, 4, None))


def test_two_ends_of_one_attempt_are_refused() -> None:
    failed = replace(finish("j-1"), state=JobState.FAILED)
    calls = in_turn(enqueue("j-1"), claim(), finish("j-1"), failed, reads.Get(job="j-1"))
    check(calls, begun())
    late = answering(calls, 4, calls[4].answer._replace(state=JobState.FAILED, failures=1))
    refused(late)
    refused(answering(calls, 4, calls[4].answer._replace(version=4)))
    either = [*overlapping(*late[2:4]), late[4]]
    check([*late[:2], *either], begun())
    twice = either[-1].answer._replace(version=4)
    refused([*late[:2], *answering(either, 2, twice)])


def test_a_lost_update_of_a_move_is_refused() -> None:
    calls = in_turn(
        *(enqueue(job) for job in ("j-1", "j-2", "j-3")),
        move("j-3", "top", expected_version=1),
        move("j-3", "before", neighbour="j-2", expected_version=1),
        reads.Order(queue="q"),
    )
    check(calls, begun())
    assert calls[4].answer == Refusal(frozenset({"Conflict"}))
    both = answering(calls, 4, calls[3].answer._replace(version=3))
    refused(both)
    refused([*both[:3], *overlapping(*both[3:5]), both[5]])
    refused(answering(calls, 5, ("j-1", "j-2", "j-3")))


def test_a_claim_from_a_paused_queue_is_refused() -> None:
    pause = spec.PutQueue(queue="q", paused=True, expected_version=1)
    calls = in_turn(enqueue("j-1"), pause, claim())
    check(calls, begun())
    got = in_turn(enqueue("j-1"), claim())[1].answer
    refused(answering(calls, 2, got))
    check([calls[0], *overlapping(calls[1], replace(calls[2], answer=got))], begun())


def test_a_limit_that_is_exceeded_is_refused_however_the_claims_overlap() -> None:
    limit = spec.PutQueue(queue="q", max_running=1, expected_version=1)
    calls = in_turn(limit, enqueue("j-1"), enqueue("j-2"), claim("m-1"), claim("m-2"))
    check(calls, begun())
    free = in_turn(enqueue("j-1"), enqueue("j-2"), claim("m-1"), claim("m-2"))
    over = answering(calls, 4, free[3].answer)
    refused([*over[:3], *overlapping(*over[3:])])


def test_one_key_that_makes_two_jobs_is_refused() -> None:
    calls = in_turn(enqueue("j-1", key="k"), enqueue("j-2", "r", key="k"))
    check(calls, begun())
    refused(overlapping(*answering(calls, 1, in_turn(enqueue("j-2", "r"))[0].answer)))


def test_a_read_of_the_past_is_refused() -> None:
    calls = in_turn(enqueue("j-1"), enqueue("j-2"), reads.Order(queue="q"))
    check(calls, begun())
    refused(answering(calls, 2, ("j-1",)))
    check([calls[0], *overlapping(*answering(calls, 2, ("j-1",))[1:])], begun())


# ------------------------------------------------------------------------------ lost answers


def test_a_call_without_an_answer_may_have_taken_effect_later_or_never() -> None:
    calls = in_turn(enqueue("j-1"), claim("m-1"), claim("m-2"))
    [got] = calls[1].answer
    lost = replace(calls[1], returned=NEVER, answer=None)
    check([calls[0], lost, calls[2]], begun())
    check([calls[0], lost, replace(calls[2], answer=(got._replace(machine="m-2"),))], begun())
    refused([calls[0], lost, replace(calls[2], answer=(got._replace(id="j-0"),))])


def test_a_call_without_an_answer_took_no_effect_before_it_was_made() -> None:
    calls = in_turn(enqueue("j-1"), claim("m-1"), claim("m-2"))
    later = replace(calls[1], invoked=100, returned=NEVER, answer=None)
    refused([calls[0], calls[2], later])


def test_a_call_without_an_answer_took_no_effect_after_its_process_had_died() -> None:
    calls = in_turn(enqueue("j-1"), reads.Get(job="j-1"), claim("m-1"))
    dead = replace(calls[2], invoked=1, returned=NEVER, answer=None)
    gone = replace(calls[2], operation=claim("m-2"), answer=())
    refused([*calls[:2], gone])
    check([*calls[:2], dead, gone], begun())
    refused([*calls[:2], replace(dead, ended=calls[1].invoked - 1), gone])


# -------------------------------------------------------------------------- a line without a lock


def test_a_window_allows_what_lies_in_it_and_nothing_else() -> None:
    four = [enqueue(f"j-{number}") for number in range(4)]
    calls = in_turn(*four, enqueue("low", priority=-1), claim())
    [got] = calls[5].answer
    ahead = answering(calls, 5, (got._replace(id="j-2"),))
    check_unlocked(ahead, begun(), window=3)
    refused(ahead, window=2)
    refused(answering(calls, 5, (got._replace(id="low", priority=-1),)), window=100)
    refused(answering(calls, 5, (got._replace(id="j-9"),)), window=100)
    check_unlocked(answering(calls, 5, ()), begun(), window=3)


def test_a_windowed_claim_takes_its_jobs_one_by_one() -> None:
    first, between = in_turn(enqueue("j-1"), enqueue("j-2"))
    whole = in_turn(enqueue("j-1"), enqueue("j-2"), claim(limit=2))[2].answer
    calls = [
        first,
        Call(client=1, operation=claim(limit=2), invoked=6, returned=90, answer=whole),
        Call(client=2, operation=claim("m-2"), invoked=6, returned=8, answer=()),
        replace(between, invoked=20, returned=30),
    ]
    check_unlocked(calls, begun(), window=2)
    refused([*calls[:3], replace(calls[3], invoked=91, returned=99)], window=2)


def test_a_move_beside_other_changes_ends_in_its_priority_and_no_other() -> None:
    jobs = [enqueue(f"j-{number}") for number in range(3)]
    there = [*jobs, enqueue("low", priority=-1)]
    calls = in_turn(*there, move("j-2", "top"), reads.Order(queue="q"))
    loose = answering(calls, 5, ("j-0", "j-2", "j-1", "low"))
    refused(loose, window=9)
    beside = Call(client=2, operation=claim(), invoked=40, returned=45, answer=())
    check_unlocked([*loose, beside], begun(), window=9)
    refused([*answering(calls, 5, ("j-1", "j-2", "j-0", "low")), beside], window=9)
    refused([*answering(calls, 5, ("j-0", "j-1", "low", "j-2")), beside], window=9)
    refused([*answering(calls, 5, ("j-0", "j-1", "low")), beside], window=9)


def test_two_moves_that_expect_one_version_do_not_both_succeed_without_a_lock_either() -> None:
    versioned = move("j-2", "top", expected_version=1)
    calls = in_turn(enqueue("j-1"), enqueue("j-2"), versioned, versioned)
    both = answering(calls, 3, calls[2].answer._replace(version=3))
    refused(both, window=9)
    refused([*both[:2], *overlapping(*both[2:])], window=9)
    check_unlocked([*calls[:2], *overlapping(*calls[2:])], begun(), window=9)


def test_versions_may_be_counted_up_for_a_job_that_is_not_moved_but_never_down() -> None:
    calls = in_turn(enqueue("j-1"), claim(), spec.Cancel(job="j-1", now=NOW))
    check_unlocked(answering(calls, 2, calls[2].answer._replace(version=7)), begun(), window=9)
    refused(answering(calls, 2, calls[2].answer._replace(version=2)), window=9)


def test_a_lower_priority_comes_first_only_where_there_are_limits() -> None:
    limit = spec.PutQueue(queue="r", max_running=9, expected_version=1)
    for queue, put in (("q", replace(limit, queue="q")), ("r", replace(limit, max_running=None))):
        calls = in_turn(put, enqueue("low", queue), enqueue("top", queue, priority=1))
        got = in_turn(*(call.operation for call in calls[:2]), claim("m-1", queue))[2]
        early = replace(got, invoked=50, returned=55)
        if queue == "q":
            check_unlocked([*calls, early], begun(), window=9)
        else:
            refused([*calls, early], window=9)


def test_a_windowed_claim_from_a_queue_that_was_paused_all_along_is_refused() -> None:
    pause = spec.PutQueue(queue="q", paused=True, expected_version=1)
    calls = in_turn(enqueue("j-1"), pause, claim())
    late = answering(calls, 2, in_turn(enqueue("j-1"), claim())[1].answer)
    refused(late, window=2)
    meanwhile = replace(late[2], invoked=late[1].returned - 1)
    check_unlocked([*late[:2], meanwhile], begun(), window=2)
    opened = in_turn(enqueue("j-1"), pause, replace(pause, paused=False, expected_version=2))[2]
    after = replace(late[2], invoked=opened.invoked + 1, returned=opened.returned + 1)
    check_unlocked([*late[:2], opened, after], begun(), window=2)


# -------------------------------------------------------------------------- the search itself


def test_calls_that_share_nothing_are_searched_apart() -> None:
    calls = in_turn(enqueue("j-1"), enqueue("j-2", "r"), claim("m-1"), claim("m-1", "r"))
    assert sorted(map(len, partitions(calls))) == [2, 2]
    assert len(partitions([*calls, *in_turn(claim("m-2", "q", "r"))])) == 1
    drained = in_turn(spec.PutMachine(machine="m-1", ready=False, now=NOW))
    assert len(partitions([*calls, *drained])) == 1


def test_a_move_between_queues_is_judged_in_both() -> None:
    to_r = spec.Move(job="j-1", queue="r", where="top", now=NOW)
    calls = in_turn(enqueue("j-1"), to_r, claim("m-1", "r"), claim("m-2", "q"))
    check(calls, begun())
    [got] = calls[2].answer
    refused(answering(calls, 3, (got._replace(queue="q", machine="m-2"),)))


def test_a_search_that_is_too_large_gives_up_and_says_so() -> None:
    calls = overlapping(*in_turn(*(enqueue(f"j-{number}") for number in range(9))))
    wrong = [*calls, Call(client=9, operation=claim(), invoked=0, returned=99, answer=("x",))]
    with pytest.raises(Undecided):
        check(wrong, begun(), budget=100)


def test_it_says_the_same_as_trying_every_order() -> None:
    random_ = random.Random(4)
    verdicts = {True: 0, False: 0}
    for _ in range(400):
        calls = list(_small_history(random_))
        allowed = any(_fits(order) for order in _orders(calls))
        verdicts[allowed] += 1
        if allowed:
            check(calls, begun())
        else:
            refused(calls)
    assert min(verdicts.values()) > 50, verdicts


def _small_history(random_: random.Random) -> Iterator[Call]:
    """Five calls with the answers of some order, at times that may contradict it."""
    choices: list[Operation] = [
        enqueue("j-1"),
        enqueue("j-2"),
        enqueue("j-1", key="k"),
        claim("m-1"),
        claim("m-2", "q", limit=2),
        finish("j-1"),
        move("j-2", "top"),
        spec.Cancel(job="j-1", now=NOW),
        reads.Order(queue="q"),
    ]
    for index, call in enumerate(in_turn(*random_.choices(choices, k=5))):
        start = max(0, 10 * index + random_.randint(-25, 15))
        yield replace(call, invoked=start, returned=start + random_.randint(1, 30))


def _orders(calls: list[Call]) -> Iterator[tuple[Call, ...]]:
    for order in permutations(calls):
        if not any(
            later.returned < earlier.invoked
            for index, earlier in enumerate(order)
            for later in order[index + 1 :]
        ):
            yield order


def _fits(order: Sequence[Call]) -> bool:
    world = begun()
    for call in order:
        world, expected = step(world, call.operation)
        if not agrees(expected, call.answer):
            return False
    return True
