"""ministack, the AWS emulator, as a server of its own.

Real SDKs talk to it over real HTTP. A 12-digit access key selects the account, so tests that take a
new account each share one server and nothing else.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import count
from pathlib import Path

from tests import requires

READY_S = 30.0
STOP_S = 20.0

_LEASH = Path(__file__).with_name("leash.py")
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Ministack:
    """One server on the loopback, whose output goes to `folder/ministack.log`.

    It dies with the process that started it, also when that is killed. With `persist` it writes its
    state to `folder/state` when it is stopped (not when it is killed) and reads it at the start.
    With `auth` roles and their policies count; `test` with the secret `test` may do all."""

    def __init__(self, folder: Path, *, persist: bool = False, auth: bool = False) -> None:
        self.log = folder / "ministack.log"
        self._folder = folder
        self._persist = persist
        self._auth = auth
        self._port = 0
        self._accounts = count(100_000_000_001)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its address, the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Its process; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def new_account(self) -> str:
        """An account that nobody has used; also the access key to it."""
        return str(next(self._accounts))

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._port = self._port or _free_port()
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [requires.ministack(), "-I", _LEASH],
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._ready(began):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"ministack does not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as its user would."""
        if self._process:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would, with all its functions."""
        if self._process and self._process.stdin:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process.stdin.close()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it at the same address."""
        self.stop()
        self.start()

    def _ready(self, began: int) -> bool:
        # Its own word first: another server may answer at a port that was thought free.
        if f"Running on {self.endpoint}".encode() not in self.log.read_bytes()[began:]:
            return False
        try:
            with _DIRECT.open(f"{self.endpoint}/_ministack/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "GATEWAY_PORT": str(self._port),
            "BIND_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0",  # else it listens on all interfaces
            "AUTH": "true" if self._auth else "false",
            "PERSIST_STATE": "1" if self._persist else "0",
            "STATE_DIR": str(self._folder / "state"),
        }


def _free_port() -> int:
    # Not port 0: what the system gives out by itself, others may get before ministack listens.
    # Not by the seed of this test run: two processes of it share that.
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(15_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
