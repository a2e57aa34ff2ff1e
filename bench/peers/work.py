"""Workers that claim a job and finish it, again and again, and what a phase of that shows.

Every peer is driven by the same loop, so what the loop itself costs is the same for all.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any, Literal, Protocol

import uvloop

DEPTH = 20_000
"""Jobs that wait when a phase begins."""
PAYLOAD_BYTES = 200
PHASE_S = 0.8
_OPENING_S = 120.0
"""A worker that has not opened its connection by then never will."""

_CONTEXT = multiprocessing.get_context("forkserver")


class Worker(Protocol):
    """One caller: claims one job, then finishes it."""

    def claim(self) -> Any:
        """The next job, durably taken, or None when there is none."""

    def finish(self, job: Any) -> None:
        """The job has durably ended."""

    def close(self) -> None:
        """Let go of the connection."""


class Task(Protocol):
    """The same as a coroutine among others of one event loop."""

    async def claim(self) -> Any:
        """The next job, durably taken, or None when there is none."""

    async def finish(self, job: Any) -> None:
        """The job has durably ended."""

    def close(self) -> None:
        """Let go of the connection."""


Opener = Callable[[int], Worker] | Callable[[int], Task]
Kind = Literal["threads", "processes", "tasks"]


class Peer(Protocol):
    """A queue to measure."""

    kind: Kind
    """What several workers of it are."""

    def ready(self) -> None:
        """Make `DEPTH` jobs wait."""

    def opener(self) -> Opener:
        """What opens worker 0, 1, 2, …; it can be pickled for processes."""

    def ended(self) -> int:
        """How many jobs have durably ended since `ready`."""

    def rest(self) -> None:
        """The phase is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What workers did in one phase: the seconds each call took, and of the whole."""

    claims_s: Sequence[float]
    finishes_s: Sequence[float]
    wall_s: float
    cpu_s: float
    """Of the callers; a server that they talk to is not included."""

    @property
    def rate(self) -> float:
        """Jobs claimed and finished per second."""
        return len(self.finishes_s) / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Per job claimed and finished."""
        return self.cpu_s / len(self.finishes_s) * 1e6

    @property
    def claim_p50_us(self) -> float:
        return statistics.median(self.claims_s) * 1e6

    @property
    def claim_p99_us(self) -> float:
        return sorted(self.claims_s)[int(len(self.claims_s) * 0.99)] * 1e6

    @property
    def slowest_ms(self) -> float:
        """The longest single call, of either kind."""
        return max(max(self.claims_s), max(self.finishes_s)) * 1e3


@dataclass(slots=True, kw_only=True)
class _Shift:
    """What one worker did."""

    claims_s: list[float]
    finishes_s: list[float]
    began: float
    ended: float

    def note(self, began: float, claimed: float, ended: float) -> float:
        """One more job; returns when it ended."""
        self.claims_s.append(claimed - began)
        self.finishes_s.append(ended - claimed)
        self.ended = ended
        return ended


def measure(peer: Peer, workers: int, seconds: float = PHASE_S) -> Phase:
    """Let `workers` drain a queue of `DEPTH` for a while. Raises `RuntimeError` when the peer kept
    less (or more) than its workers believe, or the queue ran empty."""
    peer.ready()
    shifts, cpu_s = _RUN[peer.kind](peer.opener(), workers, seconds)
    done, kept = sum(len(shift.finishes_s) for shift in shifts), peer.ended()
    if done != kept:
        raise RuntimeError(f"{type(peer).__name__}: {done} jobs were finished, {kept} are")
    peer.rest()
    return Phase(
        claims_s=[each for shift in shifts for each in shift.claims_s],
        finishes_s=[each for shift in shifts for each in shift.finishes_s],
        wall_s=max(shift.ended for shift in shifts) - min(shift.began for shift in shifts),
        cpu_s=cpu_s,
    )


def _threads(
    opener: Callable[[int], Worker], workers: int, seconds: float
) -> tuple[Sequence[_Shift], float]:
    opened = [opener(number) for number in range(workers)]
    cpu_s = time.process_time()
    if workers == 1:  # no thread beside it: it would cost the GIL's hand-over
        shifts: Sequence[_Shift] = [_shift(opened[0], seconds, lambda: None)]
    else:
        gate = threading.Barrier(workers)
        with ThreadPoolExecutor(workers) as pool:
            wait = partial(gate.wait, _OPENING_S)
            shifts = list(pool.map(lambda worker: _shift(worker, seconds, wait), opened))
    cpu_s = time.process_time() - cpu_s
    for worker in opened:
        worker.close()
    return shifts, cpu_s


def _processes(
    opener: Callable[[int], Worker], workers: int, seconds: float
) -> tuple[Sequence[_Shift], float]:
    start = _CONTEXT.Barrier(workers)
    with ProcessPoolExecutor(workers, _CONTEXT, initializer=_keep, initargs=(start,)) as pool:
        # Each waits for all at the barrier, so no process gets two of them.
        futures = [pool.submit(_in_process, opener, each, seconds) for each in range(workers)]
        done = [future.result() for future in futures]
    return [shift for shift, _ in done], sum(cpu_s for _, cpu_s in done)


def _tasks(
    opener: Callable[[int], Task], workers: int, seconds: float
) -> tuple[Sequence[_Shift], float]:
    opened = [opener(number) for number in range(workers)]

    async def shifts() -> list[_Shift]:
        return await asyncio.gather(*(_task_shift(each, seconds) for each in opened))

    cpu_s = time.process_time()
    done = uvloop.run(shifts())
    cpu_s = time.process_time() - cpu_s
    for worker in opened:
        worker.close()
    return done, cpu_s


_RUN: Mapping[Kind, Callable[[Any, int, float], tuple[Sequence[_Shift], float]]] = {
    "threads": _threads,
    "processes": _processes,
    "tasks": _tasks,
}

_start: Barrier | None = None


def _keep(start: Barrier) -> None:
    # A barrier travels to a process only when it begins.
    global _start
    _start = start


def _in_process(
    opener: Callable[[int], Worker], number: int, seconds: float
) -> tuple[_Shift, float]:
    assert _start is not None
    worker = opener(number)
    cpu_s = time.process_time()
    shift = _shift(worker, seconds, partial(_start.wait, _OPENING_S))
    cpu_s = time.process_time() - cpu_s
    worker.close()
    return shift, cpu_s


def _shift(worker: Worker, seconds: float, wait: Callable[[], object]) -> _Shift:
    clock = time.perf_counter
    wait()
    began = now = clock()
    shift = _Shift(claims_s=[], finishes_s=[], began=began, ended=began)
    while now < began + seconds:
        job = _there(worker.claim())
        claimed = clock()
        worker.finish(job)
        now = shift.note(now, claimed, clock())
    return shift


async def _task_shift(worker: Task, seconds: float) -> _Shift:
    clock = time.perf_counter
    began = now = clock()
    shift = _Shift(claims_s=[], finishes_s=[], began=began, ended=began)
    while now < began + seconds:
        job = _there(await worker.claim())
        claimed = clock()
        await worker.finish(job)
        now = shift.note(now, claimed, clock())
    return shift


def _there(job: Any) -> Any:
    if job is None:
        raise RuntimeError("the queue ran empty")
    return job
