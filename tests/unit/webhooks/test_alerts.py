"""What is told: each thing once a day to each receiver, and only what a document wants told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_bootstrap import wire
from control_plane import alerts
from control_plane.config.load import load_text
from control_plane.core.alerts import DeliveryState
from control_plane.core.model import JobState, Reason
from control_plane.core.plan import Plan, Refusal
from control_plane.core.policy import Alert, Autoscaler
from control_plane.stores.memory import MemoryStore
from tests.api.world import DOCUMENT, NOW, World
from tests.conformance.builders import job

PAGER = Alert(channel="webhook", target="secret://pager", on=("job-failed", "budget"))
SLACK = Alert(channel="slack", target="secret://slack", on=("job-failed", "no-capacity"))
ALERTING = DOCUMENT + "alerts:\n  - {webhook: secret://pager, on: [job-failed]}\n"


def declared(*wanted: Alert) -> Autoscaler:
    return replace(load_text(DOCUMENT, name="research.yaml"), alerts=wanted)


def refusals(*codes: str) -> Plan:
    refused = (
        Refusal(subject="small", wanted=1, reason=Reason(code=code, sentence=f"because {code}"))
        for code in codes
    )
    return Plan(autoscaler="research", at=NOW, generation=1, refusals=tuple(refused))


def test_a_failed_job_is_told_once_to_everybody_who_wants_to_hear() -> None:
    store = MemoryStore()
    failed = job("j-1", state=JobState.FAILED, reason=Reason(code="failed", sentence="exit code 3"))
    assert alerts.tell_of_job(store, declared(PAGER, SLACK), failed, NOW)
    assert not alerts.tell_of_job(store, declared(PAGER, SLACK), failed, NOW)
    told = store.delivery_list()
    assert sorted(each.channel for each in told) == ["slack", "webhook"]
    assert {each.text for each in told} == {"job j-1 of queue q is failed: exit code 3"}
    assert {each.fix for each in told} == {"orchctl job report j-1"}
    tomorrow = NOW + timedelta(days=1)
    assert alerts.tell_of_job(store, declared(PAGER), failed, tomorrow)


def test_nobody_who_did_not_ask_is_told() -> None:
    store = MemoryStore()
    quiet = declared(replace(PAGER, on=("budget",)))
    assert not alerts.tell_of_job(store, quiet, job("j-1", state=JobState.FAILED), NOW)
    assert not alerts.tell_of_plan(store, declared(), refusals("budget-day"))
    assert not store.delivery_list()


@pytest.mark.parametrize(
    ("code", "kind", "subject"),
    [
        ("budget-day", "budget", "budget-day"),
        ("budget-month", "budget", "budget-month"),
        ("cap-day", "budget", "cap-day"),
        ("cap-month", "budget", "cap-month"),
        ("no-capacity", "no-capacity", "small"),
        ("breaker-open", "no-capacity", "small"),
    ],
)
def test_what_a_plan_refuses_for_want_of_money_or_capacity(
    code: str, kind: str, subject: str
) -> None:
    store = MemoryStore()
    both = declared(replace(PAGER, on=("budget", "no-capacity")))
    assert alerts.tell_of_plan(store, both, refusals("cap-machines", code, "cap-hour"))
    (told,) = store.delivery_list()
    assert (told.kind, told.subject, told.text) == (kind, subject, f"because {code}")
    assert not alerts.tell_of_plan(store, both, refusals(code))


def test_a_day_has_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "DAY_MAX", 3)
    store = MemoryStore()
    told = [
        alerts.tell_of_job(store, declared(PAGER), job(f"j-{n}", state=JobState.FAILED), NOW)
        for n in range(5)
    ]
    assert told == [True, True, True, False, False]
    tomorrow = NOW + timedelta(days=1)
    assert alerts.tell_of_job(
        store, declared(PAGER), job("j-9", state=JobState.EXHAUSTED), tomorrow
    )


# ------------------------------------------------------------------------------ in the program


def failing(world: World, code: int = 3) -> str:
    """A job that its machine reports as failed."""
    world.registered()
    job_id = world.submit()
    machine = world.store.machine_get("m-1")
    (found,) = world.store.job_claim("m-1", ["default"], machine.total, limit=1, now=NOW)
    ended = wire.Finished(epoch=found.epoch, outcome="failed", exit_code=code)
    for _ in range(2):  # its agent says it again after a lost answer
        world.agents.finish(machine, job_id, ended)
    return job_id


@pytest.fixture
def world() -> World:
    world = World(MemoryStore())
    world.fleet.apply("", load_text(ALERTING, name="research.yaml"), expected_version=0)
    return world


def test_a_job_that_fails_on_its_machine(world: World) -> None:
    job_id = failing(world)
    (told,) = world.store.delivery_list()
    assert (told.kind, told.subject, told.state) == ("job-failed", job_id, DeliveryState.WAITING)
    assert told.text.startswith(f"job {job_id} of queue default is failed")
    with world.client() as client:
        (shown,) = client.get("/v1/deliveries").json()["items"]
    assert (shown["id"], shown["target"]) == (told.id, "secret://pager")


def test_a_job_that_is_exhausted_or_cancelled(world: World) -> None:
    submitted = world.submit()
    given = replace(world.store.job_get(submitted), state=JobState.EXHAUSTED)
    world.service.ended(given)
    world.service.ended(replace(given, id="j-other", state=JobState.CANCELLED))
    world.service.ended(replace(given, id="j-third", queue="gone"))
    assert [each.subject for each in world.store.delivery_list()] == [submitted]


def test_the_secret_of_a_receiver_is_for_operators(world: World) -> None:
    with world.client() as client:
        params = {"target": "secret://pager"}
        first = client.get("/v1/alert-secret", params=params).json()["secret"]
        other = client.get("/v1/alert-secret", params={"target": "secret://other"}).json()["secret"]
        assert first.startswith("whsec_")
        assert first != other
        assert client.get("/v1/alert-secret", params={"target": "pager"}).status_code == 422
