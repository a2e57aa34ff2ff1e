"""Requests that come at one time are one visit to the store, and none of them feels the others."""

from __future__ import annotations

import asyncio
import errno
import math
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_bootstrap import wire
from control_plane.api.together import AT_ONCE, Together
from control_plane.errors import Conflict, StaleEpoch, Unavailable
from control_plane.stores.sqlite import SqliteStore, opening, writer
from tests.api.world import DOCUMENT, World, policy


class Counted:
    """Runs what it is given, and counts; waits before each run until it may. One that is `taken`
    can begin nothing at once."""

    def __init__(self, *, taken: bool = True) -> None:
        self.runs = 0
        self.taken = taken
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def together(self, work: Callable[[], None]) -> None:
        self.gate.wait(10)
        self.runs += 1
        self.threads.add(threading.current_thread().name)
        work()

    def together_now(self, work: Callable[[], None]) -> Sequence[Callable[[], None]] | None:
        if self.taken:
            return None
        self.together(work)
        return ()


async def all_of(together: Together, *acts: Callable[[], Any]) -> list[Any]:
    return await asyncio.gather(*(together.do(act) for act in acts), return_exceptions=True)


def test_everybody_gets_the_own_answer() -> None:
    def fail() -> None:
        raise Conflict("somebody was faster")

    for store in (Counted(), Counted(taken=False), None):
        together = Together(store)
        first, second, third = asyncio.run(all_of(together, lambda: 1, fail, lambda: 3))
        assert (first, third) == (1, 3)
        assert isinstance(second, Conflict)


def test_who_comes_while_others_are_at_it_goes_with_the_next_ones() -> None:
    run = Counted()
    run.gate.clear()
    together = Together(run)

    async def come() -> list[int]:
        coming = [asyncio.ensure_future(together.do(lambda n=n: n)) for n in range(50)]
        await asyncio.sleep(0)
        run.gate.set()
        return await asyncio.gather(*coming)

    assert asyncio.run(come()) == list(range(50))
    assert run.runs < 10


def test_when_nothing_could_be_kept_all_hear_of_it() -> None:
    class Broken(Counted):
        def together(self, work: Callable[[], None]) -> None:
            super().together(work)
            raise Unavailable("the disk is gone")

    for store in (Broken(), Broken(taken=False)):
        answers = asyncio.run(all_of(Together(store), lambda: 1, lambda: 2))
        assert [type(each) for each in answers] == [Unavailable, Unavailable]


def test_all_hear_of_it_when_the_disk_fails_after_the_transaction() -> None:
    class Late(Counted):
        def together_now(self, work: Callable[[], None]) -> Sequence[Callable[[], None]]:
            work()
            return (self.fail,)

        def fail(self) -> None:
            raise Unavailable("the disk is gone")

    answers = asyncio.run(all_of(Together(Late()), lambda: 1, lambda: 2))
    assert [type(each) for each in answers] == [Unavailable, Unavailable]


def test_what_can_be_done_at_once_needs_no_thread() -> None:
    store = Counted(taken=False)
    together = Together(store)
    assert asyncio.run(all_of(together, lambda: 1, lambda: 2)) == [1, 2]
    assert (store.runs, store.threads) == (1, {"MainThread"})


def test_more_than_one_trip_takes_goes_with_the_next() -> None:
    store = Counted(taken=False)
    acts = [lambda n=n: n for n in range(AT_ONCE * 2 + 1)]
    assert asyncio.run(all_of(Together(store), *acts)) == list(range(AT_ONCE * 2 + 1))
    assert store.runs == 3


def test_who_comes_in_the_next_turns_of_the_loop_goes_along() -> None:
    store = Counted(taken=False)
    together = Together(store)

    async def come() -> list[int]:
        coming = []
        for number in range(10):
            coming.append(asyncio.ensure_future(together.do(lambda n=number: n)))
            await asyncio.sleep(0)
        return await asyncio.gather(*coming)

    assert asyncio.run(come()) == list(range(10))
    assert store.runs == 1


def test_what_was_done_twice_counts_once() -> None:
    class Again(Counted):
        def together(self, work: Callable[[], None]) -> None:
            work()
            work()

    done = []
    together = Together(Again())
    assert asyncio.run(all_of(together, lambda: done.append(1))) == [None]
    assert len(done) == 2


def test_a_client_that_has_gone_is_not_missed() -> None:
    run = Counted()
    run.gate.clear()
    together = Together(run)

    async def leave() -> int:
        gone = asyncio.ensure_future(together.do(lambda: 1))
        await asyncio.sleep(0)
        gone.cancel()
        run.gate.set()
        return await together.do(lambda: 2)

    assert asyncio.run(leave()) == 2


def test_bells_ring_when_it_is_safe_and_once() -> None:
    order: list[str] = []

    class Ordered(Counted):
        def together(self, work: Callable[[], None]) -> None:
            work()
            order.append("safe")

    together = Together(Ordered())

    def ring() -> None:
        order.append("bell")

    def act() -> None:
        together.afterwards(ring)
        together.afterwards(ring)
        order.append("act")

    asyncio.run(all_of(together, act))
    assert order == ["act", "safe", "bell"]
    together.afterwards(ring)
    assert order[-1] == "bell"


# ------------------------------------------------------------------------- on the SQLite store


@pytest.fixture
def world(sqlite: SqliteStore) -> World:
    """A declared queue and two machines with sessions."""
    world = World(sqlite)
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    return world


