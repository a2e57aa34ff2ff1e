"""Every route has its line in the table of roles, and answers no role below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from control_plane.api import edge, roles
from control_plane.api.app import App, create_app
from control_plane.api.roles import ROUTES, UNKNOWN, Of
from control_plane.core.access import Role
from control_plane.core.model import JobSpec
from control_plane.service import Submission
from control_plane.stores.memory import MemoryStore
from tests.api.world import World, policy
from tests.unit.dashboard.world import empty_world

OPEN = (*edge.PUBLIC, edge.AGENTS, edge.NOTICES)


def people_routes(app: App) -> Iterator[str]:
    """`GET /v1/jobs` and the like: what people and browsers are answered by."""
    for route in iter_route_contexts([*app.routes, *app.people.routes]):
        for method in sorted((route.methods or set()) - {"HEAD"}):
            path = str(route.path)
            if not (path.startswith(OPEN) or edge.is_hook(method, path)):
                yield f"{method} {route.path}"


def test_the_table_has_every_route_and_no_other() -> None:
    assert set(people_routes(empty_world().app)) == set(ROUTES)


def filled(route: str) -> tuple[str, str]:
    method, _, path = route.partition(" ")
    return method, re.sub(r"\{\w+(:path)?\}", "x", path)


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_found_by_its_path(route: str) -> None:
    assert roles.find(*filled(route)).needs == ROUTES[route]


@pytest.mark.parametrize(
    "path", ["/v2/jobs", "/v1/jobs/", "/v1//jobs", "/v1/tokens/x/y", "/v1/Jobs"]
)
def test_what_is_not_in_the_table_is_an_admins(path: str) -> None:
    assert roles.find("GET", path).needs == UNKNOWN
    assert roles.find("PATCH", "/v1/jobs").needs == UNKNOWN


class Place:
    """A control plane with two queues of people, and clients with any role."""

    def __init__(self) -> None:
        self.world = World(MemoryStore())
        self.world.fleet.apply("", policy(), expected_version=0)
        for queue in ("mine", "other"):
            self.world.service.queue_create(queue)
        self.app = create_app(self.world.deps())

    def client(self, role: Role, *queues: str, name: str = "alice") -> TestClient:
        grant = {"role": role.value, "queues": list(queues or ("*",))}
        with self.world.client(self.app) as admin:
            made = admin.post("/v1/tokens", json={"name": name, **grant})
        assert made.status_code == 201, made.text
        token = made.json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=True)

    def job(self, queue: str = "mine", owner: str = "bob") -> str:
        submission = Submission(spec=JobSpec(command="true"), queue=queue, owner=owner)
        return self.world.service.submit(submission)[0].id


@pytest.fixture
def place() -> Place:
    return Place()


API = [route for route in ROUTES if " /v1/" in route]


@pytest.mark.parametrize("route", API)
def test_a_route_answers_no_role_below_its_own(place: Place, route: str) -> None:
    needs = ROUTES[route]
    job = place.job()
    method, _, path = route.partition(" ")
    path = path.replace("{job_id}", job).replace("{name}", "mine")
    path = re.sub(r"\{\w+(:path)?\}", "x", path)
    params = {"queue": "mine"} if path.endswith("/explain") else None
    for role in Role:
        if role is Role.ADMIN:
            continue
        answer = place.client(role).request(method, path, params=params, json={})
        may = role.rank >= needs.role.rank
        if needs.of is Of.OWN_JOB:
            may = role.rank >= Role.OPERATOR.rank  # the job is bob's
        if not may:
            assert (answer.status_code, answer.json()["code"]) == (403, "role-needed"), role
            wanted = Role.OPERATOR if needs.of is Of.OWN_JOB and role.rank else needs.role
            assert f"the role {wanted}" in answer.json()["detail"]
        else:
            assert answer.status_code != 403, (role, answer.text)
        assert answer.status_code < 500


@pytest.mark.parametrize("route", [route for route in API if ROUTES[route].of is not Of.ASKED])
def test_a_role_for_some_queues_reaches_no_further(place: Place, route: str) -> None:
    """An operator of `mine` gets nothing of `other`, nor what is everybody's."""
    needs = ROUTES[route]
    client = place.client(Role.OPERATOR, "mine")
    method, _, path = route.partition(" ")
    for queue in ("other", "mine"):
        target = path.replace("{job_id}", place.job(queue)).replace("{name}", queue)
        target = re.sub(r"\{\w+(:path)?\}", "x", target)
        answer = client.request(method, target, json={})
        mine = queue == "mine" and needs.of in (Of.QUEUE, Of.JOB, Of.OWN_JOB)
        if mine:
            assert answer.status_code != 403, answer.text
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "role-needed"), target


