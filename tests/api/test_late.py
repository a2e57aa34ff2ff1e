"""Routes that are loaded late answer as if they had always been there."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from control_plane.api.late import Late, fill


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


class World:
    """An app with a route that is there at once, some that come late, and one behind them."""

    def __init__(self) -> None:
        self.loads = 0
        self.app = Starlette(routes=[Route("/v1/agent", _answer)])
        routes = self.app.router.routes
        routes.append(Late(self.app.router, self.load, wants=lambda path: path.startswith("/v1/")))
        routes.append(Route("/v1/jobs", _behind))
        self.client = TestClient(self.app)

    def load(self) -> Sequence[BaseRoute]:
        self.loads += 1
        return [Route("/v1/jobs", _answer), Route("/v1/queues", _answer, methods=["POST"])]


async def _behind(_: Request) -> PlainTextResponse:
    return PlainTextResponse("behind")


def test_what_needs_none_of_them_loads_none() -> None:
    world = World()
    assert world.client.get("/v1/agent").text == "/v1/agent"
    assert world.client.get("/elsewhere").status_code == 404
    assert world.loads == 0


def test_they_come_with_the_first_request_that_may_be_theirs_and_stay_in_their_place() -> None:
    world = World()
    for _ in range(2):
        assert world.client.get("/v1/jobs").text == "/v1/jobs"
    assert world.loads == 1
    assert world.client.get("/v1/queues").status_code == 405
    assert world.client.get("/v1/nothing").status_code == 404
    assert world.client.get("/v1/agent").text == "/v1/agent"


def test_all_can_be_loaded_before_any_request() -> None:
    world = World()
    fill(world.app.router)
    fill(world.app.router)
    assert world.loads == 1
    assert world.client.post("/v1/queues").text == "/v1/queues"
    assert world.loads == 1
