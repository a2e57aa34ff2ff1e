"""Every call of a launch and of an end may get lost, on the way there or on the way back. Whoever
repeats, or looks, finds one machine or none; nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.azure.provider import AzureProvider
from tests.unit.providers.azure.conftest import FLEET, World

LAUNCH = ("ssh_public_keys_get", "virtual_machines_create_or_update")
RESULT = ("virtual_machines_get", "ssh_public_keys_create")
REFUSED = (
    *("virtual_machines_get", "operations_get", "virtual_machines_delete"),
    *("disks_list", "network_list", "disks_delete", "network_delete"),
)
END = ("virtual_machines_delete", "virtual_machines_get")

Who = Callable[[World], AzureProvider]
WHO = pytest.mark.parametrize(
    "who", [lambda world: world.provider, World.restarted], ids=["same", "restarted"]
)
LOST = pytest.mark.parametrize("lost", ["call", "answer"])


def lose(world: World, lost: str, call: str) -> None:
    trouble = world.cloud.lose_next_call if lost == "call" else world.cloud.drop_next_answer
    trouble(call)


def check_is_unclear(error: ProviderError) -> None:
    assert (error.error_class, error.known) == (ErrorClass.TRANSIENT, True)
    assert error.raw_code in ("ServiceResponseError", "ServiceRequestError")


def carried_through(world: World, who: Who, request: LaunchRequest) -> Launched:
    """What the controller does: ask again with the same key until the answer is clear."""
    operation = ""
    for _ in range(8):
        provider = who(world)
        try:
            if operation:
                launched = provider.launch_result(request, operation)
            else:
                launched = provider.launch(request)
        except ProviderError as error:
            check_is_unclear(error)
            continue
        if not launched.operation:
            return launched
        operation = launched.operation
        world.cloud.clock.advance(20)
    raise AssertionError("it never became clear")


def ended(world: World, who: Who, request: LaunchRequest, provider_id: str) -> None:
    """Terminate until the provider proves it gone, as the controller does."""
    ref = world.ref(request, provider_id)
    for _ in range(20):
        try:
            who(world).terminate(ref)
            if who(world).sighting(ref) is None:
                return
        except ProviderError as error:
            check_is_unclear(error)
        world.cloud.clock.advance(5)
    raise AssertionError("it does not end")


def cleared(world: World) -> None:
    """Look for leftovers as the controller does, now and then."""
    for _ in range(3):
        for leftover in world.provider.strays(FLEET, [world.settings()]):
            world.provider.remove(leftover)


@WHO
@LOST
@pytest.mark.parametrize("call", [*LAUNCH, *RESULT])
def test_launch_survives(world: World, who: Who, lost: str, call: str) -> None:
    request = world.request()
    lose(world, lost, call)
    launched = carried_through(world, who, request)
    assert [vm.id.lower() for vm in world.cloud.machines()] == [launched.provider_id.lower()]
    assert world.kinds() == ["disks", "networkInterfaces", "publicIPAddresses", "vm"]
    ended(world, who, request, launched.provider_id)
    assert world.kinds() == []
    assert world.provider.strays(FLEET, [world.settings()]) == []


@LOST
@pytest.mark.parametrize("call", LAUNCH)
def test_lost_launch_is_seen_by_looking(world: World, lost: str, call: str) -> None:
    """The other way to clear it up: adopt what carries the label, or see that there is nothing."""
    request = world.request()
    lose(world, lost, call)
    with pytest.raises(ProviderError):
        world.provider.launch(request)
    observation = world.restarted().observe(FLEET, [world.settings()])
    made = lost == "answer" and call == LAUNCH[1]
    assert [each.machine_id for each in observation.sightings] == (["m-1"] if made else [])
    assert observation.unknown == ()
    for sighting in observation.sightings:
        ended(world, World.restarted, request, sighting.provider_id)
    assert world.kinds() == []


@WHO
@LOST
@pytest.mark.parametrize("call", REFUSED)
@pytest.mark.parametrize("clear_s", [0, 10])
@pytest.mark.parametrize("leaving", [False, True])
def test_refused_launch_survives(
    world: World, who: Who, lost: str, call: str, clear_s: int, leaving: bool
) -> None:
    """A launch that fails while it goes on, and whose clearing up is disturbed as well."""
    world.cloud.set_capacity(0)
    world.cloud.clear_s = clear_s
    if leaving:
        world.cloud.leave_behind()
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    lose(world, lost, call)
    codes = []
    for _ in range(6):
        with pytest.raises(ProviderError) as caught:
            who(world).launch_result(request, begun.operation)
        codes.append(caught.value.raw_code)
        world.cloud.clock.advance(10)
    assert "AllocationFailed" in codes
    assert codes[-1] == "Ended"
    ended(world, who, request, begun.provider_id)
    cleared(world)
    assert world.kinds() == []


@WHO
@LOST
@pytest.mark.parametrize("call", END)
@pytest.mark.parametrize("leaving", [False, True])
def test_end_survives(world: World, who: Who, lost: str, call: str, leaving: bool) -> None:
    request = world.running()
    (vm,) = world.cloud.machines()
    if leaving:
        world.cloud.leave_behind()
    lose(world, lost, call)
    ended(world, who, request, vm.id)
    assert "vm" not in world.kinds()
    cleared(world)
    assert world.kinds() == []


@LOST
def test_end_by_label_survives(world: World, lost: str) -> None:
    request = world.running()
    lose(world, lost, "virtual_machines_list")
    ended(world, World.restarted, request, "")
    assert world.kinds() == []


@LOST
@pytest.mark.parametrize("call", ["network_delete", "disks_delete"])
def test_removal_of_a_leftover_survives(world: World, lost: str, call: str) -> None:
    request = world.running()
    world.cloud.leave_behind()
    world.cloud.delete_from_within("m-1")
    lose(world, lost, call)
    for _ in range(4):
        for leftover in world.provider.strays(FLEET, [world.settings()]):
            try:
                world.provider.remove(leftover)
            except ProviderError as error:
                check_is_unclear(error)
    assert world.kinds() == []
    assert world.provider.sighting(world.ref(request)) is None