def test_one_that_fails_takes_nobody_along(world: World, sqlite: SqliteStore) -> None:
    tokens = [world.registered(f"m-{number}") for number in range(3)]
    jobs = [world.submit() for _ in range(2)]
    agents = world.agents

    def claim(token: str) -> Callable[[], wire.Claimed]:
        return lambda: agents.claim(agents.authenticate(token), wire.Claim())

    def stale() -> None:
        machine = agents.authenticate(tokens[2])
        agents.finish(machine, jobs[0], wire.Finished(epoch=7, outcome="succeeded"))

    together = Together(sqlite)
    first, wrong, second = asyncio.run(all_of(together, claim(tokens[0]), stale, claim(tokens[1])))
    assert isinstance(wrong, StaleEpoch)
    assert sorted(each.jobs[0].job_id for each in (first, second)) == jobs
    assert {lease.machine_id for lease in sqlite.job_leases()} == {"m-0", "m-1"}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("error", [Conflict("no"), sqlite3.IntegrityError("no")])
def test_half_of_a_write_is_never_kept(
    world: World, sqlite: SqliteStore, error: Exception, at_once: bool
) -> None:
    job = world.submit()

    def break_off(tx: Any) -> None:
        tx.execute("update jobs set name = 'half' where id = ?", (job,))
        raise error

    found: list[str] = []

    def work() -> None:
        world.submit()
        with pytest.raises((Conflict, Unavailable)):
            sqlite._database.write(break_off)
        found.append(sqlite.job_get(job).name)

    if at_once:
        assert sqlite.together_now(work) is not None
    else:
        sqlite.together(work)
    assert found == [""]
    assert sqlite.queue_stats()["default"].waiting == 2


def test_each_sees_what_those_before_it_did_and_others_nothing(
    world: World, sqlite: SqliteStore
) -> None:
    seen: list[tuple[int, int]] = []

    def elsewhere() -> int:
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(sqlite.queue_stats()["default"].waiting)
        )
        thread.start()
        thread.join()
        return found[0]

    def work() -> None:
        world.submit()
        seen.append((sqlite.queue_stats()["default"].waiting, elsewhere()))

    sqlite.together(work)
    assert seen == [(1, 0)]
    assert elsewhere() == 1


def test_what_was_done_together_is_on_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "kept.db")
    world = World(store)
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    machine = world.agents.authenticate(world.registered())
    world.submit()
    store.together(lambda: world.agents.claim(machine, wire.Claim()))
    # Another program has only what is in the files.
    other = SqliteStore(tmp_path / "kept.db")
    assert [lease.machine_id for lease in other.job_leases()] == [machine.id]
    other.close()
    store.close()


def test_all_of_them_wait_for_the_disk_once_and_beats_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(opening, "_sync", syncs.append)
    store = SqliteStore(tmp_path / "full.db")
    world = World(store)
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    machines = [world.agents.authenticate(world.registered(f"m-{n}")) for n in range(3)]
    for _ in machines:
        world.submit()
    syncs.clear()

    def claim() -> None:
        for machine in machines:
            world.agents.claim(machine, wire.Claim())

    def beat() -> None:
        for machine in machines:
            world.agents.beat(machine, wire.Beat())

    store.together(claim)
    assert len(syncs) == 1
    store.together(beat)
    assert len(syncs) == 1
    store.close()


def test_what_is_begun_at_once_on_a_quick_disk_is_safe_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(opening, "_sync", syncs.append)
    monkeypatch.setattr(writer, "QUICK_S", math.inf)
    store = SqliteStore(tmp_path / "full.db")
    world = World(store)
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    machine = world.agents.authenticate(world.registered())
    world.submit()
    syncs.clear()
    assert store.together_now(lambda: world.agents.claim(machine, wire.Claim())) == ()
    assert len(syncs) == 1
    assert store.together_now(lambda: world.agents.beat(machine, wire.Beat())) == ()
    assert len(syncs) == 1

    def refused(_: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(opening, "_sync", refused)
    with pytest.raises(Unavailable, match="the disk is gone"):
        store.together_now(world.submit)
    store.close()


def test_what_is_begun_at_once_is_safe_after_one_trip_to_a_slow_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(opening, "_sync", syncs.append)
    monkeypatch.setattr(writer, "QUICK_S", 0)
    store = SqliteStore(tmp_path / "full.db")
    world = World(store)
    world.fleet.apply(DOCUMENT, policy(), expected_version=0)
    machine = world.agents.authenticate(world.registered())
    world.submit()
    syncs.clear()
    left = store.together_now(lambda: world.agents.claim(machine, wire.Claim()))
    assert left is not None
    assert (len(left), syncs) == (1, [])
    left[0]()
    assert len(syncs) == 1
    # Neither what may be lost nor what changes nothing waits for the disk.
    assert store.together_now(lambda: world.agents.beat(machine, wire.Beat())) == ()
    assert store.together_now(lambda: world.agents.claim(machine, wire.Claim())) == ()
    store.close()
    with pytest.raises(Unavailable):
        store.together_now(lambda: None)


def test_nothing_is_begun_while_somebody_else_writes(world: World, tmp_path: Path) -> None:
    def nothing() -> None:
        raise AssertionError("it was begun")

    store = SqliteStore(tmp_path / "shared.db")
    other = SqliteStore(tmp_path / "shared.db")
    for one in (store, other):
        found: list[object] = []
        one.together(lambda found=found: found.append(store.together_now(nothing)))
        assert found == [None]
    assert store.together_now(lambda: None) == ()
    other.close()
    store.close()
