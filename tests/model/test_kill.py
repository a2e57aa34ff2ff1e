"""Processes that share a store are killed at random instants, round after round: no accepted job is
lost, no lease is shared, no end is taken back, and what all of them saw could have come from one
call after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from control_plane.core.model import Job, JobState, Need
from control_plane.ports import Store
from control_plane.stores.sqlite import SqliteStore
from control_plane.system import SystemClock
from tests.conformance.builders import NOW
from tests.emulators.ministack import Ministack
from tests.model import reads, spec
from tests.model.calls import all_jobs, seen
from tests.model.clients import ROOM, Board, begun
from tests.model.killed import Mortal, OpenStore, knowing, live, remembered
from tests.model.linear import NEVER, Call, world_after
from tests.model.searching import announce, new_seed
from tests.model.world import Refusal, World

ROUNDS = (pytest.param(15, id="15"), pytest.param(500, id="500", marks=pytest.mark.long))
ROUNDS_REMOTE = (pytest.param(3, id="3"), pytest.param(50, id="50", marks=pytest.mark.long))
ROUNDS_PER_STORE = 10
"""Then a new one: jobs that have ended stay, and make each check slower."""
PATIENCE_S = 30.0


OpenFile = Callable[[Path], Store]
TABLE = "killed"


def open_sqlite(path: Path) -> Store:
    return SqliteStore(path)


def open_dynamodb(endpoint: str, account: str) -> Store:
    # Here, since it takes half a second that only its test should pay.
    from control_plane.stores.dynamodb import DynamoStore

    return DynamoStore(_connected(endpoint, account), table=TABLE, clock=SystemClock())


def make_table(endpoint: str, account: str) -> None:
    from control_plane.stores.dynamodb import INDEXES
    from control_plane.stores.dynamodb.table import create_table

    create_table(_connected(endpoint, account), TABLE, INDEXES)


def _connected(endpoint: str, account: str) -> Any:
    from control_plane.stores.dynamodb.calls import connect

    return connect(
        region="eu-central-1", endpoint_url=endpoint, access_key=account, secret_key="any"
    )


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """A process that has everything loaded and becomes as many clients as are asked for."""
    context = multiprocessing.get_context("forkserver")
    stores = ["control_plane.stores.sqlite", "control_plane.stores.dynamodb.calls", "boto3"]
    context.set_forkserver_preload(["tests.model.killed", *stores])
    return context


@dataclass(slots=True, kw_only=True)
class Rounds:
    """One store, and what is known of it since it was made."""

    open_store: OpenStore
    folder: Path
    random: Random
    processes: ForkServerContext
    remote: bool = False
    meanwhile: Callable[[], None] = lambda: None
    """What else happens while the clients are at work."""
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
        if not self.remote:
            self.world = world_after(self.calls[begun_at:], self.world)

    def _killed(self, count: int) -> list[Path]:
        lives = [self._born() for _ in range(count)]
        if self.random.random() < 0.9:
            _wait_for([log for _, log in lives])
        self.meanwhile()
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
        for read in (reads.Everything(), reads.Order(queue="q"), reads.Leases(), reads.Depths()):
            keeper.call(read)
        if not self.remote:
            # Nothing may be left open: the next round begins in the one world that is found here.
            keeper.call(reads.Places(queue="q"))
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

        ends = {(end.job, end.epoch) for end in self._done(spec.Finish)}
        assert len({job_id for job_id, _ in ends}) == len(ends), "a job has ended twice"
        # One that was heard of may have repeated another's, of which nobody heard.
        states: dict[tuple[str, int], set[JobState]] = defaultdict(set)
        for end in self._tried(spec.Finish):
            states[end.job, end.epoch].add(end.state)
        for job_id, epoch in ends:
            assert jobs[job_id].epoch == epoch, "an end is undone"
            assert jobs[job_id].state in states[job_id, epoch], "an end is undone"

        stats = store.queue_stats()["q"]
        there = Counter(job.state for job in jobs.values())
        assert (stats.waiting, stats.running) == (there[JobState.QUEUED], 0)
        assert stats.blocked == there[JobState.BLOCKED]

    def _tried(self, kind: type) -> Iterator[Any]:
        return (call.operation for call in self.calls if isinstance(call.operation, kind))

    def _told(self, kind: type) -> Iterator[Any]:
        return (call.answer for call in self._answered(kind))

    def _done(self, kind: type) -> Iterator[Any]:
        return (call.operation for call in self._answered(kind))

    def _answered(self, kind: type) -> Iterator[Call]:
        for call in self.calls:
            refused = isinstance(call.answer, Refusal)
            if isinstance(call.operation, kind) and call.returned != NEVER and not refused:
                yield call


def _wait_for(logs: Sequence[Path]) -> None:
    """Until every client has begun."""
    deadline = time.monotonic() + PATIENCE_S
    while not all(log.exists() and log.stat().st_size for log in logs):
        assert time.monotonic() < deadline, "a client does not begin"
        time.sleep(0.001)


def play(rounds: int, folder: Path, open_file: OpenFile, processes: ForkServerContext) -> None:
    """So many rounds on SQLite files. Raises `AssertionError` at the first broken promise."""
    seed = new_seed()
    announce(f"killed processes, {open_file.__name__}, {rounds} rounds", seed)
    for number in range(0, rounds, ROUNDS_PER_STORE):
        place = folder / str(number)
        place.mkdir()
        together = Rounds(
            open_store=partial(open_file, place / "store.db"),
            folder=place,
            random=Random(f"{seed}/{number}"),
            processes=processes,
        )
        together.begin()
        for _ in range(min(ROUNDS_PER_STORE, rounds - number)):
            together.go()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_on_sqlite_lose_nothing_and_share_nothing(
    rounds: int, tmp_path: Path, processes: ForkServerContext
) -> None:
    play(rounds, tmp_path, open_sqlite, processes)


@pytest.mark.parametrize("rounds", ROUNDS_REMOTE)
def test_kills_and_restarts_of_dynamodb_lose_nothing_and_share_nothing(
    rounds: int, tmp_path: Path, processes: ForkServerContext
) -> None:
    """The clients are killed; the emulator is stopped, at work or not, and started on its state."""
    seed = new_seed()
    announce(f"killed processes, dynamodb, {rounds} rounds", seed)
    random = Random(seed)
    server = Ministack(tmp_path, persist=True)
    server.start()
    try:
        open_store = partial(open_dynamodb, server.endpoint, server.new_account())
        make_table(*open_store.args)
        together = Rounds(
            open_store=open_store,
            folder=tmp_path,
            random=random,
            processes=processes,
            remote=True,
            meanwhile=lambda: server.restart() if random.random() < 0.3 else None,
        )
        together.begin()
        for _ in range(rounds):
            together.go()
            server.restart()
    finally:
        server.kill()


# ------------------------------------------------------------------------- it finds what is wrong


class WritesLater(SqliteStore):
    """Says that a job is accepted, and writes three of them at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._later: list[Job] = []

    def job_enqueue(self, job: Job, *, idempotency_key: str = "") -> tuple[Job, bool]:
        if idempotency_key or job.depends_on:
            return super().job_enqueue(job, idempotency_key=idempotency_key)
        self._later.append(job)
        if len(self._later) == 3:
            for each in self._later:
                super().job_enqueue(each)
            self._later.clear()
        return job, True


