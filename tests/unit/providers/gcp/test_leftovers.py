"""What a fleet leaves behind: found, told apart from what is in use, and removed."""

from __future__ import annotations

from decimal import Decimal

import pytest

from control_plane.core.model import ErrorClass, Leftover
from control_plane.sweep import look
from providers.gcp.provider import GcpProvider
from tests.unit.providers.gcp.conftest import FLEET, PROJECT, World, offer, refused

MARKS = {"orchctl-fleet": FLEET, "orchctl-machine": "m-9"}


def test_nothing_is_left_of_machines_that_live_and_die(world: World, provider: GcpProvider) -> None:
    request, launched = world.running("m-1")
    world.running("m-2")
    assert provider.strays(FLEET, world.clouds()) == []
    provider.terminate(world.ref(request, launched))
    world.clock.advance(60)
    assert provider.strays(FLEET, world.clouds()) == []


def test_disk_of_a_failed_launch_is_found_and_removed(world: World, provider: GcpProvider) -> None:
    world.cloud.leave_disk_next()
    world.cloud.set_capacity(0)
    refused(lambda: provider.launch(world.request()))
    (stray,) = provider.strays(FLEET, world.clouds())
    assert stray == Leftover(
        provider="gcp",
        region="us-east5",
        zone="us-east5-a",
        kind="disk",
        id="projects/acme-ml/zones/us-east5-a/disks/orchctl-m-1-1",
        fleet=FLEET,
        machine_id="m-1",
        created_at=world.clock.now(),
        size="100 GiB",
        usd_hour=Decimal("0.013699"),
    )
    provider.remove(stray)
    assert world.empty()
    provider.remove(stray)


def test_address_that_nothing_uses_is_found_and_removed(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.reserve_address(PROJECT, "us-east5", "loose", MARKS)
    world.cloud.reserve_address(PROJECT, "us-east5", "used", MARKS, in_use=True)
    (stray,) = provider.strays(FLEET, world.clouds())
    assert (stray.kind, stray.region, stray.zone) == ("address", "us-east5", "")
    assert (stray.id, stray.machine_id) == (
        "projects/acme-ml/regions/us-east5/addresses/loose",
        "m-9",
    )
    assert stray.usd_hour == Decimal("0.010")
    provider.remove(stray)
    assert world.cloud.resources()["addresses"] == [
        "projects/acme-ml/regions/us-east5/addresses/used"
    ]


def test_stopped_machine_is_found_and_removed(world: World, provider: GcpProvider) -> None:
    _, launched = world.running()
    world.cloud.guest_shutdown(launched.provider_id)
    assert provider.strays(FLEET, world.clouds()) == []
    world.clock.advance(60)
    (stray,) = provider.strays(FLEET, world.clouds())
    assert (stray.kind, stray.id, stray.machine_id) == ("machine", launched.provider_id, "m-1")
    provider.remove(stray)
    world.clock.advance(60)
    assert world.empty()


@pytest.mark.parametrize(
    ("kind", "month"), [("pd-balanced", "10"), ("hyperdisk-balanced", "8"), ("pd-standard", "4")]
)
def test_disk_costs_what_its_kind_and_size_cost(
    world: World, provider: GcpProvider, kind: str, month: str
) -> None:
    world.cloud.leave_disk(PROJECT, "us-east5-a", "orchctl-x", MARKS, size_gb=100, kind=kind)
    (stray,) = provider.strays(FLEET, world.clouds())
    assert stray.usd_hour == round(Decimal(month) / 730, 6)


def test_disk_of_a_kind_that_is_not_in_the_table_costs_nobody_knows_what(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.leave_disk(PROJECT, "us-east5-a", "orchctl-x", MARKS, kind="pd-extreme")
    (stray,) = provider.strays(FLEET, world.clouds())
    assert stray.usd_hour is None


def test_sweep_tells_what_strays_cost(world: World, provider: GcpProvider) -> None:
    """A machine that runs costs its price, one that is stopped its disk, and it is shown once."""
    world.running("m-1")
    _, stopped = world.running("m-2")
    world.cloud.guest_shutdown(stopped.provider_id)
    world.cloud.reserve_address(PROJECT, "us-east5", "loose", MARKS)
    world.clock.advance(60)
    found = look(provider, FLEET, world.clouds(), dict).strays
    costs = {(each.kind, each.machine_id): each.usd_hour for each in found}
    assert costs == {
        ("machine", "m-1"): offer().price_usd_hour,
        ("machine", "m-2"): Decimal("0.013699"),
        ("address", "m-9"): Decimal("0.010"),
    }
    assert len(found) == 3


def test_sweep_tells_the_price_of_the_gpus_that_were_added(
    world: World, provider: GcpProvider
) -> None:
    dear = offer("n1-standard-8", zone="us-central1-a", gpu="V100")
    provider.launch(world.request(wanted=dear))
    world.clock.advance(60)
    (found,) = look(provider, FLEET, world.clouds("us-central1"), dict).strays
    assert (found.detail, found.usd_hour) == ("n1-standard-8+V100:1", dear.price_usd_hour)
    assert dear.price_usd_hour > 2


def test_things_of_others_are_left_alone(world: World, provider: GcpProvider) -> None:
    world.cloud.leave_disk(PROJECT, "us-east5-a", "data", {"owner": "somebody"})
    world.cloud.leave_disk(PROJECT, "us-east5-a", "orchctl-x", {"orchctl-fleet": "fleet-b"})
    world.cloud.reserve_address("acme-two", "us-east5", "loose", MARKS)
    assert provider.strays(FLEET, world.clouds()) == []


def test_disk_that_is_in_use_again_is_kept(world: World, provider: GcpProvider) -> None:
    world.running()
    held = Leftover(
        provider="gcp",
        region="us-east5",
        zone="us-east5-a",
        kind="disk",
        id="projects/acme-ml/zones/us-east5-a/disks/orchctl-m-1-1",
        fleet=FLEET,
        machine_id="m-1",
    )
    assert refused(lambda: provider.remove(held)).error_class is ErrorClass.TRANSIENT
    assert world.names() == ["m-1"]


@pytest.mark.parametrize("strange", ["", "vol-123", "projects/p/zones/z/networks/n"])
def test_id_of_something_else_is_refused(provider: GcpProvider, strange: str) -> None:
    leftover = Leftover(
        provider="gcp", region="r", zone="z", kind="disk", id=strange, fleet=FLEET, machine_id=""
    )
    assert refused(lambda: provider.remove(leftover)).error_class is ErrorClass.INVALID


@pytest.mark.parametrize("silent", ["us-east5", "us-east5-b"])
def test_place_that_does_not_answer_is_not_taken_for_clean(
    world: World, provider: GcpProvider, silent: str
) -> None:
    world.cloud.leave_disk(PROJECT, "us-east5-a", "orchctl-x", MARKS)
    world.cloud.partial(silent)
    error = refused(lambda: provider.strays(FLEET, world.clouds()))
    assert error.error_class is ErrorClass.TRANSIENT
    world.cloud.readable(silent)
    assert len(provider.strays(FLEET, world.clouds())) == 1


def test_places_that_nobody_named_may_be_silent(world: World, provider: GcpProvider) -> None:
    world.cloud.leave_disk(PROJECT, "us-east5-a", "orchctl-x", MARKS)
    world.cloud.partial("us-west1")
    assert len(provider.strays(FLEET, world.clouds())) == 1
