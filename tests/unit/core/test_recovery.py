"""Making the books and the clouds agree: every way in which they may differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.core.model import Lease, Machine, MachineState, Market, Reason, Sighting
from control_plane.core.plan import Adopt, Reap, Requeue
from control_plane.core.recovery import Recovery, recover, unknown_places
from control_plane.core.snapshot import Snapshot, Timing
from tests.build import (
    NOW,
    WHY,
    ago,
    ahead,
    cooldown,
    lease,
    machine,
    observation,
    offer,
    policy,
    pool,
    sighting,
    snapshot,
)

S = MachineState
GONE = sighting("m-1", "gone")
BLIND = observation(unknown=("*",))
HARD = {True: " hard", False: ""}


def seeing(one: Machine, *sightings: Sighting, leases: tuple[Lease, ...] = (), **rest: Any) -> Any:
    """What is found with one machine in the books, and exactly these sightings."""
    before = snapshot(
        machines=(one,), leases=leases, observations=(observation(*sightings),), **rest
    )
    return told(before)


def told(before: Snapshot) -> dict[str, Any]:
    """A recovery as plain text, without what is empty."""
    found: Recovery = recover(before)
    said = (*found.marks, *found.requeues, *found.terminations, *found.reaps, *found.adoptions)
    assert not any("None" in each.reason.sentence for each in said)
    plain = {
        "adopted": [f"{each.machine_id}={each.provider_id}" for each in found.adoptions],
        "resumed": [each.machine_id for each in found.resumes],
        "marked": [f"{each.machine_id} {each.state} {each.reason.code}" for each in found.marks],
        "given back": [f"{each.job_id} {each.outcome}" for each in found.requeues],
        "ended": [
            f"{each.machine_id} {each.reason.code}{HARD[each.hard]}" for each in found.terminations
        ],
        "reaped": [each.provider_id for each in found.reaps],
        "serving": [each.id for each in found.serving],
        "wrong": found.books_wrong and found.books_wrong.code,
    }
    return {name: value for name, value in plain.items() if value}


# ------------------------------------------------------------------------------- launches


@pytest.mark.parametrize("state", [S.PLANNED, S.LAUNCHING])
def test_an_open_launch_is_taken_up_again(state: MachineState) -> None:
    """A crash, an unclear answer or a slow cloud: the same key is used, so it is never doubled."""
    one = machine("m-1", state, age_s=60)
    assert seeing(one) == {"resumed": ["m-1"], "serving": ["m-1"]}


@pytest.mark.parametrize("seen", ["running", "stopping", "gone"])
def test_a_launch_whose_answer_was_lost_is_adopted(seen: str) -> None:
    """The cloud shows our label: that is the machine. Also one that has ended already: it has cost
    money."""
    one = machine("m-1", S.LAUNCHING, age_s=60)
    assert seeing(one, sighting("m-1", seen)) == {"adopted": ["m-1=i-m-1"], "serving": ["m-1"]}


def test_a_launch_whose_answer_was_lost_is_asked_for_while_it_is_pending() -> None:
    """One that could not be made looks the same to a listing: the key tells."""
    one = machine("m-1", S.LAUNCHING, age_s=60)
    assert seeing(one, sighting("m-1", "pending")) == {"resumed": ["m-1"], "serving": ["m-1"]}
    late = machine("m-1", S.LAUNCHING, age_s=3600)
    assert seeing(late, sighting("m-1", "pending"))["adopted"] == ["m-1=i-m-1"]


def test_a_launch_whose_id_is_known_is_adopted_as_that_machine() -> None:
    """The cloud has named it, but has not said that it is done."""
    one = machine("m-1", S.LAUNCHING, age_s=60, provider_id="i-m-1")
    found = seeing(one, sighting("m-1", created_at=ago(60)))
    assert found == {"adopted": ["m-1=i-m-1"], "serving": ["m-1"]}


def test_a_launch_that_goes_on_is_asked_about_and_not_adopted() -> None:
    """What is pending may yet fail for want of room, and only the operation says so."""
    one = machine("m-1", S.LAUNCHING, age_s=60, provider_id="i-m-1", operation="op-1")
    found = seeing(one, sighting("m-1", "pending"))
    assert found == {"resumed": ["m-1"], "serving": ["m-1"]}


@pytest.mark.parametrize("seen", ["running", "stopping", "gone"])
def test_a_launch_that_has_come_to_something_is_adopted(seen: str) -> None:
    """Whether its operation can be asked or not: it costs money."""
    one = machine("m-1", S.LAUNCHING, age_s=60, provider_id="i-m-1", operation="op-1")
    found = seeing(one, sighting("m-1", seen))
    assert found == {"adopted": ["m-1=i-m-1"], "serving": ["m-1"]}


def test_a_launch_that_goes_on_for_too_long_is_adopted() -> None:
    """As a machine that does not boot, it is ended."""
    one = machine("m-1", S.LAUNCHING, age_s=3600, provider_id="i-m-1", operation="op-1")
    assert seeing(one, sighting("m-1", "pending"))["adopted"] == ["m-1=i-m-1"]


def test_an_adoption_takes_what_the_cloud_says() -> None:
    """The id and the time from which it costs money."""
    one = machine("m-1", S.LAUNCHING, age_s=60)
    before = snapshot(
        machines=(one,), observations=(observation(sighting("m-1", created_at=ago(42))),)
    )
    (adoption,) = recover(before).adoptions
    assert adoption == Adopt(
        machine_id="m-1",
        provider_id="i-m-1",
        created_at=ago(42),
        offer=one.offer,
        reason=adoption.reason,
    )


@pytest.mark.parametrize(
    ("shown", "bought"),
    [
        ({"instance_type": "g6.2x", "zone": "us-east-1b", "market": Market.SPOT}, 1),
        ({"instance_type": "g6.2x", "zone": "us-east-1c", "market": Market.SPOT}, 0),
        ({"instance_type": "g6.4x", "zone": "us-east-1c", "market": Market.SPOT}, 2),
        ({"instance_type": "g6.4x", "zone": "us-east-1c", "market": Market.ON_DEMAND}, 0),
        ({"instance_type": "g6.9x", "zone": "us-east-1a", "market": Market.SPOT}, 0),
        ({}, 0),  # the cloud does not say
    ],
)
def test_an_adoption_finds_which_of_several_was_bought(shown: dict[str, Any], bought: int) -> None:
    """One call may buy any of some offers, and its answer may be lost."""
    offers = (offer(), offer(kind="g6.2x", zone="us-east-1b"), offer(kind="g6.4x", zone=""))
    one = replace(machine("m-1", S.LAUNCHING, age_s=60), offers=offers)
    seen = replace(sighting("m-1"), **shown)
    (adoption,) = recover(snapshot(machines=(one,), observations=(observation(seen),))).adoptions
    assert adoption.offer == offers[bought]


def test_a_plan_that_was_never_begun_is_begun_even_if_something_carries_its_label() -> None:
    """The launch call finds the machine by its key; a record that is only planned has no id."""
    one = machine("m-1", S.PLANNED, age_s=60)
    assert seeing(one, sighting()) == {"resumed": ["m-1"], "serving": ["m-1"]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"paused": True}, "paused"),
        ({"deleting": True}, "deleting"),
        ({"deleting": True, "paused": True}, "deleting"),
        ({"policy": policy(pool("other"))}, "pool-removed"),
    ],
)
def test_a_plan_that_is_no_longer_wanted_is_dropped(changes: dict[str, Any], code: str) -> None:
    """No cloud call was made, so there is nothing to end."""
    one = machine("m-1", S.PLANNED, age_s=60)
    assert seeing(one, **changes) == {"marked": [f"m-1 launch_failed {code}"]}


@pytest.mark.parametrize("state", [S.LAUNCHING, S.BOOTING])
@pytest.mark.parametrize(
    ("changes", "code"),
    [({"deleting": True}, "deleting"), ({"policy": policy(pool("other"))}, "pool-removed")],
)
def test_a_machine_that_comes_too_late_is_ended_at_once(
    state: MachineState, changes: dict[str, Any], code: str
) -> None:
    """Nobody will use it, and nobody can: its pool or autoscaler goes."""
    one = machine("m-1", state, age_s=30)
    assert seeing(one, **changes) == {"ended": [f"m-1 {code}"]}


def test_a_late_answer_is_adopted_before_the_machine_is_ended() -> None:
    """Without its id it could not be."""
    one = machine("m-1", S.LAUNCHING, age_s=60)
    assert seeing(one, sighting(), deleting=True) == {
        "adopted": ["m-1=i-m-1"],
        "ended": ["m-1 deleting"],
    }


@pytest.mark.parametrize("state", [S.LAUNCHING, S.BOOTING])
def test_a_pause_does_not_end_what_is_on_its_way(state: MachineState) -> None:
    """It is paid for already."""
    found = seeing(machine("m-1", state, age_s=30), paused=True)
    assert found["serving"] == ["m-1"]


# ------------------------------------------------------------------------------- gone


@pytest.mark.parametrize(
    ("state", "changes", "end_reason", "marks", "outcome"),
    [
        (S.READY, {}, "", ["lost gone", "terminated gone"], "lost"),
        (S.DRAINING, {}, "self", ["lost gone", "terminated gone"], "lost"),
        (S.DRAINING, {"reason": WHY}, "", ["lost test", "terminated test"], "lost"),
        (
            S.READY,
            {},
            "interrupted",
            ["interrupted interrupted", "terminated interrupted"],
            "interrupted",
        ),
        (
            S.DRAINING,
            {"interruption_at": NOW},
            "",
            ["interrupted interrupted", "terminated interrupted"],
            "interrupted",
        ),
        (S.BOOTING, {}, "", ["boot_failed boot-failed", "terminated boot-failed"], "lost"),
        (
            S.BOOTING,
            {},
            "interrupted",
            ["interrupted interrupted", "terminated interrupted"],
            "interrupted",
        ),
    ],
)
def test_a_machine_that_is_proven_gone_is_closed_and_its_jobs_are_given_back(
    state: MachineState,
    changes: dict[str, Any],
    end_reason: str,
    marks: list[str],
    outcome: str,
) -> None:
    """With the word for what happened: taken back by the cloud, never came up, or simply gone."""
    one = machine("m-1", state, age_s=60, **changes)
    seen = sighting("m-1", "gone", end_reason=end_reason)
    assert seeing(one, seen, leases=(lease(), lease(job_id="j-2"))) == {
        "marked": [f"m-1 {each}" for each in marks],
        "given back": [f"j-1 {outcome}", f"j-2 {outcome}"],
    }


@pytest.mark.parametrize("observations", [(BLIND,), (), (observation(),)])
@pytest.mark.parametrize("state", [S.READY, S.BOOTING, S.DRAINING])
def test_a_machine_that_is_not_shown_is_not_gone(state: MachineState, observations: Any) -> None:
    """Only a positive answer counts; silence and boot time decide about the rest."""
    before = snapshot(machines=(machine("m-1", state, age_s=60),), observations=observations)
    assert set(told(before)) <= {"serving"}


def test_another_machine_of_the_same_label_does_not_prove_anything() -> None:
    """An earlier attempt of the same machine is gone; the one in the books has another id."""
    one = machine("m-1", S.READY)
    earlier = sighting("m-1", "gone", provider_id="i-earlier")
    assert seeing(one, earlier) == {"serving": ["m-1"]}


# ------------------------------------------------------------------------------- booting


@pytest.mark.parametrize(("age_s", "fails"), [(599, False), (600, False), (601, True)])
def test_a_machine_that_does_not_register_in_time_is_ended(age_s: float, fails: bool) -> None:
    """The limit is the pool's `boot_timeout`, 600 s."""
    one = machine("m-1", S.BOOTING, age_s=age_s)
    failed = {"marked": ["m-1 boot_failed boot-failed"], "ended": ["m-1 boot-failed"]}
    assert seeing(one, sighting()) == (failed if fails else {"serving": ["m-1"]})


