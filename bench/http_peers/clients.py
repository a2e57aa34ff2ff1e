"""A client that keeps its connection, and the worker of the floor.

python -m bench.http_peers.clients PORT
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from typing import Any


class Keeping:
    """POSTs JSON over one connection."""

    def __init__(self, port: int, token: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

    def post(self, path: str, body: object) -> Any:
        """The answer. Raises `RuntimeError` when it is a refusal."""
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {text.decode()}")
        return json.loads(text)

    def close(self) -> None:
        self._connection.close()


def work(port: int) -> None:
    """Run what comes, the way an agent would that does nothing else."""
    client = Keeping(port)
    running: list[subprocess.Popen[bytes]] = []
    while True:
        job = client.post("/claim", {})
        running.append(subprocess.Popen(["/bin/sh", "-c", job["command"]]))
        running = [each for each in running if each.poll() is None]


if __name__ == "__main__":
    try:
        work(int(sys.argv[1]))
    except (KeyboardInterrupt, OSError, http.client.HTTPException):
        sys.exit(1)