def open_writing_later(path: Path) -> Store:
    return WritesLater(path)


def test_a_store_that_writes_later_than_it_says_is_found_out(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    # By a process that missed it while all lived, or by those that looked after the kill.
    found = "none of these can come next|an accepted job is lost"
    with pytest.raises(AssertionError, match=found):
        play(100, tmp_path, open_writing_later, processes)


def test_forged_memories_are_found_out(tmp_path: Path, processes: ForkServerContext) -> None:
    """What was told and is not so is noticed, for each of the promises. Nobody is killed: what is
    forged has to be wrong for sure, whatever a kill left unheard."""
    together = Rounds(
        open_store=partial(open_sqlite, tmp_path / "store.db"),
        folder=tmp_path,
        random=Random(3),
        processes=processes,
    )
    together.begin()
    store = together.open_store()
    client = Mortal(knowing(store, remote=False), 1, Random(3), tmp_path / "life")
    ending, waiting = (
        spec.Enqueue(job=name, queue="q", owner="ann", need=Need(), now=NOW)
        for name in ("j-1-01", "j-1-02")
    )
    claim = spec.Claim(machine="m-1", queues=("q",), free=ROOM, limit=1, now=NOW)
    end = spec.Finish(job=ending.job, epoch=1, state=JobState.SUCCEEDED, now=NOW)
    for operation in (ending, waiting, claim, end):
        client.call(operation)
    calls = remembered(tmp_path / "life", NEVER - 1)
    _, accepted, leased, ended = calls
    together.calls = calls
    together._examine(store)

    job, _ = accepted.answer
    forged = [
        ("an accepted job is lost", replace(accepted, answer=(job._replace(id="j-lost"), True))),
        ("a lease is shared", leased),
        ("a job has ended twice", replace(ended, operation=replace(end, epoch=2))),
        ("an end is undone", replace(ended, operation=replace(end, job=waiting.job))),
    ]
    for complaint, call in forged:
        together.calls = [*calls, call]
        with pytest.raises(AssertionError, match=complaint):
            together._examine(store)
    otherwise = replace(ended, operation=replace(end, state=JobState.FAILED))
    together.calls = [*calls[:-1], otherwise]
    with pytest.raises(AssertionError, match="an end is undone"):
        together._examine(store)
    store.close()


def test_a_memory_is_read_to_where_it_was_torn(tmp_path: Path) -> None:
    store = open_sqlite(tmp_path / "store.db")
    log = tmp_path / "life"
    client = Mortal(knowing(store, remote=False), 1, Random(0), log)
    for _ in range(2):
        client.call(reads.Everything())
    store.close()
    told = log.read_bytes()
    *_, called, _ = told.splitlines(keepends=True)
    log.write_bytes(told[:-1])
    first, second = remembered(log, death=NEVER - 1)
    assert (first.returned, second.returned) == (first.ended, NEVER)
    log.write_bytes(told[: told.index(called) + len(called) - 1])
    assert remembered(log, death=NEVER - 1) == [first]
