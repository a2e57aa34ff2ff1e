"""A look at the fleet that remembers the last one shows what a look that remembers nothing does."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from control_plane.core.model import Machine, MachineState
from control_plane.stores.sqlite import SqliteStore, machine_records, rows
from control_plane.stores.sqlite import fleet as looks
from tests.conformance.builders import BECAUSE, at, back, claim, end, enqueue, machine, queue

STEPS = 120


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.sqlite")
    queue(made)
    yield made
    made.close()


class _History:
    """Machines that come, beat, work and go."""

    def __init__(self, store: SqliteStore, seed: int) -> None:
        self.store = store
        self.chance = Random(seed)
        self.now = 0
        self.made = 0

    def step(self) -> None:
        self.now += 1
        self.chance.choice(self._acts)(self)

    def _come(self) -> None:
        self.made += 1
        # Not always in the order of their plans.
        machine(self.store, f"m-{self.made}", planned_at=at(self.chance.randint(-50, self.now)))

    def _beat(self) -> None:
        if one := self._one():
            self.store.machine_beat(one.id, now=at(self.now))

    def _change(self) -> None:
        if one := self._one():
            changed = replace(one, hold_until=at(self.chance.randint(0, 99)))
            self.store.machine_put(changed, expected_version=one.version, fence=None)

    def _go(self) -> None:
        one = self._one()
        if one and not self.store.job_leases(machine_id=one.id):
            gone = replace(one, state=MachineState.TERMINATED)
            self.store.machine_put(gone, expected_version=one.version, fence=None)

    def _work(self) -> None:
        self.made += 1
        enqueue(self.store, f"j-{self.made}")
        if one := self._one():
            claim(self.store, machine_id=one.id, now=at(self.now))

    def _end(self) -> None:
        leases = self.store.job_leases()
        if leases:
            job = self.store.job_get(self.chance.choice(leases).job_id)
            end(self.store, job, now=at(self.now))

    def _give_back(self) -> None:
        leases = self.store.job_leases()
        if leases:
            job = self.store.job_get(self.chance.choice(leases).job_id)
            back(self.store, job, now=at(self.now))

    def _cancel(self) -> None:
        leases = self.store.job_leases()
        if leases:
            job_id = self.chance.choice(leases).job_id
            self.store.job_cancel(job_id, reason=BECAUSE, now=at(self.now))

    def _one(self) -> Machine | None:
        there = self.store.machine_list()
        return self.chance.choice(there) if there else None

    _acts: tuple[Callable[[_History], None], ...] = (
        _come,
        _beat,
        _beat,
        _change,
        _go,
        _work,
        _work,
        _end,
        _give_back,
        _cancel,
    )


@pytest.mark.parametrize("seed", range(6))
def test_it_shows_all_there_is(store: SqliteStore, tmp_path: Path, seed: int) -> None:
    history = _History(store, seed)
    for _ in range(STEPS):
        for _ in range(history.chance.randint(0, 2)):
            history.step()
        fresh = SqliteStore(tmp_path / "store.sqlite")
        seen = store.fleet_read()
        assert seen[0] == fresh.machine_list() == store.machine_list()
        assert seen[1] == fresh.job_leases() == store.job_leases()
        assert seen == fresh.fleet_read()
        fresh.close()
    assert all(seen), "some were left at the end"


def test_what_has_not_changed_is_not_read_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        machine(store, f"m-{number}")
        enqueue(store, f"j-{number}")
        claim(store, machine_id=f"m-{number}")
    machines, leases = store.fleet_read()
    store.machine_beat("m-1", now=at(50))
    end(store, store.job_get("j-2"))
    enqueue(store, "new")
    claim(store, machine_id="m-2")
    read: list[str] = []

    class Spied:
        def __init__(self, tx: sqlite3.Connection) -> None:
            self._tx = tx

        def execute(self, statement: str, bound: tuple[str, ...] = ()) -> sqlite3.Cursor:
            read.append(statement)
            return self._tx.execute(statement, bound)

    monkeypatch.setattr(
        store._database,
        "look",
        lambda work, look=store._database.look: look(lambda tx: work(Spied(tx))),
    )
    again = store.fleet_read()
    assert sorted(read) == sorted([looks.LEASES, looks.MACHINES, looks.LEASE])
    same = {id(each) for of_kind in (machines, leases) for each in of_kind} & {
        id(each) for of_kind in again for each in of_kind
    }
    assert len(same) == 4 + 4


def test_what_was_written_and_given_up_is_never_seen(store: SqliteStore) -> None:
    made = machine(store)
    store.fleet_read()

    def given_up() -> None:
        store.machine_put(replace(made, pool="a"), expected_version=made.version, fence=None)
        store.fleet_read()
        assert store.machine_get(made.id).pool == "a"
        raise ValueError("given up")

    with pytest.raises(ValueError, match="given up"):
        store.together(given_up)
    store.machine_put(replace(made, pool="b"), expected_version=made.version, fence=None)
    ((seen,), _) = store.fleet_read()
    assert seen.pool == store.machine_get(made.id).pool == "b"


def test_a_record_that_did_not_change_is_read_once(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(store)
    read: list[str] = []

    def loads(
        kind: type[Machine], data: str, plain: Callable[..., Machine] = rows.loads
    ) -> Machine:
        read.append(data)
        return plain(kind, data)

    monkeypatch.setattr(rows, "loads", loads)

    def seen() -> list[Machine]:
        return [store.machine_get(made.id), *store.machine_list(), *store.fleet_read()[0]]

    for number in range(3):
        store.machine_beat(made.id, now=at(number))
        assert seen() == [replace(made, last_beat_at=at(number))] * 3
    assert len(read) == 1
    changed = store.machine_put(replace(made, pool="b"), expected_version=made.version, fence=None)
    assert seen() == [changed] * 3
    assert len(read) == 2


def test_records_of_many_machines_are_forgotten_at_times(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_records, "REMEMBERED", 2)
    made = [machine(store, f"m-{number}") for number in range(5)]
    assert [store.machine_get(each.id) for each in made * 2] == made * 2
    assert len(store._records._known) <= 2
