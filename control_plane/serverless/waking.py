"""Starting the loop from another function, without waiting for it."""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from control_plane.serverless.telling import log


def wake(function: str) -> None:
    """Invoke it asynchronously; an empty name leaves the loop to its schedule. A hint: one that is
    lost is made up for by the schedule, so what goes wrong is logged and nothing more."""
    if not function:
        return
    try:
        _client().invoke(FunctionName=function, InvocationType="Event", Payload=b'{"woken": true}')
    except (BotoCoreError, ClientError) as error:
        log.warning("the loop was not woken: %s", error)


@cache
def _client() -> Any:
    # Made at the first change: most requests change nothing.
    config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2})
    return botocore.session.get_session().create_client("lambda", config=config)
