"""The function that EventBridge tells of machines that AWS takes."""

from __future__ import annotations

from control_plane.serverless import cold  # isort: split

import json
from typing import TYPE_CHECKING, Any

from control_plane.interruptions import Interruptions
from control_plane.serverless.settings import ServerlessSettings
from control_plane.serverless.telling import Telling
from control_plane.serverless.waking import wake
from control_plane.serverless.wiring import parts
from providers.aws import events

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

telling = Telling("interruption")
plane = parts(ServerlessSettings.from_environment())
bell = plane.bell(lambda: wake(plane.settings.reconcile_function))
interruptions = Interruptions(plane.service(bell.ring), {})
cold.over()


@telling
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Act on one event of EventBridge. Raises what a delivery that may concern a launch under way
    raises: it is then delivered again."""
    told = events.read(json.dumps(event).encode())
    machines = list(interruptions.hear("aws", told.notices))
    telling.line("heard", kind=event.get("detail-type", ""), machines=machines)
    telling.count("Notices", len(machines))
    return {"machines": machines}
