"""`examine` on a fake of Azure: all is well, or exactly what is broken fails, with its fix."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.core.model import Offer
from control_plane.core.policy import CloudPolicy
from control_plane.ports import Check, Examiner
from providers.azure.client import Clients
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from tests.fakes.azure.cloud import GPU_IMAGE, SUBSCRIPTION
from tests.fakes.azure.connection import FakeCredential
from tests.unit.providers.azure.conftest import GPU_SIZE, GROUP, PLAIN_SIZE, World

REGION, OTHER = "eastus", "westeurope"
FAMILY = "standardncast4v3family"
NETWORK = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.Network"
READS, SKUS = f"permission reads {GROUP}", f"permission skus and usages {REGION}"

Break = Callable[[World], object]


def _offers(*sizes: str) -> Sequence[Offer]:
    sizes = sizes or (GPU_SIZE, PLAIN_SIZE)
    return [offer for offer in load_offers(["azure"]) if offer.instance_type in sizes]


def _checks(world: World, cloud: CloudPolicy, offers: Sequence[Offer] = ()) -> list[Check]:
    found = list(world.restarted().examine([cloud], offers or _offers()))
    assert not world.cloud.resources(), "an examination makes nothing"
    for check in found:
        assert bool(check.fix) is not check.ok, f"{check.name}: a failure has a fix, and only it"
    return found


def _failed(world: World, *regions: str, group: str = GROUP, **options: str) -> Mapping[str, str]:
    """What failed, and what mends it."""
    cloud = world.settings(*(regions or (REGION,)), group=group, **options)
    return {c.name: c.fix for c in _checks(world, cloud) if not c.ok}


def _detail(checks: Sequence[Check], name: str) -> str:
    return next(check.detail for check in checks if check.name == name)


def test_all_is_well(world: World) -> None:
    assert isinstance(world.provider, Examiner)
    checks = _checks(world, world.settings(REGION, OTHER))
    assert all(check.ok for check in checks)
    assert [check.name for check in checks] == [
        "sdk",
        "credentials",
        "subscription",
        READS,
        SKUS,
        f"permission skus and usages {OTHER}",
        f"permission writes {GROUP}",
        *(
            name
            for region in (REGION, OTHER)
            for name in (
                f"sizes {region}",
                f"quota {region} cores",
                f"quota {region} lowPriorityCores",
                f"quota {region} standarddsv5family",
                f"quota {region} {FAMILY}",
            )
        ),
        f"image {REGION}",
        f"image {OTHER}",
        f"network {REGION}",
        f"network {OTHER}",
        "clock",
    ]
    unknown = _detail(checks, f"permission writes {GROUP}")
    assert "Microsoft.Compute/virtualMachines/write" in unknown
    assert all(name.endswith(("list", "get", "_group")) for name in world.cloud.calls)


def _fail(code: str, call: str, status: int = 403) -> Break:
    return lambda world: world.cloud.fail_next(code, call=call, status=status, times=99)


QUOTA = (
    f"--scope /subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/{REGION} "
    "--limit-object value=4 --resource-type"
)
BROKEN: Mapping[str, tuple[Break, str, str]] = {
    "credentials": (
        lambda world: setattr(world.cloud, "token", "another"),
        "credentials",
        "az login",
    ),
    "subscription": (
        lambda world: setattr(world.cloud, "subscriptions", ["another"]),
        "subscription",
        "az account list",
    ),
    "one right": (_fail("AuthorizationFailed", "disks_list"), READS, "az role definition create"),
    "usages": (_fail("AuthorizationFailed", "usage_list"), SKUS, "--role orchctl-quotas --scope"),
    "skus": (
        _fail("AuthorizationFailed", "resource_skus_list"),
        SKUS,
        '"Microsoft.Compute/skus/read"',
    ),
    "family": (
        lambda world: world.cloud.set_quota(REGION, FAMILY, 0),
        f"quota {REGION} {FAMILY}",
        f"az quota update --resource-name {FAMILY} {QUOTA} dedicated",
    ),
    "spot": (
        lambda world: world.cloud.set_quota(REGION, "lowPriorityCores", 3),
        f"quota {REGION} lowPriorityCores",
        f"az quota update --resource-name lowPriorityCores {QUOTA} lowPriority",
    ),
    "all cores": (
        lambda world: world.cloud.set_quota(REGION, "cores", 3),
        f"quota {REGION} cores",
        f"az quota update --resource-name cores {QUOTA} dedicated",
    ),
    "sizes": (
        lambda world: world.cloud.withheld.update(
            (REGION, size.lower()) for size in (GPU_SIZE, PLAIN_SIZE)
        ),
        f"sizes {REGION}",
        f"az vm list-skus --location {REGION} --size Standard_",
    ),
    "image": (
        lambda world: world.cloud.images.remove(GPU_IMAGE),
        f"image {REGION}",
        f"az vm image list --all --location {REGION}",
    ),
    "network": (
        lambda world: world.cloud.remove_subnet(
            GROUP, f"{NETWORK}/virtualNetworks/orchctl-{REGION}/subnets/default"
        ),
        f"network {REGION}",
        f"az network vnet create --resource-group {GROUP} --name orchctl-{REGION} "
        f"--location {REGION}",
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
    "group": ({"group": "none"}, "permission reads none", "az group create --name none"),
    "no group": ({"group": ""}, "subscription", "resource_group"),
    "subscription": ({"subscription": "another"}, "subscription", "az account list"),
    "image": ({"image": "a:b:c:latest"}, f"image {REGION}", "az vm image list"),
    "version": ({"image": GPU_IMAGE.replace("latest", "9")}, f"image {REGION}", "az vm image"),
    "subnet": (
        {"subnet": f"{NETWORK}/virtualNetworks/ml-{{region}}/subnets/gpu"},
        f"network {REGION}",
        f"--name ml-{REGION} --location {REGION}",
    ),
    "security group": (
        {"network_security_group": f"{NETWORK}/networkSecurityGroups/gone"},
        f"network {REGION}",
        f"az network nsg create --resource-group {GROUP} --name gone --location {REGION}",
    ),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_document_that_names_what_is_not_there(world: World, what: str) -> None:
    options, name, fix = OPTIONS[what]
    failed = _failed(world, **options)
    assert list(failed) == [name]
    assert fix in failed[name]


def test_what_a_document_names_is_found(world: World) -> None:
    group = f"{NETWORK}/networkSecurityGroups/ml"
    world.cloud.add_security_group(GROUP, group)
    subnet = f"{NETWORK}/virtualNetworks/ml-{REGION}/subnets/gpu"
    world.cloud.add_subnet(GROUP, subnet)
    named = {"network_security_group": group, "subnet": subnet.replace(REGION, "{region}")}
    checks = _checks(world, world.settings(REGION, **named))
    assert all(check.ok for check in checks)
    assert _detail(checks, f"network {REGION}").startswith(f"ml-{REGION}/subnets/gpu; ")


def test_role_is_made_and_given(world: World) -> None:
    """It has all that launches and ends need, in the machines' group alone."""
    _fail("AuthorizationFailed", "disks_list")(world)
    fix = _failed(world)[READS]
    definition = json.loads(fix.split("'")[1])
    scope = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    assert definition["AssignableScopes"] == [scope]
    assert {
        "Microsoft.Compute/virtualMachines/read",
        "Microsoft.Compute/virtualMachines/write",
        "Microsoft.Compute/virtualMachines/delete",
        "Microsoft.Network/virtualNetworks/subnets/join/action",
    } <= set(definition["Actions"])
    assert fix.endswith(f"--role orchctl --scope {scope}")