@pytest.mark.parametrize(
    ("age_s", "changes", "found"),
    [
        (601, {}, {"marked": ["m-1 boot_failed boot-failed"], "ended": ["m-1 boot-failed"]}),
        (30, {"deleting": True}, {"ended": ["m-1 deleting"]}),
    ],
)
def test_what_a_machine_holds_that_never_served_is_given_back(
    age_s: float, changes: dict[str, Any], found: dict[str, Any]
) -> None:
    """Its agent had registered for a moment that the books do not show."""
    one = machine("m-1", S.BOOTING, age_s=age_s)
    assert seeing(one, leases=(lease(),), **changes) == found | {"given back": ["j-1 lost"]}


def test_boot_time_is_counted_from_the_launch() -> None:
    """It waited for its launch, which is no fault of the machine."""
    late = machine("m-1", S.BOOTING, age_s=900, launched_at=ago(600))
    assert seeing(late) == {"serving": ["m-1"]}
    unknown = machine("m-1", S.BOOTING, age_s=601, launched_at=None)
    assert "marked" in seeing(unknown)


# ------------------------------------------------------------------------------- silent


@pytest.mark.parametrize("state", [S.READY, S.DRAINING])
@pytest.mark.parametrize(("silent_s", "lost"), [(89, False), (90, False), (91, True)])
def test_a_silent_machine_loses_its_jobs_and_ends(
    state: MachineState, silent_s: float, lost: bool
) -> None:
    """Longer than the lease of 90 s."""
    one = machine("m-1", state, last_beat_at=ago(silent_s))
    found = seeing(one, sighting(), leases=(lease(),))
    if lost:
        assert found == {
            "marked": ["m-1 lost silent"],
            "given back": ["j-1 lost"],
            "ended": ["m-1 silent hard"],
        }
    else:
        assert found == ({"serving": ["m-1"]} if state is S.READY else {})


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"last_beat_at": None, "registered_at": ago(90)}, False),
        ({"last_beat_at": None, "registered_at": ago(91)}, True),
        ({"last_beat_at": None, "registered_at": None, "planned_at": ago(90)}, False),
        ({"last_beat_at": None, "registered_at": None, "planned_at": ago(91)}, True),
        ({"last_beat_at": ago(90), "registered_at": ago(9999)}, False),
    ],
)
def test_silence_is_counted_from_the_last_word(changes: dict[str, Any], lost: bool) -> None:
    """A beat, else the registration, else the plan."""
    assert ("marked" in seeing(machine(**changes))) is lost


