"""What can be done from a page: forms that work without script, and the pages that ask first.

An action ends in a redirect to the page it came from, so reloading never repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from control_plane.dashboard import format as fmt
from control_plane.dashboard import web
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.pages.jobs import STATES
from control_plane.dashboard.parts import Fact, fact, url
from control_plane.errors import InvalidInput
from control_plane.ports import Place

Form = Annotated[Mapping[str, str], Depends(web.form)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPage:
    """What would happen, before it does."""

    title: str
    facts: Sequence[Fact]
    losses: Sequence[str]
    """What is lost, a sentence each."""
    label: str
    post: str
    back: str


class Actions:
    """Answers to POST, and to GET of what asks first."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._service = deps.service
        self._fleet = deps.fleet

    def register(self, router: APIRouter) -> None:
        """Add every action to a router."""
        for path, action in self._routes().items():
            router.add_api_route(path, action, methods=["POST"], response_model=None)
        for path, question in {
            "/queues/{name}/clear": self.ask_clear,
            "/machines/{machine_id}/terminate": self.ask_terminate,
            "/jobs/{job_id}/cancel": self.ask_cancel,
        }.items():
            router.add_api_route(path, question, methods=["GET"], response_model=None)

    def _routes(self) -> Mapping[str, Callable[..., Response]]:
        return {
            "/jobs/{job_id}/cancel": self.cancel,
            "/jobs/{job_id}/retry": self.retry,
            "/jobs/{job_id}/clone": self.clone,
            "/jobs/{job_id}/move": self.move,
            "/queues": self.create_queue,
            "/queues/{name}/pause": self.pause_queue,
            "/queues/{name}/resume": self.resume_queue,
            "/queues/{name}/clear": self.clear_queue,
            "/machines/{machine_id}/drain": self.drain,
            "/machines/{machine_id}/protect": self.protect,
            "/machines/{machine_id}/unprotect": self.unprotect,
            "/machines/{machine_id}/terminate": self.terminate,
            "/autoscalers/{name}/pause": self.pause_autoscaler,
            "/autoscalers/{name}/resume": self.resume_autoscaler,
        }

    # ---------------------------------------------------------------------------- jobs

    def cancel(self, request: Request, job_id: str, form: Form) -> Response:
        self._service.cancel(job_id, actor=_actor(request))
        return web.back_to(form, url("jobs", job_id))

    def retry(self, request: Request, job_id: str) -> Response:
        return _to_job(self._service.retry(job_id, actor=_actor(request)).id)

    def clone(self, request: Request, job_id: str) -> Response:
        return _to_job(self._service.again(job_id, actor=_actor(request)).id)

    def move(self, request: Request, job_id: str, form: Form) -> Response:
        version = form.get("version", "")
        if not version.isdecimal():
            raise InvalidInput("the form does not say which version of the job it is about")
        job = self._service.move(
            job_id,
            place=Place(where=form.get("place", ""), job_id=form.get("of", "")),
            expected_version=int(version),
            actor=_actor(request),
        )
        return web.back_to(form, url("queues", job.queue))

    def ask_cancel(self, request: Request, job_id: str) -> Response:
        job = self._deps.store.job_get(job_id)
        since = fmt.since(job.started_at, self._deps.clock.now())
        page = ConfirmPage(
            title=f"Cancel job {job.name or job.id}?",
            facts=[
                fact("Job", job.id, href=url("jobs", job.id)),
                fact("State", job.state.value),
                fact("Runs since", since),
                fact("Machine", job.machine_id),
            ],
            losses=[
                f"Its command gets SIGTERM, and SIGKILL {job.spec.grace_s} seconds later.",
                "What it has not saved by then is lost; its log and collected files stay.",
            ],
            label="Cancel this job",
            post=url("jobs", job_id, "cancel"),
            back=url("jobs", job_id),
        )
        return web.page(request, "confirm", page=page)

    # ---------------------------------------------------------------------------- queues

    def create_queue(self, request: Request, form: Form) -> Response:
        name = form.get("name", "").strip()
        if not name or len(name) > 63 or not name.replace("-", "").replace("_", "").isalnum():
            raise InvalidInput(
                f"{name!r} is no name for a queue", fix="letters, digits, - and _, at most 63"
            )
        self._service.queue_create(name, actor=_actor(request))
        return web.back_to(form, url("queues", name))

    def pause_queue(self, request: Request, name: str, form: Form) -> Response:
        self._service.queue_pause(name, paused=True, actor=_actor(request))
        return web.back_to(form, url("queues", name))

    def resume_queue(self, request: Request, name: str, form: Form) -> Response:
        self._service.queue_pause(name, paused=False, actor=_actor(request))
        return web.back_to(form, url("queues", name))

    def clear_queue(self, request: Request, name: str, form: Form) -> Response:
        self._service.queue_clear(name, actor=_actor(request))
        return web.back_to(form, url("queues", name))

    def ask_clear(self, request: Request, name: str) -> Response:
        self._deps.store.queue_get(name)
        stats = self._deps.store.queue_stats()[name]
        waiting = stats.waiting + stats.blocked
        first = self._deps.store.job_list(queue=name, states=STATES["waiting"], limit=10).items
        page = ConfirmPage(
            title=f"Clear queue {name}?",
            facts=[
                fact("Waiting", fmt.plural(waiting, "job"), sub="will be cancelled"),
                fact("Running", fmt.plural(stats.running, "job"), sub="go on"),
                fact("First in line", ", ".join(job.name or job.id for job in first)),
            ],
            losses=[
                "A cancelled job keeps its row and can be retried, at the end of the queue.",
            ],
            label=f"Cancel {fmt.plural(waiting, 'job')}",
            post=url("queues", name, "clear"),
            back=url("queues", name),
        )
        return web.page(request, "confirm", page=page)

    # ---------------------------------------------------------------------------- machines

    def drain(self, request: Request, machine_id: str, form: Form) -> Response:
        self._fleet.drain(machine_id, actor=_actor(request))
        return web.back_to(form, url("machines", machine_id))

    def protect(self, request: Request, machine_id: str, form: Form) -> Response:
        self._fleet.protect(machine_id, protected=True, actor=_actor(request))
        return web.back_to(form, url("machines", machine_id))

    def unprotect(self, request: Request, machine_id: str, form: Form) -> Response:
        self._fleet.protect(machine_id, protected=False, actor=_actor(request))
        return web.back_to(form, url("machines", machine_id))

    def terminate(self, request: Request, machine_id: str, form: Form) -> Response:
        self._fleet.terminate(machine_id, actor=_actor(request))
        return web.back_to(form, url("machines", machine_id))

    def ask_terminate(self, request: Request, machine_id: str) -> Response:
        machine = self._deps.store.machine_get(machine_id)
        leases = self._deps.store.job_leases(machine_id=machine_id)
        jobs = fmt.plural(len(leases), "job")
        page = ConfirmPage(
            title=f"Terminate machine {machine_id}?",
            facts=[
                fact("Machine", machine_id, href=url("machines", machine_id)),
                fact("Type", machine.offer.instance_type, sub=fmt.capacity(machine.total)),
                fact("Saves", f"{fmt.money(machine.offer.price_usd_hour)} an hour"),
                fact("Runs", jobs, sub=", ".join(lease.job_id for lease in leases)),
            ],
            losses=[
                f"{jobs} will be given back to the queue, in place; work since the last "
                "checkpoint is done again."
                if leases
                else "It runs nothing, so no work is lost.",
                "Drain instead to let what runs finish first.",
            ],
            label="Terminate now",
            post=url("machines", machine_id, "terminate"),
            back=url("machines", machine_id),
        )
        return web.page(request, "confirm", page=page)

    # ---------------------------------------------------------------------------- autoscalers

    def pause_autoscaler(self, request: Request, name: str, form: Form) -> Response:
        self._fleet.pause(name, paused=True, actor=_actor(request))
        return web.back_to(form, url("autoscalers", name))

    def resume_autoscaler(self, request: Request, name: str, form: Form) -> Response:
        self._fleet.pause(name, paused=False, actor=_actor(request))
        return web.back_to(form, url("autoscalers", name))


def _actor(request: Request) -> str:
    return str(getattr(request.state, "actor", ""))


def _to_job(job_id: str) -> Response:
    return RedirectResponse(url("jobs", job_id), status_code=303)
