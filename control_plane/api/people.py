"""The routes of people and of their tools: what is described in the interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic import TypeAdapter
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from control_plane.api import problems
from control_plane.api.deps import ApiDeps
from control_plane.api.problems import Fault, Malformed
from control_plane.api.routes import (
    access,
    autoscalers,
    costs,
    events,
    health,
    hooks,
    jobs,
    login,
    machines,
    queues,
)

TITLE = "orchctl"
API_VERSION = "1"
"""Of the interface, not of the program: a release that changes nothing here keeps it."""
OPENAPI_PATH = "/v1/openapi.json"

# Tried in order, and jobs are what is handed in and looked at most.
_ROUTERS = (
    jobs.router,
    health.router,
    autoscalers.router,
    queues.router,
    machines.router,
    costs.router,
    events.router,
    access.router,
    hooks.router,
    login.router,
)
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
    for status, words in (("4XX", "Refused; the body says why."), ("5XX", "Try again later."))
}


class People(FastAPI):
    """The framework's app, inside the layers of ours."""

    def build_middleware_stack(self) -> ASGIApp:
        """The framework's, less the outermost, which answers what is unexpected: so does the
        edge."""
        outermost = super().build_middleware_stack()
        assert isinstance(outermost, ServerErrorMiddleware), type(outermost)
        return outermost.app

    def openapi(self) -> dict[str, Any]:
        """The description of the interface."""
        if self.openapi_schema is None:
            self.openapi_schema = _described(self)
        return self.openapi_schema


def people(deps: ApiDeps) -> People:
    """Their app, with the dashboard where there is one."""
    app = bare_people()
    app.state.deps = deps
    if deps.mount_dashboard is not None:
        deps.mount_dashboard(app, deps)
    return app


def bare_people() -> People:
    """The routes alone: enough to describe the interface, not to serve it."""
    app = People(
        title=TITLE,
        version=API_VERSION,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        routes=[*_routes()],
    )
    problems.install(app, lambda: iter_route_contexts(app.routes))
    app.add_exception_handler(RequestValidationError, _of_invalid)
    return app


@cache
def _routes() -> Sequence[BaseRoute]:
    """One set for all apps of a process: the framework works out their parameters at first use,
    which takes a hundred times longer than a request."""
    router = APIRouter(responses=_REFUSALS)
    for each in _ROUTERS:
        router.include_router(each)
    return router.routes


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        summary="Queues, jobs, machines and what they cost.",
        routes=app.routes,
    )
    parts = schema.setdefault("components", {})
    problem = TypeAdapter(problems.Problem).json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    parts["schemas"] |= problem.pop("$defs")
    parts["schemas"]["Problem"] = problem
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}]
    return schema


async def _of_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), type(error)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return problems.of_error(Malformed("the body is not JSON"))
    return problems.of_faults(
        [Fault(pointer=_pointer(each["loc"]), detail=str(each["msg"])) for each in found]
    )


def _pointer(loc: Sequence[int | str]) -> str:
    where, *rest = loc
    if where != "body":
        return ":".join(str(part) for part in loc)
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in rest)