@pytest.mark.parametrize(
    ("since_s", "lost"), [(None, True), (9999, True), (91, True), (90, False), (0, False)]
)
def test_nobody_is_silent_while_the_control_plane_could_not_be_reached(
    since_s: float | None, lost: bool
) -> None:
    """After its own outage everybody gets a whole lease of time to speak."""
    since = None if since_s is None else ago(since_s)
    found = seeing(machine(last_beat_at=ago(600)), reachable_since=since)
    assert ("marked" in found) is lost


def test_a_machine_that_goes_silent_after_a_notice_was_interrupted() -> None:
    """It was announced: its jobs do not count it as a loss of ours."""
    one = machine("m-1", S.DRAINING, last_beat_at=ago(91), interruption_at=ago(60))
    assert seeing(one, leases=(lease(),)) == {
        "marked": ["m-1 interrupted interrupted"],
        "given back": ["j-1 interrupted"],
        "ended": ["m-1 interrupted hard"],
    }


# ------------------------------------------------------------------------------- ending


@pytest.mark.parametrize("state", [S.TERMINATING, S.BOOT_FAILED, S.INTERRUPTED, S.LOST])
@pytest.mark.parametrize(
    ("called_s_ago", "again"), [(None, True), (0, False), (14, False), (15, True)]
)
def test_terminate_is_repeated_until_it_is_proven(
    state: MachineState, called_s_ago: float | None, again: bool
) -> None:
    """Every 15 s, also where the listing does not show the machine any more."""
    one = machine(
        "m-1",
        state,
        reason=WHY,
        terminating_at=None if called_s_ago is None else ago(called_s_ago),
    )
    expected = {"ended": ["m-1 test hard"]} if again else {}
    for sightings in ((sighting(),), (sighting("m-1", "stopping"),), ()):
        assert seeing(one, *sightings) == expected


