"""The embedded control plane as `orchctl up` runs it, with one machine of this computer.

python -m bench.http_peers.embedded DIRECTORY
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from bench.http_peers.apps import say
from control_plane.config.load import load_text
from control_plane.local import serving

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: bench
queues:
  default: {pools: [box]}
pools:
  box: {clouds: {local: {}}, machines: {max: 1}, idle_timeout: 10m}
"""


def main(state_dir: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with serving(state_dir) as server:
        policy = load_text(DOCUMENT, name="bench")
        server.plane.fleet.apply(DOCUMENT, policy, expected_version=None)
        say(urlsplit(server.url).port or 0)
        try:
            signal.pause()
        finally:
            server.end_machines()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
