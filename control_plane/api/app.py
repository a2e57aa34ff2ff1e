"""The HTTP API: routes, refusals and layers put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api import problems
from control_plane.api.deps import ApiDeps, ApiSettings
from control_plane.api.edge import Edge
from control_plane.api.hot import Hot, is_hot
from control_plane.api.idempotency import Idempotency
from control_plane.api.late import Late, fill
from control_plane.api.routes import agent, notices

__all__ = ["ApiDeps", "ApiSettings", "bare_app", "create_app"]

TITLE = "orchctl"
API_VERSION = "1"
"""Of the interface, not of the program: a release that changes nothing here keeps it."""
OPENAPI_PATH = "/v1/openapi.json"


class App(FastAPI):
    """The framework's app, with a way around the framework for what agents send all day."""

    hot: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self.hot is not None and is_hot(scope):
            await self.hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(deps: ApiDeps, *, late: bool = False) -> FastAPI:
    """The app of one server. With `late` what people look at is loaded when somebody does: where
    each start is paid for, and nearly all requests are agents'."""
    app = bare_app()
    app.state.deps = deps
    app.hot = Hot(deps)
    if deps.mount_dashboard is not None:
        deps.mount_dashboard(app, deps)
    if not late:
        fill(app.router)
    # What is added last comes first.
    app.add_middleware(Idempotency, deps.store, deps.clock)
    app.add_middleware(Edge, deps)
    return app


def bare_app() -> App:
    """The routes alone: enough to describe the interface, not to serve it."""
    app = App(
        title=TITLE,
        version=API_VERSION,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Tried in order, and nearly every request is an agent's.
        routes=[*agent.ROUTES, *notices.ROUTES],
    )
    app.router.routes.append(Late(app.router, _people, wants=lambda _: True))
    problems.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _people() -> Sequence[BaseRoute]:
    from control_plane.api.people import routes

    return routes()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        fill(app.router)
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
        app.openapi_schema = schema
    return app.openapi_schema