@pytest.mark.parametrize("state", [S.TERMINATING, S.BOOT_FAILED, S.INTERRUPTED, S.LOST])
def test_an_ending_machine_that_is_gone_is_closed(state: MachineState) -> None:
    """With the reason it was ended for."""
    one = machine("m-1", state, reason=WHY)
    assert seeing(one, GONE) == {"marked": ["m-1 terminated test"]}
    assert seeing(machine("m-1", state), GONE) == {"marked": ["m-1 terminated ended"]}


def test_an_ending_machine_whose_launch_answer_was_lost_is_found_first() -> None:
    """Without its id it cannot be ended."""
    one = machine("m-1", S.TERMINATING, provider_id="", reason=WHY)
    assert seeing(one, sighting()) == {"adopted": ["m-1=i-m-1"]}


@pytest.mark.parametrize("seen", ["pending", "running", "stopping"])
def test_an_ending_machine_whose_launch_never_became_clear_is_booked_first(seen: str) -> None:
    """The cloud has named it, and nobody has heard that it is done: it costs money all the same."""
    one = machine("m-1", S.TERMINATING, operation="op-1", reason=WHY, terminating_at=ago(60))
    assert seeing(one, sighting("m-1", seen)) == {"adopted": ["m-1=i-m-1"]}
    assert seeing(one, GONE) == {"marked": ["m-1 terminated test"]}