def test_token_tells_who_one_is(world: World) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"upn": "ada@acme.example"}).encode()).decode()
    world.cloud.token = f"e30.{claims.rstrip('=')}.signature"
    clients = Clients(world.clients.endpoint, FakeCredential(world.cloud.token))
    provider = AzureProvider(clients, now=world.cloud.clock.now)
    found = list(provider.examine([world.settings()], _offers()))
    assert all(check.ok for check in found)
    assert _detail(found, "credentials") == "ada@acme.example"
    clients.close()


def test_networks_and_images_may_be_out_of_sight(world: World) -> None:
    """Who may launch into a subnet need not be able to read it."""
    for call in ("subnets_get", "virtual_machine_images_list"):
        world.cloud.fail_next("AuthorizationFailed", call=call, status=403, times=99)
    checks = _checks(world, world.settings(REGION, public_ip="false"))
    assert all(check.ok for check in checks)
    assert _detail(checks, f"network {REGION}").count("not known") == 2
    assert "not known" in _detail(checks, f"image {REGION}")


def test_a_quota_for_some_of_the_sizes_is_enough(world: World) -> None:
    world.cloud.set_quota(REGION, FAMILY, 8)
    offers = _offers(GPU_SIZE, "Standard_NC64as_T4_v3")
    checks = _checks(world, world.settings(REGION), offers)
    assert all(check.ok for check in checks)
    detail = _detail(checks, f"quota {REGION} {FAMILY}")
    assert detail == "limit 8 vCPUs: too few for Standard_NC64as_T4_v3, which has 64"


def test_a_size_that_is_withheld_is_told(world: World) -> None:
    world.cloud.withhold(GPU_SIZE, REGION)
    checks = _checks(world, world.settings(REGION))
    assert all(check.ok for check in checks)
    assert _detail(checks, f"sizes {REGION}") == f"1 may be started, not {GPU_SIZE}"


def test_without_the_sdk_nothing_else_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    (check,) = _checks(world, world.settings())
    assert (check.name, check.fix) == ("sdk", "pip install 'orchctl[azure]'")
    assert not world.cloud.calls


def test_clock(world: World) -> None:
    late = AzureProvider(world.clients, now=lambda: world.cloud.clock.now() - timedelta(minutes=1))
    failed = [c for c in late.examine([world.settings()], _offers()) if not c.ok]
    assert [(c.name, c.detail) for c in failed] == [("clock", "60 s from the cloud's")]


def test_an_answer_that_is_none_of_azures_hides_nothing_else(world: World) -> None:
    world.cloud.garble_next_answer("virtual_machines_list")
    assert list(_failed(world)) == [READS]


def test_each_call_has_a_deadline(world: World) -> None:
    endpoint = replace(world.clients.endpoint, read_s=0.2)
    clients = Clients(endpoint, FakeCredential(world.cloud.token))
    world.cloud.latency_s = 2
    began = time.monotonic()
    found = AzureProvider(clients, now=world.cloud.clock.now).examine([world.settings()], _offers())
    assert [check.name for check in found if not check.ok] == ["credentials"]
    assert time.monotonic() - began < 1.5
    world.cloud.latency_s = 0
    clients.close()
