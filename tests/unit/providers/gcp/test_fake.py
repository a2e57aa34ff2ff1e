"""The fake itself: it refuses what Compute refuses, and behaves as the real one does where that has
tripped others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import compute_v1

from providers.gcp.client import Client
from providers.gcp.launch import instance
from tests.fakes.gcp import discovery, filters
from tests.fakes.gcp.connection import to
from tests.unit.providers.gcp.conftest import PROJECT, ZONE, World

Json = dict[str, Any]
HERE = f"projects/{PROJECT}/zones/{ZONE}"
ID = "6f1c3f5e-53f0-5a43-9d0c-0e3a4f8f7f11"


@pytest.fixture
def client(world: World) -> Client:
    return Client(to(world.server.url))


def ask(world: World, verb: str, path: str, body: object = None) -> tuple[int, Json]:
    """A bare request."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{world.server.url}/{path}", data=data, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def body_of(world: World, **changes: object) -> Json:
    """A good instance in REST form, with some fields changed."""
    made = compute_v1.Instance(instance(world.request(), "#!/bin/sh", "1"))
    good: Json = json.loads(_shown(made))
    return good | changes


def _shown(made: compute_v1.Instance) -> str:
    return str(compute_v1.Instance.to_json(made, always_print_fields_with_no_presence=False))


def insert(world: World, body: Json, query: str = "") -> tuple[int, Json]:
    return ask(world, "POST", f"compute/v1/{HERE}/instances{query}", body)


def control(world: World, word: str, /, **arguments: object) -> Json:
    status, answered = ask(world, "POST", f"_control/{word}", arguments)
    assert status == 200, answered
    return answered


# ------------------------------------------------------------------------------ what it refuses


def test_good_instance_is_taken(world: World) -> None:
    status, operation = insert(world, body_of(world))
    assert (status, operation["status"], operation["operationType"]) == (200, "DONE", "insert")


REFUSED: Mapping[str, Json] = {
    "name in capitals": {"name": "Bad"},
    "name too long": {"name": "a" * 64},
    "name that ends in a dash": {"name": "a-"},
    "unknown field": {"colour": "red"},
    "number for a text": {"name": 7},
    "unknown word": {"scheduling": {"provisioningModel": "CHEAP"}},
    "machine type of another zone": {"machineType": "zones/us-east5-b/machineTypes/e2-standard-4"},
    "unknown machine type": {"machineType": f"zones/{ZONE}/machineTypes/e9"},
    "label value in capitals": {"labels": {"a": "B"}},
    "label key with a dot": {"labels": {"a.b": "c"}},
    "65 labels": {"labels": {f"a{n}": "" for n in range(65)}},
    "no disk": {"disks": []},
    "no network": {"networkInterfaces": []},
    "subnetwork elsewhere": {
        "networkInterfaces": [{"subnetwork": "projects/p/regions/us-west1/subnetworks/s"}]
    },
    "metadata too long": {"metadata": {"items": [{"key": "a", "value": "x" * 262_145}]}},
    "metadata key with a space": {"metadata": {"items": [{"key": "a b", "value": ""}]}},
    "account without scopes": {"serviceAccounts": [{"email": "a@b", "scopes": []}]},
    "spot that restarts": {
        "scheduling": {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE"}
    },
    "nothing to act on": {"scheduling": {"instanceTerminationAction": "DELETE"}},
    "limit in the past": {"scheduling": {"terminationTime": "2020-01-01T00:00:00Z"}},
    "GPUs for an E2": {
        "guestAccelerators": [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}]
    },
    "Hyperdisk machine on a usual disk": {
        "machineType": f"zones/{ZONE}/machineTypes/n4-standard-4",
    },
}


