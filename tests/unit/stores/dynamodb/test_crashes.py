"""Operations that die before any one of their requests, or lose any one answer, leave nothing lost,
nothing twice and nothing stuck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from control_plane.core.model import Artifact, Capacity, Job, JobState, MachineState, Need
from control_plane.errors import Conflict, StaleEpoch
from control_plane.ports import Ending, Place
from control_plane.stores.dynamodb import DynamoStore, runs
from control_plane.stores.dynamodb.calls import connect
from control_plane.system import SystemClock
from tests.conformance.builders import BECAUSE, LOST, job, machine_record, queue
from tests.emulators.ministack import Ministack
from tests.emulators.unreliable import LOSE, PASS, Unreliable
from tests.unit.stores.dynamodb.stores import make_store

_tables = count(1)
ANYTHING = Need()
ROOM = Capacity(cpus=8)
MANY = tuple(
    Artifact(name=f"{n:04}{n * n:09}", size_bytes=n, sha256=f"{n * 7919:064x}", blob=f"b/{n}")
    for n in range(200)
)
DONE = Ending(outcome="succeeded", exit_code=0, artifacts=MANY)


class Died(BaseException):
    """The process is gone: nothing in it catches this."""


class Clock:
    """The computer's clock, which a test sets forward."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._clock.now() + self.ahead

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a store does not wait")


@dataclass
class World:
    """A table in use, and how the operation under test ends early."""

    store: DynamoStore
    clock: Clock
    kept: dict[str, Any] = field(default_factory=dict)

    def now(self) -> datetime:
        return self.clock.now()

    def claim(self, limit: int = 9, machine: str = "m-1") -> list[Job]:
        return list(self.store.job_claim(machine, ["q"], ROOM, limit=limit, now=self.now()))

    def finish(self, held: Job, state: JobState = JobState.SUCCEEDED) -> None:
        self.store.job_finish(held.id, held.epoch, DONE, state=state, now=self.now())

    def enqueue(self, *ids: str, **changes: Any) -> None:
        changes.setdefault("need", ANYTHING)
        for job_id in ids:
            self.store.job_enqueue(job(job_id, submitted_at=self.now(), **changes))

    def drain(self) -> list[str]:
        """Run all there is, a good while later, on a machine of its own."""
        self.clock.ahead += timedelta(minutes=5)
        self.store.machine_put(
            machine_record(f"drain-{self.clock.ahead.seconds}"), expected_version=0, fence=None
        )
        done: list[str] = []
        while True:
            self.store.job_release(now=self.now())
            held = self.claim(1, f"drain-{self.clock.ahead.seconds}")
            if not held:
                return done
            for each in held:
                self.finish(each)
                done.append(each.id)

    def held(self) -> set[tuple[str, int]]:
        return {(lease.job_id, lease.epoch) for lease in self.store.job_leases()}

    def states(self) -> dict[str, JobState]:
        return {each.id: each.state for each in self.store.job_list().items}

    def attempts(self) -> list[tuple[str, int]]:
        far = timedelta(days=900)
        found = self.store.attempts_between(self.now() - far, self.now() + far)
        return [(each.job_id, each.number) for each in found]


Step = Callable[[World], object]


@dataclass(frozen=True)
class Case:
    """An operation, what there was before, and what must be true after it was cut short."""

    before: Step
    act: Step
    repair: Step
    """What callers do who got no answer, as the port says."""
    after: Step


def world(client: Any, **limits: int) -> World:
    clock = Clock()
    store = make_store(client, f"crash-{next(_tables)}")
    store._clock = clock
    queue(store, **limits)
    store.machine_put(machine_record(), expected_version=0, fence=None)
    return World(store, clock)


@contextmanager
def dying_before(client: Any, request: int) -> Iterator[list[int]]:
    """The process dies when it is about to send this request; the list says whether it did."""
    died: list[int] = []
    numbers = count()

    def die(**_: Any) -> None:
        if next(numbers) == request:
            died.append(request)
            raise Died

    client.meta.events.register("before-call.dynamodb", die, unique_id="die")
    try:
        with suppress(Died):
            yield died
    finally:
        client.meta.events.unregister("before-call.dynamodb", unique_id="die")


# --------------------------------------------------------------------------- the operations


