"""The fake refuses what Azure refuses, and the SDK as it comes out of the box works against it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ServiceRequestError
from azure.mgmt.compute import ComputeManagementClient

from control_plane.core.model import Market
from providers.azure.body import vm_body
from providers.azure.client import COMPUTE_API, Place
from tests.fakes.azure import checks, specs
from tests.fakes.azure.cloud import SUBSCRIPTION
from tests.fakes.azure.connection import FakeCredential
from tests.fakes.clock import RunningClock
from tests.unit.providers.azure.conftest import FLEET, GROUP, World

PLACE = Place(SUBSCRIPTION, GROUP)


@pytest.fixture
def plain_sdk(world: World) -> Iterator[ComputeManagementClient]:
    """The SDK's client with its own pipeline: retries, polling and all."""
    with ComputeManagementClient(
        FakeCredential(world.cloud.token),
        SUBSCRIPTION,
        base_url=world.server.url,
        credential_scopes=[f"{world.server.url}/.default"],
        connection_verify=world.server.ca_file,
    ) as client:
        yield client


def body(world: World, **words: Any) -> dict[str, Any]:
    return vm_body(world.request(**words), PLACE, "#!/bin/sh\n")


def refused(client: ComputeManagementClient, name: str, made: dict[str, Any]) -> HttpResponseError:
    with pytest.raises(HttpResponseError) as caught:
        client.virtual_machines.begin_create_or_update(GROUP, name, made)  # type: ignore[call-overload]
    return caught.value


# ------------------------------------------------------------------------------ the SDK's traps


def test_sdk_polls_a_launch_and_an_end_through(
    world: World, plain_sdk: ComputeManagementClient
) -> None:
    world.cloud.clock = RunningClock()
    world.cloud.provision_s = world.cloud.delete_s = 0.05
    machines = plain_sdk.virtual_machines
    poller = machines.begin_create_or_update(GROUP, "vm-1", body(world))  # type: ignore[call-overload]
    assert poller.status() == "InProgress"
    token = poller.continuation_token()
    assert len(token) > 4000, "why a launch keeps the machine's name, not this"
    made = poller.result()
    assert (made.name, made.properties.provisioning_state) == ("vm-1", "Succeeded")
    machines.begin_delete(GROUP, "vm-1").result()
    assert world.kinds() == []


def test_sdk_tells_a_failed_operation_by_its_error(
    world: World, plain_sdk: ComputeManagementClient
) -> None:
    world.cloud.clock = RunningClock()
    world.cloud.provision_s = 0.2
    world.cloud.wrapped_errors = True
    world.cloud.set_capacity(0)
    made = body(world, market=Market.ON_DEMAND)
    poller = plain_sdk.virtual_machines.begin_create_or_update(GROUP, "vm-1", made)  # type: ignore[call-overload]
    with pytest.raises(HttpResponseError) as caught:
        poller.result()
    assert caught.value.error is not None
    assert caught.value.error.code == "ResourceOperationFailure"
    assert caught.value.error.details[0].code == "AllocationFailed"
    assert "vm" in world.kinds(), "the machine that failed stays"


def test_every_conflict_is_one_class_of_the_sdk(
    world: World, plain_sdk: ComputeManagementClient
) -> None:
    world.cloud.set_capacity(0)
    error = refused(plain_sdk, "vm-1", body(world))
    assert isinstance(error, ResourceExistsError)
    assert error.error is not None
    assert error.error.code == "SkuNotAvailable"


def test_sdk_by_itself_repeats_a_throttled_call(
    world: World, plain_sdk: ComputeManagementClient
) -> None:
    world.cloud.fail_next("TooManyRequests", status=429, retry_after_s=0)
    assert list(plain_sdk.virtual_machines.list(GROUP)) == []
    assert world.calls("virtual_machines_list") == 2


def test_sdk_sends_no_token_without_tls(world: World) -> None:
    client = ComputeManagementClient(
        FakeCredential(world.cloud.token),
        SUBSCRIPTION,
        base_url=world.server.url.replace("https", "http"),
        credential_scopes=["any"],
        retry_total=0,
    )
    with client, pytest.raises(ServiceRequestError, match="non-TLS"):
        list(client.virtual_machines.list(GROUP))
    assert world.cloud.calls == []


def test_put_without_a_condition_is_an_update(
    world: World, plain_sdk: ComputeManagementClient
) -> None:
    """Why every launch is sent with `If-None-Match: *`."""
    machines, made = plain_sdk.virtual_machines, body(world)
    machines.begin_create_or_update(GROUP, "vm-1", made, polling=False)  # type: ignore[call-overload]
    changed = made | {"tags": {"orchctl-key": "another"}}
    machines.begin_create_or_update(GROUP, "vm-1", changed, polling=False)  # type: ignore[call-overload]
    assert world.cloud.machine("vm-1").tags == {"orchctl-key": "another"}
    with pytest.raises(ResourceExistsError) as caught:
        machines.begin_create_or_update(  # type: ignore[call-overload]
            GROUP, "vm-1", made, polling=False, match_condition=MatchConditions.IfMissing
        )
    assert caught.value.status_code == 412


# ------------------------------------------------------------------------------ what it refuses