@pytest.mark.parametrize("why", sorted(REFUSED))
def test_strange_instances_are_refused(world: World, why: str) -> None:
    status, answered = insert(world, body_of(world, **REFUSED[why]))
    assert status == 400, answered
    assert world.empty()


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", f"compute/v1/{HERE}/instances?colour=red", 400),
        ("GET", f"compute/v1/{HERE}/instances?filter=colour=red", 400),
        ("GET", f"compute/v1/{HERE}/instances?filter=name", 400),
        ("GET", f"compute/v1/{HERE}/instances?maxResults=501", 400),
        ("GET", "compute/v1/projects/acme-ml/zones/moon-a/instances", 400),
        ("GET", f"compute/v1/{HERE}/instances/none", 404),
        ("GET", f"compute/v1/{HERE}/operations/none", 404),
        ("DELETE", f"compute/v1/{HERE}/instances/none", 404),
    ],
)
def test_strange_requests_are_refused(world: World, verb: str, path: str, expected: int) -> None:
    status, answered = ask(world, verb, path)
    assert status == expected
    assert answered["error"]["errors"][0]["reason"]


def test_what_is_no_method_gets_a_page(world: World) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"{world.server.url}/compute/v1/{HERE}/nothings", timeout=10)
    with caught.value as answer:
        assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("bad", ["x", "00000000-0000-0000-0000-000000000000"])
def test_request_ids_are_uuids(world: World, bad: str) -> None:
    assert insert(world, body_of(world), f"?requestId={bad}")[0] == 400


# --------------------------------------------------------------------------------- how it acts


def test_same_request_id_gives_the_same_operation_for_an_hour(world: World) -> None:
    body = body_of(world)
    first = insert(world, body, f"?requestId={ID}")[1]
    assert insert(world, body, f"?requestId={ID}")[1]["name"] == first["name"]
    assert insert(world, body | {"description": "other"}, f"?requestId={ID}")[0] == 400
    world.clock.advance(3601)
    assert insert(world, body, f"?requestId={ID}")[0] == 409


def test_name_is_taken_until_its_instance_is_gone(world: World) -> None:
    body = body_of(world)
    insert(world, body)
    status, answered = insert(world, body)
    assert (status, answered["error"]["errors"][0]["reason"]) == (409, "alreadyExists")
    ask(world, "DELETE", f"compute/v1/{HERE}/instances/{body['name']}")
    assert insert(world, body)[0] == 409
    world.clock.advance(60)
    assert insert(world, body)[0] == 200


