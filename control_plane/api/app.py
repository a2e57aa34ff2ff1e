"""The HTTP API: routes, refusals and layers put together.

Agents' routes, and the layers around all, know nothing of the framework that people's routes are
written for: its import is a third of what a function without it starts in, and nearly all requests
are agents'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from control_plane.api import problems
from control_plane.api.deps import ApiDeps, ApiSettings
from control_plane.api.edge import Edge
from control_plane.api.hot import Hot, is_hot
from control_plane.api.idempotency import Idempotency
from control_plane.api.late import fill
from control_plane.api.routes import agent, notices

if TYPE_CHECKING:
    from control_plane.api.people import People

__all__ = ["ApiDeps", "ApiSettings", "App", "create_app"]


class App(Starlette):
    """Agents' routes first, then people's, which come when they are wanted; and a way around both
    for what agents send all day."""

    def __init__(self, deps: ApiDeps) -> None:
        routes = [*agent.ROUTES, *notices.ROUTES]
        layers = [Middleware(Edge, deps), Middleware(Idempotency, deps.store, deps.clock)]
        super().__init__(routes=routes, middleware=layers)
        problems.install(self, lambda: routes)
        self.state.deps = deps
        self.router.redirect_slashes = False
        self.router.default = self._answer_people
        self._hot = Hot(deps)
        self._people: People | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if is_hot(scope):
            await self._hot(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    @property
    def people(self) -> People:
        """The app of people and of their tools; loaded by now."""
        if self._people is None:
            from control_plane.api.people import people

            self._people = people(self.state.deps)
        return self._people

    async def _answer_people(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.people(scope, receive, send)


def create_app(deps: ApiDeps, *, late: bool = False) -> App:
    """The app of one server. With `late` what people look at is loaded when somebody does: where
    each start is paid for."""
    app = App(deps)
    if not late:
        fill(app.people.router)
    return app
