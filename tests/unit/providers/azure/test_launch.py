"""Launches as they go on in real life: a PUT, an operation, an end that may be bad."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.azure.body import vm_body, vm_name
from providers.azure.client import Place
from providers.azure.provider import AzureProvider
from providers.startup import agent_startup
from tests.fakes.azure import checks, specs
from tests.fakes.azure.cloud import SUBSCRIPTION
from tests.fakes.azure.connection import startup
from tests.unit.providers.azure.conftest import FLEET, GROUP, PLAIN_SIZE, World

PUT = "virtual_machines_create_or_update"
NAME = vm_name(FLEET, "m-1.1")
PLACE = Place(SUBSCRIPTION, GROUP)


def refusal(world: World, request: LaunchRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        world.provider.launch(request or world.request())
    return caught.value


def result_refused(world: World, request: LaunchRequest, operation: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        world.provider.launch_result(request, operation)
    return caught.value


# ------------------------------------------------------------------------------------- body


def sent(world: World, request: LaunchRequest) -> dict[str, Any]:
    return vm_body(request, PLACE, "#!/bin/sh\n")


def test_everything_goes_with_the_machine(world: World) -> None:
    properties = sent(world, world.request())["properties"]
    interface = properties["networkProfile"]["networkInterfaceConfigurations"][0]["properties"]
    inside = interface["ipConfigurations"][0]["properties"]
    assert properties["storageProfile"]["osDisk"]["deleteOption"] == "Delete"
    assert interface["deleteOption"] == "Delete"
    assert inside["publicIPAddressConfiguration"]["properties"]["deleteOption"] == "Delete"
    assert properties["networkProfile"]["networkApiVersion"] == "2022-11-01"


def test_spot_is_deleted_when_it_is_taken_and_never_for_its_price(world: World) -> None:
    properties = sent(world, world.request())["properties"]
    assert properties["priority"] == "Spot"
    assert properties["evictionPolicy"] == "Delete"
    assert properties["billingProfile"] == {"maxPrice": -1}


def test_on_demand_says_nothing_of_spot(world: World) -> None:
    properties = sent(world, world.request(market=Market.ON_DEMAND))["properties"]
    assert not {"priority", "evictionPolicy", "billingProfile"} & set(properties)


@pytest.mark.parametrize(("zone", "expected"), [("", None), ("2", ["2"])])
def test_zone_is_that_of_the_offer(world: World, zone: str, expected: list[str] | None) -> None:
    assert sent(world, world.request(zone=zone)).get("zones") == expected


def test_machine_interface_and_address_are_labelled(world: World) -> None:
    request = world.request()
    body = sent(world, request)
    interface = body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]
    inside = interface["properties"]["ipConfigurations"][0]["properties"]
    assert body["tags"] == {
        "orchctl-fleet": FLEET,
        "orchctl-machine": "m-1",
        "orchctl-key": "m-1.1",
        "orchctl-pool": "p",
        "orchctl-deadline": str(int(request.deadline.timestamp())),
        "orchctl-version": "abababababab",
    }
    assert interface["tags"] == body["tags"]
    assert inside["publicIPAddressConfiguration"]["tags"] == body["tags"]


def test_options_of_the_document_are_sent(world: World) -> None:
    network = "/subscriptions/s/resourceGroups/net/providers/Microsoft.Network"
    request = world.request(
        subnet=f"{network}/virtualNetworks/vnet-{{region}}/subnets/gpu",
        network_security_group=f"{network}/networkSecurityGroups/nsg-{{region}}",
        identity="/subscriptions/s/resourceGroups/g/providers/x/userAssignedIdentities/agent",
        image="acme:images:gpu:1.2.3",
        public_ip="false",
    )
    body = sent(world, request)
    interface = body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]
    inside = interface["properties"]["ipConfigurations"][0]["properties"]
    assert inside == {"subnet": {"id": f"{network}/virtualNetworks/vnet-eastus/subnets/gpu"}}
    assert interface["properties"]["networkSecurityGroup"] == {
        "id": f"{network}/networkSecurityGroups/nsg-eastus"
    }
    assert list(body["identity"]["userAssignedIdentities"]) == [request.cloud.options["identity"]]
    assert body["properties"]["storageProfile"]["imageReference"] == {
        "publisher": "acme",
        "offer": "images",
        "sku": "gpu",
        "version": "1.2.3",
    }


def test_image_may_be_a_resource(world: World) -> None:
    image = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/images/ours"
    body = sent(world, world.request(image=image))
    assert body["properties"]["storageProfile"]["imageReference"] == {"id": image}


def test_machine_without_gpus_gets_a_plain_image(world: World) -> None:
    body = sent(world, world.request(size=PLAIN_SIZE))
    assert "ubuntu-server" in body["properties"]["storageProfile"]["imageReference"]["offer"]


@pytest.mark.parametrize("public_ip", ["true", "false"])
@pytest.mark.parametrize("market", list(Market))
@pytest.mark.parametrize("zone", ["", "3"])
def test_body_keeps_to_the_published_schema(
    world: World, market: Market, public_ip: str, zone: str
) -> None:
    identity = "/subscriptions/s/resourceGroups/g/providers/x/userAssignedIdentities/agent"
    request = world.request(market=market, zone=zone, public_ip=public_ip, identity=identity)
    body = vm_body(request, PLACE, agent_startup(request))
    assert specs.wrong_in_machine(NAME, body) == ""
    assert checks.wrong_values(NAME, body) == ""


def test_sdk_sends_the_body_as_it_is(world: World) -> None:
    identity = "/subscriptions/s/resourceGroups/g/providers/x/userAssignedIdentities/agent"
    request = world.request(zone="3", identity=identity)
    world.provider.launch(request)
    expected = vm_body(request, PLACE, startup(request))
    assert world.cloud.machine("m-1").body == expected


def test_real_start_up_text_reaches_the_machine(world: World) -> None:
    provider = AzureProvider(world.clients, now=world.cloud.clock.now)
    request = world.request()
    provider.launch(request)
    assert world.cloud.machine("m-1").startup == agent_startup(request)


def test_start_up_text_may_have_as_many_bytes_as_azure_takes(world: World) -> None:
    body = vm_body(world.request(), PLACE, "a" * 65_535)
    assert len(base64.b64decode(body["properties"]["osProfile"]["customData"])) == 65_535
    assert checks.wrong_values(NAME, body) == ""
    with pytest.raises(ProviderError) as caught:
        vm_body(world.request(), PLACE, "ä" * 32_768)
    assert caught.value.error_class is ErrorClass.INVALID


@pytest.mark.parametrize(
    "key",
    [
        "m-01jc8qv5x2v1c3zj7q0k9m4n5p.1",
        "m-01jc8qv5x2v1c3zj7q0k9m4n5p.12",
        f"m-{'x' * 38}.9999",
        "M-Upper.1",
        "a key/with = signs.1",
        "k" * 300,
        "ключ.1",
    ],
)
@pytest.mark.parametrize("fleet", ["fleet-a", "my fleet = x", "f" * 300, ""])
def test_name_is_one_that_azure_takes(fleet: str, key: str) -> None:
    name = vm_name(fleet, key)
    assert checks.HOST_NAME.fullmatch(name), "the strictest of all: 64 characters, no dots"
    assert vm_name(fleet, key) == name
    assert vm_name(fleet, f"{key}0") != name
    assert vm_name(f"{fleet}0", key) != name


# -------------------------------------------------------------------------------- operations


def test_launch_answers_at_once_with_an_operation(world: World) -> None:
    request = world.request()
    begun = world.provider.launch(request)
    assert begun.operation
    assert begun.provider_id == PLACE.vm_id(NAME)
    assert begun.at == world.cloud.clock.now()
    again = world.provider.launch_result(request, begun.operation)
    assert again == begun
    assert world.calls(PUT) == 1


def test_launch_result_has_the_machine_when_it_is_up(world: World) -> None:
    request = world.request()
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    done = world.provider.launch_result(request, begun.operation)
    assert done == replace(begun, operation="")
    assert world.restarted().launch_result(request, begun.operation) == done
    assert world.restarted().launch(request) == done


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("forgetful", [False, True])
def test_failed_launch_says_why_and_leaves_nothing(
    world: World, wrapped: bool, forgetful: bool
) -> None:
    """By the operation where its address is known, else by the machine's own state."""
    world.cloud.wrapped_errors = wrapped
    world.cloud.set_capacity(0)
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    assert world.kinds() == ["disks", "networkInterfaces", "publicIPAddresses", "vm"]
    world.cloud.clock.advance(20)
    if forgetful:
        world.provider = world.restarted()
    error = result_refused(world, request, begun.operation)
    assert (error.error_class, error.raw_code) == (ErrorClass.CAPACITY_REGION, "AllocationFailed")
    assert world.calls("operations_get") == (0 if forgetful else 1)
    assert world.kinds() == []


