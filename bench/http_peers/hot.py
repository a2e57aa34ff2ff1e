"""Rounds of load on our hot endpoints, and beside each on bare apps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.http_peers.apps import BODY, heard
from bench.http_peers.load import CONNECTIONS, Call, Load, Phase
from bench.http_peers.ours import Fleet

HOT = ("empty claim", "claim", "beat", "start", "finish")
"""In the order of a job's life: every answer of `claim` brought one, and so on."""
OURS, DURABLE = "orchctl", "durable"
BARE = ("starlette", "fastapi")
CALLS_PER_S = 12_000
"""Calls prepared for each second of load, where none may be sent twice: more than can be answered
here."""

Round = Mapping[tuple[str, str], Phase]
"""By endpoint and by who answered."""


def measure_http(folder: Path, rounds: int, seconds: int, stack: ExitStack) -> Sequence[Round]:
    """So many rounds. Raises `NotInstalled` without `wrk`."""
    load = Load(folder, seconds)
    bare = {name: _Bare(load, *started(stack, "bench.http_peers.apps", name)) for name in BARE}
    with_store = {name: _with_store(name, load, folder, stack) for name in (DURABLE, OURS)}
    for each in with_store.values():
        each.warm()
    return [_round({**bare, **with_store}) for _ in range(rounds)]


def started(stack: ExitStack, module: str, *arguments: str) -> tuple[int, int]:
    """Port and process id of a server that ends with the benchmark."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(_end, process)
    return heard(process), process.pid


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _round(servers: Mapping[str, _Bare | _WithStore]) -> Round:
    """Who is compared stands next to each other: what else the computer does changes by the
    second."""
    for server in servers.values():
        server.begin()
    return {
        (endpoint, name): server.measure(endpoint)
        for endpoint in HOT
        for name, server in servers.items()
        if name != "fastapi" or endpoint == "claim"
    }


@dataclass(frozen=True, slots=True)
class _Bare:
    """An app that does nothing, whatever is asked."""

    load: Load
    port: int
    pid: int

    def begin(self) -> None:
        """It needs nothing."""

    def measure(self, _: str) -> Phase:
        call = Call(path="/jobs", body=BODY)
        return self.load.send(self.port, self.pid, [call], connections=CONNECTIONS)


@dataclass(frozen=True, slots=True)
class _WithStore:
    """A server with machines and jobs."""

    fleet: Fleet
    load: Load
    port: int
    pid: int

    def warm(self) -> None:
        """A fleet that lives is known to its server: each machine has called before."""
        calls = self.fleet.idle_beats()
        while calls:
            calls = calls[self._send(calls).requests :]

    def begin(self) -> None:
        """Jobs wait, and no machine holds one."""
        self.fleet.finish_the_rest()
        self.fleet.refill()

    def measure(self, endpoint: str) -> Phase:
        match endpoint:
            case "empty claim":
                return self._send(self.fleet.idle_claims())
            case "claim":
                done = self._send(self.fleet.claims(), once=True)
                self.fleet.check_leases(done.requests)
                self.fleet.claim_the_rest()
                return done
            case "beat":
                return self._send(self.fleet.beats())
            case "start":
                return self._send(self.fleet.starts(), once=True)
            case _:
                done = self._send(self.fleet.finishes(), once=True)
                self.fleet.check_ended(done.requests)
                return done

    def _send(self, calls: Sequence[Call], *, once: bool = False) -> Phase:
        return self.load.send(self.port, self.pid, calls, once=once, connections=CONNECTIONS)


def _with_store(name: str, load: Load, folder: Path, stack: ExitStack) -> _WithStore:
    module = {OURS: "bench.http_peers.ours", DURABLE: "bench.http_peers.durable"}[name]
    state_dir = folder / name
    server = started(stack, module, str(state_dir))
    fleet = Fleet(state_dir, CALLS_PER_S * load.seconds)
    stack.callback(fleet.close)
    return _WithStore(fleet, load, *server)
