"""How Azure is reached: late, over TLS, with nothing repeated and nothing waited for."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from azure.core.exceptions import ClientAuthenticationError

from control_plane.core.model import ErrorClass
from control_plane.errors import ProviderError
from providers.azure.client import Clients, Endpoint, Place, parse_id
from providers.azure.errors import _retry_after_s
from providers.azure.provider import AzureProvider
from tests.fakes.azure.connection import FakeCredential, startup
from tests.unit.providers.azure.conftest import FLEET, World


def failed(world: World, clients: Clients) -> ProviderError:
    provider = AzureProvider(clients, render=startup, now=world.cloud.clock.now)
    with pytest.raises(ProviderError) as caught:
        provider.launch(world.request())
    clients.close()
    return caught.value


def test_sdk_is_loaded_on_first_use_only() -> None:
    program = (
        "import sys, providers.azure.provider, providers.azure.client as client\n"
        "client.Clients(client.Endpoint())\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('azure', 'requests')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_wrong_token_is_an_auth_error(world: World) -> None:
    error = failed(world, Clients(world.clients.endpoint, FakeCredential("stolen")))
    assert (error.error_class, error.raw_code) == (ErrorClass.AUTH, "InvalidAuthenticationToken")


def test_credentials_that_fail_are_an_auth_error(world: World) -> None:
    class NoCredential(FakeCredential):
        def get_token(self, *scopes: str, **_options: object):  # type: ignore[no-untyped-def]
            raise ClientAuthenticationError("nobody is signed in")

    error = failed(world, Clients(world.clients.endpoint, NoCredential("")))
    assert error.error_class is ErrorClass.AUTH
    assert "nobody is signed in" in str(error)


def test_token_is_never_sent_to_somebody_else(world: World) -> None:
    endpoint = replace(world.clients.endpoint, ca_file="")
    error = failed(world, Clients(endpoint, FakeCredential(world.cloud.token)))
    assert error.error_class is ErrorClass.TRANSIENT
    assert world.cloud.calls == []


def test_nobody_there_is_transient_and_quick(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = replace(
            world.clients.endpoint, url=f"https://127.0.0.1:{unused.getsockname()[1]}"
        )
        began = time.monotonic()
        error = failed(world, Clients(endpoint, FakeCredential(world.cloud.token)))
    assert error.error_class is ErrorClass.TRANSIENT
    assert time.monotonic() - began < 5


def test_call_has_a_deadline(world: World) -> None:
    world.cloud.latency_s = 3.0
    endpoint = replace(world.clients.endpoint, read_s=0.2)
    began = time.monotonic()
    error = failed(world, Clients(endpoint, FakeCredential(world.cloud.token)))
    assert error.error_class is ErrorClass.TRANSIENT
    assert time.monotonic() - began < 2.5


def test_unregistered_resource_provider_is_told_not_waited_for(world: World) -> None:
    """The SDK would register it and look every ten seconds until that is done."""
    world.cloud.fail_next(
        "MissingSubscriptionRegistration",
        message="The subscription is not registered to use namespace 'Microsoft.Compute'",
        call="virtual_machines_create_or_update",
    )
    began = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        world.provider.launch(world.request())
    assert caught.value.error_class is ErrorClass.AUTH
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("call", ["ssh_public_keys_get", "virtual_machines_create_or_update"])
def test_answer_of_somebody_in_between_is_transient(world: World, call: str) -> None:
    """A network that wants people to sign in says 200 to everything."""
    request = world.request()
    world.cloud.garble_next_answer(call)
    with pytest.raises(ProviderError) as caught:
        world.provider.launch(request)
    assert caught.value.error_class is ErrorClass.TRANSIENT
    assert world.provider.launch(request).provider_id
    assert len(world.cloud.machines()) == 1


def test_look_of_somebody_in_between_is_no_proof_of_an_end(world: World) -> None:
    ref = world.ref(world.running(), world.cloud.machine("m-1").id)
    world.cloud.garble_next_answer("virtual_machines_get")
    with pytest.raises(ProviderError) as caught:
        world.provider.sighting(ref)
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_listing_of_somebody_in_between_is_no_empty_list(world: World) -> None:
    world.running()
    world.cloud.garble_next_answer("virtual_machines_list")
    with pytest.raises(ProviderError) as caught:
        world.provider.observe(FLEET, [world.settings()])
    assert caught.value.error_class is ErrorClass.TRANSIENT
    world.cloud.garble_next_answer("virtual_machines_list_all")
    assert len(world.provider.observe(FLEET, [world.settings()]).sightings) == 1
    world.cloud.garble_next_answer("disks_list")
    with pytest.raises(ProviderError):
        world.provider.strays(FLEET, [world.settings()])
    world.cloud.garble_next_answer("prices")
    world.cloud.garble_next_answer("usage_list")
    assert world.provider.offers([world.settings()])


def test_groups_are_looked_at_side_by_side(world: World) -> None:
    names = [f"group-{number}" for number in range(8)]
    for name in names:
        world.cloud.add_group(name)
    clouds = [world.settings(group=name) for name in names]
    world.provider.observe(FLEET, clouds)
    world.cloud.latency_s = 0.3
    began = time.monotonic()
    assert world.provider.observe(FLEET, clouds).unknown == ()
    assert time.monotonic() - began < 8 * 0.3


def test_only_subscription_is_found_once(world: World) -> None:
    request = world.request()
    options = {"resource_group": "ml"}
    unnamed = replace(request, cloud=replace(request.cloud, options=options))
    begun = world.provider.launch(unnamed)
    assert begun == world.provider.launch(request)
    world.provider.observe(FLEET, [unnamed.cloud])
    assert world.calls("subscriptions_list") == 1


@pytest.mark.parametrize("subscriptions", [[], ["a", "b"]])
def test_subscription_must_be_clear(world: World, subscriptions: list[str]) -> None:
    world.cloud.subscriptions = subscriptions
    with pytest.raises(ProviderError) as caught:
        world.clients.place({"resource_group": "ml"})
    assert (caught.value.error_class, caught.value.raw_code) == (
        ErrorClass.INVALID,
        "NoSubscription",
    )


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "/subscriptions/S/resourceGroups/ML/providers/Microsoft.Compute/virtualMachines/vm-1",
            (Place("s", "ml"), "vm-1"),
        ),
        (
            "/SUBSCRIPTIONS/s/resourcegroups/ml/providers/Microsoft.Compute/disks/d",
            (Place("s", "ml"), "d"),
        ),
        ("/subscriptions/s/resourceGroups/ml", None),
        ("i-0123", None),
        ("", None),
    ],
)
def test_resource_ids_are_read_in_any_case(
    written: str, expected: tuple[Place, str] | None
) -> None:
    assert parse_id(written) == expected


@pytest.mark.parametrize(
    ("header", "seconds"), [("17", 17.0), ("0", 0.0), ("", 0.0), ("soon", 0.0)]
)
def test_retry_after_in_seconds(header: str, seconds: float) -> None:
    assert _retry_after_s(header) == seconds


def test_retry_after_as_a_date() -> None:
    assert _retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT") > 86_400
    assert _retry_after_s("Fri, 01 Jan 2021 00:00:00 GMT") == 0.0


def test_default_endpoint_is_the_public_cloud() -> None:
    endpoint = Endpoint()
    assert endpoint.url == "https://management.azure.com"
    assert endpoint.scope == "https://management.azure.com/.default"
    assert (endpoint.connect_s, endpoint.read_s) == (5, 20)