def test_zonal_failure_is_one_of_the_zone(world: World) -> None:
    world.cloud.set_capacity(0, zone="2")
    request = world.request(market=Market.ON_DEMAND, zone="2")
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    assert result_refused(world, request, begun.operation).error_class is ErrorClass.CAPACITY_ZONE


def test_operation_that_is_forgotten_leaves_the_machine_to_speak(world: World) -> None:
    world.cloud.set_capacity(0)
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    world.cloud.operations.clear()
    world.cloud.clock.advance(20)
    assert result_refused(world, request, begun.operation).raw_code == "AllocationFailed"


def test_failed_launch_whose_deletion_takes_time_is_over_all_the_same(world: World) -> None:
    world.cloud.set_capacity(0)
    world.cloud.clear_s = 30
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    assert result_refused(world, request, begun.operation).raw_code == "AllocationFailed"
    assert result_refused(world, request, begun.operation).raw_code == "Ended"
    assert refusal(world, request).raw_code == "Ended"
    assert world.calls(PUT) == 2
    world.cloud.clock.advance(30)
    assert world.kinds() == []


def test_failed_launch_is_refused_even_if_it_cannot_be_cleared(world: World) -> None:
    world.cloud.set_capacity(0)
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    world.cloud.fail_next("TooManyRequests", status=429, call="virtual_machines_delete")
    assert result_refused(world, request, begun.operation).raw_code == "AllocationFailed"
    # It still stands there, and is found: by its label, and by the repeat of its key.
    assert [each.state for each in world.provider.observe(FLEET, [world.settings()]).sightings] == [
        "pending"
    ]
    assert refusal(world, request).raw_code == "AllocationFailed"
    assert world.kinds() == []


