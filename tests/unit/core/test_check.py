"""The second pair of eyes sees every promise that a plan could break."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.check import Finding, check
from control_plane.core.model import Machine, MachineState, Offer
from control_plane.core.plan import Launch, Mark, Plan, Requeue, Terminate
from control_plane.core.snapshot import Snapshot
from tests.build import NOW, WHY, lease, machine, offer, policy, pool, snapshot

S = MachineState
BEFORE = snapshot(
    policy=policy(pool(high=2, gpus_max=4), pool("other", high=1), budget={"hour_usd": "1.00"}),
    machines=(machine("m-1"), machine("m-2", S.DRAINING, pool="gone")),
    leases=(lease("m-1", "j-1"),),
)


def planned(**actions: Any) -> Plan:
    return Plan(autoscaler="research", at=NOW, generation=1, **actions)


def launch(machine_id: str = "m-new", *offers: Offer, pool: str = "l4") -> Launch:
    return Launch(machine_id=machine_id, pool=pool, offers=offers or (offer(),), reason=WHY)


def mark(machine_id: str, *states: MachineState) -> tuple[Mark, ...]:
    return tuple(Mark(machine_id=machine_id, state=state, reason=WHY) for state in states)


def requeue(job_id: str = "j-1", epoch: int = 1) -> Requeue:
    return Requeue(job_id=job_id, epoch=epoch, outcome="lost", reason=WHY)


def terminate(machine_id: str = "m-1", *, hard: bool = False) -> Terminate:
    return Terminate(machine_id=machine_id, reason=WHY, hard=hard)


@pytest.mark.parametrize(
    ("actions", "codes"),
    [
        ({}, []),
        ({"launches": (launch(),)}, []),
        ({"launches": (launch("m-1"),)}, ["duplicate-id"]),
        (
            {"launches": (launch("n"), launch("n", pool="other"))},
            ["duplicate-id", "duplicate-id", "cap-hour"],  # 4 x 0.30 USD/hour
        ),
        ({"launches": (replace(launch(), offers=()),)}, ["no-offer"]),
        ({"launches": (launch(pool="gone"),)}, ["no-pool"]),
        (  # 1 + 3 = 4 cards, and none for the one that is nothing; 1 + 2 = 3 machines
            {"launches": (replace(launch(), offers=()), launch("n", offer(gpus=3)))},
            ["no-offer", "cap-machines"],
        ),
        (
            {"launches": tuple(launch(each, offer("0.1"), pool="other") for each in "ab")},
            ["cap-machines"],
        ),
        ({"launches": (launch("n", offer(), offer(provider="gcp")),)}, ["wrong-offer"]),
        ({"launches": (launch("n", offer(gpus=3)),)}, []),  # 1 + 3 = 4 cards
        ({"launches": (launch("n", offer(gpus=4)),)}, ["cap-gpus"]),
        ({"launches": (launch("n", offer(), offer(gpus=4)),)}, ["cap-gpus"]),  # as a fallback
        ({"launches": (launch("a"), launch("b"))}, ["cap-hour", "cap-machines"]),  # 4 x 0.30
        ({"launches": (launch("n", offer("0.40")),)}, []),  # 0.30 + 0.30 + 0.40 = 1.00
        ({"launches": (launch("n", offer("0.41")),)}, ["cap-hour"]),
        ({"launches": (launch("n", offer("0.01"), offer("0.41")),)}, ["cap-hour"]),
        ({"marks": mark("m-1", S.DRAINING)}, []),
        ({"marks": mark("m-1", S.READY)}, []),  # staying is allowed
        ({"marks": mark("m-1", S.LOST, S.TERMINATED)}, []),
        ({"marks": mark("m-1", S.BOOTING)}, ["illegal-edge"]),
        ({"marks": mark("m-1", S.TERMINATED, S.LOST)}, ["illegal-edge"]),
        ({"marks": mark("m-1", S.BOOTING, S.LOST)}, ["illegal-edge"]),  # it is still ready
        ({"marks": mark("m-9", S.LOST)}, ["illegal-edge"]),
        ({"terminations": (terminate("m-2"),)}, []),
        ({"terminations": (terminate("m-9"),)}, ["no-machine"]),
        ({"terminations": (terminate("m-9"), terminate("m-1"))}, ["no-machine", "busy"]),
        ({"terminations": (terminate(),)}, ["busy"]),
        ({"terminations": (terminate(hard=True),)}, []),
        ({"terminations": (terminate(),), "requeues": (requeue(),)}, []),  # given back first
        ({"requeues": (requeue(),)}, []),
        ({"requeues": (requeue("j-9"),)}, ["no-lease"]),
        ({"requeues": (requeue(epoch=2),)}, ["no-lease"]),
        ({"requeues": (requeue(), requeue())}, ["twice"]),
    ],
)
def test_each_broken_promise_is_found_and_nothing_else(
    actions: dict[str, Any], codes: list[str]
) -> None:
    """m-1 is ready and runs j-1; m-2 drains; 2 machines, 4 cards, 1 USD/hour are allowed."""
    assert [each.code for each in check(planned(**actions), BEFORE)] == codes


@pytest.mark.parametrize("changes", [{"paused": True}, {"deleting": True}])
def test_an_autoscaler_that_rests_must_not_buy(changes: dict[str, Any]) -> None:
    """But it may end what it has."""
    resting = replace(BEFORE, **changes)
    assert [each.code for each in check(planned(launches=(launch(),)), resting)] == ["paused"]
    assert check(planned(marks=mark("m-1", S.DRAINING)), resting) == ()


def test_caps_that_are_passed_already_stop_purchases_only() -> None:
    """A cap was lowered below what runs: ending machines is what helps."""
    poor = replace(BEFORE, policy=policy(pool(high=0, gpus_max=0), budget={"hour_usd": "0"}))
    assert check(planned(marks=mark("m-1", S.DRAINING)), poor) == ()
    assert [each.code for each in check(planned(launches=(launch(),)), poor)] == [
        "cap-hour",
        "cap-machines",
        "cap-gpus",
    ]


@pytest.mark.parametrize(
    ("state", "attempt", "rate"),
    [
        (S.PLANNED, 1, "0.90"),  # may still become the dear one
        (S.LAUNCHING, 1, "0.90"),
        (S.LAUNCHING, 3, "0.20"),  # only the last is left
        (S.BOOTING, 1, "0.10"),
        (S.TERMINATING, 2, "0.90"),
        (S.TERMINATED, 2, "0"),
    ],
)
def test_open_launches_count_at_what_they_may_still_become(
    state: MachineState, attempt: int, rate: str
) -> None:
    """Three offers: 0.10, 0.90 with three cards, 0.20 USD/hour; one machine of 0.30 is added."""
    offers = (offer("0.10"), offer("0.90", gpus=3), offer("0.20"))
    there: Machine = machine("m-1", state, *offers, attempt=attempt)

    def codes(**budget: Any) -> list[str]:
        before: Snapshot = snapshot(machines=(there,), policy=policy(pool(gpus_max=3), **budget))
        return [each.code for each in check(planned(launches=(launch(),)), before)]

    enough = Decimal(rate) + Decimal("0.30")
    three_cards = ["cap-gpus"] if rate == "0.90" else []
    assert codes(budget={"hour_usd": enough}) == three_cards
    assert codes(budget={"hour_usd": enough - Decimal("0.01")}) == ["cap-hour", *three_cards]


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        ({"launches": (launch("m-1"),)}, "m-1 is not a new id"),
        ({"launches": (replace(launch(), offers=()),)}, "m-new has no offer to buy"),
        ({"launches": (launch(pool="gone"),)}, "there is no pool gone"),
        (
            {"launches": (launch("n", offer(provider="gcp")),)},
            "pool l4 does not accept every offer chosen",
        ),
        ({"launches": (launch("n", offer("0.41")),)}, "1.01 USD/hour is over 1.00 USD/hour"),
        ({"launches": (launch("n", offer(gpus=4)),)}, "pool l4 would pass its GPU maximum"),
        ({"marks": mark("m-1", S.BOOTING)}, "m-1 may not become booting"),
        ({"terminations": (terminate("m-9"),)}, "m-9 has no record"),
        ({"terminations": (terminate(),)}, "m-1 still runs j-1"),
        ({"requeues": (requeue(epoch=2),)}, "j-1 is not leased at epoch 2"),
        ({"requeues": (requeue(), requeue())}, "j-1 would be given back twice"),
    ],
)
def test_a_finding_is_a_sentence(actions: dict[str, Any], sentence: str) -> None:
    """It goes into the event log, where a person reads it."""
    (finding,) = check(planned(**actions), BEFORE)
    assert finding == Finding(code=finding.code, sentence=sentence)


def test_the_sentences_of_a_pool_that_is_full_and_of_one_that_rests() -> None:
    """The two that come with others."""
    both = check(planned(launches=(launch("a"), launch("b", pool="other"))), BEFORE)
    assert [each.sentence for each in both] == ["1.20 USD/hour is over 1.00 USD/hour"]
    full = check(planned(launches=(launch("a"), launch("b"))), BEFORE)
    assert full[1].sentence == "pool l4 would pass its maximum"
    resting = check(planned(launches=(launch(),)), replace(BEFORE, paused=True))
    assert resting[0].sentence == "a paused autoscaler must not buy"
