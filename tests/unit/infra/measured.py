"""What the functions consume, counted where they hand requests over: units of the store by our own
meter, requests to S3, lines written, time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from control_plane import kept
from control_plane.stores.dynamodb import line, shapes
from control_plane.stores.figures import Figures
from tests.emulators.ministack import Ministack
from tests.unit.infra import history
from tests.unit.infra.plane import BUCKET, Agent, Plane, running

TIMES = 9
WRITTEN = frozenset({"PutObject", "ListObjectsV2"})
"""Of S3, at the price of a write; all else of it is a read."""

Figure = Mapping[str, float]


@dataclass
class Meter:
    """What one invocation comes to, again and again."""

    plane: Plane
    figures: dict[str, Figure] = field(default_factory=dict)
    _units: dict[str, float] = field(default_factory=dict)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Hear of every unit that any function of the plane consumes."""
        add = Figures.add

        def counted(figures: Figures, **told: Any) -> None:
            for name in ("read_units", "write_units"):
                self._units[name] = self._units.get(name, 0.0) + told.get(name, 0.0)
            add(figures, **told)

        patch.setattr(Figures, "add", counted)
        # What was read a moment ago: however long a moment is on a busy computer.
        patch.setattr(kept, "KEPT_FOR", timedelta(days=1))
        for module in (line, shapes):
            patch.setattr(module, "REMEMBERED_S", math.inf)

    def note(self, name: str, function: str, act: Callable[[], object], times: int = 1) -> None:
        """Do something some times, each of which must consume the same, and note what it took."""
        seen = [self._of(function, act) for _ in range(times)]
        first, last = _exact(seen[0]), _exact(seen[-1])
        assert first == last, name
        usual = {k: statistics.median(each[k] for each in seen) for k in ("ms", "log_bytes")}
        self.figures[name] = {**last, **{k: round(v) for k, v in usual.items()}}

    def _of(self, function: str, act: Callable[[], object]) -> dict[str, float]:
        calls = self.plane.recorder.calls.setdefault(function, [])
        before, written = len(calls), self.plane.log.tell()
        self._units.clear()
        began = time.perf_counter()
        act()
        took = time.perf_counter() - began
        s3 = [call.operation for call in calls[before:] if call.service == "s3"]
        return {
            "reads": self._units.get("read_units", 0.0),
            "writes": self._units.get("write_units", 0.0),
            "objects_written": sum(each in WRITTEN for each in s3),
            "objects_read": sum(each not in WRITTEN for each in s3),
            "wakes": sum(call.service == "lambda" for call in calls[before:]),
            "log_events": self.plane.log.getvalue().count("\n", written),
            "log_bytes": self.plane.log.tell() - written,
            "ms": took * 1000,
        }


EXACT = ("reads", "writes", "objects_written", "objects_read", "wakes", "log_events")
"""What a figure says to the last digit; its time and the length of its lines vary."""


def _exact(figure: Figure) -> Figure:
    return {name: figure[name] for name in EXACT}


def measure(ministack: Ministack) -> Mapping[str, Figure]:
    """The figures of everything that happens again and again."""
    with running(ministack, f"{BUCKET}-measured") as plane, pytest.MonkeyPatch.context() as patch:
        meter = Meter(plane)
        meter.install(patch)
        _of_the_clock(meter)
        _of_jobs(meter)
        return meter.figures


@contextmanager
def _warm(plane: Plane, *functions: str) -> Iterator[None]:
    for each in functions:
        plane.invoke(each, {})
        plane.invoke(each, {})
    yield


def _of_the_clock(meter: Meter) -> None:
    plane = meter.plane
    for when in ("no document", "nothing to do"):
        if when == "nothing to do":
            history.apply(plane, "research", "spot")
        with _warm(plane, "reconcile", "prices"):
            for name, function in (("look", "reconcile"), ("prices", "prices")):
                meter.note(
                    f"{name}, {when}", function, lambda f=function: plane.invoke(f, {}), TIMES
                )


def _of_jobs(meter: Meter) -> None:
    plane = meter.plane
    job = {"command": "python train.py --lr 3e-4", "queue": "research", "cpu": 1}
    made: list[str] = []

    def submit() -> None:
        made.append(plane.ask("POST", "/v1/jobs", job)["id"])

    submit()
    meter.note("submit", "api", submit, 3)
    agent = _machine(plane)
    for _ in made:
        _run(meter, agent)
    agent.say("claim", {"running": [], "limit": 1})
    idle = {"running": [], "limit": 8}
    meter.note("poll that brings nothing", "api", lambda: agent.say("claim", idle), TIMES)
    meter.note("beat", "api", lambda: agent.say("beat", {"running": []}), TIMES)


def _run(meter: Meter, agent: Agent) -> None:
    """The life of one job at its machine."""
    found: list[Any] = []
    meter.note(
        "claim",
        "api",
        lambda: found.extend(agent.say("claim", {"running": [], "limit": 1})["jobs"]),
    )
    (work,) = found
    at, epoch = f"jobs/{work['job_id']}", work["epoch"]
    meter.note("start", "api", lambda: agent.say(f"{at}/start", {"epoch": epoch}))
    logs = f"{at}/logs?epoch={epoch}&offset=0"
    meter.note("lines of a log", "api", lambda: agent.say(logs, b"epoch 1: loss 0.3"))
    ended = {"epoch": epoch, "outcome": "succeeded", "exit_code": 0}
    meter.note("finish", "api", lambda: agent.say(f"{at}/finish", ended))


def _machine(plane: Plane) -> Agent:
    for _ in range(3):
        plane.invoke("reconcile", {"woken": True})
        plane.account.advance(1)
    (vm, *_) = plane.account.machines()
    return Agent(plane, vm["tags"]["orchctl-machine"], vm["id"])
