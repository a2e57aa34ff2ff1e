"""Ends, and what machines leave behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from tests.unit.providers.azure.conftest import FLEET, GROUP, World


def kinds_left(world: World, fleet: str = FLEET) -> list[str]:
    return sorted(each.kind for each in world.provider.strays(fleet, [world.settings()]))


def left_behind(world: World, machine_id: str = "m-1", *kinds: str, fleet: str = FLEET) -> None:
    """A machine that is gone, but for parts of it."""
    world.running(machine_id, fleet=fleet)
    world.cloud.leave_behind(*kinds)
    world.cloud.delete_from_within(machine_id)


def test_terminate_forces_the_end_and_takes_everything_along(world: World) -> None:
    request = world.running()
    world.provider.terminate(world.ref(request, world.cloud.machine("m-1").id))
    world.cloud.clock.advance(15)
    assert world.kinds() == []


def test_terminate_of_what_is_gone_clears_what_it_left(world: World) -> None:
    request = world.running()
    vm_id = world.cloud.machine("m-1").id
    world.cloud.leave_behind("disks", "networkInterfaces")
    world.cloud.delete_from_within("m-1")
    world.running("m-2")
    world.provider.terminate(world.ref(request, vm_id))
    assert world.kinds() == ["disks", "networkInterfaces", "publicIPAddresses", "vm"]


def test_terminate_of_what_is_gone_does_not_fail_over_leftovers(world: World) -> None:
    request = world.running()
    vm_id = world.cloud.machine("m-1").id
    world.cloud.delete_from_within("m-1")
    world.cloud.fail_next("AuthorizationFailed", status=403, call="disks_list")
    world.provider.terminate(world.ref(request, vm_id))


@pytest.mark.parametrize("code", ["TooManyRequests", "AuthorizationFailed", "InternalServerError"])
def test_refused_end_says_so(world: World, code: str) -> None:
    request = world.running()
    world.cloud.fail_next(code, status=500, call="virtual_machines_delete")
    with pytest.raises(ProviderError) as caught:
        world.provider.terminate(world.ref(request, world.cloud.machine("m-1").id))
    assert caught.value.raw_code == code


def test_leftovers_are_found_and_removed(world: World) -> None:
    left_behind(world)
    found = world.provider.strays(FLEET, [world.settings()])
    assert sorted(each.kind for each in found) == ["disk", "network-interface"]
    disk = next(each for each in found if each.kind == "disk")
    assert (disk.provider, disk.region, disk.fleet) == ("azure", "eastus", FLEET)
    assert (disk.machine_id, disk.size) == ("m-1", "100 GiB")
    assert disk.usd_hour == round(Decimal("9.60") / 730, 6)
    assert next(each for each in found if each.kind == "network-interface").usd_hour == 0
    assert disk.created_at == world.cloud.clock.now() - timedelta(seconds=20)
    assert f"/resourceGroups/{GROUP}/" in disk.id
    for each in found:
        world.provider.remove(each)
    # The address hung on the interface: only now does it hang on nothing.
    (address,) = world.provider.strays(FLEET, [world.settings()])
    assert (address.kind, address.machine_id) == ("address", "m-1")
    assert address.usd_hour == Decimal("0.005")
    world.provider.remove(address)
    assert world.kinds() == []


def test_removed_twice_is_removed(world: World) -> None:
    left_behind(world, "m-1", "disks")
    (disk,) = world.provider.strays(FLEET, [world.settings()])
    world.provider.remove(disk)
    world.provider.remove(disk)
    world.provider.remove(replace(disk, id="nonsense"))
    assert world.kinds() == []


def test_parts_of_living_machines_are_no_leftovers(world: World) -> None:
    world.running("m-1")
    world.provider.launch(world.request("m-2"))
    world.running("m-3")
    world.provider.terminate(world.ref(world.request("m-3")))
    assert kinds_left(world) == []


def test_detached_part_of_a_living_machine_is_left_alone(world: World) -> None:
    world.running()
    for part in world.cloud.machine("m-1").parts:
        part.owner = ""
    assert kinds_left(world) == []


def test_part_that_another_machine_uses_is_left_alone(world: World) -> None:
    """A person may have taken a disk of ours to look at it."""
    left_behind(world, "m-1", "disks")
    world.running("m-2")
    for part in world.cloud.groups[GROUP].parts.values():
        part.owner = part.owner or world.cloud.machine("m-2").id
    assert kinds_left(world) == []


def test_leftovers_of_other_fleets_and_of_others_are_left_alone(world: World) -> None:
    left_behind(world, "m-1", "disks")
    left_behind(world, "m-2", "disks", fleet="fleet-b")
    left_behind(world, "m-3", "disks")
    theirs = next(part for part in world.cloud.groups[GROUP].parts.values() if "m-3" in part.name)
    theirs.name = "orchctl-website-data"
    assert [each.machine_id for each in world.provider.strays(FLEET, [world.settings()])] == ["m-1"]
    assert kinds_left(world, "fleet-b") == ["disk"]


def test_machine_that_is_being_made_while_somebody_looks_loses_nothing(world: World) -> None:
    """The parts are listed before the machines: what comes between is then known."""
    left_behind(world, "m-0", "disks")
    world.provider.launch(world.request())
    order = [call for call in world.cloud.calls if call.endswith("_list")]
    world.cloud.calls.clear()
    assert kinds_left(world) == ["disk"]
    calls = world.cloud.calls
    assert calls.index("disks_list") < calls.index("virtual_machines_list")
    assert calls.index("network_list") < calls.index("virtual_machines_list")
    assert order == []


def test_part_in_use_cannot_be_removed_and_says_so(world: World) -> None:
    left_behind(world, "m-1", "disks")
    (disk,) = world.provider.strays(FLEET, [world.settings()])
    next(iter(world.cloud.groups[GROUP].parts.values())).owner = "/somebody"
    with pytest.raises(ProviderError) as caught:
        world.provider.remove(disk)
    assert caught.value.raw_code == "OperationNotAllowed"
    assert world.kinds() == ["disks"]


def test_group_that_does_not_answer_hides_no_leftover_of_others(world: World) -> None:
    world.cloud.add_group("west", "westeurope")
    world.cloud.silence("west")
    left_behind(world, "m-1", "disks")
    clouds = [world.settings(), world.settings("westeurope", group="west")]
    assert len(world.provider.strays(FLEET, clouds)) == 1
    with pytest.raises(ProviderError) as caught:
        world.provider.strays(FLEET, clouds[1:])
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_launch_marks_are_forgotten_after_a_day(world: World) -> None:
    request = world.running()
    world.running("m-2")
    world.cloud.delete_from_within("m-1")
    world.cloud.clock.advance(86_400 - 60)
    assert kinds_left(world) == []
    world.cloud.clock.advance(61)
    (mark,) = world.provider.strays(FLEET, [world.settings()])
    assert (mark.kind, mark.machine_id, mark.size) == ("launch-mark", "m-1", "free of charge")
    world.provider.remove(mark)
    assert kinds_left(world) == []
    assert list(world.cloud.groups[GROUP].keys) == [world.cloud.machine("m-2").name]
    assert world.provider.sighting(world.ref(request)) is None
