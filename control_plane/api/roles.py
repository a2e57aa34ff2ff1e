"""Which role each route takes, and for which queues.

A route that is not here is an admin's alone. What a request says in its body or query, such as the
queue of a new job, is looked at by its route; those are `Of.ASKED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from re import Pattern
from typing import Any

from starlette.routing import compile_path

from control_plane.core.access import Role


class Of(Enum):
    """What the role must be for."""

    ALL = auto()
    """All queues: documents, machines, costs."""
    QUEUE = auto()
    """The queue in the path."""
    JOB = auto()
    """The queue of the job in the path."""
    OWN_JOB = auto()
    """The same; a submitter's own jobs, an operator's all."""
    ASKED = auto()
    """Any queue: the route shows what may be seen, or checks what the request names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a route takes."""

    role: Role
    of: Of


def _needs(role: Role, of: Of, *routes: str) -> dict[str, Needs]:
    return dict.fromkeys(routes, Needs(role=role, of=of))


ROUTES: Mapping[str, Needs] = {
    **_needs(
        Role.VIEWER,
        Of.ASKED,
        "GET /v1/whoami",
        "GET /v1/openapi.json",
        "GET /v1/queues",
        "GET /v1/jobs",
        "GET /v1/events",
        "GET /v1/hooks",
        "GET /v1/hooks/{name}",
        "GET /v1/autoscalers/{name}/explain",
        "GET /assets/{digest}/{name}",
        "GET /favicon.ico",
    ),
    **_needs(
        Role.VIEWER,
        Of.QUEUE,
        "GET /v1/queues/{name}",
        "GET /v1/queues/{name}/waits",
        "GET /queues/{name}",
    ),
    **_needs(
        Role.VIEWER,
        Of.JOB,
        "GET /v1/jobs/{job_id}",
        "GET /v1/jobs/{job_id}/wait",
        "GET /v1/jobs/{job_id}/attempts",
        "GET /v1/jobs/{job_id}/cost",
        "GET /v1/jobs/{job_id}/logs",
        "GET /v1/jobs/{job_id}/artifacts",
        "GET /v1/jobs/{job_id}/artifacts/{name:path}",
        "GET /jobs/{job_id}",
    ),
    **_needs(
        Role.VIEWER,
        Of.ALL,
        "GET /v1/autoscalers",
        "GET /v1/autoscalers/{name}",
        "GET /v1/autoscalers/{name}/history",
        "GET /v1/autoscalers/{name}/plans",
        "GET /v1/machines",
        "GET /v1/deliveries",
        "GET /v1/machines/{machine_id}",
        "GET /v1/machines/{machine_id}/events",
        "GET /v1/offers",
        "GET /v1/costs",
        "GET /v1/metrics",
        "GET /",
        "GET /cost",
        "GET /cost.csv",
        "GET /queues",
        "GET /machines",
        "GET /machines/{machine_id}",
        "GET /jobs",
        "GET /autoscalers",
        "GET /autoscalers/{name}",
        "GET /offers",
        "GET /activity",
    ),
    **_needs(
        Role.SUBMITTER,
        Of.ASKED,
        "POST /v1/jobs",
        "GET /v1/blobs/sources/{sha256}/upload",
        "PUT /v1/blobs/sources/{sha256}",
    ),
    **_needs(
        Role.SUBMITTER,
        Of.JOB,
        "POST /v1/jobs/{job_id}/retry",
        "POST /v1/jobs/{job_id}/clone",
        "POST /jobs/{job_id}/retry",
        "POST /jobs/{job_id}/clone",
    ),
    **_needs(
        Role.SUBMITTER,
        Of.OWN_JOB,
        "POST /v1/jobs/{job_id}/cancel",
        "POST /jobs/{job_id}/cancel",
        "GET /jobs/{job_id}/cancel",
    ),
    **_needs(
        Role.OPERATOR,
        Of.ASKED,
        "PUT /v1/hooks/{name}",
        "DELETE /v1/hooks/{name}",
        "GET /v1/hooks/{name}/secret",
        "POST /v1/hooks/{name}/rotate",
    ),
    **_needs(
        Role.OPERATOR,
        Of.JOB,
        "PUT /v1/jobs/{job_id}/position",
        "POST /jobs/{job_id}/move",
    ),
    **_needs(
        Role.OPERATOR,
        Of.QUEUE,
        "DELETE /v1/queues/{name}",
        "POST /v1/queues/{name}/pause",
        "POST /v1/queues/{name}/resume",
        "POST /v1/queues/{name}/clear",
        "POST /v1/queues/{name}/redrive",
        "PUT /v1/queues/{name}/limits",
        "POST /queues/{name}/pause",
        "POST /queues/{name}/resume",
        "POST /queues/{name}/clear",
        "GET /queues/{name}/clear",
    ),
    **_needs(
        Role.OPERATOR,
        Of.ALL,
        "POST /v1/queues",
        "GET /v1/alert-secret",
        "POST /v1/reconcile",
        "POST /v1/autoscalers/{name}/pause",
        "POST /v1/autoscalers/{name}/resume",
        "POST /v1/machines/{machine_id}/drain",
        "POST /v1/machines/{machine_id}/protect",
        "POST /v1/machines/{machine_id}/unprotect",
        "POST /v1/machines/{machine_id}/terminate",
        "POST /queues",
        "POST /machines/{machine_id}/drain",
        "POST /machines/{machine_id}/protect",
        "POST /machines/{machine_id}/unprotect",
        "POST /machines/{machine_id}/terminate",
        "GET /machines/{machine_id}/terminate",
        "POST /autoscalers/{name}/pause",
        "POST /autoscalers/{name}/resume",
    ),
    **_needs(
        Role.ADMIN,
        Of.ALL,
        "PUT /v1/autoscalers/{name}",
        "DELETE /v1/autoscalers/{name}",
        "GET /v1/tokens",
        "POST /v1/tokens",
        "DELETE /v1/tokens/{token_id}",
        "GET /v1/federations",
        "GET /v1/federations/{name}",
        "PUT /v1/federations/{name}",
        "DELETE /v1/federations/{name}",
    ),
}
"""By method and path, as the routes write it. HEAD is answered as GET."""

UNKNOWN = Needs(role=Role.ADMIN, of=Of.ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a request takes."""

    needs: Needs
    params: Mapping[str, str]
    """What stands in its path, by name."""


def find(method: str, path: str) -> Found:
    """What a request takes; where several routes fit, the most."""
    fitting = [
        Found(needs=needs, params=match.groupdict())
        for pattern, needs in _compiled().get(method, ())
        if (match := pattern.match(path))
    ]
    unknown = Found(needs=UNKNOWN, params={})
    return max(fitting, key=lambda each: each.needs.role.rank, default=unknown)


@lru_cache(maxsize=1)
def _compiled() -> Mapping[str, Sequence[tuple[Pattern[Any], Needs]]]:
    found: dict[str, list[tuple[Pattern[Any], Needs]]] = {}
    for route, needs in ROUTES.items():
        method, _, path = route.partition(" ")
        found.setdefault(method, []).append((compile_path(path)[0], needs))
    return found
