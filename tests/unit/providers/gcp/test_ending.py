"""How machines end, and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from control_plane.core.model import ErrorClass, Market
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.cloud import GcpCloud
from tests.unit.providers.gcp.conftest import FLEET, World, offer, refused

STOPS: list[tuple[Callable[[GcpCloud, str], None], str]] = [
    (GcpCloud.guest_shutdown, "self"),
    (GcpCloud.host_error, "interrupted"),
]


@pytest.mark.parametrize("market", [Market.SPOT, Market.ON_DEMAND])
def test_preempted_machine_is_gone_and_says_so(
    world: World, provider: GcpProvider, market: Market
) -> None:
    wanted = offer("g2-standard-4", zone="us-central1-a", market=market)
    request = world.request(wanted=wanted)
    launched = provider.launch(request)
    world.clock.advance(60)
    world.cloud.preempt(launched.provider_id)
    seen = provider.sighting(world.ref(request, launched))
    assert seen is not None
    assert seen.state == "stopping"
    world.clock.advance(31)
    seen = provider.sighting(world.ref(request, launched))
    assert seen is not None
    assert (seen.state, seen.end_reason) == ("gone", "interrupted")
    assert (seen.machine_id, seen.zone) == ("m-1", "us-central1-a")
    assert world.empty()


@pytest.mark.parametrize(("stop", "reason"), STOPS)
def test_stopped_machine_is_ending_until_it_is_deleted(
    world: World, provider: GcpProvider, stop: Callable[[GcpCloud, str], None], reason: str
) -> None:
    request, launched = world.running()
    stop(world.cloud, launched.provider_id)
    world.clock.advance(60)
    assert world.cloud.resources()["stopped"]
    (seen,) = provider.observe(FLEET, world.clouds()).sightings
    assert seen.state == "stopping"
    ref = world.ref(request, launched)
    provider.terminate(ref)
    world.clock.advance(30)
    gone = provider.sighting(ref)
    assert gone is not None
    assert (gone.state, gone.end_reason) == ("gone", reason)
    assert world.empty()


def test_machine_that_deletes_itself_says_so(world: World, provider: GcpProvider) -> None:
    request, launched = world.running()
    world.cloud.self_delete(launched.provider_id)
    world.clock.advance(60)
    seen = provider.sighting(world.ref(request, launched))
    assert seen is not None
    assert (seen.state, seen.end_reason) == ("gone", "self")


def test_time_limit_is_nobodys_wish(world: World, provider: GcpProvider) -> None:
    request, launched = world.running()
    world.clock.advance_to(request.deadline)
    world.clock.advance(60)
    seen = provider.sighting(world.ref(request, launched))
    assert seen is not None
    assert (seen.state, seen.end_reason) == ("gone", "")


def test_gone_machine_is_found_by_its_id_alone(world: World, provider: GcpProvider) -> None:
    request, launched = world.running()
    world.cloud.preempt(launched.provider_id)
    world.clock.advance(60)
    seen = provider.sighting(world.ref(request))
    assert seen is not None
    assert (seen.state, seen.end_reason) == ("gone", "interrupted")
    assert seen.provider_id == launched.provider_id


def test_last_attempt_is_the_one_that_is_told(world: World, provider: GcpProvider) -> None:
    for attempt in (1, 2):
        launched = provider.launch(world.request(attempt=attempt))
        world.clock.advance(60)
        provider.terminate(world.ref(world.request(), launched))
        world.clock.advance(60)
    seen = provider.sighting(world.ref(world.request()))
    assert seen is not None
    assert seen.provider_id == launched.provider_id


def test_launch_that_came_to_nothing_never_was(world: World, provider: GcpProvider) -> None:
    world.cloud.set_capacity(0)
    request = world.request()
    refused(lambda: provider.launch(request))
    assert provider.sighting(world.ref(request)) is None


def test_machine_that_is_still_being_made_cannot_be_ended_yet(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.slow_next_insert(60)
    request = world.request()
    provider.launch(request)
    error = refused(lambda: provider.terminate(world.ref(request)))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "resourceNotReady")
    world.clock.advance(61)
    provider.terminate(world.ref(request))
    world.clock.advance(60)
    assert world.empty()


def test_terminate_again_and_again_is_one_end(world: World, provider: GcpProvider) -> None:
    request, launched = world.running()
    ref = world.ref(request, launched)
    for _ in range(3):
        provider.terminate(ref)
        world.clock.advance(5)
    world.clock.advance(60)
    provider.terminate(ref)
    assert world.empty()


def test_other_machines_stay(world: World, provider: GcpProvider) -> None:
    request, launched = world.running("m-1")
    world.running("m-11")
    world.running("m-1-1")
    provider.terminate(world.ref(request))
    world.clock.advance(60)
    assert world.names() == ["m-1-1", "m-11"]
    assert launched.provider_id.endswith("orchctl-m-1-1")
