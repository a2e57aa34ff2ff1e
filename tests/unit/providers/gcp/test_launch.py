"""What is asked of the cloud for one launch, as the fake received it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.config.load import load_text
from control_plane.core.model import ErrorClass, Market
from control_plane.ports import LaunchRequest
from providers.gcp.launch import instance, machine_type, request_id, sold_on_demand
from providers.gcp.prices import catalogue
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.discovery import Json
from tests.fakes.gcp.stock import SPOT_ONLY
from tests.unit.providers.gcp.conftest import ACCOUNT, World, offer, refused


def asked(world: World, request: LaunchRequest) -> Json:
    """The one VM of the fake, as it was asked for."""
    world.provider().launch(request)
    (machine,) = world.cloud.machines()
    body: Json = machine["request"]
    return body


def test_sdk_is_not_loaded_with_the_provider() -> None:
    code = (
        "import sys, providers.gcp.provider as p; p.GcpProvider().offers();"
        "print([m for m in sys.modules if m.startswith(('google', 'grpc', 'requests'))])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_labels_are_on_the_machine_and_its_disk(world: World) -> None:
    request = world.request(fleet="my fleet = x")
    body = asked(world, request)
    assert body["labels"] == {
        "orchctl-fleet": "my_20fleet_20_3d_20x",
        "orchctl-machine": "m-1",
        "orchctl-key": "m-1_2e1",
        "orchctl-pool": "gpu",
        "orchctl-deadline": str(int(request.deadline.timestamp())),
        "orchctl-version": "1_2e2_2e3",
    }
    assert body["disks"][0]["initializeParams"]["labels"] == body["labels"]


def test_disk_goes_with_its_machine(world: World) -> None:
    disk = asked(world, world.request())["disks"][0]
    assert (disk["boot"], disk["autoDelete"]) == (True, True)
    assert disk["initializeParams"]["diskSizeGb"] == "100"


def test_spot_is_bought_as_spot(world: World) -> None:
    spot = offer("a3-highgpu-1g", market=Market.SPOT)
    scheduling = asked(world, world.request(wanted=spot))["scheduling"]
    assert scheduling["provisioningModel"] == "SPOT"
    assert scheduling["onHostMaintenance"] == "TERMINATE"
    assert scheduling["automaticRestart"] is False


@pytest.mark.parametrize("market", [Market.SPOT, Market.ON_DEMAND])
def test_cloud_itself_ends_a_machine_at_its_deadline(world: World, market: Market) -> None:
    request = world.request(wanted=offer("g2-standard-4", zone="us-central1-a", market=market))
    scheduling = asked(world, request)["scheduling"]
    assert scheduling["instanceTerminationAction"] == "DELETE"
    world.clock.advance_to(request.deadline + timedelta(seconds=60))
    assert world.empty()


@pytest.mark.parametrize(
    ("gpu", "instance_type", "count", "name"),
    [
        ("T4", "n1-standard-16", 2, "nvidia-tesla-t4"),
        ("V100", "n1-standard-8", 1, "nvidia-tesla-v100"),
        ("P100", "n1-standard-16", 2, "nvidia-tesla-p100"),
        ("P4", "n1-standard-32", 4, "nvidia-tesla-p4"),
    ],
)
def test_n1_gets_the_gpus_of_its_offer(
    world: World, gpu: str, instance_type: str, count: int, name: str
) -> None:
    zones = {each.zone for each in catalogue() if each.capacity.gpu_name == gpu}
    wanted = offer(instance_type, zone=min(zones), gpu=gpu)
    (added,) = asked(world, world.request(wanted=wanted))["guestAccelerators"]
    assert added["acceleratorType"].endswith(f"/acceleratorTypes/{name}")
    assert added["acceleratorCount"] == count == wanted.capacity.gpus


def test_n1_with_a_gpu_that_cannot_be_added_is_invalid(world: World, provider: GcpProvider) -> None:
    known = offer("n1-standard-4", zone="europe-west2-a", gpu="T4")
    strange = replace(known, capacity=replace(known.capacity, gpu_name="H100"))
    error = refused(lambda: provider.launch(world.request(wanted=strange)))
    assert error.error_class is ErrorClass.INVALID
    assert world.empty()


def test_n1_without_gpus_asks_for_none(world: World) -> None:
    known = offer("n1-standard-4", zone="europe-west2-a", gpu="T4")
    plain = replace(known.capacity, gpus=0, gpu_name="", gpu_memory_gib=0)
    body = asked(world, world.request(wanted=replace(known, capacity=plain)))
    assert "guestAccelerators" not in body


def test_machines_with_gpus_of_their_own_ask_for_none(world: World) -> None:
    wanted = offer("a2-ultragpu-1g", zone="us-east5-b")
    assert "guestAccelerators" not in asked(world, world.request(wanted=wanted))


@pytest.mark.parametrize("instance_type", ["n4-standard-4", "g4-standard-48", "e2-standard-4"])
def test_boot_disk_is_of_a_kind_the_machine_starts_from(world: World, instance_type: str) -> None:
    body = asked(world, world.request(wanted=offer(instance_type)))
    hyperdisk = "hyperdisk" in body["disks"][0]["initializeParams"]["diskType"]
    assert hyperdisk == (instance_type != "e2-standard-4")


def test_whole_catalogue_can_be_launched(world: World, provider: GcpProvider) -> None:
    """Each type on each market once, where the fake sells it."""
    sold = {
        (each.instance_type, each.market): each
        for each in catalogue()
        if machine_type(each.instance_type) in world.cloud.stock.kinds[each.zone]
    }
    for number, each in enumerate(sold.values()):
        provider.launch(world.request(f"m-{number}", wanted=each))
    assert set(sold) == {(each.instance_type, each.market) for each in catalogue()}
    assert len(world.names()) == len(sold) > 60


def test_what_is_never_sold_on_demand_is_not_offered_so() -> None:
    spot_only = {
        kind for kind in {each.instance_type for each in catalogue()} if kind.startswith(SPOT_ONLY)
    }
    assert {"a3-highgpu-1g", "a3-ultragpu-8g", "a4-highgpu-8g"} <= spot_only
    for each in catalogue():
        assert each.market is Market.SPOT or each.instance_type not in spot_only
    assert not sold_on_demand("a4x-highgpu-4g")
    assert sold_on_demand("a3-highgpu-8g")


def test_network_of_ones_own(world: World) -> None:
    subnet = "projects/host/regions/{region}/subnetworks/gpu"
    request = world.request(network="ml", subnetwork=subnet, public_ip="false")
    (network,) = asked(world, request)["networkInterfaces"]
    assert network == {
        "network": "projects/acme-ml/global/networks/ml",
        "subnetwork": "projects/host/regions/us-east5/subnetworks/gpu",
    }


DOCUMENT = """
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues: {default: {pools: [gpu]}}
pools:
  gpu:
    gpu: L4:1
    clouds:
      gcp:
        regions: [us-east5]
        project: acme-ml
        subnetwork: projects/host/regions/{region}/subnetworks/gpu
        service_account: other@acme-ml.iam.gserviceaccount.com
        image: projects/acme-ml/global/images/family/gpu
        public_ip: false
