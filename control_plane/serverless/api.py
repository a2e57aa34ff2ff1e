"""The function that answers people and agents: the same app as the embedded server's, behind an
HTTP API."""

from __future__ import annotations

from control_plane.serverless import cold  # isort: split

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mangum import Mangum
from mangum.handlers.api_gateway import HTTPGateway

from agent_bootstrap.bundle import bundle
from control_plane.access.entrance import Access
from control_plane.access.oidc import Issuers
from control_plane.agents import Agents, AgentSettings
from control_plane.api import problems
from control_plane.api.app import App, create_app
from control_plane.api.deps import ApiDeps, ApiSettings
from control_plane.api.edge import HEADERS
from control_plane.api.problems import Malformed
from control_plane.clouds import LateMapping, cloud_sources, cloud_verifiers
from control_plane.dashboard import mount
from control_plane.direct import Direct
from control_plane.fleet import Fleet
from control_plane.identity.web import Web
from control_plane.interruptions import Interruptions
from control_plane.serverless.limits import DIRECT_ABOVE_BYTES, LOG_PIECE_BYTES
from control_plane.serverless.settings import ServerlessSettings
from control_plane.serverless.shared import cursor_secret, kept_secret
from control_plane.serverless.telling import Telling
from control_plane.serverless.waking import wake
from control_plane.serverless.wiring import Parts, parts
from control_plane.tokens import MachineTokens

if TYPE_CHECKING:
    from mangum.types import LambdaContext, Scope

    from control_plane.core.policy import Autoscaler

POLL_S = 20.0
POLL_LONGEST_S = 90.0
"""Between two questions of an idle agent, as its idle time grows: an hour of them and of its beats
costs less than half a percent of the cheapest GPU hour (`docs/serverless-cost.md`)."""


def app(has: Parts) -> App:
    """The API of one deployment. It asks no cloud for machines or prices."""
    settings, now = has.settings, has.clock.now
    secret = kept_secret(has.table)
    web = Web()
    service = has.service(has.bell(lambda: wake(settings.reconcile_function)).ring)
    eyes = cache(lambda: has.eyes({}))

    def preview(policy: Autoscaler) -> str:
        # The planner is imported when somebody asks what a change would do.
        from control_plane.preview import right_now

        return right_now(eyes(), has.clock, policy)

    direct = Direct(storage=has.blobs, above_bytes=DIRECT_ABOVE_BYTES)
    return create_app(
        ApiDeps(
            store=has.store,
            blobs=has.blobs,
            clock=has.clock,
            service=service,
            agents=Agents(
                service,
                has.blobs,
                MachineTokens(secret),
                has.timing,
                AgentSettings(wait_s=0, poll_s=POLL_S, poll_longest_s=POLL_LONGEST_S),
                LateMapping(lambda: cloud_verifiers(web, now, settings.public_url)),
                direct,
            ),
            fleet=Fleet(service),
            access=Access(
                has.store,
                has.clock,
                has.ids,
                # Its own: questions about CI systems take no room from those about machines.
                Issuers(Web(), now),
                secret=secret,
            ),
            interruptions=Interruptions(
                service, LateMapping(lambda: cloud_sources(web, now, settings.public_url))
            ),
            prices=has.prices,
            settings=ApiSettings(
                server_id=settings.installation,
                admin_token_hash=settings.admin_token_sha256,
                notices_token_hash=settings.notices_token_sha256,
                cursor_secret=cursor_secret(secret),
                version=version("orchctl"),
                installation=has.installation,
                log_piece_bytes=LOG_PIECE_BYTES,
            ),
            direct=direct,
            bundle=bundle,
            preview=preview,
            mount_dashboard=mount,
        ),
        late=True,
    )


class Gateway(HTTPGateway):
    """Reads an event. Strangers write much of what stands in one, and mangum takes all of it for
    well-formed: ports for numbers, texts for Unicode, bodies for Base64."""

    @property
    def scope(self) -> Scope:
        """Raises `Malformed`."""
        with _readable():
            return super().scope

    @property
    def body(self) -> bytes:
        """Raises `Malformed`."""
        with _readable():
            return super().body


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise Malformed("the request cannot be read") from error


telling = Telling("api")
asgi = Mangum(
    app(parts(ServerlessSettings.from_environment())), lifespan="off", custom_handlers=[Gateway]
)
cold.over()


@telling
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request of an HTTP API, payload 2.0."""
    began = time.monotonic()
    try:
        answer = asgi(event, context)
    except Malformed as error:
        answer = _refusal(error)
    asked = event["requestContext"]["http"]
    telling.line(
        "answered",
        method=asked["method"],
        path=asked["path"],
        status=answer["statusCode"],
        milliseconds=round((time.monotonic() - began) * 1000),
    )
    return dict(answer)


def _refusal(error: Malformed) -> dict[str, Any]:
    """The answer to a request that never reaches the app."""
    told = problems.of_error(error)
    always = {name.decode(): value.decode() for name, value in HEADERS}
    return {
        "statusCode": told.status_code,
        "headers": {**always, **told.headers},
        "body": bytes(told.body).decode(),
    }