def test_stockout_comes_inside_an_operation_that_is_done(world: World) -> None:
    world.cloud.set_capacity(0)
    world.cloud.operation_s = 30
    body = body_of(world)
    status, operation = insert(world, body)
    assert (status, operation["status"]) == (200, "PENDING")
    there = f"compute/v1/{HERE}/instances/{body['name']}"
    assert ask(world, "GET", there)[1]["status"] == "PROVISIONING"
    world.clock.advance(30)
    done = ask(world, "GET", f"compute/v1/{HERE}/operations/{operation['name']}")[1]
    assert (done["status"], done["httpErrorStatusCode"]) == ("DONE", 503)
    (error,) = done["error"]["errors"]
    assert error["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    assert error["errorDetails"][0]["errorInfo"]["reason"] == "resource_availability"
    assert ask(world, "GET", there)[0] == 404


@pytest.mark.parametrize("late", [False, True])
def test_quota_comes_at_once_or_in_the_operation(world: World, late: bool) -> None:
    world.cloud.set_quota("CPUS", 3, "us-east5")
    world.cloud.quota_in_operation = late
    status, answered = insert(world, body_of(world))
    assert status == (200 if late else 403)
    if late:
        assert answered["error"]["errors"][0]["code"] == "QUOTA_EXCEEDED"
    else:
        assert answered["error"]["errors"][0]["reason"] == "quotaExceeded"


def test_life_of_an_instance(world: World) -> None:
    body = body_of(world)
    insert(world, body)
    path, shown = f"compute/v1/{HERE}/instances/{body['name']}", []
    for _ in range(4):
        shown.append(ask(world, "GET", path)[1]["status"])
        world.clock.advance(5)
    assert shown == ["PROVISIONING", "STAGING", "STAGING", "RUNNING"]
    ask(world, "POST", f"{path}/stop")
    assert ask(world, "GET", path)[1]["status"] == "STOPPING"
    world.clock.advance(20)
    assert ask(world, "GET", path)[1]["status"] == "TERMINATED"
    assert ask(world, "DELETE", path)[1]["operationType"] == "delete"
    world.clock.advance(20)
    assert ask(world, "GET", path)[0] == 404


def test_preemption_by_the_simulated_event(world: World, client: Client) -> None:
    spot = {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE"}
    body = body_of(world, scheduling=spot | {"automaticRestart": False})
    insert(world, body)
    world.clock.advance(60)
    ask(world, "POST", f"compute/v1/{HERE}/instances/{body['name']}/simulateMaintenanceEvent")
    world.clock.advance(30)
    shown = ask(world, "GET", f"compute/v1/{HERE}/instances/{body['name']}")[1]
    assert shown["status"] == "TERMINATED", "without DELETE it stays, and its disk costs money"
    wanted = 'operationType="compute.instances.preempted" AND targetLink:instances/orchctl-m-1-1'
    (page,) = client.pages("ZoneOperations", "list", project=PROJECT, zone=ZONE, filter=wanted)
    (operation,) = page.items
    assert operation.user == "system"


def test_listing_lags_and_the_look_up_does_not(world: World) -> None:
    world.cloud.listing_lag(30)
    body = body_of(world)
    insert(world, body)
    listing = f"compute/v1/{HERE}/instances"
    assert ask(world, "GET", f"{listing}/{body['name']}")[0] == 200
    assert ask(world, "GET", listing)[1]["items"] == []
    world.clock.advance(30)
    assert len(ask(world, "GET", listing)[1]["items"]) == 1


def test_every_zone_says_something_in_an_aggregated_listing(world: World) -> None:
    insert(world, body_of(world))
    world.cloud.partial("us-west1-a")
    answered = ask(world, "GET", f"compute/v1/projects/{PROJECT}/aggregated/instances")[1]
    assert set(answered["items"]) == {f"zones/{zone}" for zone in world.cloud.stock.kinds}
    assert len(answered["items"][f"zones/{ZONE}"]["instances"]) == 1
    warnings = {
        place: part["warning"]["code"]
        for place, part in answered["items"].items()
        if "warning" in part
    }
    assert warnings.pop("zones/us-west1-a") == "UNREACHABLE"
    assert set(warnings.values()) == {"NO_RESULTS_ON_PAGE"}
    assert answered["unreachables"] == ["zones/us-west1-a"]


BULK = {
    "count": "3",
    "namePattern": "vm-##",
}


def test_bulk_insert_makes_all_or_none(world: World) -> None:
    properties = {k: v for k, v in body_of(world).items() if k != "name"}
    asked = BULK | {"instanceProperties": properties | {"machineType": "e2-standard-4"}}
    status, operation = ask(world, "POST", f"compute/v1/{HERE}/instances/bulkInsert", asked)
    assert (status, operation["operationType"]) == (200, "bulkInsert")
    assert sorted(vm.name for vm in world.cloud.vms.values()) == ["vm-01", "vm-02", "vm-03"]
    world.cloud.set_capacity(4)
    again = asked | {"namePattern": "other-##"}
    refused = ask(world, "POST", f"compute/v1/{HERE}/instances/bulkInsert", again)[1]
    assert refused["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert len(world.cloud.machines()) == 3


def test_regional_bulk_insert_looks_for_a_zone_with_room(world: World) -> None:
    properties = {k: v for k, v in body_of(world).items() if k != "name"}
    asked = BULK | {"instanceProperties": properties | {"machineType": "e2-standard-4"}}
    path = f"compute/v1/projects/{PROJECT}/regions/us-east5/instances/bulkInsert"
    world.cloud.set_capacity(0, zone="us-east5-a")
    assert ask(world, "POST", path, asked)[0] == 200
    assert {vm.zone for vm in world.cloud.vms.values()} == {"us-east5-b"}
    world.cloud.set_capacity(0)
    status, answered = ask(world, "POST", path, asked | {"namePattern": "x-#"})
    assert (status, answered["error"]["errors"][0]["reason"]) == (503, "insufficientCapacity")


def test_what_is_sold_where(world: World, client: Client) -> None:
    kind = client.call(
        "MachineTypes", "get", project=PROJECT, zone="us-east5-b", machine_type="a2-ultragpu-1g"
    )
    assert (kind.guest_cpus, kind.accelerators[0].guest_accelerator_type) == (
        12,
        "nvidia-a100-80gb",
    )
    region = client.call("Regions", "get", project=PROJECT, region="us-east5")
    assert region.quotas
    assert {zone.rpartition("/")[2] for zone in region.zones} == set(
        world.cloud.stock.regions()["us-east5"]
    )
    zones = client.call("Zones", "list", project=PROJECT)
    assert len({zone.name for zone in zones}) == len(world.cloud.stock.kinds)


# --------------------------------------------------------------------------------- by the side


def test_trouble_can_be_made_from_another_process(world: World) -> None:
    control(world, "set_capacity", machines=0, machine_type="e2-standard-4")
    assert "error" in insert(world, body_of(world))[1]
    control(world, "set_capacity", machines=None, machine_type="e2-standard-4")
    insert(world, body_of(world))
    (machine,) = control(world, "machines")["result"]
    assert (machine["status"], machine["startup"]) == ("PROVISIONING", "#!/bin/sh")
    control(world, "advance", seconds=60)
    control(world, "guest_shutdown", name=machine["name"])
    control(world, "advance", seconds=60)
    assert control(world, "resources")["result"]["stopped"] == [machine["name"]]


def test_it_can_be_run_by_hand() -> None:
    command = [sys.executable, "-m", "tests.fakes.gcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        moved = urllib.request.Request(f"{url}/_control/advance", data=b'{"seconds": 60}')
        with urllib.request.urlopen(moved, timeout=10) as answer:
            assert answer.status == 200
        process.terminate()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("no_such", {}), ("advance", {"years": 1}), ("preempt", {"name": "nobody"})],
)
def test_strange_controls_are_refused(world: World, name: str, arguments: Json) -> None:
    assert ask(world, "POST", f"_control/{name}", arguments)[0] in (400, 404)


# ------------------------------------------------------------------------------------- filters

THING = {"name": "a-1", "status": "RUNNING", "labels": {"x-y": "1", "z": "two words"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("labels.x-y=1", True),
        ('labels.x-y="1"', True),
        ("labels.x-y=2", False),
        ("labels.x-y:*", True),
        ("labels.w:*", False),
        ('labels.z="two words"', True),
        ("status=RUNNING AND labels.x-y=1", True),
        ("(status=RUNNING) (labels.x-y=2)", False),
        ("status=STOPPED OR name=a-1", True),
        ("(status=STOPPED OR name=a-1) AND labels.x-y!=1", False),
        ("name:a-", True),
        ('name eq "a-[0-9]"', True),
        ("name eq a-", False),
        ("(name ne b) (status eq R.*)", True),
    ],
)
def test_filters(text: str, expected: bool) -> None:
    fields = discovery.field_names("Instance")
    assert filters.parse(text, fields)(THING) is expected


@pytest.mark.parametrize(
    "text",
    ["colour=red", "name=", "name", "(name=a", "name=a AND status=b OR id=c", "name eq a AND id=1"],
)
def test_strange_filters_are_refused(text: str) -> None:
    with pytest.raises(discovery.ApiError):
        filters.parse(text, discovery.field_names("Instance"))


def test_client_reads_what_the_fake_answers(world: World, client: Client) -> None:
    reads: list[Callable[[], object]] = [
        lambda: client.call("Projects", "get", project=PROJECT),
        lambda: list(client.pages("AcceleratorTypes", "aggregated_list", project=PROJECT)),
        lambda: list(client.pages("MachineTypes", "aggregated_list", project=PROJECT)),
        lambda: client.call(
            "Advice",
            "capacity",
            project=PROJECT,
            region="us-east5",
            capacity_advice_request_resource={"size": 2},
        ),
    ]
    for read in reads:
        assert read()


def test_error_class_of_the_client_hides_the_reason(world: World) -> None:
    """403 is one class for a quota, a rate and a right; only the reason tells them apart."""
    fake = to(world.server.url)
    service = compute_v1.InstancesClient(
        credentials=fake.credentials, client_options={"api_endpoint": fake.endpoint}
    )
    for reason in ("quotaExceeded", "rateLimitExceeded", "forbidden"):
        world.cloud.fail_next(reason)
        with pytest.raises(exceptions.Forbidden) as caught:
            service.get(project=PROJECT, zone=ZONE, instance="x")
        assert caught.value.errors[0]["reason"] == reason
