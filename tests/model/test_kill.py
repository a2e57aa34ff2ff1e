"""Processes that share a store are killed at random instants, round after round: no accepted job is
lost, no lease is shared, no end is taken back, and what all of them saw could have come from one
call after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from control_plane.core.model import JobState
from control_plane.ports import Store
from control_plane.stores.sqlite import SqliteStore
from tests.conformance.builders import NOW
from tests.model import spec
from tests.model.calls import all_jobs, seen
from tests.model.clients import Board, begun
from tests.model.killed import Mortal, OpenStore, knowing, live, remembered
from tests.model.linear import NEVER, Call, world_after
from tests.model.searching import announce, new_seed
from tests.model.spec import World

ROUNDS = (pytest.param(15, id="15"), pytest.param(500, id="500", marks=pytest.mark.long))
ROUNDS_PER_STORE = 10
"""Then a new one: jobs that have ended stay, and make each check slower."""
PATIENCE_S = 30.0


def open_sqlite(path: Path) -> Store:
    return SqliteStore(path)


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """A process that has everything loaded and becomes as many clients as are asked for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.model.killed", "control_plane.stores.sqlite"])
    return context


@dataclass(slots=True, kw_only=True)
class Rounds:
    """One store, and what is known of it since it was made."""

    open_store: OpenStore
    folder: Path
    random: Random
    processes: ForkServerContext
    remote: bool = False
    world: World = field(default_factory=World)
    calls: list[Call] = field(default_factory=list)
    lives: int = 0

    def begin(self) -> None:
        store = self.open_store()
        board = Board(store=store, queues=("q",), remote=self.remote, mixed=False)
        self.world = begun(board, self.random)
        store.close()

    def go(self) -> None:
        """Two or three clients at work, all of them killed, and what they leave behind examined."""
        begun_at = len(self.calls)
        logs = self._killed(self.random.randint(2, 3))
        death = time.monotonic_ns()
        for log in logs:
            self.calls += remembered(log, death) if log.exists() else []
        store = self.open_store()
        try:
            self._tidy(store)
            self._examine(store)
        finally:
            store.close()
        self.world = world_after(self.calls[begun_at:], self.world)

    def _killed(self, count: int) -> list[Path]:
        lives = [self._born() for _ in range(count)]
        if self.random.random() < 0.9:
            _wait_for([log for _, log in lives])
        for process, _ in self.random.sample(lives, count):
            time.sleep(self.random.uniform(0, 0.03))
            os.kill(process.pid or 0, signal.SIGKILL)
        for process, _ in lives:
            process.join(PATIENCE_S)
            assert process.exitcode == -signal.SIGKILL, "it went by itself: see its traceback"
        return [log for _, log in lives]

    def _born(self) -> tuple[ForkServerProcess, Path]:
        self.lives += 1
        log = self.folder / f"life-{self.lives}"
        process = self.processes.Process(
            target=live,
            args=(self.open_store, log, self.lives, f"{self.random.random()}"),
            kwargs={"remote": self.remote},
            daemon=True,
        )
        process.start()
        return process, log

    def _tidy(self, store: Store) -> None:
        """What a controller does: the machines are dead, so their jobs are given back."""
        log = self.folder / f"tidy-{self.lives}"
        keeper = Mortal(knowing(store, remote=self.remote), 0, self.random, log)
        put = keeper.board.puts["q"]
        keeper.call(replace(put, paused=False, expected_version=put.expected_version + 1))
        for lease in store.job_leases():
            requeue = spec.Requeue(
                job=lease.job_id, epoch=lease.epoch, outcome="lost", need=lease.need, now=NOW
            )
            keeper.call(requeue)
        for read in (spec.Everything(), spec.Order(queue="q"), spec.Leases(), spec.Depths()):
            keeper.call(read)
        self.calls += remembered(log, NEVER)

    def _examine(self, store: Store) -> None:
        """The promises one by one, without the spec."""
        jobs = {job.id: seen(job) for job in all_jobs(store, page_size=1000)}
        accepted = {got.id for got, _ in self._told(spec.Enqueue)}
        tried = {each.job for each in self._tried(spec.Enqueue)}
        assert accepted <= jobs.keys(), "an accepted job is lost"
        assert jobs.keys() <= tried, "a job came from nowhere"

        leases = [(got.id, got.epoch) for claim in self._told(spec.Claim) for got in claim]
        assert max(Counter(leases).values(), default=1) == 1, "a lease is shared"
        attempts = {
            (job_id, attempt.epoch): attempt
            for job_id in jobs
            for attempt in store.job_attempts(job_id)
        }
        for claim in self._told(spec.Claim):
            for got in claim:
                assert attempts[got.id, got.epoch].machine_id == got.machine
        asked = {each.machine for each in self._tried(spec.Claim)}
        assert {attempt.machine_id for attempt in attempts.values()} <= asked
        assert len(attempts) == sum(job.epoch for job in jobs.values())

        ends = {(got.id, got.epoch, got.state) for got in self._told(spec.Finish)}
        assert len({job_id for job_id, _, _ in ends}) == len(ends), "a job has ended twice"
        for job_id, epoch, state in ends:
            assert (jobs[job_id].state, jobs[job_id].epoch) == (state, epoch), "an end is undone"

        stats = store.queue_stats()["q"]
        states = Counter(job.state for job in jobs.values())
        assert (stats.waiting, stats.running) == (states[JobState.QUEUED], 0)
        assert stats.blocked == states[JobState.BLOCKED]

    def _tried(self, kind: type) -> Iterator[Any]:
        return (call.operation for call in self.calls if isinstance(call.operation, kind))

    def _told(self, kind: type) -> Iterator[Any]:
        for call in self.calls:
            refused = isinstance(call.answer, spec.Refusal)
            if isinstance(call.operation, kind) and call.returned != NEVER and not refused:
                yield call.answer


def _wait_for(logs: Sequence[Path]) -> None:
    """Until every client has begun."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(log.exists() and log.stat().st_size for log in logs):
        assert time.monotonic() < deadline, "a client does not begin"
        time.sleep(0.001)


def play(rounds: int, folder: Path, processes: ForkServerContext, seed: int) -> None:
    for number in range(0, rounds, ROUNDS_PER_STORE):
        place = folder / str(number)
        place.mkdir()
        together = Rounds(
            open_store=partial(open_sqlite, place / "store.db"),
            folder=place,
            random=Random(f"{seed}/{number}"),
            processes=processes,
        )
        together.begin()
        for _ in range(min(ROUNDS_PER_STORE, rounds - number)):
            together.go()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_lose_nothing_and_share_nothing(
    rounds: int, tmp_path: Path, processes: ForkServerContext
) -> None:
    seed = new_seed()
    announce(f"killed processes, sqlite, {rounds} rounds", seed)
    play(rounds, tmp_path, processes, seed)