"""


def test_settings_of_a_document_reach_the_cloud(world: World) -> None:
    (cloud,) = load_text(DOCUMENT).clouds
    body = asked(world, replace(world.request(), cloud=cloud))
    assert body["networkInterfaces"] == [
        {"subnetwork": "projects/host/regions/us-east5/subnetworks/gpu"}
    ]
    assert body["serviceAccounts"][0]["email"] == "other@acme-ml.iam.gserviceaccount.com"
    image = body["disks"][0]["initializeParams"]["sourceImage"]
    assert image == "projects/acme-ml/global/images/family/gpu"


def test_network_by_default(world: World) -> None:
    (network,) = asked(world, world.request())["networkInterfaces"]
    assert network["network"].endswith("/global/networks/default")
    assert network["accessConfigs"] == [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}]


def test_plain_subnetwork_is_of_the_project_and_region(world: World) -> None:
    (network,) = asked(world, world.request(subnetwork="gpu"))["networkInterfaces"]
    assert network["subnetwork"] == "projects/acme-ml/regions/us-east5/subnetworks/gpu"
    assert "network" not in network


def test_account_of_ones_own_has_the_rights_it_was_given(world: World) -> None:
    (account,) = asked(world, world.request())["serviceAccounts"]
    assert account == {
        "email": ACCOUNT,
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }


def test_default_account_may_only_say_who_it_is(world: World) -> None:
    (account,) = asked(world, world.request(service_account=""))["serviceAccounts"]
    assert account == {
        "email": "default",
        "scopes": ["https://www.googleapis.com/auth/userinfo.email"],
    }


def test_image_of_ones_own(world: World) -> None:
    image = "projects/acme-ml/global/images/family/gpu"
    body = asked(world, world.request(image=image))
    assert body["disks"][0]["initializeParams"]["sourceImage"] == image


def test_start_up_text_is_the_agents(world: World) -> None:
    world.provider().launch(world.request())
    (machine,) = world.cloud.machines()
    assert machine["startup"].startswith("#!/bin/sh")
    assert "https://orchctl.example" in machine["startup"]


def test_start_up_text_that_is_too_long_is_refused_here(world: World) -> None:
    error = refused(lambda: instance(world.request(), "x" * 262_145, "1"))
    assert error.error_class is ErrorClass.INVALID
    assert instance(world.request(), "x" * 262_144, "1")


def test_request_without_a_project_is_invalid(world: World, provider: GcpProvider) -> None:
    error = refused(lambda: provider.launch(world.request(project="")))
    assert error.error_class is ErrorClass.INVALID
    assert "project" in str(error)


def test_offer_without_a_zone_is_invalid(world: World, provider: GcpProvider) -> None:
    request = world.request(wanted=replace(offer(), zone=""))
    assert refused(lambda: provider.launch(request)).error_class is ErrorClass.INVALID
    assert world.empty()


def test_same_request_has_the_same_id_and_any_other_another(world: World) -> None:
    def made(request: LaunchRequest, failures: int = 0) -> str:
        return request_id(instance(request, "#!/bin/sh", "1"), failures)

    request = world.request()
    assert made(request) == made(world.request())
    others = [
        made(request, 1),
        made(world.request(attempt=2)),
        made(replace(request, disk_gib=101)),
        made(replace(request, deadline=request.deadline + timedelta(seconds=1))),
    ]
    assert len({made(request), *others}) == 5


def test_instance_of_somebody_else_under_our_name_is_not_ours(
    world: World, provider: GcpProvider
) -> None:
    provider.launch(world.request())
    (vm,) = world.cloud.vms.values()
    vm.body["labels"] = {"owner": "somebody"}
    error = refused(lambda: provider.launch(world.request()))
    assert error.error_class is ErrorClass.INVALID
    assert len(world.cloud.machines()) == 1


def test_request_is_plain_json(world: World) -> None:
    assert json.dumps(instance(world.request(), "#!/bin/sh", "1"))
