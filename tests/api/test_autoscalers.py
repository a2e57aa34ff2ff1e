"""Documents are applied by whoever has seen the last version, previewed without a trace, explained
in the planner's words."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from control_plane.core.codec import to_json
from control_plane.core.model import Reason
from control_plane.core.plan import Launch, Plan, Refusal, Report
from control_plane.ports import PlanRecord
from tests.api.world import DOCUMENT, NOW, World, offer

PATH = "/v1/autoscalers/research"
WIDER = DOCUMENT.replace("max: 2", "max: 5")


def test_a_new_document_is_created_once(client: TestClient) -> None:
    new = client.put(PATH, json={"document": DOCUMENT}, headers={"If-None-Match": "*"})
    assert new.status_code == 201
    assert new.headers["Location"] == PATH
    assert new.headers["ETag"] == '"1"'
    again = client.put(PATH, json={"document": DOCUMENT}, headers={"If-None-Match": "*"})
    assert again.status_code == 412
    assert again.json()["code"] == "conflict"


def test_a_write_must_name_the_version_it_changes(applied: TestClient) -> None:
    silent = applied.put(PATH, json={"document": WIDER})
    assert (silent.status_code, silent.json()["code"]) == (428, "precondition-required")
    right = applied.put(PATH, json={"document": WIDER}, headers={"If-Match": '"1"'})
    assert (right.status_code, right.json()["version"]) == (200, 2)
    late = applied.put(PATH, json={"document": DOCUMENT}, headers={"If-Match": '"1"'})
    assert late.status_code == 412
    assert applied.get(PATH).json()["document"] == WIDER


@pytest.mark.parametrize("header", ["W/x", '"0"', '"1", "2"', '"' + "9" * 30 + '"'])
def test_an_unreadable_version_is_refused(applied: TestClient, header: str) -> None:
    answer = applied.put(PATH, json={"document": WIDER}, headers={"If-Match": header})
    assert answer.status_code == 422


def test_any_version_will_do_when_asked_for(applied: TestClient) -> None:
    assert applied.put(PATH, json={"document": WIDER}, headers={"If-Match": "*"}).status_code == 200
    other = DOCUMENT.replace("research", "other").replace("default", "others")
    absent = applied.put(
        "/v1/autoscalers/other", json={"document": other}, headers={"If-Match": "*"}
    )
    assert absent.status_code == 412


def test_a_version_one_has_is_not_sent_again(applied: TestClient) -> None:
    first = applied.get(PATH)
    again = applied.get(PATH, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = applied.get(PATH, headers={"If-None-Match": '"9"'})
    assert other.status_code == 200


def test_a_preview_says_what_would_change_and_writes_nothing(applied: TestClient) -> None:
    answer = applied.put(PATH, params={"dry_run": True}, json={"document": WIDER})
    assert answer.status_code == 200
    seen = answer.json()
    assert seen["changes"] == [
        {"path": "pools.small.machines.max", "kind": "~", "old": "2", "new": "5"}
    ]
    assert seen["worst_case_usd_hour"] == {"old": "1.00", "new": "2.50"}
    assert seen["budget_usd_hour"] == "20"
    assert seen["within_budget"] is True
    assert seen["right_now"] == "would launch nothing for research"
    assert applied.get(PATH).json()["version"] == 1


def test_a_preview_of_a_stale_version_is_a_conflict(applied: TestClient) -> None:
    answer = applied.put(
        PATH, params={"dry_run": True}, json={"document": WIDER}, headers={"If-Match": '"7"'}
    )
    assert answer.status_code == 412


def test_a_preview_of_something_new_has_no_old_worst_case(client: TestClient) -> None:
    answer = client.put(PATH, params={"dry_run": True}, json={"document": DOCUMENT})
    assert answer.json()["worst_case_usd_hour"]["old"] is None
    assert client.get(PATH).status_code == 404


def test_a_wrong_document_is_refused_with_every_place(client: TestClient) -> None:
    wrong = DOCUMENT.replace("priority", "priorty").replace("cpu: 2..", "cpu: few")
    answer = client.put(PATH, json={"document": wrong}, headers={"If-None-Match": "*"})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "config-error"
    assert [each["pointer"] for each in problem["errors"]] == [
        "research.yaml:5:29",
        "research.yaml:8:10",
    ]
    assert "priority" in problem["errors"][0]["detail"]


def test_path_and_document_must_agree(client: TestClient) -> None:
    answer = client.put(
        "/v1/autoscalers/other", json={"document": DOCUMENT}, headers={"If-None-Match": "*"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")


def test_a_queue_has_one_owner(applied: TestClient) -> None:
    other = DOCUMENT.replace("research", "other")
    answer = applied.put(
        "/v1/autoscalers/other", json={"document": other}, headers={"If-None-Match": "*"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "refused")


def test_pause_resume_delete_and_history(applied: TestClient) -> None:
    assert applied.post(f"{PATH}/pause").json()["paused"] is True
    assert applied.post(f"{PATH}/resume").json()["paused"] is False
    assert applied.delete(PATH, headers={"If-Match": '"1"'}).status_code == 412
    gone = applied.delete(PATH)
    assert (gone.status_code, gone.json()["deleting"]) == (202, True)
    history = applied.get(f"{PATH}/history").json()["items"]
    assert [each["version"] for each in history] == [4, 3, 2, 1]
    assert applied.get("/v1/autoscalers/never/history").status_code == 404


def test_all_are_listed_by_name(applied: TestClient) -> None:
    second = DOCUMENT.replace("research", "art").replace("default", "arts")
    applied.put("/v1/autoscalers/art", json={"document": second}, headers={"If-None-Match": "*"})
    items = applied.get("/v1/autoscalers").json()["items"]
    assert [each["name"] for each in items] == ["art", "research"]


def _reason(sentence: str) -> Reason:
    return Reason(code="why", sentence=sentence)


def test_the_last_plan_explains_a_queue(world: World, applied: TestClient) -> None:
    empty = applied.get(f"{PATH}/explain", params={"queue": "default"}).json()
    assert empty["plan_id"] == ""
    plan = Plan(
        autoscaler="research",
        at=NOW,
        generation=1,
        reports=(
            Report(subject="default", reason=_reason("2 jobs wait in default")),
            Report(subject="elsewhere", reason=_reason("not about us")),
        ),
        launches=(
            Launch(machine_id="m-9", pool="small", offers=(offer(),), reason=_reason("buys one")),
        ),
        refusals=(Refusal(subject="small", wanted=1, reason=_reason("the cap is 2")),),
    )
    for number in (1, 2):
        text = json.dumps(to_json(plan))
        at = NOW + timedelta(seconds=number)
        world.store.plan_put(
            PlanRecord(id=f"p-{number}", autoscaler="research", at=at, plan=text, snapshot="{}")
        )
    found = applied.get(f"{PATH}/explain", params={"queue": "default"}).json()
    assert found["plan_id"] == "p-2"
    assert found["lines"] == ["2 jobs wait in default", "buys one", "the cap is 2"]
    assert found["text"].splitlines() == found["lines"]
    plans = applied.get(f"{PATH}/plans", params={"limit": 1}).json()["items"]
    assert [each["id"] for each in plans] == ["p-2"]
    assert plans[0]["plan"]["launches"][0]["machine_id"] == "m-9"


def test_only_declared_queues_are_explained(applied: TestClient) -> None:
    unknown = applied.get(f"{PATH}/explain", params={"queue": "nothing"})
    assert unknown.status_code == 404
    assert applied.get(f"{PATH}/explain").status_code == 422