def test_leftovers_of_a_failed_launch_are_looked_for_at_once(world: World) -> None:
    world.cloud.set_capacity(0)
    world.cloud.leave_behind()
    request = world.request(market=Market.ON_DEMAND)
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    result_refused(world, request, begun.operation)
    # The address hangs on the interface and cannot go in the same moment.
    assert world.kinds() == ["publicIPAddresses"]
    (left,) = world.provider.strays(FLEET, [world.settings()])
    world.provider.remove(left)
    assert world.kinds() == []


def test_system_that_did_not_come_up_is_ended_and_told(world: World) -> None:
    error = {"code": "OSProvisioningTimedOut", "message": "did not finish in the allotted time"}
    world.cloud.next_launch(takes_s=1, error=error)
    request = world.request()
    begun = world.provider.launch(request)
    world.cloud.clock.advance(1)
    found = result_refused(world, request, begun.operation)
    assert (found.error_class, found.raw_code) == (ErrorClass.TRANSIENT, "OSProvisioningTimedOut")
    assert result_refused(world, request, begun.operation).raw_code == "Ended"


def test_machine_that_was_taken_while_it_came_up_has_ended(world: World) -> None:
    request = world.request()
    begun = world.provider.launch(request)
    world.cloud.interrupt("m-1", notice_s=5)
    world.cloud.clock.advance(5)
    assert result_refused(world, request, begun.operation).raw_code == "Ended"
    assert world.kinds() == []


