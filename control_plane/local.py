"""The whole control plane in one process on one machine: what `orchctl up` and `orchctl demo`
run.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.agents import AgentSettings
from control_plane.api.server import Server as HttpServer
from control_plane.clouds import MakeClouds
from control_plane.core.snapshot import Timing
from control_plane.errors import Unavailable
from control_plane.execute import no_checkpoint
from control_plane.lock import alone
from control_plane.loop import Pace
from control_plane.wiring import ControlPlane, EmbeddedSettings, embedded

_END_WAIT_S = 20.0
_DEFAULTS = EmbeddedSettings(state_dir=Path(), server_url="")


class Server:
    """A running embedded control plane."""

    def __init__(self, plane: ControlPlane, listening: socket.socket, url: str) -> None:
        self.plane = plane
        self.url = url
        self._listening = listening
        self._http = HttpServer(plane.app, plane.changes, host="127.0.0.1", port=0)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    @property
    def login_url(self) -> str:
        """Opens the dashboard with a session of its own."""
        return f"{self.url}/login?token={self.plane.admin_token}"

    def start(self) -> None:
        """Answer requests, then begin to look after machines."""
        self._thread.start()
        while not self._http.started:
            if not self._thread.is_alive():
                raise Unavailable("the HTTP server did not start")
            time.sleep(0.01)
        self.plane.loop.start()

    def end_machines(self) -> int:
        """End every machine, give back what they run, and return how many are still there. The
        loop stops and buys nothing for what is given back."""
        self.plane.loop.stop()
        self.plane.reconciler.stop_buying()
        deadline = time.monotonic() + _END_WAIT_S
        while left := self.plane.store.machine_list():
            if time.monotonic() >= deadline:
                break
            for machine in left:
                self.plane.fleet.terminate(machine.id, actor="shutdown")
            self.plane.reconciler.tick()
            time.sleep(0.1)
        return len(left)

    def stop(self) -> None:
        """Stop looking, stop answering, let go of the files."""
        self.plane.loop.stop()
        self._http.should_exit = True
        self._thread.join()
        self._listening.close()
        self.plane.alerts.close()
        self.plane.store.close()

    def _serve(self) -> None:
        # Signals belong to whoever started the server, not to a thread of it.
        self._http.run(sockets=[self._listening])


@contextmanager
def serving(
    state_dir: Path,
    *,
    port: int = 0,
    timing: Timing = _DEFAULTS.timing,
    agents: AgentSettings = _DEFAULTS.agents,
    pace: Pace = _DEFAULTS.pace,
    public_url: str = "",
    clouds: MakeClouds = _DEFAULTS.clouds,
    checkpoint: Callable[[str], None] = no_checkpoint,
) -> Iterator[Server]:
    """Run the control plane over a directory while the block lasts; `{port}` in `public_url` stands
    for the port. Raises `Unavailable` when another one uses the directory or the port."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(state_dir):
        listening = _listen(port)
        bound = listening.getsockname()[1]
        url = f"http://127.0.0.1:{bound}"
        settings = EmbeddedSettings(
            state_dir=state_dir.resolve(),
            server_url=url,
            timing=timing,
            agents=agents,
            pace=pace,
            public_url=public_url.replace("{port}", str(bound)),
            clouds=clouds,
        )
        server = Server(embedded(settings, checkpoint=checkpoint), listening, url)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"port {port} cannot be used: {error.strerror}", fix="choose another --port; 0 = any"
        ) from None
    listening.listen(128)
    return listening
