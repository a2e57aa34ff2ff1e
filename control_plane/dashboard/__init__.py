"""The dashboard: server-rendered pages over the same store and the same cost report as the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute

from control_plane.api.late import Late

if TYPE_CHECKING:
    from fastapi import FastAPI

    from control_plane.dashboard.deps import Deps

__all__ = ["mount"]

_API = "/v1/"


def mount(app: FastAPI, deps: Deps) -> None:
    """Add the dashboard's pages, forms and static files to an app. Whose requests they answer is
    decided by the app's own edge, which leaves the sender's name in `request.state.actor`."""

    def load() -> Sequence[BaseRoute]:
        from control_plane.dashboard.views import routes

        return routes(deps)

    app.router.routes.append(Late(app.router, load, wants=lambda path: not path.startswith(_API)))
