"""The function that asks the clouds for today's prices, and removes what machines left behind."""

from __future__ import annotations

from control_plane.serverless import cold  # isort: split

from typing import TYPE_CHECKING, Any

from control_plane.serverless.federation import federated
from control_plane.serverless.price_book import save_prices
from control_plane.serverless.settings import ServerlessSettings
from control_plane.serverless.telling import Telling
from control_plane.serverless.wiring import parts
from control_plane.sweep import Sweeper

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

telling = Telling("prices")
plane = parts(ServerlessSettings.from_environment())
providers = federated(plane.settings, plane.clock.now)
sweeper = Sweeper(
    plane.service(lambda: None), providers, lambda name: f"{plane.installation}-{name}"
)
cold.over()


@telling
def handler(_event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Ask, write down, tidy up."""
    records = plane.store.shared_read().autoscalers
    clouds = [cloud for record in records for cloud in record.policy.clouds]
    found = save_prices(plane.blobs, providers, clouds)
    sweeper.sweep()
    telling.line("asked", offers=found)
    return {"offers": dict(found)}
