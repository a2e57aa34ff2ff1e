"""The function that looks after machines: woken by the schedule, by changes, and by clouds that
take one. Two at a time do no harm: who acts holds the store's lease (`lease.py`)."""

from __future__ import annotations

from control_plane.serverless import cold  # isort: split

import time
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from agent_bootstrap.bundle import bundle_sha256
from control_plane.execute import Executor, LaunchSettings
from control_plane.reconcile import Reconciler, Tick
from control_plane.serverless.federation import federated
from control_plane.serverless.parameter_store import ParameterStoreSecrets
from control_plane.serverless.settings import ServerlessSettings
from control_plane.serverless.shared import Bell, cursor_secret, kept_secret
from control_plane.serverless.telling import Telling
from control_plane.serverless.wiring import Parts, controller_name, parts
from control_plane.tokens import MachineTokens
from control_plane.webhooks.courier import Courier
from control_plane.webhooks.post import Post
from control_plane.webhooks.secrets import EnvironmentSecrets

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

PAUSES_S = (1.0, 1.0, 2.0, 3.0, 5.0)
"""Between looks while something is on its way, the last one again and again."""
LOOK_S = 30.0
"""What a look may take: with less time left none is begun."""
ENOUGH_S = 55.0
"""The schedule comes back after a minute."""


def reconciler(has: Parts) -> Reconciler:
    """The loop of one deployment."""
    providers = federated(has.settings, has.clock.now)
    secret = kept_secret(has.table)
    service = has.service(lambda: None)
    eyes = has.eyes(providers)
    executor = Executor(
        service,
        providers,
        MachineTokens(secret),
        LaunchSettings(
            server_url=has.settings.public_url,
            public_url=has.settings.public_url,
            agent_sha256=bundle_sha256(),
        ),
        has.timing,
        eyes.pool,
    )
    return Reconciler(
        service,
        eyes,
        executor,
        owner=controller_name(),
        installation=has.installation,
        alone=False,
        send=Courier(
            has.store,
            has.clock,
            ParameterStoreSecrets(has.settings.installation, EnvironmentSecrets()),
            Post(),
            secret=cursor_secret(secret),
        ).attend,
    )


def look(loop: Reconciler, bell: Bell, left_s: float) -> list[Tick]:
    """Look until nothing is on its way, or time is up."""
    until = time.monotonic() + min(left_s - LOOK_S, ENOUGH_S)
    looked: list[Tick] = []
    for number in range(1_000):
        bell.answer()
        ticks = loop.tick()
        looked += ticks
        pause = PAUSES_S[min(number, len(PAUSES_S) - 1)]
        if not any(tick.unsettled for tick in ticks) or time.monotonic() + pause > until:
            break
        time.sleep(pause)
    return looked


telling = Telling("reconcile")
plane = parts(ServerlessSettings.from_environment())
loop = reconciler(plane)
bell = plane.bell(lambda: None)
cold.over()


@telling
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Look after all autoscalers, whatever the event."""
    began = time.monotonic()
    ticks = look(loop, bell, context.get_remaining_time_in_millis() / 1000)
    done = [tick.done for tick in ticks if tick.done]
    actions, errors = sum(each.actions for each in done), sum(len(each.errors) for each in done)
    telling.line(
        "looked",
        woken=bool(event.get("woken")),
        looks=len(ticks),
        actions=actions,
        errors=[text for each in done for text in each.errors][:20],
        milliseconds=round((time.monotonic() - began) * 1000),
    )
    telling.count("Actions", actions)
    telling.count("Errors", errors)
    waited = max((tick.waited_s for tick in ticks), default=0.0)
    telling.count("OldestWaitingSeconds", waited, MetricUnit.Seconds)
    return {"looks": len(ticks), "actions": actions, "errors": errors}
