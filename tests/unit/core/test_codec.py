"""Every value travels as plain JSON and comes back equal; what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from control_plane.core.codec import from_json, to_json
from control_plane.core.model import (
    Artifact,
    Attempt,
    Capacity,
    ErrorClass,
    Event,
    Job,
    JobSpec,
    JobState,
    Machine,
    MachineState,
    Market,
    Need,
    Offer,
    PriceInterval,
    QueueRecord,
    QueueStats,
    Source,
)
from control_plane.core.plan import (
    Adopt,
    Hold,
    Launch,
    Mark,
    Plan,
    Reap,
    Refusal,
    Report,
    Requeue,
    Resume,
    Terminate,
)
from control_plane.core.policy import (
    Alert,
    AtLimit,
    AutoscalerRecord,
    CloudPolicy,
    MarketPolicy,
    Window,
)
from control_plane.core.snapshot import Spend, Timing
from tests.build import (
    NOW,
    WHY,
    ahead,
    cooldown,
    group,
    lease,
    machine,
    observation,
    offer,
    policy,
    pool,
    queue,
    sighting,
    snapshot,
)

NEED = Need(gpus=2, gpu_name="L4", gpu_memory_gib=24, cpus=4, on_demand_only=True)
SPEC = JobSpec(
    command="python train.py",
    need=NEED,
    env={"LR": "0.1"},
    source=Source(kind="git", blob="sources/ab", sha256="ab", remote="r", commit="c"),
    requirements=("torch==2.9",),
    artifacts=("out/*.pt",),
)
JOB = Job(
    id="j-1",
    queue="default",
    spec=SPEC,
    state=JobState.RUNNING,
    labels={"team": "vision"},
    position=1.5,
    submitted_at=NOW,
    queued_at=NOW,
    started_at=ahead(3),
    exit_code=None,
    reason=WHY,
)
POLICY = policy(
    pool(
        market=MarketPolicy.SPOT,
        max_price_usd_hour=Decimal("1.50"),
        clouds=(CloudPolicy(provider="aws", regions=("us-east-1",), options={"vpc": "v"}),),
        warm=(Window(cron="0 8 * * *", duration_s=60, timezone="Europe/Berlin", machines=1),),
    ),
    queue(jobs_per_machine=4),
    budget={"hour_usd": "0.10", "at_limit": AtLimit.DRAIN},
)
MACHINE = machine(
    "m-1", MachineState.READY, offer(), capacity=Capacity(gpus=1, market=Market.SPOT), reason=WHY
)
PLAN = Plan(
    autoscaler="research",
    at=NOW,
    generation=3,
    launches=(Launch(machine_id="m-2", pool="l4", offers=(offer(),), reason=WHY),),
    resumes=(Resume(machine_id="m-3", provider="aws", region="eu", pending=True, reason=WHY),),
    adoptions=(
        Adopt(machine_id="m-4", provider_id="i-4", created_at=NOW, offer=offer(), reason=WHY),
    ),
    requeues=(Requeue(job_id="j-1", epoch=2, outcome="lost", reason=WHY),),
    marks=(Mark(machine_id="m-1", state=MachineState.LOST, reason=WHY),),
    holds=(Hold(machine_id="m-5", until=None, reason=WHY),),
    terminations=(Terminate(machine_id="m-1", reason=WHY, hard=True),),
    reaps=(
        Reap(provider="aws", provider_id="i-9", region="r", zone="z", machine_id="", reason=WHY),
    ),
    refusals=(Refusal(subject="default", wanted=2, reason=WHY),),
    reports=(Report(subject="default", reason=WHY),),
)
SNAPSHOT = snapshot(
    group(3),
    policy=POLICY,
    paused=True,
    queues={"default": QueueStats(name="default", waiting=3, running=1, oldest_at=NOW)},
    queues_paused=frozenset({"b", "a"}),
    machines=(MACHINE,),
    leases=(lease(need=NEED),),
    observations=(observation(sighting(), unknown=("us-west-2",)),),
    cooldowns=(cooldown("aws/*", error_class=ErrorClass.AUTH),),
    reachable_since=NOW,
    spend=Spend(day_usd=Decimal("12.3456")),
    timing=Timing(lease_s=30),
)
RECORD = AutoscalerRecord(
    name="research", version=2, document="name: research", policy=POLICY, applied_at=NOW
)
ATTEMPT = Attempt(
    job_id="j-1",
    number=1,
    epoch=1,
    queue="default",
    owner="mia",
    machine_id="m-1",
    need=NEED,
    leased_at=NOW,
)
INTERVAL = PriceInterval(
    machine_id="m-1",
    autoscaler="research",
    pool="l4",
    provider="aws",
    region="r",
    zone="z",
    instance_type="g6.xlarge",
    market=Market.ON_DEMAND,
    total=Capacity(gpus=1),
    price_usd_hour=Decimal("0.30"),
    on_demand_usd_hour=None,
    started_at=NOW,
)
VALUES = (
    SNAPSHOT,
    PLAN,
    RECORD,
    JOB,
    MACHINE,
    ATTEMPT,
    INTERVAL,
    Artifact(name="a.txt", size_bytes=3, sha256="ab", blob="b"),
    Event(at=NOW, kind="job", subject="j-1", text="queued"),
    QueueRecord(name="default", created_at=NOW),
    Alert(channel="slack", target="secret://hook", on=("budget",)),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_goes_to_json_text_and_comes_back_equal(value: object) -> None:
    """Nothing is lost on the way through a file, a row or a body."""
    text = json.dumps(to_json(value))
    assert from_json(type(value), json.loads(text)) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Decimal("0.10"), "0.10"),  # the text keeps the cents; a float would not
        (NOW, "2026-11-02T12:00:00+00:00"),
        (Market.ON_DEMAND, "on-demand"),
        (("a", 1), ["a", 1]),
        ([True], [True]),
        (frozenset({"b", "a"}), ["a", "b"]),  # sorted: the same set is the same text
        ({"a": Decimal(1)}, {"a": "1"}),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_the_plain_form_is_what_a_person_would_write(value: object, plain: object) -> None:
    """The forms are a contract: they are in stored rows, snapshot files and the API."""
    assert to_json(value) == plain


def test_a_number_in_a_sentence_is_text() -> None:
    """Keys and values of a reason's figures are text in JSON, whatever they were."""
    assert to_json({1: timedelta.__name__}) == {"1": "timedelta"}


