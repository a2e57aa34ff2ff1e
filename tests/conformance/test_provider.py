"""One suite for every `ports.Provider`: launch once, find again, end for good, refuse in classes.

Each test runs against every case of `registry.CASES`. What really exists is asked from the
case (the process table, the simulated cloud's own truth), never from the provider under test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest, MachineRef, Provider
from tests.conformance.provider_cases import (
    EXPECTED_CLASSES,
    FLEET,
    HOOKS,
    TOKEN,
    ProviderCase,
)
from tests.conformance.registry import CASES


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderCase]:
    made = CASES[request.param](tmp_path)
    yield made
    made.close()


def offered_by(*hooks: str) -> pytest.MarkDecorator:
    """Run against the providers that offer these hooks; `cannot` says why the others do not."""
    names = [name for name, kind in sorted(CASES.items()) if not set(hooks) & set(kind.cannot)]
    return pytest.mark.parametrize("case", names, indirect=True)


@pytest.fixture
def provider(case: ProviderCase) -> Provider:
    return case.open()


def seen(case: ProviderCase, provider: Provider, fleet: str = FLEET) -> list[str]:
    """Machine ids that a listing shows as existing."""
    sightings = provider.observe(fleet, case.clouds()).sightings
    return [each.machine_id for each in sightings if each.state != "gone"]


def refused(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


def running(case: ProviderCase, machine_id: str = "m-1") -> tuple[LaunchRequest, Launched]:
    request = case.request(machine_id)
    launched = case.open().launch(request)
    case.settle()
    return request, launched


# ------------------------------------------------------------------------------- the suite itself


@pytest.mark.parametrize("name", sorted(CASES))
def test_hooks_are_either_offered_or_excused(name: str, tmp_path: Path) -> None:
    made = CASES[name](tmp_path)
    offered = {
        hook for hook in HOOKS if getattr(type(made), hook) is not getattr(ProviderCase, hook)
    }
    assert offered | set(made.cannot) == set(HOOKS)
    assert not offered & set(made.cannot)
    assert all(made.cannot.values())


# ------------------------------------------------------------------------------------- offers


def test_provider_says_its_name_and_whether_it_needs_a_token(
    case: ProviderCase, provider: Provider
) -> None:
    assert provider.name == case.name
    assert isinstance(provider.needs_token, bool)


def test_offers_carry_the_name_of_their_provider(case: ProviderCase, provider: Provider) -> None:
    assert {offer.provider for offer in provider.offers(case.clouds())} == {provider.name}


def test_offers_have_keys_of_their_own(case: ProviderCase, provider: Provider) -> None:
    keys = [offer.key for offer in provider.offers(case.clouds())]
    assert keys
    assert len(keys) == len(set(keys))


def test_offers_have_something_to_run_on(case: ProviderCase, provider: Provider) -> None:
    for offer in provider.offers(case.clouds()):
        assert offer.capacity.cpus > 0
        assert offer.capacity.memory_mib > 0
        assert (offer.capacity.gpus > 0) == bool(offer.capacity.gpu_name)
        assert (offer.capacity.gpus > 0) == (offer.capacity.gpu_memory_gib > 0)


def test_offers_have_exact_positive_prices(case: ProviderCase, provider: Provider) -> None:
    for offer in provider.offers(case.clouds()):
        assert isinstance(offer.price_usd_hour, Decimal)
        assert offer.price_usd_hour > 0


def test_spot_is_never_dearer_than_on_demand(case: ProviderCase, provider: Provider) -> None:
    for offer in provider.offers(case.clouds()):
        if offer.on_demand_usd_hour is not None:
            assert offer.price_usd_hour <= offer.on_demand_usd_hour
            if offer.market is Market.ON_DEMAND:
                assert offer.price_usd_hour == offer.on_demand_usd_hour


def test_offers_name_a_region(case: ProviderCase, provider: Provider) -> None:
    assert all(offer.region for offer in provider.offers(case.clouds()))


def test_offers_of_sold_out_things_stay(case: ProviderCase, provider: Provider) -> None:
    before = {offer.key for offer in provider.offers(case.clouds())}
    case.make_unavailable(case.offer())
    assert {offer.key for offer in case.open().offers(case.clouds())} == before


# ------------------------------------------------------------------------------------- launch


def test_launch_makes_one_machine(case: ProviderCase, provider: Provider) -> None:
    launched = provider.launch(case.request())
    assert launched.provider_id
    assert launched.operation == ""
    assert case.alive() == ["m-1"]


def test_launch_says_when_it_began_to_cost(case: ProviderCase, provider: Provider) -> None:
    before = case.now()
    launched = provider.launch(case.request())
    assert before <= launched.at <= case.now()


def test_launched_machine_shows_with_its_labels(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    (sighting,) = provider.observe(FLEET, case.clouds()).sightings
    assert sighting.machine_id == "m-1"
    assert sighting.provider_id == launched.provider_id
    assert sighting.fleet == FLEET
    assert sighting.provider == provider.name
    assert (sighting.region, sighting.zone) == (request.offer.region, request.offer.zone)
    assert sighting.state == "running"
    assert sighting.end_reason == ""


def test_listing_and_launch_agree_on_when_it_was_made(
    case: ProviderCase, provider: Provider
) -> None:
    _, launched = running(case)
    assert provider.observe(FLEET, case.clouds()).sightings[0].created_at == launched.at


def test_same_key_twice_is_one_machine(case: ProviderCase, provider: Provider) -> None:
    first = provider.launch(case.request())
    second = provider.launch(case.request())
    assert second == first
    assert case.alive() == ["m-1"]


def test_same_key_later_is_the_same_machine(case: ProviderCase, provider: Provider) -> None:
    request, first = running(case)
    assert provider.launch(request) == first
    assert case.alive() == ["m-1"]


def test_same_key_from_another_control_plane_is_one_machine(case: ProviderCase) -> None:
    first = case.open().launch(case.request())
    assert case.open().launch(case.request()) == first
    assert case.alive() == ["m-1"]


def test_same_key_from_many_threads_is_one_machine(case: ProviderCase) -> None:
    request, answers = case.request(), list[Launched]()
    threads = [
        threading.Thread(target=lambda: answers.append(case.open().launch(request)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.provider_id for answer in answers}) == 1
    assert len(answers) == 6
    assert case.alive() == ["m-1"]


def test_repeat_with_a_fresh_token_is_one_machine(case: ProviderCase, provider: Provider) -> None:
    request = case.request()
    first = provider.launch(request)
    fresh = replace(request, boot=replace(request.boot, one_time_token="another-token"))
    assert provider.launch(fresh) == first
    assert case.alive() == ["m-1"]


def test_different_keys_are_different_machines(case: ProviderCase, provider: Provider) -> None:
    first = provider.launch(case.request("m-1"))
    second = provider.launch(case.request("m-2"))
    assert first.provider_id != second.provider_id
    assert sorted(case.alive()) == ["m-1", "m-2"]


def test_second_attempt_of_an_ended_machine_is_a_new_one(
    case: ProviderCase, provider: Provider
) -> None:
    request, first = running(case)
    case.last_look(case.ref(request, first), provider)
    second = provider.launch(case.request(attempt=2))
    assert second.provider_id != first.provider_id
    assert case.alive() == ["m-1"]


def test_key_of_an_ended_machine_starts_nothing(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    case.last_look(case.ref(request, launched), provider)
    error = refused(lambda: provider.launch(request))
    assert (error.error_class, error.raw_code) == (ErrorClass.TRANSIENT, "Ended")
    assert case.alive() == []


def test_key_of_a_machine_that_ended_by_itself_starts_nothing(
    case: ProviderCase, provider: Provider
) -> None:
    request, launched = running(case)
    case.end_by_itself(launched)
    assert refused(lambda: provider.launch(request)).raw_code == "Ended"
    assert refused(lambda: case.open().launch(request)).raw_code == "Ended"
    assert case.alive() == []


def test_launch_of_what_is_not_sold_is_invalid(case: ProviderCase, provider: Provider) -> None:
    request = case.request()
    strange = replace(request, offer=replace(request.offer, instance_type="no-such-type"))
    assert refused(lambda: provider.launch(strange)).error_class is ErrorClass.INVALID
    assert case.alive() == []


@offered_by("crash_in_launch")
def test_crash_in_the_middle_of_a_launch_is_finished_by_the_repeat(case: ProviderCase) -> None:
    request = case.request()
    case.crash_in_launch(request)
    assert seen(case, case.open()) == []
    first = case.open().launch(request)
    assert case.open().launch(request) == first
    assert case.alive() == ["m-1"]


@offered_by("drop_launch_answer")
def test_lost_answer_is_found_by_repeating_the_key(case: ProviderCase, provider: Provider) -> None:
    request = case.request()
    case.drop_launch_answer()
    assert refused(lambda: provider.launch(request)).error_class is ErrorClass.TRANSIENT
    assert provider.launch(request).provider_id
    assert case.alive() == ["m-1"]


@offered_by("drop_launch_answer")
def test_lost_answer_is_found_by_its_label(case: ProviderCase, provider: Provider) -> None:
    case.drop_launch_answer()
    refused(lambda: provider.launch(case.request()))
    case.settle()
    assert seen(case, provider) == ["m-1"]


# ------------------------------------------------------------------------------ slow launches


@offered_by("answer_slowly")
def test_slow_launch_answers_with_an_operation_and_then_a_machine(
    case: ProviderCase, provider: Provider
) -> None:
    case.answer_slowly(refuse=False)
    request = case.request()
    begun = provider.launch(request)
    assert begun.operation
    assert provider.launch_result(request, begun.operation).operation == begun.operation
    case.settle()
    done = case.open().launch_result(request, begun.operation)
    assert done.provider_id
    assert done.operation == ""
    assert case.alive() == ["m-1"]


@offered_by("answer_slowly")
def test_slow_launch_repeated_by_key_is_one_machine(case: ProviderCase, provider: Provider) -> None:
    case.answer_slowly(refuse=False)
    begun = provider.launch(case.request())
    assert provider.launch(case.request()).operation == begun.operation
    case.settle()
    assert provider.launch(case.request()).provider_id
    assert case.alive() == ["m-1"]


@offered_by("answer_slowly")
def test_slow_launch_may_end_in_a_refusal(case: ProviderCase, provider: Provider) -> None:
    case.answer_slowly(refuse=True)
    request = case.request()
    begun = provider.launch(request)
    case.settle()
    error = refused(lambda: provider.launch_result(request, begun.operation))
    assert error.error_class in {ErrorClass.CAPACITY_ZONE, ErrorClass.CAPACITY_REGION}
    assert case.alive() == []


# ----------------------------------------------------------------------------------- refusals


def test_sold_out_is_a_capacity_error_and_makes_nothing(case: ProviderCase) -> None:
    request = case.request()
    case.make_unavailable(request.offer)
    error = refused(lambda: case.open().launch(request))
    assert error.error_class in {ErrorClass.CAPACITY_ZONE, ErrorClass.CAPACITY_REGION}
    assert error.raw_code
    assert case.alive() == []
    assert seen(case, case.open()) == []


def test_sold_out_does_not_hide_what_the_key_has_made(case: ProviderCase) -> None:
    request, first = running(case)
    case.make_unavailable(request.offer)
    assert case.open().launch(request) == first


def test_refused_launch_can_be_repeated_when_there_is_room(case: ProviderCase) -> None:
    request = case.request()
    case.make_unavailable(request.offer)
    refused(lambda: case.open().launch(request))
    case.make_available(request.offer)
    case.settle()
    assert case.open().launch(request).provider_id
    assert case.alive() == ["m-1"]


@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        (name, code, expected)
        for name, kind in sorted(CASES.items())
        for code, expected in sorted(EXPECTED_CLASSES.items())
        if "fail_next" not in kind.cannot and code not in kind.lacks
    ],
    indirect=["case"],
)
def test_refusals_come_in_classes(
    case: ProviderCase, provider: Provider, code: str, expected: ErrorClass
) -> None:
    request = case.request()
    case.fail_next(code)
    error = refused(lambda: provider.launch(request))
    assert error.error_class is expected
    assert error.raw_code
    assert case.alive() == []


@offered_by("fail_next")
def test_failed_listing_is_an_error_not_an_empty_list(
    case: ProviderCase, provider: Provider
) -> None:
    running(case)
    case.fail_next("InternalError")
    assert (
        refused(lambda: provider.observe(FLEET, case.clouds())).error_class is ErrorClass.TRANSIENT
    )
    assert seen(case, provider) == ["m-1"]


def test_errors_do_not_tell_the_token(case: ProviderCase) -> None:
    request = case.request()
    case.make_unavailable(request.offer)
    error = refused(lambda: case.open().launch(request))
    assert TOKEN not in f"{error} {error!r} {error.fix} {error.raw_code}"


# ------------------------------------------------------------------------------------ observe


def test_empty_fleet_is_known_to_be_empty(case: ProviderCase, provider: Provider) -> None:
    observation = provider.observe(FLEET, case.clouds())
    assert observation.sightings == ()
    assert observation.unknown == ()
    assert observation.provider == provider.name


def test_observation_says_when_it_was_made(case: ProviderCase, provider: Provider) -> None:
    before = case.now()
    assert before <= provider.observe(FLEET, case.clouds()).at <= case.now()


def test_other_fleets_are_not_shown(case: ProviderCase, provider: Provider) -> None:
    provider.launch(case.request("m-1"))
    provider.launch(case.request("m-2", fleet="fleet-b"))
    case.settle()
    assert seen(case, provider) == ["m-1"]
    assert seen(case, provider, "fleet-b") == ["m-2"]
    assert seen(case, provider, "fleet") == []


def test_restarted_control_plane_finds_its_machines(case: ProviderCase) -> None:
    _, launched = running(case)
    (sighting,) = case.open().observe(FLEET, case.clouds()).sightings
    assert sighting.provider_id == launched.provider_id


def test_place_of_every_machine_is_known(case: ProviderCase, provider: Provider) -> None:
    request, _ = running(case)
    assert provider.observe(FLEET, case.clouds()).knows(request.offer.region, request.offer.zone)


@offered_by("blind")
def test_silent_region_is_unknown_not_empty(case: ProviderCase, provider: Provider) -> None:
    request, _ = running(case)
    case.blind(request.offer.region)
    observation = provider.observe(FLEET, case.clouds())
    assert not observation.knows(request.offer.region, request.offer.zone)
    assert seen(case, provider) == []


@offered_by("blind")
def test_silent_region_does_not_hide_the_others(case: ProviderCase, provider: Provider) -> None:
    request, _ = running(case)
    other = next(o for o in provider.offers(case.clouds()) if o.region != request.offer.region)
    case.blind(other.region)
    observation = provider.observe(FLEET, case.clouds())
    assert seen(case, provider) == ["m-1"]
    assert observation.knows(request.offer.region, request.offer.zone)
    assert not observation.knows(other.region, other.zone)


@offered_by("blind")
def test_nothing_readable_raises(case: ProviderCase, provider: Provider) -> None:
    for region in {offer.region for offer in provider.offers(case.clouds())}:
        case.blind(region)
    assert (
        refused(lambda: provider.observe(FLEET, case.clouds())).error_class is ErrorClass.TRANSIENT
    )


@offered_by("blind")
def test_silent_region_is_no_proof_of_an_end(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    case.blind(request.offer.region)
    refused(lambda: provider.sighting(case.ref(request, launched)))


# ----------------------------------------------------------------------------------- sighting


def test_unknown_machine_positively_does_not_exist(case: ProviderCase, provider: Provider) -> None:
    strange = MachineRef(
        machine_id="m-never", provider_id="never-was", region=case.offer().region, zone=""
    )
    assert provider.sighting(strange) is None


def test_machine_is_seen_by_its_provider_id(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    sighting = provider.sighting(case.ref(request, launched))
    assert sighting is not None
    assert (sighting.machine_id, sighting.state) == ("m-1", "running")


def test_machine_is_seen_by_its_label_when_the_answer_was_lost(
    case: ProviderCase, provider: Provider
) -> None:
    request, launched = running(case)
    sighting = provider.sighting(case.ref(request))
    assert sighting is not None
    assert sighting.provider_id == launched.provider_id


def test_sighting_by_label_prefers_the_living_attempt(
    case: ProviderCase, provider: Provider
) -> None:
    request, first = running(case)
    case.last_look(case.ref(request, first), provider)
    second = provider.launch(case.request(attempt=2))
    case.settle()
    sighting = provider.sighting(case.ref(request))
    assert sighting is not None
    assert (sighting.provider_id, sighting.state) == (second.provider_id, "running")


def test_machine_that_ended_by_itself_is_gone(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    case.end_by_itself(launched)
    sighting = provider.sighting(case.ref(request, launched))
    assert sighting is None or (sighting.state, sighting.end_reason) == ("gone", "self")
    assert seen(case, provider) == []


@offered_by("interrupt")
def test_interrupted_machine_says_so(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    case.interrupt(launched)
    sighting = provider.sighting(case.ref(request, launched))
    assert sighting is None or (sighting.state, sighting.end_reason) == ("gone", "interrupted")
    assert seen(case, provider) == []


# ---------------------------------------------------------------------------------- terminate


def test_terminate_repeated_leads_to_gone(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    sighting = case.last_look(case.ref(request, launched), provider)
    assert sighting is None or (sighting.state, sighting.end_reason) == ("gone", "user")
    assert case.alive() == []
    assert seen(case, provider) == []


def test_terminate_of_a_gone_machine_does_nothing(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case)
    ref = case.ref(request, launched)
    case.last_look(ref, provider)
    provider.terminate(ref)
    case.open().terminate(ref)
    assert case.alive() == []


def test_terminate_of_an_unknown_machine_does_nothing(
    case: ProviderCase, provider: Provider
) -> None:
    running(case)
    strange = MachineRef(
        machine_id="m-never", provider_id="never-was", region=case.offer().region, zone=""
    )
    provider.terminate(strange)
    assert case.alive() == ["m-1"]


def test_terminate_ends_only_the_one_that_is_meant(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case, "m-1")
    running(case, "m-2")
    case.last_look(case.ref(request, launched), provider)
    assert case.alive() == ["m-2"]
    assert seen(case, provider) == ["m-2"]


def test_terminate_of_another_fleet_leaves_ours(case: ProviderCase, provider: Provider) -> None:
    running(case, "m-1")
    other = case.request("m-2", fleet="fleet-b")
    launched = provider.launch(other)
    case.settle()
    case.last_look(case.ref(other, launched), provider)
    assert case.alive() == ["m-1"]


def test_terminate_by_label_alone_ends_it(case: ProviderCase, provider: Provider) -> None:
    request, _ = running(case)
    case.last_look(case.ref(request), provider)
    assert case.alive() == []


def test_terminate_right_after_launch_ends_it(case: ProviderCase, provider: Provider) -> None:
    request = case.request()
    launched = provider.launch(request)
    provider.terminate(case.ref(request, launched))
    case.settle()
    case.last_look(case.ref(request, launched), provider)
    assert case.alive() == []


def test_terminate_works_after_a_restart(case: ProviderCase) -> None:
    request, launched = running(case)
    case.last_look(case.ref(request, launched), case.open())
    assert case.alive() == []


def test_terminated_slot_can_be_used_again(case: ProviderCase, provider: Provider) -> None:
    request, launched = running(case, "m-1")
    case.last_look(case.ref(request, launched), provider)
    running(case, "m-2")
    assert seen(case, provider) == ["m-2"]


# ------------------------------------------------------------------------------------ secrets


def test_token_is_not_visible_from_outside(case: ProviderCase) -> None:
    running(case)
    visible = case.visible_outside()
    assert "m-1" in visible, "the case must show something, else this test proves nothing"
    assert TOKEN not in visible


def test_token_is_in_no_sighting(case: ProviderCase, provider: Provider) -> None:
    _, launched = running(case)
    assert TOKEN not in repr((launched, provider.observe(FLEET, case.clouds())))
