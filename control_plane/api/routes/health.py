"""Whether the server answers, and its figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from control_plane.api.parameters import Deps
from control_plane.api.views import Health, send
from control_plane.reports.metrics import metrics_text

router = APIRouter(prefix="/v1", tags=["health"])


@router.get("/health", response_model=Health, operation_id="health", openapi_extra={"security": []})
async def health(deps: Deps) -> Response:
    """Whether the server answers; needs no token."""
    settings = deps.settings
    return send(Health(status="ok", version=settings.version, installation=settings.installation))


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    operation_id="metrics",
)
def metrics(deps: Deps) -> Response:
    """Figures in the Prometheus text format."""
    text = metrics_text(deps.store, deps.clock.now(), deps.loop)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