@pytest.mark.parametrize(
    ("ending_s", "observations", "proven"),
    [
        (121, (observation(),), True),
        (120, (observation(),), False),  # a listing may be late
        (121, (), False),
        (121, (BLIND,), False),
        (121, (observation(unknown=("us-east-1",)),), False),
        (121, (observation(unknown=("us-east-1a",)),), False),
        (121, (observation(unknown=("us-west-2",)),), True),
        (121, (observation(provider="gcp"),), False),
        (121, (observation(provider="gcp"), observation()), True),
    ],
)
def test_a_machine_that_never_was_is_closed_when_its_place_says_so(
    ending_s: float, observations: Any, proven: bool
) -> None:
    """No id was recorded, its place has answered without it, and since its end began, which was
    after its last launch call, there was time to show it."""
    one = machine("m-1", S.TERMINATING, provider_id="", terminating_at=ago(ending_s))
    before = snapshot(machines=(one,), observations=observations)
    assert told(before) == ({"marked": ["m-1 terminated never-launched"]} if proven else {})


def test_a_machine_that_ended_before_its_id_was_recorded_is_adopted_first() -> None:
    """For its costs; in the next plan it is closed."""
    one = machine("m-1", S.TERMINATING, provider_id="", terminating_at=ago(5))
    assert seeing(one, GONE) == {"adopted": ["m-1=i-m-1"]}


def test_the_end_of_a_machine_that_has_no_id_yet_has_to_begin_first() -> None:
    """Ended by hand while its launch was open: from the first call on the time is counted."""
    one = machine("m-1", S.TERMINATING, provider_id="", reason=WHY)
    assert seeing(one) == {"ended": ["m-1 test hard"]}


@pytest.mark.parametrize(
    ("state", "over"),
    [
        (S.PLANNED, {"marked": ["m-1 launch_failed launch-unanswered"]}),
        (S.LAUNCHING, {"ended": ["m-1 launch-unanswered"]}),
    ],
)
@pytest.mark.parametrize(("age_s", "late"), [(600, False), (601, True)])
def test_a_launch_that_stays_unclear_is_given_up(
    state: MachineState, over: dict[str, Any], age_s: float, late: bool
) -> None:
    """It has as long as a machine has to boot, 600 s; so it does not hold a place for ever."""
    one = machine("m-1", state, age_s=age_s)
    assert seeing(one) == (over if late else {"resumed": ["m-1"], "serving": ["m-1"]})


def test_a_launch_that_is_given_up_names_the_last_refusal() -> None:
    """Of its offer, over or not."""
    one = machine("m-1", S.LAUNCHING, age_s=601)
    before = snapshot(machines=(one,), cooldowns=(cooldown(offer().key, left_s=-5, code="Nope"),))
    (ending,) = recover(before).terminations
    assert ending.reason.numbers["last_code"] == "Nope"


def test_a_late_launch_that_the_cloud_shows_is_adopted() -> None:
    """However late: it is there."""
    one = machine("m-1", S.LAUNCHING, age_s=9000)
    assert seeing(one, sighting()) == {"adopted": ["m-1=i-m-1"], "serving": ["m-1"]}


def by(code: str) -> Reason:
    return Reason(code=code, sentence="so it is")