def changed(path: str, value: object) -> Any:
    def change(made: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        inner: Any = made
        for each in parents:
            inner = inner[int(each)] if each.isdecimal() else inner[each]
        inner[last] = value

    return pytest.param(change, id=f"{path}={str(value)[:30]}")


INTERFACE = "properties/networkProfile/networkInterfaceConfigurations/0"
WRONG = [
    changed("properties/priority", 3),
    changed("properties/surprise", "x"),
    changed("properties/vmId", "mine"),
    changed("properties/provisioningState", "Succeeded"),
    changed("location", None),
    changed("location", "atlantis"),
    changed("zones", ["4"]),
    changed("properties/hardwareProfile/vmSize", "Standard_Nothing"),
    changed("properties/osProfile/computerName", "with.dots"),
    changed("properties/osProfile/computerName", "x" * 65),
    changed("properties/osProfile/customData", "not base64!"),
    changed("properties/osProfile/customData", "QUFB" * 30_000),
    changed("properties/osProfile/linuxConfiguration/ssh/publicKeys", []),
    changed("properties/storageProfile/osDisk/diskSizeGB", 1),
    changed("properties/storageProfile/osDisk/name", "-bad-"),
    changed("properties/evictionPolicy", "Explode"),
    changed(f"{INTERFACE}/name", "-bad-"),
    changed(f"{INTERFACE}/properties/ipConfigurations/0/properties", {}),
    changed("tags", {"a/b": "c"}),
    changed("tags", {"a": "c" * 257}),
    changed("tags", {f"t{number}": "" for number in range(51)}),
]


@pytest.mark.parametrize("change", WRONG)
def test_wrong_body_is_refused(world: World, change: Any) -> None:
    made = deepcopy(body(world))
    assert specs.wrong_in_machine("vm-1", made) == checks.wrong_values("vm-1", made) == ""
    change(made)
    assert put(world, made)["code"] == "InvalidParameter"
    assert world.kinds() == []


def put(world: World, made: dict[str, Any]) -> dict[str, Any]:
    """Sent as it is: the SDK leaves out what is read-only."""
    path = f"{PLACE.vm_id('vm-1')}?api-version={COMPUTE_API}"
    return dict(asked(world, path, "PUT", made)["error"])


def asked(
    world: World, path: str, method: str = "GET", made: object = None, token: str = ""
) -> dict[str, Any]:
    request = urllib.request.Request(
        world.server.url + path,
        method=method,
        data=json.dumps(made).encode() if made is not None else None,
        headers={"Authorization": f"Bearer {token or world.cloud.token}"},
    )
    trusted = ssl.create_default_context(cafile=world.server.ca_file)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted))
    try:
        with opener.open(request) as answer:
            return dict(json.loads(answer.read() or b"{}"))
    except urllib.error.HTTPError as error:
        with error:
            return dict(json.loads(error.read()))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"{PLACE.vm_id('x')}?api-version=2020-01-01", "InvalidApiVersionParameter"),
        (f"{PLACE.vm_id('x')}?api-version={COMPUTE_API}&a=b", "InvalidApiVersionParameter"),
        (f"{PLACE.path}/Microsoft.Compute/unheardOf?api-version=1", "InvalidResourceType"),
        (f"{PLACE.vm_id('x')}?api-version={COMPUTE_API}", "ResourceNotFound"),
        ("/api/retail/prices?$filter=a%20ne%20'b'", "BadRequest"),
        ("/api/retail/prices?$filter=armregionname%20eq%20'eastus'", "BadRequest"),
    ],
)
def test_wrong_address_is_refused(world: World, path: str, code: str) -> None:
    assert asked(world, path)["error"]["code"] == code


def test_wrong_token_is_refused(world: World) -> None:
    path = f"{PLACE.vm_id('x')}?api-version={COMPUTE_API}"
    assert asked(world, path, token="other")["error"]["code"] == "InvalidAuthenticationToken"


def test_answer_that_breaks_the_schema_is_noticed(world: World) -> None:
    world.running()
    world.cloud.machine("m-1").body["surprise"] = 1
    world.provider.sighting(world.ref(world.request()))
    assert "surprise" in world.cloud.invalid.pop(0)
    world.cloud.invalid.clear()


def test_answers_are_checked(world: World) -> None:
    world.running()
    world.provider.observe(FLEET, [world.settings()])
    world.provider.offers([world.settings()])
    world.provider.strays(FLEET, [world.settings()])
    assert world.cloud.answers_checked > 40


def test_other_calls_of_the_api_are_there(world: World, plain_sdk: ComputeManagementClient) -> None:
    world.running()
    name = world.cloud.machine("m-1").name
    view = plain_sdk.virtual_machines.instance_view(GROUP, name)
    assert [status.code for status in view.statuses or ()] == [
        "ProvisioningState/succeeded",
        "PowerState/running",
    ]
    command: Any = {"commandId": "RunShellScript", "script": ["true"]}
    result = plain_sdk.virtual_machines.begin_run_command(GROUP, name, command, polling=False)
    assert result.result() is not None


# ----------------------------------------------------------------------------- from elsewhere


def test_fake_is_driven_from_another_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.azure"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url, ca_file = server.stdout.readline().split()
        trusted = ssl.create_default_context(cafile=ca_file)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted))

        def control(name: str, **arguments: object) -> Any:
            data = json.dumps(arguments).encode()
            with opener.open(f"{url}/_control/{name}", data) as answer:
                return json.loads(answer.read())

        control("set_capacity", capacity=0, size="Standard_NC4as_T4_v3")
        control("settings", provision_s=0)
        control("advance", seconds=60)
        assert control("machines") == []
        assert control("resources") == []
        with pytest.raises(urllib.error.HTTPError) as caught:
            control("group_of", resource_id="x")
        caught.value.close()
        server.terminate()