# -------------------------------------------------------------------------------------- keys


def test_eight_threads_with_one_key_make_one_machine(world: World) -> None:
    request, answers, errors = world.request(), list[Launched](), list[Exception]()
    world.cloud.latency_s = 0.01
    start = threading.Barrier(8)

    def launch() -> None:
        start.wait()
        try:
            answers.append(world.restarted().launch(request))
        except ProviderError as error:
            errors.append(error)

    threads = [threading.Thread(target=launch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {(each.provider_id, each.operation) for each in answers} == {
        (PLACE.vm_id(NAME), PLACE.vm_id(NAME))
    }
    assert len(answers) == 8
    assert len(world.cloud.machines()) == 1
    assert world.calls(PUT) == 8


def test_key_of_a_machine_that_has_ended_starts_nothing(world: World) -> None:
    request = world.running()
    world.cloud.delete_from_within("m-1")
    assert refusal(world, request).raw_code == "Ended"
    assert world.calls(PUT) == 1
    assert world.kinds() == []


def test_key_of_a_machine_that_is_going_starts_nothing(world: World) -> None:
    request = world.running()
    ref = world.ref(request, world.cloud.machine("m-1").id)
    world.provider.terminate(ref)
    assert refusal(world, request).raw_code == "Ended"
    world.cloud.clock.advance(15)
    world.provider.terminate(ref)
    assert refusal(world, request).raw_code == "Ended"
    assert world.kinds() == []


def test_mark_that_cannot_be_written_does_not_fail_a_launch(world: World) -> None:
    request = world.request()
    begun = world.provider.launch(request)
    world.cloud.clock.advance(20)
    world.cloud.fail_next("AuthorizationFailed", status=403, call="ssh_public_keys_create")
    assert world.provider.launch_result(request, begun.operation).operation == ""


def test_name_that_somebody_else_has_taken_is_left_alone(world: World) -> None:
    request = world.request()
    world.provider.launch(request)
    world.cloud.machine("m-1").body["tags"]["orchctl-key"] = "m-2.1"
    error = refusal(world, request)
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, "NameTaken")
    assert len(world.cloud.machines()) == 1


def test_repeat_with_other_settings_is_the_machine_that_exists(world: World) -> None:
    request = world.request()
    first = world.provider.launch(request)
    changed = replace(request, disk_gib=500, cloud=world.settings(public_ip="false"))
    assert world.restarted().launch(changed) == first
    assert len(world.cloud.machines()) == 1


def test_second_attempt_has_a_machine_of_its_own(world: World) -> None:
    first = world.provider.launch(world.request())
    second = world.provider.launch(world.request(attempt=2))
    assert first.provider_id != second.provider_id
    assert len(world.cloud.machines()) == 2


# ------------------------------------------------------------------------------------ wishes


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"image": "acme:no:such:image"}, "PlatformImageNotFound"),
        ({"subnet": "/subscriptions/s/none"}, "InvalidResourceReference"),
        ({"group": "nowhere"}, "ResourceGroupNotFound"),
    ],
)
def test_wrong_settings_are_invalid(world: World, options: dict[str, str], code: str) -> None:
    request = replace(world.request(), cloud=world.settings(**options))
    error = refusal(world, request)
    assert (error.error_class, error.raw_code) == (ErrorClass.INVALID, code)
    assert world.kinds() == []


def test_resource_group_must_be_named(world: World) -> None:
    request = world.request()
    bare = replace(request, cloud=replace(request.cloud, options={}))
    assert refusal(world, bare).raw_code == "NoResourceGroup"


def test_burstable_sizes_have_no_spot_market(world: World) -> None:
    request = world.request(market=Market.ON_DEMAND, size="Standard_B2ms")
    capacity = replace(request.offer.capacity, market=Market.SPOT)
    spot = replace(request, offer=replace(request.offer, capacity=capacity))
    error = refusal(world, spot)
    assert (error.error_class, error.raw_code) == (
        ErrorClass.INVALID,
        "AzureSpotIsNotSupportedForThisVMSize",
    )
