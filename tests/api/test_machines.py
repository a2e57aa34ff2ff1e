"""Machines show what they do and cost; a person may drain, protect and end them. Offers show what
can be bought and what was refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from starlette.testclient import TestClient

from control_plane.core.model import Capacity, Cooldown, ErrorClass, MachineState
from tests.api.world import NOW, World, offer


def test_a_machine_in_figures(world: World, applied: TestClient) -> None:
    world.registered("m-1")
    world.clock.at += timedelta(hours=2)
    found = applied.get("/v1/machines/m-1")
    view = found.json()
    assert found.headers["ETag"] == f'"{view["version"]}"'
    assert (view["busy"], view["jobs"]) == (False, [])
    assert (view["price_usd_hour"], float(view["cost_usd"])) == ("0.50", 1.0)
    assert (view["age_s"], view["idle_s"]) == (7200.0, 7200.0)
    job = applied.post("/v1/jobs", json={"command": "true"}).json()
    free = Capacity(cpus=4, memory_mib=16_384)
    world.store.job_claim("m-1", ["default"], free, limit=1, now=world.clock.at)
    (busy,) = applied.get("/v1/machines").json()["items"]
    assert (busy["busy"], busy["jobs"], busy["idle_s"]) == (True, [job["id"]], 0.0)


def test_a_machine_costs_money_from_when_its_cloud_says(world: World, applied: TestClient) -> None:
    """Which may be a moment before it was planned: AWS tells whole seconds."""
    world.machine("m-1", launched_at=NOW - timedelta(hours=1))
    world.clock.at += timedelta(hours=2)
    assert float(applied.get("/v1/machines/m-1").json()["cost_usd"]) == 1.5


def test_ended_machines_are_listed_when_asked_for(world: World, applied: TestClient) -> None:
    world.machine("m-1")
    gone = world.machine("m-2", MachineState.READY)
    for state in (MachineState.TERMINATING, MachineState.TERMINATED):
        gone = world.store.machine_put(
            replace(gone, state=state, ended_at=NOW), expected_version=gone.version, fence=None
        )
    assert [m["id"] for m in applied.get("/v1/machines").json()["items"]] == ["m-1"]
    every = applied.get("/v1/machines", params={"all": True, "limit": 1})
    assert [m["id"] for m in every.json()["items"]] == ["m-1"]
    link = every.headers["Link"]
    assert [m["id"] for m in applied.get(link[1 : link.index(">")]).json()["items"]] == ["m-2"]
    ended = applied.get("/v1/machines/m-2")
    again = applied.get("/v1/machines/m-2", headers={"If-None-Match": ended.headers["ETag"]})
    assert again.status_code == 304


def test_an_open_machine_is_always_sent(world: World, applied: TestClient) -> None:
    world.machine("m-1")
    tag = applied.get("/v1/machines/m-1").headers["ETag"]
    assert applied.get("/v1/machines/m-1", headers={"If-None-Match": tag}).status_code == 200


def test_drain_protect_terminate(world: World, applied: TestClient) -> None:
    world.machine("m-1", MachineState.READY)
    world.machine("m-2")
    path = "/v1/machines/m-1"
    assert applied.post(f"{path}/protect").json()["protected"] is True
    assert applied.post(f"{path}/unprotect").json()["protected"] is False
    assert applied.post(f"{path}/drain").json()["state"] == "draining"
    early = applied.post("/v1/machines/m-2/drain")
    assert (early.status_code, early.json()["code"]) == (409, "refused")
    assert applied.post(f"{path}/terminate").json()["state"] == "terminating"
    assert applied.post(f"{path}/terminate").json()["state"] == "terminating"
    texts = [e["text"] for e in applied.get(f"{path}/events").json()["items"]]
    assert texts[0] == "terminated by hand"
    assert "drained by hand" in texts


def test_unknown_machines(client: TestClient) -> None:
    for action in ("drain", "protect", "unprotect", "terminate"):
        assert client.post(f"/v1/machines/m-none/{action}").status_code == 404, action
    assert client.get("/v1/machines/m-none").status_code == 404
    assert client.get("/v1/machines/m-none/events").status_code == 404
    assert client.get("/v1/machines/%00").status_code == 422


def test_offers_are_those_of_the_pools_cheapest_first(world: World, applied: TestClient) -> None:
    world.prices.sold = (*world.prices.sold, offer("0.01", cpus=1))
    items = applied.get("/v1/offers").json()["items"]
    assert [each["price_usd_hour"] for each in items] == ["0.20", "0.50"]
    assert applied.get("/v1/offers", params={"pool": "small"}).json()["items"] == items
    assert applied.get("/v1/offers", params={"pool": "other"}).json()["items"] == []


def test_a_refused_offer_says_so(world: World, applied: TestClient) -> None:
    until = NOW + timedelta(minutes=5)
    cheap = applied.get("/v1/offers").json()["items"][0]
    assert (cheap["resting_until"], cheap["last_refusal"]) == (None, "")
    for key, code in (("simulated/north/*", "Quota"), ("simulated/south/*", "Other")):
        world.store.cooldown_put(
            Cooldown(key=key, error_class=ErrorClass.QUOTA, code=code, until=until)
        )
    for each in applied.get("/v1/offers").json()["items"]:
        assert (each["resting_until"], each["last_refusal"]) == (until.isoformat(), "Quota")
