"""A thousand machines wanted at once, on each cloud's fake, over HTTP and with its SDK.

    python -m bench.clouds [--machines 1000] [--only aws,gcp,azure] [--per-second 20] [--json]

The embedded control plane decides and acts, tick by tick, until every machine is booting. In front
of the adapter stands a limit like the clouds' own: so many launches a second, a burst of two and a
half seconds, everything beyond it refused as the cloud refuses it.

`launch_calls` counts launches that were sent or refused, `throttles` the refused ones; `seconds` is
the time to the last machine, `seconds_vs_limit` that over the least that the limit allows. A tick
that takes long keeps others waiting: `tick_max_s`. The fakes take their own time in the same
process.

The last line is JSON; the promises are no retry storm (`calls_per_machine` <= 1.5) and no tick
longer than its deadline.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from control_plane.clouds import Clouds
from control_plane.config.load import load_text
from control_plane.core.model import (
    ErrorClass,
    JobSpec,
    MachineState,
    Observation,
    Offer,
    Sighting,
)
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest, MachineRef, Paced, Provider
from control_plane.service import Submission
from control_plane.wiring import ControlPlane, EmbeddedSettings, embedded
from tests.clouds.world import CLOUDS, Cloud

DOCUMENT = """\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {{pools: [many], jobs_per_machine: 1}}
pools:
  many:
    cpu: 4
    market: on-demand
    clouds: {{{cloud}: {settings}}}
    machines: {{max: {machines}}}
budget: {{hour: 100000 USD, day: 1000000 USD, month: 10000000 USD}}
"""
BURST_S = 2.5
GIVE_UP_S = 1800.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one cloud came to."""

    machines: int
    launch_calls: int
    throttles: int
    seconds: float
    seconds_vs_limit: float
    calls_per_machine: float
    ticks: int
    tick_max_s: float


class Limited:
    """A provider whose launches are limited to so many a second."""

    needs_token = False

    def __init__(self, provider: Provider, per_second: float) -> None:
        self.name = provider.name
        if isinstance(provider, Paced):
            self.limits = provider.limits
        self.calls = self.throttles = 0
        self._provider = provider
        self._per_second = per_second
        self._left = self._most = per_second * BURST_S
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:
        return self._provider.offers(clouds)

    def launch(self, request: LaunchRequest) -> Launched:
        if not self._let_through():
            raise ProviderError(
                "too many requests", error_class=ErrorClass.THROTTLE, raw_code="TooManyRequests"
            )
        return self._provider.launch(request)

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        return self._provider.launch_result(request, operation)

    def observe(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Observation:
        return self._provider.observe(fleet, clouds)

    def sighting(self, ref: MachineRef) -> Sighting | None:
        return self._provider.sighting(ref)

    def terminate(self, ref: MachineRef) -> None:
        self._provider.terminate(ref)

    def _let_through(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._left = min(self._most, self._left + (now - self._at) * self._per_second)
            self._at = now
            self.calls += 1
            if self._left < 1:
                self.throttles += 1
                return False
            self._left -= 1
            return True


_LINE = "{:8} {:>7} {:>9} {:>8} {:>8} {:>10}"


def main() -> None:
    options = _options()
    print(
        f"{'cloud':8} {'calls':>7} {'throttles':>9} {'seconds':>8} {'x limit':>8} {'tick max':>9}"
    )
    found: dict[str, Result] = {}
    for name in options.only:
        found[name] = result = measure(CLOUDS[name](), options.machines, options.per_second)
        figures = (result.launch_calls, result.throttles, result.seconds)
        print(_LINE.format(name, *figures, result.seconds_vs_limit, result.tick_max_s), flush=True)
    print(json.dumps({name: asdict(each) for name, each in found.items()}))


def measure(cloud: Cloud, machines: int, per_second: float) -> Result:
    """Want so many machines at once, and count until all are booting."""
    limited = Limited(cloud.provider(_startup), per_second)
    with tempfile.TemporaryDirectory(prefix="bench-clouds-") as folder:
        settings = EmbeddedSettings(
            state_dir=Path(folder),
            server_url="http://127.0.0.1:9",
            public_url="http://127.0.0.1:9",
            clouds=lambda _url, _now: Clouds(providers={cloud.name: limited}),
        )
        plane = embedded(settings)
        try:
            _want(plane, cloud, machines)
            began = time.monotonic()
            ticks = _run(plane, cloud, machines)
            seconds = time.monotonic() - began
        finally:
            plane.store.close()
            cloud.close()
    least = max((machines - per_second * BURST_S) / per_second, 0.001)
    return Result(
        machines=machines,
        launch_calls=limited.calls,
        throttles=limited.throttles,
        seconds=round(seconds, 2),
        seconds_vs_limit=round(seconds / least, 3),
        calls_per_machine=round(limited.calls / machines, 3),
        ticks=len(ticks),
        tick_max_s=round(max(ticks), 3),
    )


def _want(plane: ControlPlane, cloud: Cloud, machines: int) -> None:
    """As many jobs wait, each for a machine of its own."""
    document = DOCUMENT.format(
        cloud=cloud.name, settings=json.dumps(cloud.settings), machines=machines
    )
    policy = load_text(document, name="research")
    plane.fleet.apply(document, policy, expected_version=None)
    for _ in range(machines):
        plane.service.submit(Submission(spec=JobSpec(command="true")))


def _run(plane: ControlPlane, cloud: Cloud, machines: int) -> Sequence[float]:
    """How long each tick took. Raises `RuntimeError` when machines are missing for too long."""
    ticks: list[float] = []
    give_up = time.monotonic() + GIVE_UP_S
    while (launched := _launched(plane)) < machines:
        if time.monotonic() > give_up:
            raise RuntimeError(f"{launched} of {machines} machines after {GIVE_UP_S:.0f} s")
        began = time.monotonic()
        plane.reconciler.tick()
        ticks.append(time.monotonic() - began)
        time.sleep(LOOK_S)
    if len(cloud.vms()) != machines:
        raise RuntimeError(f"{len(cloud.vms())} machines exist, not {machines}")
    return ticks


def _startup(request: LaunchRequest) -> str:
    return f"#!/bin/sh\n# {request.machine_id}\n"


def _launched(plane: ControlPlane) -> int:
    states = [each.state for each in plane.store.machine_list(open_only=False)]
    return states.count(MachineState.BOOTING)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--per-second", type=float, default=20.0, help="launches the cloud takes")
    parser.add_argument("--only", type=lambda text: text.split(","), default=sorted(CLOUDS))
    parser.add_argument("--json", action="store_true", help="the last line is JSON anyway")
    return parser.parse_args()


if __name__ == "__main__":
    main()
