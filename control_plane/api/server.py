"""The API on a port of this machine."""

from __future__ import annotations

import gc
import socket

import uvicorn
from starlette.types import ASGIApp

from control_plane.api.changes import Changes

KEEP_ALIVE_S = 75
"""Longer than agents' beats are apart: a connection closed just as it is used again costs a try."""

GARBAGE = 10_000
"""Objects made and not yet let go of before the garbage collector looks for rings among them. A
request makes hundreds that are gone with it: Python's own 700 looks many times while they live."""


class Server(uvicorn.Server):
    """uvicorn, which sends everybody home before it waits for the last answer."""

    def __init__(self, app: ASGIApp, changes: Changes, *, host: str, port: int) -> None:
        """Port 0 = a free one; `bound_port` says which once it has started."""
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                # Paths may hold a login token.
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=10,
            )
        )
        self._changes = changes

    @property
    def bound_port(self) -> int:
        """The port it listens on; 0 before it has started."""
        sockets = [each for server in getattr(self, "servers", []) for each in server.sockets]
        return int(sockets[0].getsockname()[1]) if sockets else 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End long polls, then the server."""
        self._changes.close()
        await super().shutdown(sockets)


def spare_the_collector() -> None:
    """For a process that does nothing but serve: what is loaded by now stays for good, so the
    garbage collector need not look at it again. That took a fifth of the time of a busy server."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
