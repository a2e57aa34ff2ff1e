"""Agents on the virtual machines of a simulated cloud: what `agent_bootstrap.worker` does with
threads and real time, done in steps on virtual time. The timers are the agent's own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from agent_bootstrap import wire
from agent_bootstrap.idle import Timers
from control_plane.agents import Agents, Gone
from control_plane.core.model import Machine, Offer
from control_plane.errors import Denied, OrchctlError, StaleEpoch, Unavailable
from control_plane.ports import BootSettings, Clock
from providers.simulated.machines import InterruptionNotice

T = TypeVar("T")

_START = datetime(2026, 1, 1, tzinfo=UTC)
_RETRY_S = 2.0
_REPORT_S = 5.0
"""Kept of an interrupted machine's last seconds to report how its jobs ended."""
_STOP_S = 2.0
"""How long a simulated job takes to obey SIGTERM."""
_FOR_EVER_S = 1e9


class Vm(Protocol):
    """What an agent finds itself on."""

    provider_id: str
    machine_id: str
    offer: Offer
    boot: BootSettings
    booted_at: datetime | None
    """When its start-up text is through; None = never."""

    def up(self, now: datetime) -> bool:
        """Whether an agent runs on it."""


class Cloud(Protocol):
    """What an agent sees of its cloud."""

    @property
    def clock(self) -> Clock: ...

    def notices(self) -> Sequence[InterruptionNotice]:
        """Interruptions that are announced now."""

    def shut_down(self, provider_id: str) -> None:
        """What the agent does to end its machine."""


class Unanswered(Exception):
    """The control plane was not reached, or its answer was not."""


@dataclass(slots=True)
class Line:
    """The way from the machines to the control plane; it may be cut, and may lose messages."""

    chance: random.Random
    loss_rate: float = 0.0
    """Of requests, and again of answers."""
    cut: set[str] = field(default_factory=set)
    """Machine ids that cannot reach the control plane; `*` = none can."""

    def ask(self, machine_id: str, call: Callable[[], T]) -> T:
        """Make one call. Raises `Unanswered`, before or after it has acted."""
        if self.cut & {machine_id, "*"} or self._lost():
            raise Unanswered
        answer = call()
        if self._lost():
            raise Unanswered
        return answer

    def _lost(self) -> bool:
        return self.loss_rate > 0 and self.chance.random() < self.loss_rate


@dataclass(slots=True)
class Run:
    """One job on one machine. Its command says how it goes: `work 90` takes 90 seconds, `work 90
    exit 3` ends with that code."""

    work: wire.Work
    began: datetime | None = None
    """When its start was acknowledged; the command runs from there."""
    ends: datetime | None = None
    outcome: str = ""
    exit_code: int = 0

    @property
    def key(self) -> str:
        return f"{self.work.job_id}:{self.work.epoch}"

    def begin(self, now: datetime) -> None:
        seconds, exit_code = script(self.work.command)
        if self.work.timeout_s and seconds > self.work.timeout_s:
            seconds, exit_code = float(self.work.timeout_s), 124
        self.began, self.exit_code = now, exit_code
        self.ends = now + timedelta(seconds=seconds)
        self.outcome = "succeeded" if exit_code == 0 else "failed"

    def stop(self, outcome: str, at: datetime) -> None:
        """End early, unless the command is through by itself before that."""
        if self.ends is None or at < self.ends:
            self.ends, self.outcome, self.exit_code = at, outcome, 143
            self.began = self.began or at


def script(command: str) -> tuple[float, int]:
    """Seconds and exit code of a simulated command."""
    found = re.fullmatch(r"work ([\d.]+)(?: exit (\d+))?", command)
    if found is None:
        return 60.0, 0
    return float(found[1]), int(found[2] or 0)


