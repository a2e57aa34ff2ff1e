"""The routes of the dashboard: an address to a presenter to a template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute

from control_plane.dashboard import web
from control_plane.dashboard.actions import Actions
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.pages.activity import activity_page
from control_plane.dashboard.pages.autoscalers import autoscaler_page, autoscalers_page
from control_plane.dashboard.pages.cost import CostQuery, cost_page, report_of
from control_plane.dashboard.pages.jobs import job_page, jobs_page
from control_plane.dashboard.pages.machines import machine_page, machines_page
from control_plane.dashboard.pages.offers import offers_page
from control_plane.dashboard.pages.overview import overview_page
from control_plane.dashboard.pages.queues import queue_page, queues_page
from control_plane.reports.costs import to_csv

Many = Annotated[list[str], Query(default_factory=list)]


def routes(deps: Deps) -> Sequence[BaseRoute]:
    """The dashboard's pages, forms and static files."""
    router = APIRouter(route_class=web.PageRoute, include_in_schema=False)
    router.add_api_route("/assets/{digest}/{name}", web.asset, methods=["GET"])
    router.add_api_route("/favicon.ico", _icon, methods=["GET"])
    for path, view in Views(deps).routes().items():
        router.add_api_route(path, view, methods=["GET"], response_model=None)
    Actions(deps).register(router)
    return router.routes


class Views:
    """Answers to GET."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    def routes(self) -> dict[str, Callable[..., Response]]:
        """Every address and who answers it."""
        return {
            "/": self.overview,
            "/cost": self.cost,
            "/cost.csv": self.cost_csv,
            "/queues": self.queues,
            "/queues/{name}": self.queue,
            "/machines": self.machines,
            "/machines/{machine_id}": self.machine,
            "/jobs": self.jobs,
            "/jobs/{job_id}": self.job,
            "/autoscalers": self.autoscalers,
            "/autoscalers/{name}": self.autoscaler,
            "/offers": self.offers,
            "/activity": self.activity,
        }

    def overview(self, request: Request) -> Response:
        return web.page(request, "overview", page=overview_page(self._deps))

    def cost(
        self, request: Request, by: Many, where: Many, since: str = "", step: str = ""
    ) -> Response:
        query = CostQuery.parse(by, since, step, where)
        return web.page(request, "cost", page=cost_page(self._deps, query))

    def cost_csv(self, by: Many, where: Many, since: str = "", step: str = "") -> Response:
        query = CostQuery.parse(by, since, step, where)
        name = f"cost-by-{'-'.join(query.by)}-{query.window}.csv"
        return PlainTextResponse(
            to_csv(report_of(self._deps, query)),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def queues(self, request: Request) -> Response:
        return web.page(request, "queues", page=queues_page(self._deps))

    def queue(self, request: Request, name: str) -> Response:
        return web.page(request, "queue", page=queue_page(self._deps, name))

    def machines(self, request: Request, show: str = "") -> Response:
        return web.page(request, "machines", page=machines_page(self._deps, show))

    def machine(self, request: Request, machine_id: str) -> Response:
        return web.page(request, "machine", page=machine_page(self._deps, machine_id))

    def jobs(
        self,
        request: Request,
        state: str = "",
        queue: str = "",
        machine: str = "",
        cursor: str = "",
    ) -> Response:
        found = jobs_page(self._deps, state=state, queue=queue, machine=machine, cursor=cursor)
        return web.page(request, "jobs", page=found)

    def job(self, request: Request, job_id: str) -> Response:
        return web.page(request, "job", page=job_page(self._deps, job_id))

    def autoscalers(self, request: Request) -> Response:
        return web.page(request, "autoscalers", page=autoscalers_page(self._deps))

    def autoscaler(self, request: Request, name: str) -> Response:
        return web.page(request, "autoscaler", page=autoscaler_page(self._deps, name))

    def offers(self, request: Request, pool: str = "") -> Response:
        return web.page(request, "offers", page=offers_page(self._deps, pool))

    def activity(
        self, request: Request, kind: str = "", subject: str = "", cursor: str = ""
    ) -> Response:
        found = activity_page(self._deps, kind=kind, subject=subject, cursor=cursor)
        return web.page(request, "activity", page=found)


def _icon() -> Response:
    return RedirectResponse(f"/assets/{web.assets_digest()}/favicon.svg")