def test_unknown_keys_are_ignored_and_missing_ones_take_the_default() -> None:
    """An older program reads what a newer one wrote, and a newer one what an older wrote."""
    assert from_json(Need, {"gpus": 1, "quantum_bits": 7}) == Need(gpus=1)


@dataclass(frozen=True)
class Odd:
    pair: tuple[int, str] = (0, "")
    names: Mapping[str, int] = field(default_factory=dict)
    share: float = 0.0


def test_pairs_maps_and_fractions_are_read_by_their_hints() -> None:
    """A tuple of fixed length keeps its kinds; a whole number is a fraction where one is asked."""
    data = {"pair": [1, "a"], "names": {"x": 2}, "share": 3}
    assert from_json(Odd, data) == Odd(pair=(1, "a"), names={"x": 2}, share=3.0)
    assert isinstance(from_json(Odd, data).share, float)


NEED_DATA = to_json(NEED)
OFFER_DATA = to_json(offer())


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Need, 3),  # no mapping at all
        (Need, None),
        (Need, NEED_DATA | {"gpus": "2"}),  # text is no number
        (Need, NEED_DATA | {"gpus": True}),  # and neither is a yes
        (Need, NEED_DATA | {"gpu_name": 4}),
        (Need, NEED_DATA | {"on_demand_only": 1}),
        (Offer, {"provider": "aws"}),  # required fields are missing
        (Offer, OFFER_DATA | {"price_usd_hour": "cheap"}),
        (Offer, OFFER_DATA | {"capacity": OFFER_DATA["capacity"] | {"market": "futures"}}),
        (Event, to_json(VALUES[8]) | {"at": "yesterday"}),
        (Event, to_json(VALUES[8]) | {"at": 5}),
        (Odd, {"pair": [1]}),  # too short
        (Odd, {"names": [1]}),
        (Machine, to_json(MACHINE) | {"offers": 1}),
    ],
)
def test_what_does_not_fit_is_a_value_error_that_names_the_kind(kind: type, data: Any) -> None:
    """A bad row or body is refused as one, with one kind of error."""
    with pytest.raises(ValueError, match=f"not a {kind.__name__}: "):
        from_json(kind, data)


def test_the_message_says_what_was_expected() -> None:
    """Whoever wrote the data by hand finds the place."""
    with pytest.raises(ValueError, match="not a Need: expected int, got str"):
        from_json(Need, {"gpus": "2"})


@dataclass(frozen=True)
class Both:
    value: int | str = 0


@dataclass(frozen=True)
class Bytes:
    value: bytes = b""


@dataclass(frozen=True)
class Literal:
    value: list[int] = field(default_factory=list)


@pytest.mark.parametrize("kind", [Both, Bytes, Literal])
def test_a_hint_without_json_form_is_refused(kind: type) -> None:
    """The codec never guesses: a field it cannot read exactly is an error when it is first used."""
    with pytest.raises(ValueError, match="JSON form"):
        from_json(kind, {"value": 1})


def test_a_value_without_json_form_is_refused() -> None:
    """The same on the way out."""
    with pytest.raises(TypeError, match="no JSON form for bytes"):
        to_json(b"raw")


def test_what_is_equal_to_the_letter_is_one_value() -> None:
    first, again = (from_json(Offer, json.loads(json.dumps(OFFER))) for _ in range(2))
    assert first is again
    dearer = from_json(Offer, {**OFFER, "price_usd_hour": "0.50"})
    assert dearer.capacity is first.capacity
    assert (str(first.price_usd_hour), str(dearer.price_usd_hour)) == ("0.5", "0.50")


def test_a_value_that_was_read_before_hides_no_wrong_one() -> None:
    assert from_json(Capacity, {"gpus": 1}).gpus == 1
    with pytest.raises(ValueError, match="not a Capacity"):
        from_json(Capacity, {"gpus": True})


def test_of_very_many_values_not_all_are_kept() -> None:
    first = from_json(Capacity, {"disk_gib": 0})
    for disk_gib in range(1, 20_000):
        from_json(Capacity, {"disk_gib": disk_gib})
    again = from_json(Capacity, {"disk_gib": 0})
    assert again == first
    assert again is not first


OFFER = {
    "provider": "aws",
    "region": "us-east-1",
    "zone": "",
    "instance_type": "g6.xlarge",
    "capacity": {"gpus": 1, "gpu_name": "L4"},
    "price_usd_hour": "0.5",
}
