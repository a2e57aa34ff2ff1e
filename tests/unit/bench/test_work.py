"""A phase's figures come from its calls, and a peer that loses jobs is found out."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

import pytest

from bench.peers.work import Kind, Opener, Phase, measure

PHASE = Phase(
    claims_s=[0.001, 0.002, 0.006], finishes_s=[0.004, 0.005, 0.003], wall_s=0.5, cpu_s=0.0006
)


class Counter:
    """A queue of numbers that notes what is finished, or not all of it."""

    def __init__(
        self, kind: Kind = "threads", *, loses: int = 0, waiting: int | None = None
    ) -> None:
        self.kind = kind
        self._numbers = iter(itertools.count() if waiting is None else range(waiting))
        self._finished: list[int] = []
        self._loses = loses
        self.closed: list[int] = []

    def ready(self) -> None:
        """There are always more numbers."""

    def opener(self) -> Opener:
        return partial(CounterTask if self.kind == "tasks" else CounterWorker, self)

    def claim(self) -> int | None:
        return next(self._numbers, None)

    def finish(self, job: int) -> None:
        self._finished.append(job)

    def ended(self) -> int:
        return len(set(self._finished)) - self._loses

    def rest(self) -> None:
        """Nothing is open."""


class CounterWorker:
    def __init__(self, counter: Counter, number: int) -> None:
        self.claim = counter.claim
        self.finish = counter.finish
        self.close = partial(counter.closed.append, number)


class CounterTask:
    """One that lets the others go on before each of its calls."""

    def __init__(self, counter: Counter, number: int) -> None:
        self._counter = counter
        self.close = partial(counter.closed.append, number)

    async def claim(self) -> int | None:
        await asyncio.sleep(0)
        return self._counter.claim()

    async def finish(self, job: int) -> None:
        await asyncio.sleep(0)
        self._counter.finish(job)


def test_rate_cpu_and_times_are_of_the_whole_phase() -> None:
    assert PHASE.rate == 6
    assert PHASE.cpu_us == pytest.approx(200)
    assert PHASE.claim_p50_us == pytest.approx(2000)
    assert PHASE.claim_p99_us == pytest.approx(6000)


def test_the_slowest_call_is_of_either_kind() -> None:
    assert PHASE.slowest_ms == pytest.approx(6)
    turned = Phase(claims_s=PHASE.finishes_s, finishes_s=PHASE.claims_s, wall_s=1, cpu_s=1)
    assert turned.slowest_ms == pytest.approx(6)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_worker_takes_part_and_is_closed(kind: Kind, workers: int) -> None:
    peer = Counter(kind)
    phase = measure(peer, workers, seconds=0.01)
    assert len(phase.claims_s) == len(phase.finishes_s) == peer.ended()
    assert phase.wall_s >= 0.01
    assert sorted(peer.closed) == list(range(workers))


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_peer_that_keeps_less_than_its_workers_finished_is_refused(kind: Kind) -> None:
    with pytest.raises(RuntimeError, match="jobs were finished"):
        measure(Counter(kind, loses=1), 1, seconds=0.01)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_queue_that_runs_empty_is_no_measurement(kind: Kind) -> None:
    with pytest.raises(RuntimeError, match="ran empty"):
        measure(Counter(kind, waiting=3), 1, seconds=10)
