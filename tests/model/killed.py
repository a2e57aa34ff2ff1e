"""Clients that are processes, to be killed: each writes down what it calls before it does, and what
it was told after."""

from __future__ import annotations

import base64
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from control_plane.ports import Store
from tests.model import spec
from tests.model.calls import all_jobs, perform, seen
from tests.model.clients import Board, Client
from tests.model.linear import NEVER, Call
from tests.model.world import Operation

OpenStore = Callable[[], Store]
"""How a process opens the store; has to travel to it."""


def live(open_store: OpenStore, log: Path, number: int, seed: str, *, remote: bool) -> None:
    """Call the store until somebody kills this process."""
    board = knowing(open_store(), remote=remote)
    client = Mortal(board, number, Random(seed), log)
    while True:
        client.call(client.choose())


def knowing(store: Store, *, remote: bool) -> Board:
    """What a client that has just started finds out about the store."""
    names = [queue.name for queue in store.queue_list()]
    board = Board(store=store, queues=names, remote=remote, mixed=False)
    board.seen = {job.id: seen(job) for job in all_jobs(store, page_size=1000)}
    for queue in store.queue_list():
        put = spec.PutQueue(
            queue=queue.name,
            expected_version=queue.version - 1,
            paused=queue.paused,
            max_running=queue.max_running,
            max_running_per_owner=queue.max_running_per_owner,
        )
        board.note(put, None)
    return board


class Mortal(Client):
    """A client whose memory is a file. One line is one write: a kill tears the last at most."""

    def __init__(self, board: Board, number: int, random: Random, log: Path) -> None:
        super().__init__(board, number, random)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self, operation: Operation, *, lost: bool = False) -> None:
        self._write((self.number, operation, time.monotonic_ns()))
        answer = perform(self.board.store, operation)
        self._write((time.monotonic_ns(), answer))
        self.board.note(operation, answer)

    def _write(self, entry: object) -> None:
        os.write(self._log, base64.b64encode(pickle.dumps(entry)) + b"\n")


def remembered(log: Path, death: int) -> list[Call]:
    """The calls in a client's memory; `death` is when it was surely dead."""
    # What is not written to its end was not called yet, or its answer was not told to anybody.
    lines = log.read_bytes().split(b"\n")[:-1]
    entries = [pickle.loads(base64.b64decode(line)) for line in lines]
    answers = entries[1::2]
    calls: list[Call] = []
    for index, (number, operation, invoked) in enumerate(entries[::2]):
        lost = index >= len(answers)
        returned, answer = (NEVER, None) if lost else answers[index]
        call = Call(
            client=number,
            operation=operation,
            invoked=invoked,
            returned=returned,
            answer=answer,
            ended=death if lost else returned,
        )
        calls.append(call)
    return calls
