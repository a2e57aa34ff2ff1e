"""Listings: all pages, all projects, and what was not heard is never taken for empty."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from google.cloud import compute_v1

from control_plane.core.model import ErrorClass, Market
from control_plane.ports import MachineRef
from providers.gcp.listing import Listing
from providers.gcp.names import Place
from providers.gcp.provider import GcpProvider
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.machines import ROOT
from tests.unit.providers.gcp.conftest import FLEET, World, offer, refused

MANY = 1_203


def test_all_pages_are_read(world: World, provider: GcpProvider) -> None:
    request = world.request()
    provider.launch(request)
    (vm,) = world.cloud.vms.values()
    for number in range(2, MANY + 1):
        labels = vm.body["labels"] | {"orchctl-machine": f"m-{number}"}
        copy = replace(vm, name=f"orchctl-m-{number}-1", body=vm.body | {"labels": labels})
        world.cloud.vms[copy.project, copy.zone, copy.name] = copy
    world.clock.advance(60)
    before = world.cloud.calls["instances.aggregatedList"]
    assert len(set(world.seen())) == MANY
    assert world.cloud.calls["instances.aggregatedList"] - before == 3


def test_a_zone_that_does_not_answer_is_unknown_alone(world: World, provider: GcpProvider) -> None:
    world.running()
    world.cloud.partial("us-east5-b")
    seen = provider.observe(FLEET, world.clouds())
    assert seen.unknown == ("us-east5-b",)
    assert [each.machine_id for each in seen.sightings] == ["m-1"]


@pytest.mark.parametrize(
    "page",
    [
        {"items": {"zones/us-east5-a": {"warning": {"code": "UNREACHABLE"}}}},
        {"items": {"zones/us-east5-a": {}}, "unreachables": ["zones/us-east5-a"]},
        {"items": {}, "unreachables": [f"{ROOT}projects/acme-ml/zones/us-east5-a"]},
        {"items": {}, "unreachables": ["regions/us-east5"]},
    ],
)
def test_a_place_may_say_in_several_ways_that_it_does_not_answer(
    page: dict[str, object],
) -> None:
    listing = Listing()
    heard = {"items": {"zones/us-east5-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}
    for each in (heard, page):
        text = json.dumps(each)
        listing.read(compute_v1.InstanceAggregatedList.from_json(text), "instances")
    assert set(listing.silent(["us-east5"])) <= {"us-east5", "us-east5-a"}
    assert listing.silent(["us-east5"])
    assert listing.heard(["us-east5"])


def test_places_that_nobody_named_do_not_matter(world: World, provider: GcpProvider) -> None:
    world.cloud.partial("us-central1")
    assert provider.observe(FLEET, world.clouds("us-east5")).unknown == ()


def test_only_the_regions_that_were_named_count_as_heard(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.partial("us-east5")
    error = refused(lambda: provider.observe(FLEET, world.clouds("us-east5")))
    assert error.error_class is ErrorClass.TRANSIENT


def test_region_that_the_cloud_does_not_name_is_unknown(
    world: World, provider: GcpProvider
) -> None:
    seen = provider.observe(FLEET, world.clouds("us-east5", "moon-base1"))
    assert seen.unknown == ("moon-base1",)


def test_machines_of_two_projects_are_seen_together(world: World, provider: GcpProvider) -> None:
    provider.launch(world.request("m-1"))
    provider.launch(world.request("m-2", project="acme-two"))
    world.clock.advance(60)
    both = [*world.clouds(), *world.clouds(project="acme-two")]
    seen = provider.observe(FLEET, both)
    assert sorted(each.provider_id.split("/")[1] for each in seen.sightings) == [
        "acme-ml",
        "acme-two",
    ]


def test_project_that_refuses_leaves_the_other_and_is_unknown(
    world: World, provider: GcpProvider
) -> None:
    provider.launch(world.request("m-1"))
    world.clock.advance(60)
    both = [*world.clouds("us-east5"), *world.clouds("us-west1", project="acme-two")]
    world.cloud.forbid("acme-two")
    seen = provider.observe(FLEET, both)
    assert [each.machine_id for each in seen.sightings] == ["m-1"]
    assert seen.unknown == ("us-west1",)
    assert "acme-two" in seen.problem
    assert seen.knows("us-east5", "us-east5-a")
    assert not seen.knows("us-west1", "us-west1-b")


def test_settings_without_regions_mean_all_of_them(world: World, provider: GcpProvider) -> None:
    world.running()
    everywhere = [replace(each, regions=()) for each in world.clouds()]
    seen = provider.observe(FLEET, everywhere)
    assert ([each.machine_id for each in seen.sightings], seen.unknown) == (["m-1"], ())
    world.cloud.partial("us-west1-a")
    assert provider.observe(FLEET, everywhere).unknown == ("us-west1-a",)


def test_nothing_to_look_at_asks_nobody(world: World, provider: GcpProvider) -> None:
    seen = provider.observe(FLEET, [])
    assert (seen.sightings, seen.unknown) == ((), ())
    assert not world.cloud.calls


def test_listing_that_takes_too_long_is_no_answer(world: World) -> None:
    world.cloud.latency(0.5)
    hasty = GcpProvider(to(world.server.url), patience_s=0.05, now=world.clock.now, version="1")
    error = refused(lambda: hasty.observe(FLEET, world.clouds()))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "DeadlineExceeded")


def test_silence_ends_at_the_read_deadline(world: World) -> None:
    world.cloud.latency(2)
    quick = replace(to(world.server.url), read_s=0.1)
    error = refused(lambda: GcpProvider(quick, version="1").launch(world.request()))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "NoAnswer")
    assert "read timeout=0.1" in str(error)


def test_page_of_somebody_else_is_no_answer(world: World) -> None:
    """A gateway that wants one to sign in answers with 200 and a page."""

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Sign in</html>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        astray = GcpProvider(to(f"http://127.0.0.1:{gateway.server_port}"), version="1")
        error = refused(lambda: astray.observe(FLEET, world.clouds()))
        gateway.shutdown()
        thread.join()
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "NoAnswer")


def test_calls_are_not_repeated_by_the_client(world: World, provider: GcpProvider) -> None:
    world.cloud.fail_next("backendError", times=9)
    refused(lambda: provider.observe(FLEET, world.clouds()))
    refused(lambda: provider.launch(world.request()))
    assert sum(world.cloud.calls.values()) == 2


@pytest.mark.parametrize("fleet", ["my fleet = x", "Flotte-Süd", "f" * 90, "a_b"])
def test_any_fleet_is_found_under_its_own_name(
    world: World, provider: GcpProvider, fleet: str
) -> None:
    provider.launch(world.request("m-1", fleet=fleet))
    provider.launch(world.request("m-2", fleet=fleet + "x"))
    world.clock.advance(60)
    (seen,) = provider.observe(fleet, world.clouds()).sightings
    assert (seen.machine_id, seen.fleet) == ("m-1", fleet)


@pytest.mark.parametrize("machine_id", ["m-01jc8qz5x3k7v9w2b4n6p8r0st", "M 1", "m_1", "x" * 90])
def test_any_machine_is_found_without_its_provider_id(
    world: World, provider: GcpProvider, machine_id: str
) -> None:
    request = world.request(machine_id)
    launched = provider.launch(request)
    provider.launch(world.request(machine_id + "1"))
    world.clock.advance(60)
    seen = provider.sighting(world.ref(request))
    assert seen is not None
    assert seen.provider_id == launched.provider_id
    provider.terminate(world.ref(request))
    world.clock.advance(60)
    assert len(world.names()) == 1


def test_machine_is_found_without_its_zone(world: World, provider: GcpProvider) -> None:
    request, launched = world.running()
    seen = provider.sighting(replace(world.ref(request), zone=""))
    assert seen is not None
    assert seen.provider_id == launched.provider_id


def test_project_that_is_gone_is_no_proof_that_a_machine_is(
    world: World, provider: GcpProvider
) -> None:
    request, launched = world.running()
    world.cloud.fail_next("notFound", message="The resource 'projects/acme-ml' was not found")
    error = refused(lambda: provider.sighting(world.ref(request, launched)))
    assert error.raw_code == "notFound"


def test_404_of_a_server_on_the_way_is_no_proof_of_anything(world: World) -> None:
    request, launched = world.running()
    astray = GcpProvider(to(f"{world.server.url}/elsewhere"), version="1")
    error = refused(lambda: astray.sighting(world.ref(request, launched)))
    assert error.error_class is ErrorClass.INVALID
    assert refused(lambda: astray.terminate(world.ref(request, launched)))
    assert world.names() == ["m-1"]


def test_machine_that_is_being_made_is_pending_not_missing(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.slow_next_insert(60)
    world.cloud.listing_lag(120)
    request = world.request()
    provider.launch(request)
    seen = provider.sighting(world.ref(request))
    assert seen is not None
    assert seen.state == "pending"


def test_machine_that_nothing_shows_but_its_insert_is_not_said_to_be_missing(
    world: World, provider: GcpProvider
) -> None:
    place = Place("acme-ml", "us-east5-a", "orchctl-m-1-1")
    zone = "zones/us-east5-a"
    world.cloud.operate("acme-ml", zone, "insert", f"{ROOT}{place.provider_id}", "me", 60)
    request = world.request()
    known = replace(world.ref(request), provider_id=place.provider_id)
    assert refused(lambda: provider.sighting(known)).raw_code == "resourceNotReady"
    assert refused(lambda: provider.sighting(world.ref(request))).raw_code == "resourceNotReady"


def test_machine_that_no_listing_shows_yet_is_not_taken_for_gone(
    world: World, provider: GcpProvider
) -> None:
    world.cloud.listing_lag(300)
    request, launched = world.running()
    assert world.seen() == []
    seen = provider.sighting(world.ref(request))
    assert seen is not None
    assert (seen.provider_id, seen.state) == (launched.provider_id, "running")
    provider.terminate(world.ref(request))
    world.clock.advance(60)
    assert world.empty()


def test_machine_whose_operations_are_forgotten_is_found_all_the_same(
    world: World, provider: GcpProvider
) -> None:
    request, launched = world.running()
    world.cloud.forget_operations()
    seen = provider.sighting(world.ref(request))
    assert seen is not None
    assert (seen.provider_id, seen.state) == (launched.provider_id, "running")


def test_sighting_tells_what_was_bought(world: World, provider: GcpProvider) -> None:
    wanted = offer("g2-standard-4", zone="us-central1-a", market=Market.SPOT)
    launched = provider.launch(world.request(wanted=wanted))
    world.clock.advance(60)
    (seen,) = provider.observe(FLEET, world.clouds("us-central1")).sightings
    assert (seen.instance_type, seen.market) == ("g2-standard-4", Market.SPOT)
    (vm,) = world.cloud.vms.values()
    assert seen.identity == launched.identity == {"vm_id": str(vm.number)}


@pytest.mark.parametrize("provider_id", ["never-was", "projects/p/zones/us-east5-a/instances/x"])
def test_what_never_was_does_not_exist(
    world: World, provider: GcpProvider, provider_id: str
) -> None:
    ref = MachineRef(machine_id="m", provider_id=provider_id, region="us-east5", zone="us-east5-a")
    assert provider.sighting(ref) is None
    provider.terminate(ref)


def test_offers_helper_is_of_the_zone_it_says(world: World) -> None:
    assert offer().zone in world.cloud.stock.kinds
