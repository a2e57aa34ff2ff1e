"""Routes that are loaded when one of them is wanted first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.routing import BaseRoute, Match, Router
from starlette.types import Receive, Scope, Send


class Late(BaseRoute):
    """Stands in a router for routes that take long to import, and gives its place to them.

    Nearly every request is an agent's, and needs none of what people look at."""

    def __init__(
        self,
        router: Router,
        load: Callable[[], Sequence[BaseRoute]],
        wants: Callable[[str], bool],
    ) -> None:
        """`wants` says of a path whether one of the routes might answer it."""
        self._router = router
        self._load = load
        self._wants = wants

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether to load."""
        mine = scope["type"] == "http" and self._wants(scope["path"])
        return (Match.FULL if mine else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the routes answer, with those beside them."""
        self.fill()
        await self._router(scope, receive, send)

    def fill(self) -> None:
        """Load now."""
        routes = self._router.routes
        if self in routes:
            place = routes.index(self)
            routes[place : place + 1] = self._load()


def fill(router: Router) -> None:
    """Load all that is late in a router."""
    for route in [*router.routes]:
        if isinstance(route, Late):
            route.fill()