def nothing(_: World) -> None:
    pass


def before_enqueue(w: World) -> None:
    w.enqueue("a")


def submit(w: World) -> None:
    spec = replace(job("x").spec, need=ANYTHING, env={"BIG": f"{w.kept}" + hexes()})
    new = replace(job("b", submitted_at=w.clock.now()), spec=spec, depends_on=("a",))
    w.kept["answer"] = w.store.job_enqueue(new, idempotency_key="k")


def hexes() -> str:
    """Text that cannot be made smaller."""
    return "".join(f"{n * 2654435761 % 2**32:08x}" for n in range(2000))


def submitted_once(w: World) -> None:
    assert w.kept["answer"][0].id == "b"
    assert w.states() == {"a": JobState.QUEUED, "b": JobState.BLOCKED}
    assert w.drain() == ["a", "b"]


def before_claim(w: World) -> None:
    w.enqueue("a", "b", "c", "d")


def claimed_or_waiting(w: World) -> None:
    states = w.states()
    leased = {job_id for job_id, state in states.items() if state is JobState.LEASED}
    assert {job_id for job_id, _ in w.held()} == leased
    assert len(leased) <= 3
    for held in [w.store.job_get(job_id) for job_id in sorted(leased)]:
        w.finish(held)
    assert sorted([*leased, *w.drain()]) == ["a", "b", "c", "d"]
    assert sorted(w.attempts()) == [(job_id, 1) for job_id in "abcd"]


def before_ending(w: World) -> None:
    w.enqueue("a")
    w.enqueue("b", "c", depends_on=("a",))
    w.enqueue("d", depends_on=("b", "c"))
    [w.kept["held"]] = w.claim()


def end(state: JobState) -> Step:
    return lambda w: w.finish(w.kept["held"], state)


def ended_well(w: World) -> None:
    assert w.store.job_artifacts("a") == MANY
    assert w.held() == set()
    assert w.drain() == ["b", "c", "d"]


def ended_badly(w: World) -> None:
    assert w.drain() == []
    gone = dict.fromkeys("bcd", JobState.CANCELLED)
    assert w.states() == {"a": JobState.FAILED, **gone}


def before_giving_back(w: World) -> None:
    w.enqueue("a", "z")
    for _ in range(2):
        [held] = w.claim(1)
        give_back(w, held)
    [w.kept["held"]] = w.claim(1)


def give_back(w: World, held: Job) -> Job:
    lost = replace(LOST, artifacts=MANY)
    return w.store.job_requeue(held.id, held.epoch, lost, need=Need(cpus=1), now=w.now())


def given_back_once(w: World) -> None:
    assert w.store.job_get("a").machine_losses == 3
    assert [each.number for each in w.store.job_attempts("a")] == [1, 2, 3]
    assert w.drain() == ["a", "z"]
    assert sorted(w.attempts()) == [("a", 1), ("a", 2), ("a", 3), ("a", 4), ("z", 1)]


def before_booking(w: World) -> None:
    w.enqueue("a", "b", "c", "d")
    for _ in range(3):
        [held] = w.claim(1)
        w.finish(held)


def booked_once(w: World) -> None:
    for job_id, _ in w.held():
        w.finish(w.store.job_get(job_id))
    w.drain()
    assert sorted(w.attempts()) == [(job_id, 1) for job_id in "abcd"]


def end_machine(w: World) -> None:
    stored = w.store.machine_get("m-1")
    gone = replace(stored, state=MachineState.TERMINATED, ended_at=w.now())
    if stored.state is not MachineState.TERMINATED:
        w.store.machine_put(gone, expected_version=stored.version, fence=None)


def machine_ended(w: World) -> None:
    assert w.store.machine_get("m-1").state is MachineState.TERMINATED
    assert w.store.fleet_read() == ((), ())
    assert sorted(w.attempts()) == [("a", 1), ("b", 1), ("c", 1)]
    w.clock.ahead += timedelta(minutes=5)  # no claim of its last minute can be under way any more
    assert w.store.fleet_read() == ((), ())
    assert list(w.store._table.query("M")) == [], "its run is settled and gone"


def before_move(w: World) -> None:
    w.enqueue("a", "b", "c", "d")
    w.store.job_move(
        "d", queue="q", place=Place(where="after", job_id="b"), expected_version=None, now=w.now()
    )


