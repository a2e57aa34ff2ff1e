"""`ports.Provider` on this computer: a machine is a process tree with a directory of its own.

It is started by the same kind of start-up text as a cloud VM, and found again by its labels alone,
so it outlives the control plane that launched it and is seen by the next one. Machines share the
computer: each is offered all of it, and `slots` bounds how many there may be.

Unlike a cloud, this provider has no life limit of its own: the start-up text and the agent keep it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from agent_bootstrap.user_data import local_startup
from control_plane.core.model import ErrorClass, Observation, Offer, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import BootSettings, Launched, LaunchRequest, MachineRef
from providers.local import hardware, processes
from providers.local.launch import Card, MachineDirectory, label, read_label
from providers.local.processes import Process

Render = Callable[[BootSettings, Path], str]
"""Makes the start-up text from the settings and the place of the one-time token."""

REGION = "local"
NOMINAL_USD_HOUR = Decimal("0.10")
"""Not a real cost: it makes cost tables show something, and budgets work, on one computer."""

_SAFE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
_PASSED_ON_PREFIXES = ("PIP_", "UV_")
"""What a job's tools need to know of this computer. Everything else of the control plane's own
environment stays out: there may be secrets in it."""

_SHOWN_AFTER_END = timedelta(hours=1)


def real_startup(boot: BootSettings, token_file: Path) -> str:
    """The start-up text of the real agent."""
    return local_startup(
        server_url=boot.server_url,
        machine_id=boot.machine_id,
        fleet=boot.fleet,
        pool=boot.pool,
        agent_sha256=boot.agent_sha256,
        boot_timeout_s=boot.boot_timeout_s,
        max_lifetime_s=boot.max_lifetime_s,
        token_file=str(token_file),
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LocalProvider:
    """Machines below `root`, at most `slots` at a time. Safe to use from several threads, and from
    several programs with the same `root`."""

    name = "local"
    needs_token = True

    def __init__(
        self,
        root: Path,
        *,
        slots: int = 16,
        price_usd_hour: Decimal = NOMINAL_USD_HOUR,
        render: Render = real_startup,
        keep_ended: int = 20,
        grace_s: float = 1.5,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`keep_ended` machines that are gone keep their files for inspection; `grace_s` lies
        between SIGTERM and SIGKILL."""
        self._root = root.resolve()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._home = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:16]
        self._slots = slots
        self._price_usd_hour = price_usd_hour
        self._render = render
        self._keep_ended = keep_ended
        self._grace_s = grace_s
        self._now = now
        self._gpu_lines = hardware.gpu_lines()

    # ------------------------------------------------------------------------------- the port

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:  # noqa: ARG002
        """`process` is this computer without its GPUs; `process-gpu` has them, where there are
        any."""
        plain = hardware.processor_capacity(self._root)
        count, name, memory_gib = hardware.gpus(self._gpu_lines)
        sizes = {"process": plain}
        if count:
            sizes["process-gpu"] = replace(
                plain, gpus=count, gpu_name=name, gpu_memory_gib=memory_gib
            )
        return [
            Offer(
                provider=self.name,
                region=REGION,
                zone="",
                instance_type=instance_type,
                capacity=capacity,
                price_usd_hour=self._price_usd_hour,
                on_demand_usd_hour=self._price_usd_hour,
            )
            for instance_type, capacity in sizes.items()
        ]

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a machine, or return the one that this key has started. Refuses with `NoFreeSlot`
        (capacity), `Unsupported` or `BadKey` (invalid), `Ended` (transient)."""
        self._refuse_strange(request)
        directory = MachineDirectory(self._root / request.key)
        with self._locked():
            running = self._running()
            if found := running.get(request.key):
                known = self._card(request.key, found)
                return Launched(
                    provider_id=request.key, at=known.created_at if known else self._now()
                )
            self._refuse_ended(directory)
            self._refuse_crowd(len(running))
            self._refuse_second_gpu_machine(request, running)
            card = self._start(directory, request)
            self._prune()
        return Launched(provider_id=request.key, at=card.created_at)

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:  # noqa: ARG002
        """The same as `launch`, which here never answers with an operation."""
        return self.launch(request)

    def observe(
        self,
        fleet: str,
        clouds: Sequence[CloudPolicy] = (),  # noqa: ARG002
    ) -> Observation:
        """All machines of a fleet, those that ended within the last hour included."""
        return Observation(
            provider=self.name,
            at=self._now(),
            sightings=tuple(each for each in self._sightings() if each.fleet == fleet),
        )

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One machine, as long as its files are kept; None = nothing of it runs."""
        found = [each for each in self._sightings(ref) if self._means(ref, each)]
        # The living before the dead: an earlier attempt may have ended under the same machine id.
        return min(found, key=lambda each: each.state == "gone", default=None)

    def terminate(self, ref: MachineRef) -> None:
        """End a machine's whole process tree; takes two seconds at most."""
        for key in self._keys(ref):
            self._end(key)

    def alive(self) -> Mapping[str, Sequence[int]]:
        """The process ids of each living machine below our root, by machine id."""
        found: dict[str, list[int]] = {}
        for key, running in self._running().items():
            card = self._card(key, running)
            machine_id = card.machine_id if card else key
            found.setdefault(machine_id, []).extend(process.pid for process in running)
        return found

    # --------------------------------------------------------------------------------- inside

    def _refuse_strange(self, request: LaunchRequest) -> None:
        if not _SAFE_KEY.fullmatch(request.key):
            raise _refusal(ErrorClass.INVALID, "BadKey", "the key does not make a file name")
        if request.offer.key not in {offer.key for offer in self.offers()}:
            raise _refusal(
                ErrorClass.INVALID, "Unsupported", f"{request.offer.key} is not sold here"
            )

    def _refuse_ended(self, directory: MachineDirectory) -> None:
        if directory.begun() or self._tombstone(directory.key).exists():
            raise _refusal(
                ErrorClass.TRANSIENT, "Ended", f"the machine of {directory.key} has ended"
            )

    def _refuse_crowd(self, running: int) -> None:
        if running >= self._slots:
            raise _refusal(
                ErrorClass.CAPACITY_ZONE, "NoFreeSlot", f"{running} of {self._slots} slots run"
            )

    def _refuse_second_gpu_machine(
        self, request: LaunchRequest, running: Mapping[str, Sequence[Process]]
    ) -> None:
        """The machine with GPUs has all of them: a second one would hand them out twice."""
        if not request.offer.capacity.gpus:
            return
        cards = (self._card(key, found) for key, found in running.items())
        if any(card is not None and card.offer == request.offer.key for card in cards):
            raise _refusal(ErrorClass.CAPACITY_ZONE, "GpusTaken", "a machine has all GPUs already")

    def _start(self, directory: MachineDirectory, request: LaunchRequest) -> Card:
        card = Card(
            home=self._home,
            machine_id=request.machine_id,
            fleet=request.boot.fleet,
            key=request.key,
            offer=request.offer.key,
            created_at=self._now(),
            deadline=request.deadline,
        )
        startup = self._render(request.boot, directory.token_file)
        directory.prepare(card, startup, request.boot.one_time_token)
        directory.start(_environment(card, gpus=request.offer.capacity.gpus > 0))
        return card

    def _running(self) -> Mapping[str, Sequence[Process]]:
        """The living processes of every machine of ours, by launch key."""
        cards = (each.card() for each in self._directories() if each.ended_at() is None)
        keys = {card.machine_id: card.key for card in cards if card is not None}

        def owner(process: Process) -> str:
            card = read_label(process.label) if process.label else None
            if card is not None and card.home == self._home and _SAFE_KEY.fullmatch(card.key):
                return card.key
            return keys.get(process.mark, "")

        return processes.machines(owner)

    def _card(self, key: str, found: Sequence[Process]) -> Card | None:
        """Who a running machine is: as its directory says, or its processes where that is lost."""
        labelled = (read_label(process.label) for process in found if process.label)
        own = (card for card in labelled if card is not None and card.key == key)
        return MachineDirectory(self._root / key).card() or next(own, None)

    def _sightings(self, ref: MachineRef | None = None) -> Iterator[Sighting]:
        """Living machines from the process table, ended ones from their directories."""
        # What had begun *before* the look at the process table and is not in it has ended. The
        # other way round, a machine launched between the two would be taken for dead.
        begun = [each for each in self._directories() if each.begun()]
        running = self._running()
        for key, found in running.items():
            if card := self._card(key, found):
                yield self._living(card)
        for directory in begun:
            if directory.key not in running:
                yield from self._dead(directory, at_any_age=ref is not None)

    def _living(self, card: Card) -> Sighting:
        ending = MachineDirectory(self._root / card.key).ending()
        return _sighting(card, "stopping" if ending else "running")

    def _dead(self, directory: MachineDirectory, *, at_any_age: bool) -> Iterator[Sighting]:
        card = directory.card()
        if card is None or not self._proven_dead(directory):
            return
        ended_at = directory.ended_at() or self._now()
        if at_any_age or self._now() - ended_at < _SHOWN_AFTER_END:
            yield _sighting(card, "gone", end_reason="user" if directory.ending() else "self")

    def _proven_dead(self, directory: MachineDirectory) -> bool:
        """Whether nothing of a machine is left; noted when it is seen first."""
        if directory.ended_at() is not None:
            return True
        # A process table is not read at one instant, and a process that forks and exits meanwhile
        # could slip through: only a second look is proof.
        if directory.key in self._running():
            return False
        directory.mark_ended(self._now())
        return True

    def _keys(self, ref: MachineRef) -> Sequence[str]:
        if ref.provider_id:
            return [ref.provider_id] if _SAFE_KEY.fullmatch(ref.provider_id) else []
        prepared = [each.card() for each in self._directories()]
        running = [self._card(key, found) for key, found in self._running().items()]
        ours = (card for card in (*prepared, *running) if card is not None)
        return sorted({card.key for card in ours if card.machine_id == ref.machine_id})

    @staticmethod
    def _means(ref: MachineRef, sighting: Sighting) -> bool:
        if ref.provider_id:
            return sighting.provider_id == ref.provider_id
        return sighting.machine_id == ref.machine_id

    def _end(self, key: str) -> None:
        directory = MachineDirectory(self._root / key)
        with self._locked():
            asked_before = directory.ending()
            if directory.ended_at() is None:
                directory.mark_ending()
        gone = processes.end(
            lambda: self._running().get(key, ()),
            grace_s=0 if asked_before else self._grace_s,
            limit_s=self._grace_s + 0.5,
        )
        if gone:
            directory.mark_ended(self._now())

    def _directories(self) -> Sequence[MachineDirectory]:
        paths = sorted(self._root.iterdir())
        return [MachineDirectory(path) for path in paths if not path.name.startswith(".")]

    def _tombstone(self, key: str) -> Path:
        return self._root / ".ended" / key

    def _prune(self) -> None:
        """Delete the files of those that ended long ago; their keys stay refused."""
        ended = [(at, each) for each in self._directories() if (at := each.ended_at()) is not None]
        for _, directory in sorted(ended, key=lambda pair: pair[0])[: -self._keep_ended or None]:
            tombstone = self._tombstone(directory.key)
            tombstone.parent.mkdir(mode=0o700, exist_ok=True)
            tombstone.touch(mode=0o600)
            directory.remove()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One launch at a time, over all threads and programs; the system frees it at a crash."""
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _environment(card: Card, *, gpus: bool) -> Mapping[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    if not gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ""  # sold without: its agent must not find any
    return kept | {
        processes.LABEL: label(card),
        "ORCHCTL_FLEET": card.fleet,
        # A desktop may have no other Python, or one that is too old.
        "ORCHCTL_PYTHON": sys.executable,
    }


def _sighting(card: Card, state: str, *, end_reason: str = "") -> Sighting:
    return Sighting(
        machine_id=card.machine_id,
        provider_id=card.key,
        provider=LocalProvider.name,
        region=REGION,
        zone="",
        state=state,
        fleet=card.fleet,
        created_at=card.created_at,
        end_reason=end_reason,
    )


def _refusal(error_class: ErrorClass, code: str, message: str) -> ProviderError:
    return ProviderError(f"{code}: {message}", error_class=error_class, raw_code=code)
