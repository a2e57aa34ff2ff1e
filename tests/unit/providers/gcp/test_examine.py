"""`examine` on a fake cloud: all is well, or exactly what is broken fails, with what mends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.model import Market, Offer
from control_plane.ports import Check, Examiner
from providers.gcp.launch import DEFAULT_IMAGE
from providers.gcp.prices import catalogue
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.connection import to
from tests.unit.providers.gcp.conftest import PROJECT, World

REGION, OTHER = "us-central1", "us-east5"
GROUP_OF = f"projects/{PROJECT}/regions/{REGION}/subnetworks"
READS = f"permission compute reads {REGION}"
L4 = "NVIDIA_L4_GPUS"

Break = Callable[[World], object]


def _offers(*types: str) -> Sequence[Offer]:
    types = types or ("g2-standard-4", "e2-standard-4")
    return [offer for offer in catalogue() if offer.instance_type in types]


def _checks(world: World, *regions: str, **options: str) -> list[Check]:
    return _examined(world, _offers(), *regions, **options)


def _examined(world: World, offers: Sequence[Offer], *regions: str, **options: str) -> list[Check]:
    clouds = world.clouds(*(regions or (REGION,)), **options)
    found = list(world.provider().examine(clouds, offers))
    assert world.empty(), "an examination makes nothing"
    for check in found:
        assert bool(check.fix) is not check.ok, f"{check.name}: a failure has a fix, and only it"
    return found


def _failed(world: World, *regions: str, **options: str) -> Mapping[str, str]:
    """What failed, and what mends it."""
    return {c.name: c.fix for c in _checks(world, *regions, **options) if not c.ok}


def _detail(checks: Sequence[Check], name: str) -> str:
    return next(check.detail for check in checks if check.name == name)


def test_all_is_well(world: World) -> None:
    assert isinstance(world.provider(), Examiner)
    checks = _checks(world, REGION, OTHER)
    assert all(check.ok for check in checks)
    assert [check.name for check in checks] == [
        "sdk",
        "credentials",
        READS,
        f"permission compute reads {OTHER}",
        "permission compute.instances.create",
        f"quota {REGION} CPUS",
        f"quota {REGION} {L4}",
        f"quota {OTHER} CPUS",
        "quota GPUS_ALL_REGIONS",
        "image",
        f"network {REGION}",
        f"network {OTHER}",
        "clock",
    ]
    assert "compute.instances.create" in _detail(checks, "permission compute.instances.create")
    assert _detail(checks, "image").startswith("common-cu")
    assert set(world.cloud.calls) == {
        "acceleratorTypes.list",
        "addresses.aggregatedList",
        "disks.aggregatedList",
        "images.getFromFamily",
        "instances.aggregatedList",
        "machineTypes.list",
        "networks.get",
        "projects.get",
        "regions.get",
        "zoneOperations.list",
    }


def _fail(code: str, call: str = "") -> Break:
    return lambda world: world.cloud.fail_next(code, times=99, call=call)


def _lose(path: str) -> Break:
    return lambda world: world.cloud.lose(path)


def _limit(limit: float, *metrics: str, region: str = REGION) -> Break:
    limits = {(region, metric): limit for metric in metrics}
    return lambda world: world.cloud.quotas.update(limits)


ASK = f"gcloud quotas preferences create --project {PROJECT} --service compute.googleapis.com"
BROKEN: Mapping[str, tuple[Break, str, str]] = {
    "credentials": (_fail("authError"), "credentials", "gcloud auth application-default login"),
    "project": (
        lambda world: world.cloud.forbid(PROJECT),
        READS,
        f"gcloud projects add-iam-policy-binding {PROJECT}",
    ),
    "one right": (
        _fail("forbidden", "disks.aggregatedList"),
        READS,
        f"gcloud iam roles create orchctl --project {PROJECT} --permissions ",
    ),
    "no API": (
        _fail("accessNotConfigured"),
        READS,
        f"gcloud services enable compute.googleapis.com --project {PROJECT}",
    ),
    "no bill": (_fail("billingNotEnabled"), READS, f"gcloud billing projects link {PROJECT}"),
    "no GPUs": (
        _limit(0, L4, f"PREEMPTIBLE_{L4}"),
        f"quota {REGION} {L4}",
        f"{ASK} --quota-id NVIDIA-L4-GPUS-per-project-region "
        f"--dimensions region={REGION} --preferred-value 1",
    ),
    "no GPUs at all": (
        _limit(0, "GPUS_ALL_REGIONS", region=""),
        "quota GPUS_ALL_REGIONS",
        f"{ASK} --quota-id GPUS-ALL-REGIONS-per-project --preferred-value 1",
    ),
    "too few CPUs": (
        _limit(3, "CPUS", "PREEMPTIBLE_CPUS"),
        f"quota {REGION} CPUS",
        f"--quota-id CPUS-per-project-region --dimensions region={REGION} --preferred-value 4",
    ),
    "image": (_lose(DEFAULT_IMAGE), "image", "gcloud compute images list"),
    "denied image": (
        _fail("forbidden", "images.getFromFamily"),
        "image",
        "--role roles/compute.imageUser",
    ),
    "network": (
        _lose(f"projects/{PROJECT}/global/networks/default"),
        f"network {REGION}",
        f"gcloud compute networks create default --project {PROJECT}",
    ),
    "subnetwork": (
        _lose(f"{GROUP_OF}/default"),
        f"network {REGION}",
        f"gcloud compute networks subnets create default --project {PROJECT} --region {REGION}",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_fails_and_nothing_else(world: World, what: str) -> None:
    break_it, name, fix = BROKEN[what]
    break_it(world)
    failed = _failed(world)

    assert list(failed) == [name]
    assert fix in failed[name]


OPTIONS: Mapping[str, tuple[Mapping[str, str], str, str]] = {
    "image": ({"image": "projects/acme-ml/global/images/gone"}, "image", "images list"),
    "subnetwork": ({"subnetwork": "gone"}, f"network {REGION}", "networks subnets create gone"),
    "elsewhere": (
        {"subnetwork": f"projects/acme-ml/regions/{OTHER}/subnetworks/ml"},
        f"network {REGION}",
        f"networks subnets create ml --project acme-ml --region {REGION}",
    ),
    "network": ({"network": "gone"}, f"network {REGION}", "networks create gone"),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_document_that_names_what_is_not_there(world: World, what: str) -> None:
    for path in (
        "global/images/gone",
        "global/networks/gone",
        f"regions/{REGION}/subnetworks/gone",
    ):
        world.cloud.lose(f"projects/{PROJECT}/{path}")
    options, name, fix = OPTIONS[what]
    failed = _failed(world, **options)
    assert list(failed) == [name]
    assert fix in failed[name]


@pytest.mark.parametrize(
    "options",
    [
        {"image": f"projects/{PROJECT}/global/images/gpu-v1"},
        {"image": "global/images/family/gpu"},
        {"subnetwork": "projects/net/regions/{region}/subnetworks/gpu"},
        {"network": "projects/net/global/networks/ml"},
    ],
)
def test_all_forms_of_names_are_read(world: World, options: Mapping[str, str]) -> None:
    assert not _failed(world, REGION, OTHER, **options)


def test_without_the_sdk_nothing_else_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.compute_v1", None)
    (check,) = _checks(world)
    assert (check.name, check.fix) == ("sdk", "pip install 'orchctl[gcp]'")
    assert not world.cloud.calls


def test_a_region_that_there_is_not_is_told_once(world: World) -> None:
    failed = _failed(world, REGION, "us-middle1")
    assert list(failed) == ["permission compute reads us-middle1"]


def test_a_region_that_is_silent_hides_no_other(world: World) -> None:
    world.cloud.partial(OTHER)
    assert list(_failed(world, REGION, OTHER)) == [f"permission compute reads {OTHER}"]


def test_clock(world: World) -> None:
    late = GcpProvider(
        to(world.server.url), now=lambda: world.clock.now() + timedelta(minutes=1), version="1"
    )
    failed = [c for c in late.examine(world.clouds(REGION), _offers()) if not c.ok]
    assert [(c.name, c.detail) for c in failed] == [("clock", "60 s from the cloud's")]


def test_the_larger_of_both_quotas_counts(world: World) -> None:
    world.cloud.set_quota(L4, 0, REGION)
    world.cloud.set_quota(f"PREEMPTIBLE_{L4}", 2, REGION)
    checks = _examined(world, _offers("g2-standard-4", "g2-standard-48"))
    assert all(check.ok for check in checks)
    detail = _detail(checks, f"quota {REGION} {L4}")
    assert detail == "limit 2: too few for g2-standard-48, which has 4"


def test_for_spot_alone_more_of_the_preemptible_quota_is_asked_for(world: World) -> None:
    _limit(0, L4, f"PREEMPTIBLE_{L4}")(world)
    spot = [offer for offer in _offers("g2-standard-4") if offer.market is Market.SPOT]
    (failed,) = [c for c in _examined(world, spot) if not c.ok]
    assert "--quota-id PREEMPTIBLE-NVIDIA-L4-GPUS-per-project-region" in failed.fix


def test_gpus_that_no_quota_counts_are_unknown(world: World) -> None:
    (some, *_) = _offers("g2-standard-4")
    strange = replace(some, capacity=replace(some.capacity, gpu_name="X1"), region=REGION)
    assert _detail(_examined(world, [strange]), f"quota {REGION}").startswith("not known")


def test_networks_may_be_out_of_sight(world: World) -> None:
    """Who may launch into a network need not be able to read it."""
    world.cloud.fail_next("forbidden", times=99, call="networks.get")
    checks = _checks(world, public_ip="false")
    assert all(check.ok for check in checks)
    assert _detail(checks, f"network {REGION}").count("not known") == 2


def test_each_call_has_a_deadline(world: World) -> None:
    provider = GcpProvider(replace(to(world.server.url), read_s=0.2), version="1")
    world.cloud.latency(2)
    began = time.monotonic()
    failed = [c.name for c in provider.examine(world.clouds(REGION), _offers()) if not c.ok]
    assert failed == ["credentials"]
    assert time.monotonic() - began < 1.5
    world.cloud.latency(0)
