"""What a machine of any cloud runs first."""

from __future__ import annotations

from agent_bootstrap.user_data import cloud_startup
from control_plane.ports import LaunchRequest


def agent_startup(request: LaunchRequest) -> str:
    """The start-up text of the real agent. There is no secret in it; for a request without a
    machine's id it is one that any machine of its kind can run."""
    boot = request.boot
    return cloud_startup(
        request.offer.provider,
        server_url=boot.server_url,
        machine_id=boot.machine_id,
        fleet=boot.fleet,
        pool=boot.pool,
        agent_sha256=boot.agent_sha256,
        boot_timeout_s=boot.boot_timeout_s,
        max_lifetime_s=boot.max_lifetime_s,
    )
