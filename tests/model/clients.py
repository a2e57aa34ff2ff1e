"""Several clients at work on one store at once, and what each of them saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from threading import Barrier

from control_plane.core.job_ids import id_for
from control_plane.core.model import Capacity, JobState, Need
from control_plane.ports import Store
from tests.conformance.builders import NOW
from tests.jumpy import jumpy_threads
from tests.model import reads, spec
from tests.model.calls import perform
from tests.model.linear import NEVER, Call
from tests.model.world import HELD, Answer, Operation, Seen, World, step

CALLS = {False: (20, 60), True: (10, 25)}
"""How many calls a client makes, by whether the store is remote."""

ROOM = Capacity(gpus=4, cpus=8, memory_mib=1000)
NEEDS = (Need(), Need(gpus=1), Need(gpus=3))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened, and the world it began in."""

    world: World
    calls: Sequence[Call]


def concurrent_history(store: Store, random: Random, *, remote: bool = False) -> History:
    """Two to six clients with 20 to 60 calls each on an empty store. The choices are `random`'s,
    whose turn it is is not. On a remote store there are fewer calls, nobody reads before the end,
    limits stay as they were, job ids follow from the keys, no job waits for another, since it is
    let go a moment after that one's end, and a machine has one agent, since with two a job may be
    leased for a moment to none.

    In most histories no call touches two queues, nor a machine, so that each queue can be judged by
    itself; in the others anything goes."""
    names = ("q", "r", "s")[: random.randint(1, 3)]
    board = Board(store=store, queues=names, remote=remote, mixed=random.random() < 0.3)
    world = begun(board, random)
    count = random.randint(2, 6)
    barrier = Barrier(count)
    with ThreadPoolExecutor(count) as pool, jumpy_threads():
        clients = [Client(board, number, Random(random.random())) for number in range(count)]
        futures = [
            pool.submit(client.work, barrier, random.randint(*CALLS[remote])) for client in clients
        ]
        calls = [call for future in futures for call in future.result()]
    last = Client(board, count, random)
    for queue in names:
        last.call(reads.Order(queue=queue))
    for job in board.tried:
        last.call(reads.Get(job=job))
    return History(world=world, calls=[*calls, *last.calls])


@dataclass(slots=True, kw_only=True)
class Board:
    """What all clients know together; a late answer may put up what is over already."""

    store: Store
    queues: Sequence[str]
    remote: bool
    mixed: bool
    """Whether calls touch several queues, and machines are drained."""
    losses: int = 3
    """Answers that may get lost still: each one leaves so much open that few are enough."""
    seen: dict[str, Seen] = field(default_factory=dict)
    tried: dict[str, None] = field(default_factory=dict)
    puts: dict[str, spec.PutQueue] = field(default_factory=dict)
    """How each queue was written last, or by somebody else at that version."""

    def note(self, operation: Operation, answer: Answer) -> None:
        if isinstance(operation, spec.PutQueue):
            self.puts[operation.queue] = operation
        for each in answer if isinstance(answer, tuple) else ():
            if isinstance(each, Seen):
                self.seen[each.id] = each
        if isinstance(answer, Seen):
            self.seen[answer.id] = answer
        if answer is None and isinstance(operation, (spec.Start, spec.Finish)):
            state = operation.state if isinstance(operation, spec.Finish) else JobState.RUNNING
            last = self.seen[operation.job]
            self.seen[operation.job] = last._replace(state=state, version=last.version + 1)


def begun(board: Board, random: Random) -> World:
    """Queues, some with limits, and six machines, in the store and as the spec has them."""
    world = World()
    for name in board.queues:
        put = spec.PutQueue(
            queue=name,
            expected_version=0,
            max_running=random.choice((None, None, 1, 3)),
            max_running_per_owner=random.choice((None, None, 1, 2)),
        )
        world = _made(board, world, put)
    for number in range(6):
        world = _made(board, world, spec.PutMachine(machine=f"m-{number}", ready=True, now=NOW))
    return world


def _made(board: Board, world: World, operation: Operation) -> World:
    after, expected = step(world, operation)
    assert perform(board.store, operation) == expected
    board.note(operation, expected)
    return after


