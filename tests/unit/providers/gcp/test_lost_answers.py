"""Every call of a launch and of an end is lost once: before it acts, after it has acted, or the
cloud is slow. What follows is what the executor does: repeat with the same key, ask for the result,
or look. In the end there is exactly one machine, or none, and nothing else.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.gcp.provider import GcpProvider
from tests.unit.providers.gcp.conftest import World, refused

LAUNCH_CALLS = ["zoneOperations.list", "instances.insert", "zoneOperations.get", "instances.get"]
END_CALLS = ["instances.delete", "instances.get", "zoneOperations.list"]
CAPACITY_ZONE = ErrorClass.CAPACITY_ZONE
LOSSES = ["never arrives", "answer lost"]


def lose(world: World, call: str, loss: str, times: int) -> None:
    if loss == "never arrives":
        world.cloud.fail_next("backendError", times, call)
    else:
        world.cloud.drop_next_answer(call, times)


def launched(world: World, request: LaunchRequest, *, tries: int = 12) -> Launched:
    """Launch as the executor does, each try in a control plane that has just restarted."""
    operation = ""
    for _ in range(tries):
        provider = world.provider()
        world.clock.advance(20)
        try:
            answer = (
                provider.launch_result(request, operation)
                if operation
                else provider.launch(request)
            )
        except ProviderError as error:
            if error.error_class is not ErrorClass.TRANSIENT:
                raise
            continue
        operation = answer.operation
        if not operation:
            return answer
    raise AssertionError("it never became clear")


@pytest.mark.parametrize("slow_s", [0, 70])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("call", LAUNCH_CALLS)
def test_each_step_of_a_launch_may_be_lost(
    world: World, call: str, loss: str, times: int, slow_s: int
) -> None:
    if slow_s:
        world.cloud.slow_next_insert(slow_s)
    lose(world, call, loss, times)
    answer = launched(world, world.request())
    assert world.names() == ["m-1"]
    assert world.cloud.calls["instances.insert"] <= 1 + times
    (machine,) = world.cloud.resources()["machines"]
    assert machine == answer.provider_id
    assert world.cloud.resources()["disks"] == []


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("call", LAUNCH_CALLS)
def test_refused_launch_whose_answers_are_lost_leaves_nothing(
    world: World, call: str, loss: str
) -> None:
    world.cloud.slow_next_insert(45, "ZONE_RESOURCE_POOL_EXHAUSTED")
    world.cloud.set_capacity(0)
    lose(world, call, loss, 1)
    assert refused(lambda: launched(world, world.request())).error_class is CAPACITY_ZONE
    world.clock.advance(60)
    assert world.empty()


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("call", END_CALLS)
def test_each_step_of_an_end_may_be_lost(world: World, call: str, loss: str, times: int) -> None:
    request, answer = world.running()
    lose(world, call, loss, times)
    ref = world.ref(request, answer)
    for _ in range(12):
        world.clock.advance(5)
        try:
            provider = world.provider()
            provider.terminate(ref)
            seen = provider.sighting(ref)
        except ProviderError:
            continue
        if seen is None or seen.state == "gone":
            assert seen is not None
            assert seen.end_reason == "user"
            break
    else:
        raise AssertionError("it does not end")
    assert world.empty()


def test_insert_that_acted_unheard_is_followed_not_repeated(world: World) -> None:
    world.cloud.slow_next_insert(60)
    world.cloud.drop_next_answer("instances.insert")
    error = refused(lambda: world.provider().launch(world.request()))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "NoAnswer")
    assert world.provider().launch(world.request()).operation
    assert world.cloud.calls["instances.insert"] == 1


def test_lost_insert_is_found_in_a_listing_once_there_was_room(world: World) -> None:
    world.cloud.slow_next_insert(60)
    world.cloud.drop_next_answer("instances.insert")
    refused(lambda: world.provider().launch(world.request()))
    assert world.seen() == []
    world.clock.advance(70)
    assert world.seen() == ["m-1"]


def test_instance_without_room_is_never_shown(world: World, provider: GcpProvider) -> None:
    """It looks like any other until its insert is done; taken up as a machine, it would be counted
    as one that did not boot, and the lack of room would go unnoticed."""
    world.cloud.slow_next_insert(60, "ZONE_RESOURCE_POOL_EXHAUSTED")
    begun = provider.launch(world.request())
    assert world.cloud.resources()["machines"]
    assert world.seen() == []
    world.clock.advance(61)
    error = refused(lambda: provider.launch_result(world.request(), begun.operation))
    assert error.error_class is ErrorClass.CAPACITY_ZONE
    assert world.seen() == []


@pytest.mark.parametrize("slow_s", [0, 60])
def test_eight_threads_with_one_key_make_one_machine(world: World, slow_s: int) -> None:
    world.cloud.operation_s = slow_s
    request, answers, errors = world.request(), list[Launched](), list[Exception]()
    together = threading.Barrier(8)

    def launch() -> None:
        provider = world.provider()
        together.wait()
        try:
            answers.append(provider.launch(request))
        except ProviderError as error:
            errors.append(error)

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({(each.provider_id, each.operation) for each in answers}) == 1
    world.clock.advance(120)
    assert world.names() == ["m-1"]


def test_eight_threads_with_different_texts_under_one_key_make_one_machine(world: World) -> None:
    """The server may have been updated between two tries: the request id is another one then, and
    the name alone keeps it from a second machine."""
    answers, errors = list[Launched](), list[ProviderError]()
    together = threading.Barrier(8)

    def launch(number: int) -> None:
        provider = world.provider()
        request = world.request()
        other = replace(request, boot=replace(request.boot, agent_sha256=f"{number:064d}"))
        together.wait()
        try:
            answers.append(provider.launch(other))
        except ProviderError as error:
            errors.append(error)

    threads = [threading.Thread(target=launch, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({each.provider_id for each in answers}) == 1
    assert world.names() == ["m-1"]


def test_key_stays_ended_long_after_the_request_id_is_forgotten(world: World) -> None:
    request, answer = world.running()
    world.provider().terminate(world.ref(request, answer))
    world.clock.advance(3 * 3600)
    late = replace(request, deadline=world.clock.now() + (request.deadline - world.clock.now()))
    error = refused(lambda: world.provider().launch(late))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "Ended")
    assert world.empty()


def test_key_of_a_stopped_machine_is_ended(world: World) -> None:
    request, answer = world.running()
    world.cloud.guest_shutdown(answer.provider_id)
    world.clock.advance(60)
    assert refused(lambda: world.provider().launch(request)).raw_code == "Ended"


def test_disk_of_an_earlier_try_does_not_stand_in_the_way_for_good(world: World) -> None:
    world.cloud.leave_disk_next()
    world.cloud.fail_next("ZONE_RESOURCE_POOL_EXHAUSTED", call="instances.insert")
    refused(lambda: world.provider().launch(world.request()))
    assert len(world.cloud.resources()["disks"]) == 1
    error = refused(lambda: world.provider().launch(world.request()))
    assert error.error_class is ErrorClass.TRANSIENT
    assert world.provider().launch(world.request()).provider_id
    assert world.names() == ["m-1"]
    assert world.cloud.resources()["disks"] == []


def test_operation_that_is_forgotten_is_answered_by_the_instance(world: World) -> None:
    request, answer = world.running()
    world.cloud.forget_operations()
    assert world.provider().launch_result(request, "operation-1") == answer
    assert world.provider().launch(request) == answer
    world.provider().terminate(world.ref(request, answer))
    world.clock.advance(60)
    world.cloud.forget_operations()
    error = refused(lambda: world.provider().launch_result(request, "operation-1"))
    assert error.raw_code == "Ended"


def test_stockout_after_a_stockout_is_a_new_try(world: World) -> None:
    """The request id must not be the same: it would bring back the first refusal for an hour."""
    world.cloud.set_capacity(0)
    for _ in range(2):
        error = refused(lambda: world.provider().launch(world.request()))
        assert error.error_class is ErrorClass.CAPACITY_ZONE
    world.cloud.set_capacity(None)
    assert world.provider().launch(world.request()).provider_id
    assert world.cloud.calls["instances.insert"] == 3
