"""The routes of people and of their tools: what is described in the interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from fastapi import APIRouter
from starlette.routing import BaseRoute

from control_plane.api import problems
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

_ROUTERS = (
    health.router,
    autoscalers.router,
    queues.router,
    jobs.router,
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


@cache
def routes() -> Sequence[BaseRoute]:
    """One set for all apps of a process: the framework works out their parameters at first use,
    which takes a hundred times longer than a request."""
    router = APIRouter(responses=_REFUSALS)
    for each in _ROUTERS:
        router.include_router(each)
    return router.routes
