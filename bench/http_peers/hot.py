"""Rounds of load on our hot endpoints and on bare apps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.http_peers.apps import BODY, heard
from bench.http_peers.load import CONNECTIONS, Call, Load, Phase
from bench.http_peers.ours import Fleet
from bench.peers import rounds as disk

HOT = ("claim", "empty claim", "beat", "start", "finish")
BARE = ("fastapi", "starlette")
CALLS_PER_S = 12_000
"""Calls prepared for each second of load, where none may be sent twice: more than can be answered
here."""


def measure_http(
    folder: Path, rounds: int, seconds: int, stack: ExitStack
) -> Sequence[Mapping[str, Phase]]:
    """So many rounds between two steady looks at the disk. Raises `NotInstalled` without `wrk`."""
    load = Load(folder, seconds)
    bare = {name: started(stack, "bench.http_peers.apps", name) for name in BARE}
    state_dir = folder / "state"
    ours = started(stack, "bench.http_peers.ours", str(state_dir))
    fleet = Fleet(state_dir, CALLS_PER_S * seconds)
    stack.callback(fleet.close)
    found: list[Mapping[str, Phase]] = []
    for _ in range(rounds * disk.PATIENCE):
        before = disk.floor(folder)
        done = {name: _bare(load, *server) for name, server in bare.items()}
        done |= _ours(load, fleet, *ours)
        low, high = sorted((before, disk.floor(folder)))
        if high <= low * disk.UNSTEADY:
            found.append(done)
        if len(found) == rounds:
            return found
    raise RuntimeError(f"the disk changed twofold in nearly every round; {len(found)} were steady")


def started(stack: ExitStack, module: str, *arguments: str) -> tuple[int, int]:
    """Port and process id of a server that ends with the benchmark."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(_end, process)
    return heard(process), process.pid


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _bare(load: Load, port: int, pid: int) -> Phase:
    return load.send(port, pid, [Call(path="/jobs", body=BODY)], connections=CONNECTIONS)


def _ours(load: Load, fleet: Fleet, port: int, pid: int) -> Mapping[str, Phase]:
    """The life of some jobs: every answer of `claim` brought one, and so on."""

    def send(calls: Sequence[Call], *, once: bool = False) -> Phase:
        return load.send(port, pid, calls, once=once, connections=CONNECTIONS)

    fleet.refill()
    # A fleet that lives is known to the server: its machines have called before.
    send(fleet.idle_beats())
    done = {"empty claim": send(fleet.idle_claims()), "claim": send(fleet.claims(), once=True)}
    fleet.check_leases(done["claim"].requests)
    fleet.claim_the_rest()
    done["beat"] = send(fleet.beats())
    done["start"] = send(fleet.starts(), once=True)
    done["finish"] = send(fleet.finishes(), once=True)
    fleet.check_ended(done["finish"].requests)
    fleet.finish_the_rest()
    return done
