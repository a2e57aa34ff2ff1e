"""Load: `wrk` with a script that sends prepared requests one after the other, over 32 connections;
and what a server's process spends on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.servers import NotInstalled

CONNECTIONS = 32
SCRIPT = """\
local requests, sent = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local path, token, body = line:match("^(.-)\\t(.-)\\t(.*)$")
    local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token}
    requests[#requests + 1] = wrk.format("POST", path, headers, body)
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency, _)
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_us": %f, "p99_us": %f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One prepared POST."""

    path: str
    body: str
    token: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What some seconds of load came to."""

    requests: int
    rate: float
    """Answers per second."""
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the server, for each answer."""


class Load:
    """Sends load. Raises `NotInstalled` where there is no `wrk`."""

    def __init__(self, folder: Path, seconds: int) -> None:
        found = shutil.which("wrk")
        if found is None:
            raise NotInstalled("no program wrk: apt-get install wrk")
        self._wrk = found
        self.seconds = seconds
        self._calls = folder / "calls"
        self._script = folder / "calls.lua"
        self._script.write_text(SCRIPT)

    def send(
        self, port: int, pid: int, calls: Sequence[Call], *, once: bool = False, connections: int
    ) -> Phase:
        """Send these calls in turn to a server; each only `once` at most where a second one would
        do something else. Raises `RuntimeError` when one is refused."""
        self._calls.write_text("".join(f"{c.path}\t{c.token}\t{c.body}\n" for c in calls))
        command = [self._wrk, "-t1", f"-c{connections}", f"-d{self.seconds}s"]
        command += ["-s", str(self._script), f"http://127.0.0.1:{port}", "--", str(self._calls)]
        before = cpu_s(pid)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = cpu_s(pid) - before
        told = json.loads(out.splitlines()[-1])
        done = int(told["requests"])
        if told["refused"] or told["broken"] or not done:
            raise RuntimeError(f"{calls[0].path}: the load did not go well: {told}")
        if once and done + connections > len(calls):
            raise RuntimeError(f"{calls[0].path}: {len(calls)} calls were not enough")
        return Phase(
            requests=done,
            rate=done / told["seconds"],
            p50_us=told["p50_us"],
            p99_us=told["p99_us"],
            cpu_us=spent / done * 1e6,
        )


def cpu_s(pid: int) -> float:
    """What a process has spent so far, its kernel time included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
