"""What the provider suite asks of a cloud, and the two that need no account.

A new cloud joins by a subclass of `ProviderCase` and a line in `registry.CASES`. A hook that a
cloud cannot offer is named in `cannot` with the reason, and tests that need it are not made for it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from control_plane.core.model import ErrorClass, Market, Offer, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.ports import (
    BootSettings,
    Launched,
    LaunchRequest,
    MachineRef,
    Provider,
)
from providers.local import processes
from providers.local.launch import MachineDirectory, read_label
from providers.local.processes import Process
from providers.local.provider import LocalProvider
from providers.simulated.clock import SimulatedClock
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.provider import SimulatedProvider
from providers.simulated.spec import CloudSpec

FLEET = "fleet-a"
TOKEN = "one-time-4c1f0a"
HOOKS = (
    "make_unavailable",
    "make_available",
    "drop_launch_answer",
    "fail_next",
    "blind",
    "answer_slowly",
    "interrupt",
    "crash_in_launch",
)


class ProviderCase(ABC):
    """One cloud (or computer) under test; `open` gives as many provider objects on it as wanted."""

    name = ""
    cannot: ClassVar[Mapping[str, str]] = {}
    """Hooks this one does not offer, each with the reason."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """Codes of `EXPECTED_CLASSES` that this one has nothing for, each with the reason."""

    # ---- what every case must offer

    @abstractmethod
    def open(self) -> Provider:
        """A new provider object on the same cloud, as after a restart of the control plane."""

    @abstractmethod
    def now(self) -> datetime:
        """The cloud's time."""

    @abstractmethod
    def settle(self) -> None:
        """Let what was launched become visible and running."""

    @abstractmethod
    def alive(self) -> Sequence[str]:
        """Machine ids of what really exists, one for each machine, not asked from the provider."""

    @abstractmethod
    def end_by_itself(self, launched: Launched) -> None:
        """The machine ends from within, and is gone when this returns."""

    @abstractmethod
    def visible_outside(self) -> str:
        """All that others can read of the machines: labels, process arguments, names."""

    @abstractmethod
    def pause(self) -> None:
        """Between two looks at a machine that is ending."""

    @abstractmethod
    def close(self) -> None:
        """End all that is left, and assert that nothing is."""

    # ---- hooks

    def make_unavailable(self, offer: Offer) -> None:
        """An offer is sold out."""
        raise NotImplementedError

    def make_available(self, offer: Offer) -> None:
        """It can be had again."""
        raise NotImplementedError

    def drop_launch_answer(self) -> None:
        """The next launch acts, and its answer is lost."""
        raise NotImplementedError

    def fail_next(self, code: str) -> None:
        """The next call fails with a raw code of the simulated cloud's table, or what this cloud
        has in its place."""
        raise NotImplementedError

    def blind(self, region: str) -> None:
        """A region answers no listing."""
        raise NotImplementedError

    def answer_slowly(self, *, refuse: bool) -> None:
        """The next launch answers with an operation, which may end in a refusal."""
        raise NotImplementedError

    def interrupt(self, launched: Launched) -> None:
        """The cloud takes a machine back, and it is gone when this returns."""
        raise NotImplementedError

    def crash_in_launch(self, request: LaunchRequest) -> None:
        """The control plane dies after it has begun to launch and before a machine exists."""
        raise NotImplementedError

    # ---- for the suite

    def clouds(self) -> Sequence[CloudPolicy]:
        """The settings under which machines are bought here."""
        return [CloudPolicy(provider=self.name)]

    def offer(self) -> Offer:
        """Some on-demand offer."""
        offers = self.open().offers(self.clouds())
        return next(each for each in offers if each.market is Market.ON_DEMAND)

    def request(
        self, machine_id: str = "m-1", *, attempt: int = 1, fleet: str = FLEET
    ) -> LaunchRequest:
        """A launch request as the executor would make it."""
        return LaunchRequest(
            machine_id=machine_id,
            key=f"{machine_id}.{attempt}",
            offer=self.offer(),
            disk_gib=50,
            deadline=self.now() + timedelta(hours=24),
            boot=BootSettings(
                server_url="http://127.0.0.1:9",
                machine_id=machine_id,
                fleet=fleet,
                pool="p",
                agent_sha256="0" * 64,
                boot_timeout_s=600,
                max_lifetime_s=86_400,
                one_time_token=TOKEN,
            ),
            cloud=self.clouds()[0],
        )

    def ref(self, request: LaunchRequest, launched: Launched | None = None) -> MachineRef:
        """How the control plane names a machine; without an answer the provider's id is unknown."""
        return MachineRef(
            machine_id=request.machine_id,
            provider_id=launched.provider_id if launched else "",
            region=request.offer.region,
            zone=request.offer.zone,
            options=request.cloud.options,
        )

    def last_look(self, ref: MachineRef, provider: Provider) -> Sighting | None:
        """Terminate again and again until the provider says that it is gone."""
        for _ in range(100):
            provider.terminate(ref)
            sighting = provider.sighting(ref)
            if sighting is None or sighting.state == "gone":
                return sighting
            self.pause()
        raise AssertionError(f"{ref} does not end")


# ------------------------------------------------------------------------------------- local


LOOP = "trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done\n"
"""Stands for a machine's start-up text: stays until it is told to go."""