def move(w: World) -> None:
    w.store.job_move(
        "c", queue="q", place=Place(where="before", job_id="b"), expected_version=None, now=w.now()
    )


def clear(w: World) -> None:
    w.store.queue_clear("q", now=w.now(), reason=BECAUSE)


def before_clear(w: World) -> None:
    w.enqueue("a", "b")
    w.enqueue("c", depends_on=("b",))
    w.enqueue("d", not_before=w.now() + timedelta(minutes=1))


def all_cancelled(w: World) -> None:
    assert w.drain() == []
    assert set(w.states().values()) == {JobState.CANCELLED}


def remove_queue(w: World) -> None:
    w.store.queue_remove("q")


def queue_gone(w: World) -> None:
    assert w.store.queue_list() == ()
    queue(w.store)
    w.enqueue("a")
    assert w.drain() == ["a"]


def runs_in_order(*job_ids: str) -> Step:
    def check(w: World) -> None:
        assert w.drain() == list(job_ids)

    return check


def before_look(w: World) -> None:
    w.enqueue("a", not_before=w.now() + timedelta(seconds=1))
    w.enqueue("b", not_before=w.now() + timedelta(seconds=1), need=Need(cpus=1))
    w.clock.ahead += timedelta(seconds=5)


def look(w: World) -> None:
    w.store.job_release(now=w.now())


def promote(w: World) -> None:
    w.store.queue_promote("q", waiting_since=w.now(), now=w.now())


CASES = {
    "submit": Case(before_enqueue, submit, submit, submitted_once),
    "claim": Case(before_claim, lambda w: w.claim(3), nothing, claimed_or_waiting),
    "finish": Case(before_ending, end(JobState.SUCCEEDED), end(JobState.SUCCEEDED), ended_well),
    "fail": Case(before_ending, end(JobState.FAILED), end(JobState.FAILED), ended_badly),
    "give back": Case(
        before_giving_back,
        lambda w: give_back(w, w.kept["held"]),
        lambda w: give_back(w, w.kept["held"]),
        given_back_once,
    ),
    "book": Case(before_booking, lambda w: w.claim(1), nothing, booked_once),
    "end machine": Case(before_booking, end_machine, end_machine, machine_ended),
    "move": Case(
        before_move,
        move,
        move,
        runs_in_order("a", "c", "b", "d"),
    ),
    "clear": Case(before_clear, clear, clear, all_cancelled),
    "remove queue": Case(nothing, remove_queue, remove_queue, queue_gone),
    "look": Case(before_look, look, nothing, runs_in_order("a", "b")),
    "promote": Case(before_claim, promote, nothing, runs_in_order("a", "b", "c", "d")),
}


@pytest.fixture(autouse=True)
def books_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BOOKED_TOGETHER", 2)


def limits_of(name: str) -> dict[str, int]:
    return {"max_running": 3, "max_running_per_owner": 3} if name in ("claim", "finish") else {}


@pytest.mark.parametrize("name", CASES)
def test_a_crash_before_any_request_is_made_good(dynamodb: Any, name: str) -> None:
    case = CASES[name]
    for request in count():
        w = world(dynamodb, **limits_of(name))
        case.before(w)
        with dying_before(dynamodb, request) as died:
            case.act(w)
        if not died:
            break
        fresh = DynamoStore(dynamodb, table=w.store._table.table, clock=w.clock)
        w.store = fresh
        with suppress(StaleEpoch, Conflict):
            case.repair(w)
        case.after(w)
    assert request > 1


@pytest.mark.parametrize("name", CASES)
def test_a_lost_answer_to_any_request_changes_nothing(
    ministack: Ministack, unreliable: Unreliable, name: str
) -> None:
    case = CASES[name]
    client = connect(
        region="eu-central-1",
        endpoint_url=unreliable.url,
        access_key=ministack.new_account(),
        secret_key="any",
    )
    for request in count():
        w = world(client, **limits_of(name))
        case.before(w)
        unreliable.script = [*[PASS] * request, LOSE]
        case.act(w)
        over = bool(unreliable.script)
        unreliable.script = []
        case.after(w)
        if over:
            break
    client.close()
    assert request > 1