@pytest.mark.parametrize(
    ("state", "reason", "outcome"),
    [
        (S.TERMINATING, by("by-hand"), "returned"),
        (S.TERMINATING, by("max-lifetime"), "returned"),
        (S.TERMINATING, by("silent"), "lost"),
        (S.TERMINATING, None, "lost"),
        (S.LOST, by("silent"), "lost"),
        (S.BOOT_FAILED, None, "lost"),
        (S.INTERRUPTED, by("by-hand"), "interrupted"),
    ],
)
def test_what_an_ending_machine_still_holds_is_given_back(
    state: MachineState, reason: Reason | None, outcome: str
) -> None:
    """Ended on purpose is nobody's loss; a loss counts against the job's limit."""
    one = machine("m-1", state, reason=reason, terminating_at=NOW)
    assert seeing(one, sighting(), leases=(lease(),)) == {"given back": [f"j-1 {outcome}"]}


@pytest.mark.parametrize("state", [S.TERMINATED, S.LAUNCH_FAILED])
def test_an_ended_machine_is_left_alone(state: MachineState) -> None:
    """It should not be in a snapshot; if it is, nothing happens."""
    assert seeing(machine("m-1", state), GONE) == {}
    assert seeing(machine("m-1", state), sighting()) == {}
    assert seeing(machine("m-1", state), leases=(lease(),)) == {"given back": ["j-1 lost"]}


# ------------------------------------------------------------------------------- leases


def test_a_job_whose_machine_has_no_record_is_given_back() -> None:
    """Nothing is lost between queue and machine."""
    before = snapshot(leases=(lease("m-b", "j-2"), lease("m-a", "j-1"), lease("m-b", "j-3")))
    found = recover(before)
    assert told(before) == {"given back": ["j-1 lost", "j-2 lost", "j-3 lost"]}
    assert found.requeues[0] == Requeue(
        job_id="j-1", epoch=1, outcome="lost", reason=found.requeues[0].reason
    )
    assert found.requeues[0].reason.code == "no-machine"


def test_jobs_are_given_back_in_a_fixed_order() -> None:
    """By job, then by epoch, however the store lists them."""
    held = (lease("m-1", "j-2"), replace(lease("m-1", "j-1"), epoch=2), lease("m-1", "j-1"))
    before = snapshot(machines=(machine(last_beat_at=ago(600)),), leases=held)
    given_back = [(each.job_id, each.epoch) for each in recover(before).requeues]
    assert given_back == [("j-1", 1), ("j-1", 2), ("j-2", 1)]


def test_a_running_job_is_left_alone() -> None:
    """Its machine is there and speaks."""
    assert seeing(machine(), sighting(), leases=(lease(),)) == {"serving": ["m-1"]}


# ------------------------------------------------------------------------------- strays


@pytest.mark.parametrize(
    ("seen", "reaped"),
    [
        (sighting("m-x", created_at=ago(121)), True),
        (sighting("m-x", created_at=ago(120)), False),  # its record may be on its way
        (sighting("m-x", "pending", created_at=ago(121)), True),
        (sighting("m-x", "gone"), False),
        (sighting("", provider_id="i-x"), True),  # the label cannot be read
    ],
)
def test_a_machine_of_ours_that_no_record_explains_is_ended(seen: Sighting, reaped: bool) -> None:
    """After a grace time; until it is gone nothing is bought."""
    before = snapshot(observations=(observation(seen),))
    assert told(before) == (
        {"reaped": [seen.provider_id], "wrong": "books-wrong"} if reaped else {}
    )


def test_one_that_is_stopping_is_told_to_go_and_stops_nobody_from_buying() -> None:
    """It may stay stopped for ever, and cost its full price; or it goes by itself in a moment."""
    before = snapshot(observations=(observation(sighting("m-x", "stopping")),))
    assert told(before) == {"reaped": ["i-m-x"]}


def test_of_two_attempts_the_living_one_is_the_machine() -> None:
    ending = sighting("m-1", "stopping", provider_id="i-1")
    living = sighting("m-1", "pending", provider_id="i-2")
    launching = machine("m-1", state=S.LAUNCHING)
    before = snapshot(machines=(launching,), observations=(observation(ending, living),))
    (adoption,) = recover(before).adoptions
    assert adoption.provider_id == "i-2"