class Client:
    """One caller, with a machine of its own that others may use as well."""

    def __init__(self, board: Board, number: int, random: Random) -> None:
        self.board = board
        self.number = number
        self.random = random
        self.calls: list[Call] = []
        self.made = 0

    def work(self, barrier: Barrier, calls: int) -> list[Call]:
        barrier.wait()
        while len(self.calls) < calls:
            operation = self.choose()
            lost = self.board.losses > 0 and self._rarely(0.05) and not self._blind(operation)
            self.board.losses -= lost
            self.call(operation, lost=lost)
            if lost and self.random.random() < 0.5:
                self.call(operation)
        return self.calls

    def choose(self) -> Operation:
        """What to call next."""
        while True:
            [choice] = self.random.choices(list(_CHOICES), list(_CHOICES.values()))
            if operation := choice(self):
                return operation

    def call(self, operation: Operation, *, lost: bool = False) -> None:
        """Call the store; a lost answer is one that nobody hears."""
        invoked = time.perf_counter_ns()
        answer = perform(self.board.store, operation)
        ended = returned = time.perf_counter_ns()
        if lost:
            returned, answer = NEVER, None
        self.board.note(operation, answer)
        self.calls.append(
            Call(
                client=self.number,
                operation=operation,
                invoked=invoked,
                returned=returned,
                answer=answer,
                ended=ended,
            )
        )

    def _blind(self, operation: Operation) -> bool:
        """Whether nobody could tell what an unheard call did."""
        return self.board.remote and isinstance(operation, (spec.Claim, spec.PutQueue, spec.Move))

    # ------------------------------------------------------------------------------- choices

    def enqueue(self) -> Operation:
        self.made += 1
        queue = self.random.choice(self.board.queues)
        key = self._key(queue) if self._rarely(0.15) else ""
        job = id_for(key) or f"j-{self.number}-{self.made:02}"
        self.board.tried[job] = None
        mixed = self.board.mixed
        known = [other for other in list(self.board.seen.values()) if mixed or other.queue == queue]
        waits = bool(known) and not self.board.remote and self._rarely(0.05)
        return spec.Enqueue(
            job=job,
            queue=queue,
            priority=self.random.choice((0, 0, 0, 1)),
            owner=self.random.choice(("ann", "bob")),
            need=self.random.choice(NEEDS),
            depends_on=(self.random.choice(known).id,) if waits else (),
            key=key,
            now=NOW,
        )

    def _key(self, queue: str) -> str:
        place = self.board.queues.index("q" if self.board.mixed else queue)
        plain, timed = (f"k-{place}", self.random.randint(1, 3)), self._rarely(0.5)
        if timed or self.board.remote:
            return f"019cb000-0000-7000-8000-00000000{place:02}{plain[1]:02}"
        return f"{plain[0]}-{plain[1]}"

    def claim(self) -> Operation:
        shared = not self.board.remote and self._rarely(0.2)
        machine = self.random.randrange(6) if shared else self.number % 6
        queues = [self.random.choice(self.board.queues)]
        if self.board.mixed and self._rarely(0.2):
            queues = list(self.board.queues)
        return spec.Claim(
            machine=f"m-{machine}",
            queues=tuple(queues),
            free=self.random.choice((ROOM, ROOM, replace(ROOM, gpus=1))),
            limit=self.random.choice((1, 1, 1, 2, 4)),
            now=NOW + timedelta(seconds=self.random.choice((0, 5, -5))),
        )

    def start(self) -> Operation | None:
        job = self._held()
        return job and spec.Start(job=job.id, epoch=job.epoch, now=NOW)

    def finish(self) -> Operation | None:
        state = self.random.choice((JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED))
        job = self._held()
        return job and spec.Finish(job=job.id, epoch=job.epoch, state=state, now=NOW)

    def requeue(self) -> Operation | None:
        job = self._held()
        outcome = self.random.choice(("lost", "returned"))
        return job and spec.Requeue(
            job=job.id, epoch=job.epoch, outcome=outcome, need=job.need, now=NOW
        )

    def cancel(self) -> Operation | None:
        job = self._known()
        return job and spec.Cancel(job=job.id, now=NOW)

    def move(self) -> Operation | None:
        job, other = self._known(JobState.QUEUED), self._known(JobState.QUEUED)
        if job is None or other is None:
            return None
        where = self.random.choice(("top", "bottom", "before", "after"))
        beside = where in ("before", "after")
        if not self.board.mixed and other.queue != job.queue:
            return None
        return spec.Move(
            job=job.id,
            queue=other.queue,
            where=where,
            neighbour=other.id if beside else "",
            expected_version=job.version if self._rarely(0.5) else None,
            now=NOW,
        )

    def set_queue(self) -> Operation:
        before = self.board.puts[self.random.choice(self.board.queues)]
        put = replace(
            before, paused=self._rarely(0.3), expected_version=before.expected_version + 1
        )
        if self.board.remote:
            return put
        limit, per_owner = self.random.choice((None, 1, 2, 4)), self.random.choice((None, None, 1))
        return replace(put, max_running=limit, max_running_per_owner=per_owner)

    def drain(self) -> Operation | None:
        if self.board.remote or not self.board.mixed:
            return None
        ready = self.random.choice((True, True, False))
        return spec.PutMachine(machine=f"m-{self.number}", ready=ready, now=NOW)

    def read(self) -> Operation | None:
        job = self._known()
        if self.board.remote:
            return None
        if job and self._rarely(0.5):
            return reads.Get(job=job.id)
        return reads.Order(queue=self.random.choice(self.board.queues))

    def _rarely(self, share: float) -> bool:
        return self.random.random() < share

    def _known(self, *states: JobState) -> Seen | None:
        seen = list(self.board.seen.values())
        likely = [job for job in seen if not states or job.state in states]
        if self._rarely(0.1):
            likely = seen
        return self.random.choice(likely) if likely else None

    def _held(self) -> Seen | None:
        return self._known(*HELD)


_CHOICES: Mapping[Callable[[Client], Operation | None], int] = {
    Client.enqueue: 8,
    Client.claim: 7,
    Client.start: 3,
    Client.finish: 4,
    Client.requeue: 3,
    Client.cancel: 1,
    Client.move: 6,
    Client.set_queue: 1,
    Client.drain: 1,
    Client.read: 2,
}
"""What a client does next: how often it does."""
