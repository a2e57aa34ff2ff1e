"""The one connection that writes: who shares a transaction with whom, and when each is answered."""

from __future__ import annotations

import _thread
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from control_plane.errors import NotFound, Unavailable
from control_plane.stores.sqlite.writer import Writer

DEADLINE_S = 20.0


class Disk:
    """A disk that can be held up, and can refuse."""

    def __init__(self) -> None:
        self.trips = 0
        self.error: OSError | None = None
        self._free = threading.Event()
        self._free.set()

    def __call__(self) -> None:
        if self.error is not None:
            raise self.error
        self.trips += 1
        assert self._free.wait(DEADLINE_S)

    def hold_up(self) -> None:
        self._free.clear()

    def go_on(self) -> None:
        self._free.set()


class Bench:
    """A writer on a table of words, and what is seen of it from outside."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("pragma journal_mode=wal")
        self.connection.execute("create table words (word text primary key)")
        self.disk = Disk()
        self.writer = Writer(self.connection, self.disk)
        self.pool = ThreadPoolExecutor(16)
        self._outside = sqlite3.connect(path, check_same_thread=False)
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def add(self, word: str, **how: bool) -> int:
        return self.writer.write(lambda tx: tx.execute(INSERT, (word,)).rowcount, **how)

    def adding(self, *words: str) -> list[Future[int]]:
        return [self.pool.submit(self.add, word) for word in words]

    def busy(self) -> Busy:
        """Somebody has the connection, and keeps it until it is told to go on."""
        busy = Busy()
        busy.future = self.pool.submit(self.writer.write, busy)
        assert busy.entered.wait(DEADLINE_S)
        return busy

    def in_line(self, count: int) -> None:
        until(lambda: len(self.writer._line) == count)

    def words(self) -> list[str]:
        return sorted(word for (word,) in self._outside.execute("select word from words"))

    def commits(self) -> int:
        return self.statements.count("commit")

    def close(self) -> None:
        self.disk.go_on()
        self.pool.shutdown()
        self.writer.close()
        self._outside.close()


class Busy:
    """Work that lasts until `go_on`."""

    future: Future[str]

    def __init__(self) -> None:
        self.entered, self._on = threading.Event(), threading.Event()

    def __call__(self, tx: sqlite3.Connection) -> str:
        self.entered.set()
        assert self._on.wait(DEADLINE_S)
        return "done"

    def go_on(self) -> None:
        self._on.set()


INSERT = "insert into words values (?)"


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "words.db")
    yield bench
    bench.close()


# ------------------------------------------------------------------------------------- alone


def test_who_is_alone_writes_at_once(bench: Bench) -> None:
    assert bench.add("a") == 1
    assert bench.words() == ["a"]
    assert bench.disk.trips == 1


def test_what_raises_is_undone_whole(bench: Bench) -> None:
    def half(tx: sqlite3.Connection) -> None:
        tx.execute(INSERT, ("half",))
        raise NotFound("in the middle")

    with pytest.raises(NotFound, match="in the middle"):
        bench.writer.write(half)
    with pytest.raises(sqlite3.IntegrityError):
        bench.writer.write(lambda tx: [tx.execute(INSERT, ("a",)) for _ in range(2)])
    assert bench.words() == []
    assert bench.add("b") == 1


def test_a_write_that_changes_nothing_makes_no_trip(bench: Bench) -> None:
    assert bench.writer.write(lambda tx: tx.execute("select 7").fetchone()) == (7,)
    assert bench.disk.trips == 0


# ------------------------------------------------------------------------------ in a crowd


def test_all_who_stand_in_line_share_a_transaction_and_a_trip(bench: Bench) -> None:
    busy = bench.busy()
    others = bench.adding("a", "b", "c")
    bench.in_line(3)
    bench.statements.clear()
    busy.go_on()
    assert [each.result(DEADLINE_S) for each in others] == [1, 1, 1]
    assert busy.future.result(DEADLINE_S) == "done"
    assert bench.commits() == 2, "that of the busy one, and one for the three"
    assert bench.disk.trips == 1, "the busy one has written nothing"


def test_who_fails_before_writing_fails_alone_and_costs_nobody_anything(bench: Bench) -> None:
    def refuse(tx: sqlite3.Connection) -> None:
        raise NotFound("only this one")

    busy = bench.busy()
    first = bench.adding("a")
    bench.in_line(1)
    bad = bench.pool.submit(bench.writer.write, refuse)
    bench.in_line(2)
    last = bench.adding("b")
    bench.in_line(3)
    bench.statements.clear()
    busy.go_on()
    assert isinstance(bad.exception(DEADLINE_S), NotFound)
    assert [each.result(DEADLINE_S) for each in (*first, *last)] == [1, 1]
    assert bench.words() == ["a", "b"]
    assert bench.commits() == 2


@pytest.mark.parametrize("error", [NotFound("half-way"), sqlite3.OperationalError("half-way")])
def test_who_fails_half_way_takes_nobody_along(bench: Bench, error: Exception) -> None:
    def half(tx: sqlite3.Connection) -> None:
        tx.execute(INSERT, ("half",))
        raise error

    busy = bench.busy()
    first = bench.adding("a")
    bench.in_line(1)
    bad = bench.pool.submit(bench.writer.write, half)
    bench.in_line(2)
    last = bench.adding("b")
    bench.in_line(3)
    busy.go_on()
    assert bad.exception(DEADLINE_S) is error
    assert [each.result(DEADLINE_S) for each in (*first, *last)] == [1, 1]
    assert bench.words() == ["a", "b"]


def test_a_long_line_is_written_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.stores.sqlite.writer.BATCH", 4)
    busy = bench.busy()
    others = bench.adding(*"abcdefghij")
    bench.in_line(10)
    bench.statements.clear()
    busy.go_on()
    assert [each.result(DEADLINE_S) for each in others] == [1] * 10
    assert bench.commits() == 1 + 3


@pytest.mark.usefixtures("jumpy_threads")
def test_many_threads_lose_no_write_and_no_answer(bench: Bench) -> None:
    bench.writer.write(lambda tx: tx.execute("create table sums (n integer not null)"))
    bench.writer.write(lambda tx: tx.execute("insert into sums values (0)"))

    def count(_: int) -> list[int]:
        add = "update sums set n = n + 1 returning n"
        return [
            bench.writer.write(lambda tx: int(tx.execute(add).fetchone()[0])) for _ in range(150)
        ]

    seen = sorted(n for numbers in bench.pool.map(count, range(8)) for n in numbers)
    assert seen == list(range(1, 8 * 150 + 1))
    assert bench.commits() <= 8 * 150 + 2


# ------------------------------------------------------------------------------------ the disk


def test_nobody_is_answered_before_the_disk_has_it(bench: Bench) -> None:
    bench.disk.hold_up()
    [first] = bench.adding("a")
    until(lambda: bench.disk.trips == 1)
    assert bench.words() == ["a"], "others may see it already"
    assert not first.done()
    bench.disk.go_on()
    assert first.result(DEADLINE_S) == 1


def test_the_next_transaction_is_made_while_the_disk_is_busy(bench: Bench) -> None:
    bench.disk.hold_up()
    first = bench.adding("a")
    until(lambda: bench.disk.trips == 1)
    others = bench.adding("b", "c")
    until(lambda: bench.words() == ["a", "b", "c"])
    assert not any(each.done() for each in (*first, *others))
    bench.disk.go_on()
    assert [each.result(DEADLINE_S) for each in (*first, *others)] == [1, 1, 1]
    assert bench.disk.trips == 2, "one trip for all that was committed during the first"


def test_a_repeat_that_writes_nothing_waits_for_what_it_repeats(bench: Bench) -> None:
    bench.disk.hold_up()
    first = bench.adding("a")
    until(lambda: bench.disk.trips == 1)
    repeat = bench.pool.submit(
        bench.writer.write, lambda tx: tx.execute("select word from words").fetchone()
    )
    until(lambda: bench.commits() == 2)
    assert not repeat.done()
    bench.disk.go_on()
    assert repeat.result(DEADLINE_S) == ("a",)
    assert first[0].result(DEADLINE_S) == 1


def test_what_need_not_last_does_not_wait_for_the_disk(bench: Bench) -> None:
    assert bench.add("beat", lasting=False) == 1
    assert bench.disk.trips == 0
    bench.add("a")
    assert bench.disk.trips == 1


def test_what_a_disk_refuses_is_not_acknowledged_and_nothing_is_after_it(bench: Bench) -> None:
    bench.disk.error = OSError(5, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        bench.add("a")
    bench.disk.error = None
    with pytest.raises(OSError, match="Input/output"):
        bench.add("b")
    assert bench.words() == ["a"], "what the disk will have of it is not known"


def test_without_a_disk_to_wait_for_a_commit_is_enough(bench: Bench) -> None:
    writer = Writer(bench.connection, None)
    assert writer.write(lambda tx: tx.execute(INSERT, ("a",)).rowcount) == 1
    assert bench.disk.trips == 0
    assert bench.words() == ["a"]


# --------------------------------------------------------------------------------- interrupted


def test_a_writer_that_is_interrupted_leaves_the_others_with_an_answer(bench: Bench) -> None:
    class Interrupted(BaseException):
        pass

    def interrupted(tx: sqlite3.Connection) -> None:
        tx.execute(INSERT, ("half",))
        raise Interrupted

    busy = bench.busy()
    leader = bench.pool.submit(bench.writer.write, interrupted)
    bench.in_line(1)
    [follower] = bench.adding("a")
    bench.in_line(2)
    busy.go_on()
    assert isinstance(leader.exception(DEADLINE_S), Interrupted)
    error = follower.exception(DEADLINE_S)
    assert isinstance(error, Unavailable)
    assert error.fix == "Repeat it: nothing is done twice."
    assert bench.words() == []
    assert bench.add("b") == 1


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Whoever starts a program in the background may have told it to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_who_is_interrupted_in_line_leaves_it(bench: Bench) -> None:
    main, busy = threading.get_ident(), bench.busy()
    behind: list[Future[int]] = []

    def interrupt() -> None:
        bench.in_line(1)
        behind.extend(bench.adding("behind"))
        bench.in_line(2)
        signal.pthread_kill(main, signal.SIGINT)

    helper = bench.pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.add("mine")
    helper.result(DEADLINE_S)
    busy.go_on()
    assert behind[0].result(DEADLINE_S) == 1
    assert bench.words() == ["behind"]


@pytest.mark.usefixtures("_interruptible")
def test_who_is_interrupted_while_being_woken_passes_its_turn_on(bench: Bench) -> None:
    busy = bench.busy()
    behind: list[Future[int]] = []

    def interrupt() -> None:
        bench.in_line(1)
        behind.extend(bench.adding("behind"))
        bench.in_line(2)
        # Unlike a signal this does not wake who waits for a lock: it is noticed after that.
        _thread.interrupt_main()
        busy.go_on()

    helper = bench.pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.add("mine")
    helper.result(DEADLINE_S)
    assert behind[0].result(DEADLINE_S) == 1
    assert bench.words() == ["behind"]


def test_a_closed_writer_says_so(bench: Bench) -> None:
    bench.writer.close()
    with pytest.raises(Unavailable, match="closed"):
        bench.add("a")
    bench.writer.close()
