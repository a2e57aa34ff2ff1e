"""The embedded control plane as a process that buys at a cloud's fake, and that can be killed.

It is forked from a process that has read everything already, so that a hundred of them start
quickly. The fake is in the process of the test.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from control_plane.agents import AgentSettings
from control_plane.clouds import Clouds
from control_plane.core.snapshot import Timing
from control_plane.errors import ProviderError
from control_plane.identity.aws import AwsIdentity
from control_plane.identity.azure import AzureIdentity
from control_plane.identity.gcp import GcpIdentity
from control_plane.identity.verifier import Verifier
from control_plane.identity.web import Web
from control_plane.local import serving
from control_plane.loop import Pace
from control_plane.ports import BootSettings, LaunchRequest, Provider
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from providers.azure.client import Clients, Endpoint
from providers.azure.provider import AzureProvider
from providers.gcp.provider import GcpProvider
from tests.fakes.azure.connection import FakeCredential
from tests.fakes.gcp.connection import to
from tests.fakes.metadata.identity import Rerouted

TIMING = Timing(terminate_repeat_s=1)
AGENTS = AgentSettings(wait_s=0.0, poll_s=0.5)
PACE = Pace(at_least_s=1.0, unsettled_s=0.2, settle_s=0.02)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "tests.crash.cloud_server",
        "azure.mgmt.compute.models",
        "botocore.session",
        "google.cloud.compute_v1",
        "jwt",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a cloud's fake is, and what vouches for its machines."""

    cloud: str
    url: str
    ca_file: str = ""
    token: str = ""
    vouching_url: str
    roots: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of a process."""

    pause_at: str = ""
    """A boundary of its loop where it waits for the file `go`; meanwhile there is one, `paused`."""
    kill_at: str = ""
    """It kills itself when it passes this boundary, after its pause if it has one."""
    nth: int = 1
    """The how manieth time."""


def fork(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run this in a process of its own."""
    process = _FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def provider(place: Place, now: Callable[[], datetime]) -> Provider:
    """The real adapter on the fake."""
    if place.cloud == "aws":
        settings = AwsSettings(
            endpoint_url=place.url, access_key="AKIAIOSFODNN7EXAMPLE", secret_key="secret"
        )
        return AwsProvider(settings, render=startup, now=now)
    if place.cloud == "gcp":
        return GcpProvider(to(place.url), render=startup, now=now)
    endpoint = Endpoint(
        url=place.url,
        scope=f"{place.url}/.default",
        prices_url=place.url,
        ca_file=place.ca_file,
    )
    return AzureProvider(Clients(endpoint, FakeCredential(place.token)), render=startup, now=now)


def startup(request: LaunchRequest) -> str:
    """Stands for the start-up text: what a machine is told, and no more."""
    boot = request.boot
    told = {name: getattr(boot, name) for name in BootSettings.__dataclass_fields__}
    return "#!/bin/sh\n# " + json.dumps(told)


def serve(state_dir: Path, port: int, place: Place, fate: Fate) -> None:
    """Run the control plane until somebody ends this process."""
    log = (state_dir.parent / "server.log").open("ab", buffering=0)
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())

    def clouds(public_url: str, now: Callable[[], datetime]) -> Clouds:
        web = Web(Rerouted(place.vouching_url))
        return Clouds(
            providers={place.cloud: provider(place, now)},
            verifiers={place.cloud: _verifier(place, web, public_url, now)},
        )

    with serving(
        state_dir,
        port=port,
        timing=TIMING,
        agents=AGENTS,
        pace=PACE,
        public_url=f"http://127.0.0.1:{port}",
        clouds=clouds,
        checkpoint=_Checkpoints(state_dir, fate),
    ):
        ended.wait()


def launch(place: Place, request: LaunchRequest, folder: Path, name: str) -> None:
    """One of several processes that carry out the same launch; its machine goes into a file."""
    cloud = provider(place, lambda: datetime.now(UTC))
    (folder / f"{name}.ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    deadline, operation, said = time.monotonic() + 30, "", ""
    while time.monotonic() < deadline:
        try:
            launched = (
                cloud.launch_result(request, operation) if operation else cloud.launch(request)
            )
            operation, said = launched.operation, launched.provider_id
        except ProviderError as error:
            operation, said = "", f"{error.raw_code}: {error}"
        else:
            if not operation:
                break
        time.sleep(0.05)
    aside = folder / f"{name}.aside"
    aside.write_text(said)
    aside.rename(folder / f"{name}.done")


def _verifier(place: Place, web: Web, public_url: str, now: Callable[[], datetime]) -> Verifier:
    if place.cloud == "aws":
        return AwsIdentity(web, now)
    if place.cloud == "gcp":
        return GcpIdentity(web, now, server_url=public_url)
    return AzureIdentity(web, now, place.roots)


class _Checkpoints:
    """The fate of a process, met at the boundaries of its loop."""

    def __init__(self, state_dir: Path, fate: Fate) -> None:
        self._folder = state_dir.parent
        self._fate = fate
        self._passed = 0
        self._paused = False

    def __call__(self, name: str) -> None:
        if name == "launch-recorded":
            (self._folder / name).touch()
        if self._fate.pause_at and not self._paused:
            if name == self._fate.pause_at:
                self._paused = True
                (self._folder / "paused").touch()
                while not (self._folder / "go").exists():
                    time.sleep(0.01)
        elif name == self._fate.kill_at:
            self._passed += 1
            if self._passed == self._fate.nth:
                os.kill(os.getpid(), signal.SIGKILL)