def test_a_reap_carries_all_that_is_needed_to_find_the_machine() -> None:
    """There is no record to look it up in."""
    (reap,) = recover(snapshot(observations=(observation(sighting("m-x")),))).reaps
    assert reap == Reap(
        provider="aws",
        provider_id="i-m-x",
        region="us-east-1",
        zone="us-east-1a",
        machine_id="m-x",
        reason=reap.reason,
    )


@pytest.mark.parametrize("state", [S.READY, S.BOOTING, S.TERMINATING])
def test_the_second_machine_of_one_record_is_ended(state: MachineState) -> None:
    """A launch was doubled behind our back: the one in the books stays."""
    one = machine("m-1", state, age_s=60, terminating_at=NOW)
    double = sighting("m-1", provider_id="i-double")
    found = seeing(one, double, sighting())
    assert found["reaped"] == ["i-double"]
    assert found["wrong"] == "books-wrong"
    assert "marked" not in found


def test_a_machine_that_two_clouds_show_under_one_id_is_one_too_many() -> None:
    """Names may coincide: the launch went on to a second cloud, and the first had begun it."""
    before = snapshot(
        machines=(machine(),),
        observations=(
            observation(sighting()),
            observation(sighting(provider="gcp"), provider="gcp"),
        ),
    )
    assert [(each.provider, each.provider_id) for each in recover(before).reaps] == [
        ("gcp", "i-m-1")
    ]


def test_of_two_answers_to_one_launch_the_first_is_taken() -> None:
    """And the other one is ended; one that is gone is not taken while another lives."""
    one = machine("m-1", S.LAUNCHING, age_s=60)
    found = seeing(
        one, sighting(provider_id="i-2"), sighting(provider_id="i-1", state="gone"),
        sighting(provider_id="i-3"),
    )  # fmt: skip
    assert found["adopted"] == ["m-1=i-2"]
    assert found["reaped"] == ["i-3"]


def test_strays_are_ended_in_a_fixed_order() -> None:
    """By the name on the label, then by the cloud's id."""
    before = snapshot(
        observations=(
            observation(
                sighting("m-b"), sighting("m-a", provider_id="i-2"),
                sighting("m-a", provider_id="i-1"),
            ),
        )
    )  # fmt: skip
    assert [each.provider_id for each in recover(before).reaps] == ["i-1", "i-2", "i-m-b"]


def test_one_stray_does_not_hide_another() -> None:
    """A young one, one in the books, and an old one: the old one is ended."""
    seen = (
        sighting("m-a", created_at=ago(5)),
        sighting("m-b"),
        sighting("m-c"),
    )
    before = snapshot(machines=(machine("m-b"),), observations=(observation(*seen),))
    assert told(before)["reaped"] == ["i-m-c"]


def test_the_grace_times_are_those_of_the_snapshot() -> None:
    """Shorter here: 10 s for strays, 5 s of silence, 1 s between two calls."""
    timing = Timing(unknown_grace_s=10, lease_s=5, terminate_repeat_s=1)
    stray = sighting("m-x", created_at=ago(11))
    assert "reaped" in told(snapshot(observations=(observation(stray),), timing=timing))
    assert "marked" in seeing(machine(last_beat_at=ago(6)), timing=timing)
    ending = machine("m-1", S.LOST, terminating_at=ago(1))
    assert "ended" in seeing(ending, timing=timing)


def test_each_machine_is_settled_by_itself() -> None:
    """One that is lost changes nothing for the others, nor for their jobs."""
    before = snapshot(
        machines=(
            machine("m-1", last_beat_at=ago(600)),
            machine("m-2"),
            machine("m-3", S.BOOTING, age_s=30),
            machine("m-4", S.PLANNED, offer(), age_s=1, hold_until=ahead(60)),
        ),
        leases=(lease("m-1", "j-1"), lease("m-2", "j-2")),
    )
    assert told(before) == {
        "marked": ["m-1 lost silent"],
        "given back": ["j-1 lost"],
        "ended": ["m-1 silent hard"],
        "resumed": ["m-4"],
        "serving": ["m-2", "m-3", "m-4"],
    }


def test_unknown_places_by_cloud() -> None:
    """What placement must not buy from."""
    before = snapshot(observations=(observation(unknown=("a", "b")), observation(provider="gcp")))
    assert unknown_places(before) == {"aws": frozenset({"a", "b"}), "gcp": frozenset()}
