"""Costs, events, metrics and health: the figures agree with the ledger, and filters are checked."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from control_plane.core.model import MachineState
from tests.api.world import World


def test_costs_by_group_agree_with_the_totals(world: World, applied: TestClient) -> None:
    world.machine("m-1", MachineState.READY)
    world.clock.at += timedelta(hours=4)
    report = applied.get("/v1/costs", params={"by": "cloud,market", "since": "1d"}).json()
    (row,) = report["rows"]
    assert row["group"] == {"cloud": "simulated", "market": "on-demand"}
    assert Decimal(row["cost_usd"]) == Decimal(report["totals"]["cost_usd"]) == 2
    assert sum(Decimal(point["cost_usd"]) for point in report["series"]) == 2
    assert report["until"] == world.clock.at.isoformat()


def test_costs_of_a_span(world: World, applied: TestClient) -> None:
    world.machine("m-1", MachineState.READY)
    world.clock.at += timedelta(hours=4)
    params = {"since": "2026-03-10T13:00:00Z", "until": "1h", "step": "hour"}
    report = applied.get("/v1/costs", params=params).json()
    assert Decimal(report["totals"]["cost_usd"]) == 1
    assert applied.get("/v1/costs", params={"since": "2026-03-01"}).status_code == 200


@pytest.mark.parametrize(
    "params",
    [
        {"by": "colour"},
        {"since": "soon"},
        {"since": "99999999999d"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"since": "2026-03-11"},
        {"since": "1h", "until": "2h"},
        {"step": "second"},
        {"since": "300d", "step": "hour"},
    ],
)
def test_costs_nobody_can_compute(refused: TestClient, params: dict[str, str]) -> None:
    assert refused.get("/v1/costs", params=params).status_code == 422


def test_the_cost_of_a_job_is_what_the_report_says(world: World, applied: TestClient) -> None:
    token = world.registered("m-1")
    job = applied.post("/v1/jobs", json={"command": "true"}).json()["id"]
    assert Decimal(applied.get(f"/v1/jobs/{job}/cost").json()["cost_usd"]) == 0
    applied.post("/v1/agent/claim", json={}, headers={"Authorization": f"Bearer {token}"})
    world.clock.at += timedelta(hours=2)
    cost = applied.get(f"/v1/jobs/{job}/cost").json()
    assert Decimal(cost["cost_usd"]) == 1
    rows = applied.get("/v1/costs", params={"by": "job", "since": "1d"}).json()["rows"]
    assert cost["cost_usd"] in [row["cost_usd"] for row in rows if row["group"]["job"] == job]
    assert applied.get("/v1/jobs/j-none/cost").status_code == 404


def test_events_are_filtered_and_paged(applied: TestClient) -> None:
    first_job = applied.post("/v1/jobs", json={"command": "true"}).json()["id"]
    job = applied.post(f"/v1/jobs/{first_job}/clone").json()
    applied.post(f"/v1/jobs/{job['id']}/cancel")
    mine = applied.get("/v1/events", params={"subject": job["id"]}).json()["items"]
    assert [each["text"] for each in mine] == [
        "cancelled",
        f"clone of {first_job}",
        "queued in default",
    ]
    first = applied.get("/v1/events", params={"kind": "job", "limit": 1})
    link = first.headers["Link"]
    second = applied.get(link[1 : link.index(">")]).json()
    texts = [each["text"] for each in (*first.json()["items"], *second["items"])]
    assert texts == ["cancelled", f"clone of {first_job}"]
    assert applied.get("/v1/events", params={"kind": "gossip"}).status_code == 422


def test_the_loop_can_be_woken(world: World, client: TestClient) -> None:
    before = world.wakes
    assert client.post("/v1/reconcile").status_code == 202
    assert world.wakes == before + 1


def test_metrics_in_prometheus_text(world: World, applied: TestClient) -> None:
    applied.post("/v1/jobs", json={"command": "true"})
    world.machine("m-1", MachineState.READY)
    world.clock.at += timedelta(hours=4)
    answer = applied.get("/v1/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    place = (("cloud", "simulated"), ("market", "on-demand"))
    assert samples["orchctl_queue_depth", ("queue", "default")] == 1
    assert samples["orchctl_queue_running", ("queue", "default")] == 0
    assert samples["orchctl_queue_wait_seconds", ("queue", "default")] == 4 * 3600
    assert samples["orchctl_machines", *place, ("state", "ready")] == 1
    assert samples["orchctl_spend_usd_total", *place] == 2.0
    assert samples["orchctl_idle_usd_total", *place] == 0.0


def test_metrics_at_midnight_are_no_error(world: World, client: TestClient) -> None:
    world.clock.at = world.clock.at.replace(hour=0)
    assert client.get("/v1/metrics").status_code == 200


def test_health_needs_no_token(client: TestClient) -> None:
    answer = client.get("/v1/health", headers={"Authorization": ""})
    assert answer.json() == {"status": "ok", "version": "0.1.0", "installation": "orchctl"}


def test_a_job_s_events_are_its_whole_life(world: World, applied: TestClient) -> None:
    token = world.registered()
    job = applied.post("/v1/jobs", json={"command": "true"}).json()["id"]
    agent = {"Authorization": f"Bearer {token}"}
    for step, body in {
        "claim": {},
        f"jobs/{job}/start": {"epoch": 1},
        f"jobs/{job}/finish": {"epoch": 1, "outcome": "succeeded", "exit_code": 0},
    }.items():
        world.clock.sleep(60)
        assert applied.post(f"/v1/agent/{step}", json=body, headers=agent).status_code == 200
    about = {"subject": job, "kind": "job"}
    texts = [e["text"] for e in applied.get("/v1/events", params=about).json()["items"]]
    assert texts == ["succeeded: exit code 0", "running on m-1", "queued in default"]
    # Page by page it is the same, whatever happens in between.
    first = applied.get("/v1/events", params={**about, "limit": 2}).json()
    rest = applied.get("/v1/events", params={**about, "limit": 2, "cursor": first["cursor"]}).json()
    assert [e["text"] for e in first["items"] + rest["items"]] == texts
    assert rest["cursor"] == ""
    machine_only = {"subject": job, "kind": "machine"}
    assert applied.get("/v1/events", params=machine_only).json()["items"] == []