def test_listings_show_what_may_be_seen(place: Place) -> None:
    mine, other = place.job("mine"), place.job("other")
    client = place.client(Role.VIEWER, "mine")
    assert [each["name"] for each in client.get("/v1/queues").json()["items"]] == ["mine"]
    assert [each["id"] for each in client.get("/v1/jobs").json()["items"]] == [mine]
    assert client.get("/v1/jobs", params={"queue": "other"}).status_code == 403
    # Page after page, whatever is in between.
    found, cursor = [], ""
    for _ in range(5):
        page = client.get("/v1/jobs", params={"limit": 1, "cursor": cursor}).json()
        found += [each["id"] for each in page["items"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert found == [mine]
    everything = place.client(Role.VIEWER).get("/v1/jobs").json()["items"]
    assert {each["id"] for each in everything} == {mine, other}


def test_events_are_told_of_own_queues_and_jobs(place: Place) -> None:
    mine, other = place.job("mine"), place.job("other")
    client = place.client(Role.VIEWER, "mine")

    def asked(**params: str) -> int:
        return client.get("/v1/events", params=params).status_code

    assert asked(kind="job", subject=mine) == 200
    assert asked(kind="queue", subject="mine") == 200
    for params in (
        {"kind": "job", "subject": other},
        {"kind": "queue", "subject": "other"},
        {"kind": "audit", "subject": "mine"},
        {"subject": "mine"},
        {"kind": "job"},
        {"kind": "job", "subject": "j-none"},
        {},
    ):
        assert asked(**params) == 403, params


def submit(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/jobs", json={"command": "true", "queue": "mine", **body})


def test_a_submitter_hands_in_for_their_own_queue_in_their_own_name(place: Place) -> None:
    client = place.client(Role.SUBMITTER, "mine")
    own = submit(client)
    assert (own.status_code, own.json()["owner"]) == (201, "alice")
    assert submit(client, owner="alice").status_code == 201
    assert submit(client, queue="other").status_code == 403
    assert submit(client, owner="bob").status_code == 403
    assert submit(client, depends_on=[place.job("mine")]).status_code == 201
    assert submit(client, depends_on=[place.job("other")]).status_code == 403
    assert submit(place.client(Role.OPERATOR, "mine"), owner="bob").json()["owner"] == "bob"


def test_a_submitter_cancels_their_own_jobs_alone(place: Place) -> None:
    client = place.client(Role.SUBMITTER, "mine")
    own = submit(client).json()["id"]
    assert client.post(f"/v1/jobs/{own}/cancel").json()["state"] == "cancelled"
    refused = client.post(f"/v1/jobs/{place.job()}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (403, "role-needed")
    assert "operator" in refused.json()["detail"]
    assert client.post("/v1/jobs/j-none/cancel").status_code == 404
    everywhere = place.client(Role.SUBMITTER)
    assert everywhere.post(f"/v1/jobs/{place.job()}/cancel").status_code == 403


def test_a_copy_or_a_move_takes_the_role_at_both_ends(place: Place) -> None:
    client = place.client(Role.OPERATOR, "mine")
    job = place.job()
    assert client.post(f"/v1/jobs/{job}/clone", json={"queue": "other"}).status_code == 403
    assert client.post(f"/v1/jobs/{job}/clone", json={"queue": "mine"}).status_code == 201
    etag = {"If-Match": client.get(f"/v1/jobs/{job}").headers["ETag"]}
    place_ = {"place": "top", "queue": "other"}
    assert client.put(f"/v1/jobs/{job}/position", json=place_, headers=etag).status_code == 403
    move = client.put(f"/v1/jobs/{job}/position", json={"place": "top"}, headers=etag)
    assert move.status_code == 200


def test_why_a_queue_has_its_machines_is_told_to_who_may_look_at_it(place: Place) -> None:
    client = place.client(Role.VIEWER, "default")
    explain = "/v1/autoscalers/research/explain"
    assert client.get(explain, params={"queue": "default"}).status_code == 200
    assert client.get(explain, params={"queue": "mine"}).status_code == 403


def test_head_takes_what_get_takes(place: Place) -> None:
    client = place.client(Role.VIEWER, "mine")
    assert client.head("/v1/machines").status_code == 403
    assert client.head("/v1/queues/mine").status_code == 200


def test_the_pages_take_the_same_roles() -> None:
    world = empty_world()
    for queue in ("mine", "other"):
        world.service.queue_create(queue)
    deps = world.app.state.deps
    for queues, expected in ((("*",), 200), (("mine",), 403)):
        _, token = deps.access.create("eve", _grant(Role.VIEWER, *queues), **_ADMINS)
        client = TestClient(world.app, follow_redirects=False)
        assert client.get("/login", params={"token": token}).status_code == 303
        for path in ("/", "/cost", "/queues", "/activity", "/machines"):
            assert client.get(path).status_code == expected, path
        assert client.get("/queues/mine").status_code == 200
        assert client.get("/queues/other").status_code == expected
        form = {"headers": {"Sec-Fetch-Site": "same-origin"}}
        assert client.post("/queues/mine/pause", **form).status_code == 403
        assert client.post("/machines/m-1/terminate", **form).status_code == 403
    assert not world.store.queue_get("mine").paused


_ADMINS: dict[str, Any] = {"expires_at": None, "actor": "admin"}


def _grant(role: Role, *queues: str) -> Any:
    from control_plane.core.access import Grant

    return Grant(role=role, queues=queues)