class Guest:
    """The agent of one VM."""

    def __init__(self, vm: Vm, cloud: Cloud, agents: Agents, line: Line, token: str) -> None:
        self.vm = vm
        self.agents = agents
        """The control plane that it reaches."""
        self.due: datetime | None = vm.booted_at
        """When it next has something to do; None = never again."""
        self.frozen_until = _START
        """Until then nothing on the machine moves, as when the hypervisor hangs."""
        self.runs: dict[str, Run] = {}
        self.left = ""
        """Why it ended its machine; empty while it has not."""
        self._cloud = cloud
        self._clock: Clock = cloud.clock
        self._line = line
        self._one_time = token
        self._session = ""
        self._timers: Timers | None = None
        self._drain = False
        self._beat_at = self._claim_at = _START
        self._taken_at: datetime | None = None
        self._ending = ""
        self._ending_until = _START

    @property
    def machine_id(self) -> str:
        return self.vm.machine_id

    def act(self) -> None:
        """Do what is due, then set `due`."""
        now = self._clock.now()
        if not self.vm.up(now):
            self.due = None
        elif self.frozen_until > now:
            self.due = self.frozen_until
        else:
            try:
                self._step(now)
            except (Denied, Gone):
                self._shut_down("session over")
            self.due = None if self.left else self._next(now)

    # ------------------------------------------------------------------------ one look

    def _step(self, now: datetime) -> None:
        timers = self._timers or self._started()
        if timers.boot_over():
            return self._shut_down("never registered")
        if timers.contact_lost():
            return self._shut_down("lost contact")
        if not self._session:
            return self._register()
        self._watch(now)
        if timers.life_over() and not self._ending:
            self._end("max-life", "returned", now + timedelta(seconds=30), now)
        self._report(now)
        if self._ending:
            return self._finish_ending(now)
        if self._beat_at <= now:
            self._beat(now)
        if self._claim_at <= now and not self.left:
            self._claim_or_leave(now)
        return None

    def _started(self) -> Timers:
        self._timers = Timers(
            lambda: (self._clock.now() - _START).total_seconds(),
            boot_timeout_s=self.vm.boot.boot_timeout_s,
            max_lifetime_s=self.vm.boot.max_lifetime_s,
        )
        return self._timers

    def _next(self, now: datetime) -> datetime:
        if not self._session or self._ending:
            return now + timedelta(seconds=_RETRY_S)
        soon = now + timedelta(seconds=_RETRY_S)
        ends = [
            max(run.ends, soon if run.ends <= now else now)
            for run in self.runs.values()
            if run.ends is not None
        ]
        starts = [soon for run in self.runs.values() if run.began is None]
        return max(min([self._beat_at, self._claim_at, *ends, *starts]), now + timedelta(seconds=1))

    def _ask(self, call: Callable[[Machine], T]) -> T:
        """One request under the session. Raises `Unanswered`; a refusal counts as contact."""
        try:
            answer = self._line.ask(
                self.machine_id, lambda: call(self.agents.authenticate(self._session))
            )
        except OrchctlError:
            self._heard()
            raise
        self._heard()
        return answer

    def _heard(self) -> None:
        if self._timers is not None:
            self._timers.heard()

    # ------------------------------------------------------------------------ register, claim

    def _register(self) -> None:
        try:
            message = wire.Register(
                machine_id=self.machine_id,
                instance=f"instance-{self.vm.provider_id}",
                proof=dict(self._proof()),
                found=self._found(),
            )
            session = self._line.ask(self.machine_id, lambda: self.agents.register(message))
        except (Unanswered, Unavailable):
            return
        except Denied:
            self._shut_down("refused")
            return
        self._session = session.token
        assert self._timers is not None, "started before"
        self._timers.registered(session.advice)

    def _proof(self) -> Mapping[str, str]:
        return {"kind": "one-time", "token": self._one_time}

    def _found(self) -> wire.Found:
        capacity = self.vm.offer.capacity
        return wire.Found(
            gpus=capacity.gpus,
            gpu_name=capacity.gpu_name,
            gpu_memory_gib=capacity.gpu_memory_gib,
            cpus=capacity.cpus,
            memory_mib=capacity.memory_mib,
            disk_gib=capacity.disk_gib,
        )

    def _claim_or_leave(self, now: datetime) -> None:
        assert self._timers is not None, "started before"
        if self._drain and self.runs:
            self._claim_at = now + timedelta(seconds=self._timers.advice.poll_s)
        elif self._drain:
            self._ask_to_leave("drained", now)
        elif self._timers.idle_left_s() <= 0:
            self._ask_to_leave("idle", now)
        else:
            self._claim(now)

    def _claim(self, now: datetime) -> None:
        assert self._timers is not None, "started before"
        advice = self._timers.advice
        self._claim_at = now + timedelta(seconds=max(1.0, advice.poll_s))
        message = wire.Claim(running=sorted(self.runs), limit=8)
        try:
            claimed = self._ask(lambda machine: self.agents.claim(machine, message))
        except Unanswered:
            return
        self._timers.advice, self._drain = claimed.advice, claimed.drain
        for work in claimed.jobs:
            self._begin(work, now)
        self._report(now)
        if claimed.jobs or claimed.drain:
            self._claim_at = now + timedelta(seconds=1)
        idle_left_s = self._timers.idle_left_s()
        if idle_left_s < _FOR_EVER_S:
            self._claim_at = min(self._claim_at, now + timedelta(seconds=max(0.0, idle_left_s)))

    def _ask_to_leave(self, why: str, now: datetime) -> None:
        assert self._timers is not None, "started before"
        try:
            left = self._ask(lambda machine: self.agents.leave(machine, wire.Leave(why=why)))
        except Unanswered:
            self._claim_at = now + timedelta(seconds=_RETRY_S)
            return
        except (Denied, Gone):
            raise
        except OrchctlError:
            left = wire.Left(agreed=False)
        if left.agreed:
            self._shut_down(why)
            return
        self._drain = False
        self._timers.idle()
        self._claim_at = now + timedelta(seconds=self._timers.advice.poll_s)

    # ------------------------------------------------------------------------ jobs

    def _begin(self, work: wire.Work, now: datetime) -> None:
        run = Run(work=work)
        if run.key in self.runs:
            return
        assert self._timers is not None, "started before"
        busy = sum(each.work.gpus for each in self.runs.values())
        if busy + work.gpus > self.vm.offer.capacity.gpus:
            run.stop("returned", now)
        self.runs[run.key] = run
        self._timers.busy()

    def _report(self, now: datetime) -> None:
        for run in list(self.runs.values()):
            try:
                self._report_one(run, now)
            except Unanswered:
                continue
            except StaleEpoch:
                self._drop(run)

    def _report_one(self, run: Run, now: datetime) -> None:
        job_id, epoch = run.work.job_id, run.work.epoch
        if run.began is None:
            self._ask(lambda m: self.agents.start(m, job_id, wire.Started(epoch=epoch)))
            run.begin(now)
        elif run.ends is not None and run.ends <= now:
            text = f"{run.outcome}\n".encode()
            self._ask(lambda m: self.agents.log(m, job_id, epoch, 0, text))
            finished = wire.Finished(epoch=epoch, outcome=run.outcome, exit_code=run.exit_code)
            self._ask(lambda m: self.agents.finish(m, job_id, finished))
            self._drop(run)

    def _drop(self, run: Run) -> None:
        self.runs.pop(run.key, None)
        if not self.runs and self._timers is not None:
            self._timers.idle()

    # ------------------------------------------------------------------------ beats, notices

    def _beat(self, now: datetime) -> None:
        assert self._timers is not None, "started before"
        message = wire.Beat(running=sorted(self.runs))
        try:
            beaten = self._ask(lambda machine: self.agents.beat(machine, message))
        except Unanswered:
            self._beat_at = now + timedelta(seconds=_RETRY_S)
            return
        self._beat_at = now + timedelta(seconds=beaten.advice.beat_s)
        self._timers.advice, self._drain = beaten.advice, beaten.drain
        for run in list(self.runs.values()):
            if run.key in beaten.lost:
                self._drop(run)
            elif run.work.job_id in beaten.cancel:
                run.stop("cancelled", now + timedelta(seconds=_STOP_S))
        if beaten.end:
            self._end("drained", "returned", now + timedelta(seconds=30), now)

    def _watch(self, now: datetime) -> None:
        if self._taken_at is None:
            mine = [n for n in self._cloud.notices() if n.provider_id == self.vm.provider_id]
            if not mine:
                return
            self._taken_at = mine[0].taken_at
            self._end("interrupted", "interrupted", self._taken_at, now)
            left_s = (self._taken_at - now).total_seconds()
            notice = wire.Notice(kind="spot", seconds_left=left_s)
            try:
                self._ask(lambda machine: self.agents.notice(machine, notice))
            except (Denied, Gone):
                raise
            except (Unanswered, OrchctlError):
                return

    def _end(self, why: str, outcome: str, until: datetime, now: datetime) -> None:
        self._ending, self._ending_until = why, until
        stop_at = min(now + timedelta(seconds=_STOP_S), until - timedelta(seconds=_REPORT_S))
        for run in self.runs.values():
            run.stop(outcome, max(now, stop_at))

    def _finish_ending(self, now: datetime) -> None:
        if self.runs and now < self._ending_until:
            return
        with suppress(Unanswered, OrchctlError):
            self._ask(lambda machine: self.agents.leave(machine, wire.Leave(why=self._ending)))
        self._shut_down(self._ending)

    def _shut_down(self, why: str) -> None:
        self.left, self.runs = why, {}
        self._cloud.shut_down(self.vm.provider_id)
