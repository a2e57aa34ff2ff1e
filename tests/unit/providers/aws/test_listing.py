"""What a listing says: states, ends, zones, regions that fail, labels of any text."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.model import ErrorClass, Market
from control_plane.ports import MachineRef
from providers.aws import labels, listing
from providers.aws.ending import END_REASONS
from providers.aws.listing import STATES, liveliest, sighting
from tests.unit.providers.aws.world import FLEET, REGION, World, an_offer, refused

EXAMPLE = {
    "InstanceId": "i-0123456789abcdef0",
    "OwnerId": "123456789012",
    "Placement": {"AvailabilityZone": "us-east-1b"},
    "LaunchTime": datetime(2026, 1, 5, tzinfo=UTC),
}


@pytest.mark.parametrize(("word", "ours"), sorted(STATES.items()))
def test_each_state(word: str, ours: str) -> None:
    seen = sighting({**EXAMPLE, "State": {"Name": word}}, REGION, {})
    assert seen.state == ours


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("Server.SpotInstanceTermination", "interrupted"),
        ("Server.SpotInstanceShutdown", "interrupted"),
        ("Client.InstanceInitiatedShutdown", "self"),
        ("Client.UserInitiatedShutdown", "user"),
        ("Server.InsufficientInstanceCapacity", ""),
        ("Server.InternalError", ""),
        ("Client.InternalError", ""),
        ("", ""),
    ],
)
def test_each_end(code: str, reason: str) -> None:
    ended = {**EXAMPLE, "State": {"Name": "terminated"}, "StateReason": {"Code": code}}
    assert sighting(ended, REGION, {}).end_reason == reason
    assert END_REASONS.get(code, "") == reason


def test_state_that_is_new_to_us_is_no_end() -> None:
    assert sighting({**EXAMPLE, "State": {"Name": "hatching"}}, REGION, {}).state == "running"


def test_fault_of_our_own_in_one_region_does_not_hide_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.running()
    real = listing.find

    def find(ec2: Any, *filters: Any) -> Any:
        if ec2.meta.region_name == "eu-west-1":
            raise ZeroDivisionError("a mistake")
        return real(ec2, *filters)

    monkeypatch.setattr(listing, "find", find)
    seen = world.provider.observe(FLEET, world.clouds("eu-west-1", REGION))
    assert (seen.unknown, len(seen.sightings)) == (("eu-west-1",), 1)
    assert "a mistake" in seen.problem


def test_instance_without_our_labels_is_shown_without_a_name() -> None:
    seen = sighting({**EXAMPLE, "State": {"Name": "running"}}, REGION, {"us-east-1b": "use1-az2"})
    assert (seen.machine_id, seen.fleet, seen.zone) == ("", "", "use1-az2")


def test_ends_over_http(world: World) -> None:
    taken, shut, ended = (world.running(f"m-{at}") for at in range(3))
    world.account.interrupt(taken.provider_id)
    world.account.shut_down(shut.provider_id)
    world.provider.terminate(world.ref(ended))
    assert world.look(ended).state == "stopping"
    world.account.advance(60)
    seen = {
        each.provider_id: each for each in world.provider.observe(FLEET, world.clouds()).sightings
    }
    assert {each.state for each in seen.values()} == {"gone"}
    assert [seen[each.provider_id].end_reason for each in (taken, shut, ended)] == [
        "interrupted",
        "self",
        "user",
    ]


def test_life_of_a_machine(world: World) -> None:
    launched = world.launch()
    assert world.look(launched).state == "pending"
    world.account.advance(20)
    assert world.look(launched).state == "running"
    world.provider.terminate(world.ref(launched))
    assert world.look(launched).state == "stopping"
    world.account.advance(30)
    assert world.look(launched).state == "gone"
    world.account.advance(3600)
    assert world.provider.sighting(world.ref(launched)) is None


def test_region_wide_machine_is_seen_where_it_is(world: World) -> None:
    launched = world.running(offer=an_offer(market=Market.ON_DEMAND))
    seen = world.look(launched)
    assert seen.region == REGION
    assert seen.zone.startswith("use1-az")


def test_too_new_for_the_listing_is_not_gone(world: World) -> None:
    world.account.set_lag(30)
    launched = world.launch()
    error = refused(lambda: world.provider.sighting(world.ref(launched)))
    assert (error.error_class, error.raw_code) == (
        ErrorClass.TRANSIENT,
        "InvalidInstanceID.NotFound",
    )
    world.account.advance(30)
    assert world.look(launched).state == "running"


def test_too_new_is_not_gone_after_a_restart_either(world: World) -> None:
    world.account.set_lag(30)
    launched = world.launch()
    ref = replace(world.ref(launched), launched_at=launched.at)
    assert refused(lambda: world.open().sighting(ref)).raw_code == "InvalidInstanceID.NotFound"
    # A record without the time is one of long ago.
    assert world.open().sighting(world.ref(launched)) is None


def test_end_of_one_that_no_listing_knows_keeps_its_life_limit(world: World) -> None:
    world.account.set_lag(30)
    launched = world.launch()
    world.provider.terminate(world.ref(launched))
    assert world.account.resources()["schedule"] == [launched.provider_id]
    world.account.advance(30)
    world.provider.terminate(world.ref(launched))
    assert world.account.resources()["schedule"] == []


def test_what_was_new_long_ago_is_gone_when_it_is_unknown(world: World) -> None:
    launched = world.running()
    world.provider.terminate(world.ref(launched))
    world.account.advance(2 * 3600)
    assert world.provider.sighting(world.ref(launched)) is None
    assert not world.provider.observe(FLEET, world.clouds()).sightings


def test_strange_ids_are_nothing(world: World) -> None:
    for strange in ("never-was", "i-00000000000000000", "projects/p/zones/z/instances/x"):
        ref = MachineRef(machine_id="m", provider_id=strange, region=REGION, zone="")
        assert world.provider.sighting(ref) is None
        world.provider.terminate(ref)


def test_regions_are_those_of_the_settings(world: World) -> None:
    world.running()
    clouds = world.clouds("eu-west-1")
    assert not world.provider.observe(FLEET, clouds).sightings
    assert not world.provider.observe(FLEET, clouds).unknown
    both = [*clouds, *world.clouds()]
    assert len(world.provider.observe(FLEET, both).sightings) == 1


def test_nothing_asked_is_nothing_known(world: World) -> None:
    assert not world.provider.observe(FLEET, []).knows(REGION, "")


def test_region_that_fails_is_unknown_and_says_why(world: World) -> None:
    world.running()
    world.account.fail_next("UnauthorizedOperation", region="eu-west-1")
    seen = world.provider.observe(FLEET, world.clouds("eu-west-1", REGION))
    assert seen.unknown == ("eu-west-1",)
    assert "eu-west-1: UnauthorizedOperation" in seen.problem
    assert len(seen.sightings) == 1


def test_region_that_hangs_is_unknown_by_the_deadline(world: World) -> None:
    world.running()
    provider = world.open(deadline_s=2.0)
    provider._look(FLEET, REGION, {})
    world.account.set_latency(5.0, region="eu-west-1")
    seen = provider.observe(FLEET, world.clouds("eu-west-1", REGION))
    assert seen.unknown == ("eu-west-1",)
    assert "within 2 s" in seen.problem
    assert len(seen.sightings) == 1


def test_listing_that_is_no_listing_is_unknown_not_empty(world: World) -> None:
    world.running()
    world.provider.observe(FLEET, world.clouds(REGION, "eu-west-1"))
    for text in ("<html/>", "{}", ""):
        world.account.garble_next("DescribeInstances", text or " ")
        seen = world.provider.observe(FLEET, world.clouds(REGION, "eu-west-1"))
        assert len(seen.unknown) == 1
        world.account.garble_next("DescribeInstances", text or " ")
        error = refused(lambda: world.provider.observe(FLEET, world.clouds()))
        assert error.error_class is ErrorClass.TRANSIENT


def test_page_that_fails_makes_the_whole_region_unknown(world: World) -> None:
    for at in range(6):
        world.launch(f"m-{at}")
    world.account.page = 5
    assert len(world.provider.observe(FLEET, world.clouds()).sightings) == 6
    world.account.fail_next("InternalError", operation="DescribeInstances", skip=1)
    seen = world.provider.observe(FLEET, world.clouds(REGION, "eu-west-1"))
    assert seen.unknown in ((REGION,), ("eu-west-1",))
    world.account.fail_next("InternalError", operation="DescribeInstances", region=REGION, skip=1)
    assert (
        refused(lambda: world.provider.observe(FLEET, world.clouds())).raw_code == "InternalError"
    )


def test_two_under_one_token_show_the_living_one() -> None:
    found = [
        {**EXAMPLE, "State": {"Name": name}} for name in ("terminated", "shutting-down", "pending")
    ]
    best = liveliest(found)
    assert best is not None
    assert best["State"]["Name"] == "pending"
    assert liveliest([]) is None


# -------------------------------------------------------------------------------------- labels

PLAIN = set(string.ascii_letters + string.digits + " +-=._:/@")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_fits_into_a_tag_and_comes_back(text: str) -> None:
    value = labels.encode(text)
    assert set(value) <= PLAIN
    assert labels.decode(value) == text


@pytest.mark.parametrize("text", ["m-01jc8q7x", "m-01jc8q7x.1", "fleet-a", "orchctl-9f3b2c"])
def test_usual_names_stay_as_they_are(text: str) -> None:
    assert labels.encode(text) == text


@pytest.mark.parametrize("foreign", ["=FF=FE", "=ZZ", "a=b", "=", "=3"])
def test_foreign_tags_do_not_stop_anything(foreign: str) -> None:
    assert isinstance(labels.decode(foreign), str)


@pytest.mark.parametrize(
    "fleet", ["my fleet = x", "*", "fleet?", "a\\b", "flotte-ü", "日本", "it's <b>", "a,b"]
)
def test_fleet_of_any_name_finds_its_own_machines_only(world: World, fleet: str) -> None:
    world.launch("m-1", fleet=fleet)
    world.launch("m-2", fleet="fleet-b")
    (seen,) = world.provider.observe(fleet, world.clouds()).sightings
    assert (seen.machine_id, seen.fleet) == ("m-1", fleet)