def until(condition: Callable[[], object], *, limit_s: float = 5.0) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class LocalCase(ProviderCase):
    """Real processes on this computer, with a stand-in for the start-up text."""

    name = "local"
    cannot: ClassVar[Mapping[str, str]] = {
        "drop_launch_answer": "there is no network between the provider and this computer",
        "fail_next": "there is no service that could refuse",
        "blind": "there is one place only, and the process table always answers",
        "answer_slowly": "a process starts at once",
        "interrupt": "nobody takes this computer's processes back",
    }

    def __init__(self, folder: Path, startup: str = LOOP) -> None:
        self.root = folder / "machines"
        self.startup = startup
        self.slots = 16
        self._opened: list[LocalProvider] = []

    def open(self) -> LocalProvider:
        provider = LocalProvider(
            self.root, slots=self.slots, grace_s=0.3, render=lambda boot, token: self.startup
        )
        self._opened.append(provider)
        return provider

    def now(self) -> datetime:
        return datetime.now(UTC)

    def settle(self) -> None:
        # The wrapper becomes the start-up text within milliseconds.
        for folder in self.root.iterdir():
            if (folder / "machine.json").exists():
                until((folder / "started").exists)

    def found(self) -> Mapping[str, Sequence[Process]]:
        """Living processes of this root by launch key, asked past the provider."""
        home = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]

        def owner(process: Process) -> str:
            card = read_label(process.label)
            return card.key if card is not None and card.home == home else ""

        return processes.machines(owner)

    def alive(self) -> Sequence[str]:
        return [key.rpartition(".")[0] for key in self.found()]

    def end_by_itself(self, launched: Launched) -> None:
        self.kill(launched.provider_id)

    def kill(self, key: str) -> None:
        """End a machine past the provider."""
        assert processes.end(lambda: self.found().get(key, ()), grace_s=0.3, limit_s=5.0)

    def visible_outside(self) -> str:
        pids = [each.pid for found in self.found().values() for each in found]
        columns = ["ps", "-o", "args=", "-p", ",".join(map(str, pids))]
        arguments = subprocess.run(columns, capture_output=True, text=True, check=True).stdout
        environments = [Path(f"/proc/{pid}/environ").read_text() for pid in pids]
        cards = [path.read_text() for path in self.root.glob("*/machine.json")]
        return "\n".join([arguments, *environments, *cards, *os.listdir(self.root)])

    def pause(self) -> None:
        """Its terminate waits by itself."""

    def close(self) -> None:
        for key in self.found():
            self.kill(key)
        assert not self.found(), "a test left processes behind"

    def make_unavailable(self, offer: Offer) -> None:
        self.slots = 0

    def make_available(self, offer: Offer) -> None:
        self.slots = 16

    def crash_in_launch(self, request: LaunchRequest) -> None:
        directory = MachineDirectory(self.root / request.key)
        directory.path.mkdir(parents=True)
        (directory.path / "machine.json").write_text('{"machine_id": "m-')


# --------------------------------------------------------------------------------- simulated


class SimulatedCase(ProviderCase):
    """The simulated cloud, calm but for a listing that lags."""

    name = "simulated"
    cannot: ClassVar[Mapping[str, str]] = {
        "crash_in_launch": "its launch is one step: there is no half of it"
    }

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock()
        self.cloud = SimulatedCloud(7, self.clock, CloudSpec(listing_lag_s=5))

    def open(self) -> SimulatedProvider:
        return SimulatedProvider(self.cloud, self.name)

    def now(self) -> datetime:
        return self.clock.now()

    def settle(self) -> None:
        self.clock.advance(120)

    def alive(self) -> Sequence[str]:
        return [vm.machine_id for vm in self.cloud.alive()]

    def end_by_itself(self, launched: Launched) -> None:
        self.cloud.shut_down(launched.provider_id)
        self.clock.advance(60)

    def visible_outside(self) -> str:
        return repr(self.open().observe(FLEET, self.clouds()))

    def pause(self) -> None:
        self.clock.advance(5)

    def close(self) -> None:
        assert not self.cloud.violations

    def make_unavailable(self, offer: Offer) -> None:
        self.cloud.set_capacity(0, instance_type=offer.instance_type)

    def make_available(self, offer: Offer) -> None:
        self.cloud.set_capacity(None, instance_type=offer.instance_type)

    def drop_launch_answer(self) -> None:
        self.cloud.drop_next_answer(call="launch")

    def fail_next(self, code: str) -> None:
        self.cloud.fail_next(code)

    def blind(self, region: str) -> None:
        self.cloud.partial(region)

    def answer_slowly(self, *, refuse: bool) -> None:
        self.cloud.slow_next_launch(refused_code="AllocationFailed" if refuse else "")

    def interrupt(self, launched: Launched) -> None:
        self.cloud.interrupt(launched.provider_id, notice_s=30)
        self.clock.advance(30)


class RenamedCase(SimulatedCase):
    """A simulated cloud that stands for a real one of another name."""

    name = "aws"


EXPECTED_CLASSES: Mapping[str, ErrorClass] = {
    "InsufficientInstanceCapacity": ErrorClass.CAPACITY_ZONE,
    "AllocationFailed": ErrorClass.CAPACITY_REGION,
    "QuotaExceeded": ErrorClass.QUOTA,
    "UnauthorizedOperation": ErrorClass.AUTH,
    "InvalidParameterValue": ErrorClass.INVALID,
    "RequestLimitExceeded": ErrorClass.THROTTLE,
    "InternalError": ErrorClass.TRANSIENT,
}
"""One raw code of each class."""
