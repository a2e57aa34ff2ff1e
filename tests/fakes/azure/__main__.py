"""Run the fake by hand, in real time: prints its address and certificate, and serves until it is
interrupted."""

from __future__ import annotations

import sys
import threading

from tests.fakes.azure.cloud import AzureCloud
from tests.fakes.azure.server import AzureServer
from tests.fakes.clock import RunningClock


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    cloud = AzureCloud(RunningClock())
    cloud.add_group("orchctl")
    with AzureServer(cloud, port=port) as server:
        print(f"{server.url} {server.ca_file}", flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


main()
