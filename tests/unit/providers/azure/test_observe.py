"""What is seen of machines: states, reasons of ends, places that do not answer."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import MachineRef
from providers.azure import listing
from providers.azure.client import Place
from tests.fakes.azure.cloud import SUBSCRIPTION
from tests.unit.providers.azure.conftest import FLEET, GROUP, World


def states(world: World) -> list[tuple[str, str, str]]:
    observation = world.provider.observe(FLEET, [world.settings()])
    return [(each.machine_id, each.state, each.end_reason) for each in observation.sightings]


def seen(world: World, request_id: str = "m-1") -> tuple[str, str] | None:
    request = world.request(request_id)
    sighting = world.provider.sighting(world.ref(request))
    return (sighting.state, sighting.end_reason) if sighting else None


def test_machine_from_its_launch_to_its_end(world: World) -> None:
    request = world.request()
    begun = world.provider.launch(request)
    assert states(world) == [("m-1", "pending", "")]
    world.cloud.clock.advance(20)
    assert states(world) == [("m-1", "running", "")]
    world.provider.terminate(world.ref(request, begun.provider_id))
    assert states(world) == [("m-1", "stopping", "")]
    assert seen(world) == ("stopping", "")
    world.cloud.clock.advance(15)
    assert states(world) == []
    assert seen(world) is None


def test_machine_that_shut_itself_down_goes_on_costing_and_is_shown(world: World) -> None:
    world.running()
    world.cloud.shut_down("m-1")
    assert states(world) == [("m-1", "stopping", "self")]
    assert seen(world) == ("stopping", "self")
    assert len(world.cloud.alive()) == 1


def test_deallocated_spot_machine_was_taken(world: World) -> None:
    world.running()
    world.cloud.machine("m-1").body["properties"]["evictionPolicy"] = "Deallocate"
    world.cloud.interrupt("m-1", notice_s=30)
    assert states(world) == [("m-1", "running", "")]
    world.cloud.clock.advance(30)
    assert states(world) == [("m-1", "stopping", "interrupted")]
    assert seen(world) == ("stopping", "interrupted")


def test_deallocated_on_demand_machine_was_not_taken(world: World) -> None:
    world.running(market=Market.ON_DEMAND)
    world.cloud.machine("m-1").power = "deallocated"
    assert states(world) == [("m-1", "stopping", "")]


def test_spot_machine_that_was_taken_is_gone_with_all_it_had(world: World) -> None:
    world.running()
    compute = world.clients.compute(SUBSCRIPTION)
    compute.virtual_machines.simulate_eviction(GROUP, world.cloud.machine("m-1").name)
    assert seen(world) == ("running", "")
    world.cloud.clock.advance(30)
    assert seen(world) is None
    assert world.kinds() == []


def test_without_the_right_to_power_states_machines_are_seen_all_the_same(world: World) -> None:
    world.running()
    world.cloud.shut_down("m-1")
    world.cloud.status_allowed = False
    assert states(world) == [("m-1", "running", "")]
    assert seen(world) == ("stopping", "self"), "one machine is still looked at closely"


def test_power_states_are_not_asked_for_an_empty_fleet(world: World) -> None:
    assert states(world) == []
    assert world.cloud.calls == ["virtual_machines_list"]


def test_id_is_the_same_in_launch_listing_and_look(world: World) -> None:
    """Listings answer with the resource group in capital letters."""
    request = world.running()
    launched = world.provider.launch(request)
    (sighting,) = world.provider.observe(FLEET, [world.settings(group="ML")]).sightings
    looked = world.provider.sighting(world.ref(request, launched.provider_id))
    assert looked is not None
    assert launched.provider_id == sighting.provider_id == looked.provider_id
    assert launched.provider_id == Place(SUBSCRIPTION, GROUP).vm_id(world.cloud.machine("m-1").name)


def test_listing_is_read_to_its_last_page(world: World) -> None:
    world.cloud.page_size = 3
    for number in range(10):
        world.provider.launch(world.request(f"m-{number}"))
    assert len(states(world)) == 10
    assert world.calls("virtual_machines_list") == 4


def test_lagging_listing_does_not_hide_a_machine_that_is_asked_for(world: World) -> None:
    world.cloud.listing_lag_s = 60
    request = world.request()
    launched = world.provider.launch(request)
    assert states(world) == []
    sighting = world.provider.sighting(world.ref(request, launched.provider_id))
    assert sighting is not None
    assert sighting.state == "pending"


@pytest.mark.parametrize("fleet", ["my fleet = x", "Ünïcode/slash", "a" * 256])
def test_any_fleet_name_is_found_again(world: World, fleet: str) -> None:
    world.running(fleet=fleet)
    world.running("m-2", fleet="fleet-b")
    (sighting,) = world.provider.observe(fleet, [world.settings()]).sightings
    assert (sighting.machine_id, sighting.fleet) == ("m-1", fleet)


def test_machine_whose_labels_were_taken_off_is_known_by_its_name(world: World) -> None:
    world.running("m-1")
    world.running("m-2", fleet="fleet-b")
    for vm in world.cloud.machines():
        vm.body["tags"] = {}
    assert states(world) == [("m-1", "running", "")]


def test_zone_is_shown(world: World) -> None:
    request = world.running(zone="2")
    sighting = world.provider.sighting(world.ref(request))
    assert sighting is not None
    assert (sighting.region, sighting.zone) == ("eastus", "2")
    assert sighting.identity["account"] == SUBSCRIPTION
    vm_id = world.cloud.machine("m-1").shown(world.cloud.clock.now())["properties"]["vmId"]
    assert sighting.identity["vm_id"] == vm_id


def test_odd_answers_are_read(world: World) -> None:
    """No labels at all, a region in words, a time with seven digits after the point."""
    shown = {
        "name": "orchctl-000000-m-1-1",
        "location": "East US",
        "tags": None,
        "properties": {"timeCreated": "2026-11-02T08:00:00.1234567+00:00"},
    }
    sighting = listing.sighting(
        Place(SUBSCRIPTION, GROUP), shown, "", FLEET, world.cloud.clock.now()
    )
    assert (sighting.machine_id, sighting.region, sighting.state) == ("m-1", "eastus", "running")
    assert sighting.created_at.microsecond == 123_456


def test_machines_of_others_are_not_ours(world: World) -> None:
    world.running()
    vm = world.cloud.machine("m-1")
    vm.body["tags"] = {"orchctl-fleet": "fleet-z"}
    assert states(world) == []


# ------------------------------------------------------------------------------------ places


def test_group_that_does_not_answer_leaves_its_regions_unknown(world: World) -> None:
    world.cloud.add_group("west", "westeurope")
    world.running()
    world.cloud.silence("west")
    clouds = [
        world.settings("eastus"),
        world.settings("westeurope", "northeurope", group="west"),
    ]
    observation = world.provider.observe(FLEET, clouds)
    assert [each.machine_id for each in observation.sightings] == ["m-1"]
    assert observation.unknown == ("northeurope", "westeurope")
    assert "west" in observation.problem
    assert observation.knows("eastus", "")


def test_region_of_two_groups_is_unknown_when_one_is_silent(world: World) -> None:
    world.cloud.add_group("other")
    world.cloud.silence("other")
    clouds = [world.settings("eastus"), world.settings("eastus", group="other")]
    assert world.provider.observe(FLEET, clouds).unknown == ("eastus",)


def test_all_regions_of_a_silent_group_are_unknown(world: World) -> None:
    world.cloud.add_group("other")
    world.cloud.silence("other")
    clouds = [world.settings(region, group="other") for region in ("westus", "northeurope")]
    observation = world.provider.observe(FLEET, [world.settings("eastus"), *clouds])
    assert observation.unknown == ("northeurope", "westus")


def test_group_that_is_not_there_is_unknown_not_empty(world: World) -> None:
    clouds = [world.settings("eastus"), world.settings("westeurope", group="gone")]
    assert world.provider.observe(FLEET, clouds).unknown == ("westeurope",)


def test_page_that_fails_makes_the_whole_group_unknown(world: World) -> None:
    world.cloud.page_size = 1
    for number in range(3):
        world.provider.launch(world.request(f"m-{number}"))
    real, answered = world.cloud.troubled, []

    def third_page_fails(call: str, group: str):  # type: ignore[no-untyped-def]
        answered.append(call)
        if answered.count("virtual_machines_list") == 3:
            world.cloud.fail_next("InternalServerError", status=500, call=call)
        return real(call, group)

    world.cloud.troubled = third_page_fails  # type: ignore[method-assign]
    with pytest.raises(ProviderError) as caught:
        world.provider.observe(FLEET, [world.settings()])
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_same_group_named_twice_is_listed_once(world: World) -> None:
    world.running()
    clouds = [world.settings("eastus"), world.settings("westeurope", group="ML")]
    observation = world.provider.observe(FLEET, clouds)
    assert len(observation.sightings) == 1
    assert world.calls("virtual_machines_list") == 1


def test_slow_group_does_not_hold_up_the_look(world: World) -> None:
    provider = world.restarted()
    provider._listing_s = 0.3
    world.cloud.latency_s = 3.0
    began = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        provider.observe(FLEET, [world.settings()])
    assert time.monotonic() - began < 2.5
    assert (caught.value.error_class, caught.value.raw_code) == (
        ErrorClass.TRANSIENT,
        "DeadlineExceeded",
    )


def test_two_thousand_machines_are_listed(world: World) -> None:
    for number in range(2000):
        world.cloud.make(
            world.cloud.groups[GROUP], f"orchctl-000000-m-{number}-1", _body(world, number)
        )
    assert len(states(world)) == 2000
    assert world.calls("virtual_machines_list") == 4


def _body(world: World, number: int) -> dict[str, object]:
    from providers.azure.body import vm_body

    return vm_body(world.request(f"m-{number}"), Place(SUBSCRIPTION, GROUP), "#!/bin/sh\n")


# --------------------------------------------------------------------------------- sightings


@pytest.mark.parametrize(
    "provider_id",
    [
        "never-was",
        "i-0123456789",
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/ml/providers/Microsoft.Compute"
        "/virtualMachines/never-was",
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/deleted/providers/Microsoft.Compute"
        "/virtualMachines/m",
    ],
)
def test_what_is_not_there_is_positively_gone(world: World, provider_id: str) -> None:
    ref = MachineRef(machine_id="m", provider_id=provider_id, region="eastus", zone="")
    assert world.provider.sighting(ref) is None
    world.provider.terminate(ref)


@pytest.mark.parametrize(
    ("code", "status"),
    [("SubscriptionNotFound", 404), ("AuthorizationFailed", 403), ("InternalServerError", 500)],
)
def test_refused_look_is_no_proof_of_an_end(world: World, code: str, status: int) -> None:
    request = world.running()
    world.cloud.fail_next(code, status=status, call="virtual_machines_get")
    with pytest.raises(ProviderError):
        world.provider.sighting(world.ref(request, world.cloud.machine("m-1").id))


def test_time_of_making_is_azures(world: World) -> None:
    began = world.cloud.clock.now()
    request = world.running()
    world.cloud.clock.advance(3600)
    sighting = world.provider.sighting(world.ref(request))
    assert sighting is not None
    assert sighting.created_at == began
    assert sighting.created_at.utcoffset() == timedelta(0)
