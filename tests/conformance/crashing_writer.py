"""A process that writes a SQLite store as fast as it can until it is killed.

Each line on standard output acknowledges one write that has returned: `enqueued ID`,
`claimed ID EPOCH`, `finished ID`. Run by `test_store_sqlite`; takes the file and a prefix for ids.
"""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

from control_plane.core.model import JobState
from control_plane.ports import Store
from control_plane.stores.sqlite import SqliteStore
from tests.conformance.builders import DONE, NOW, claim, job


def say(*words: object) -> None:
    # One write call a line, so that two threads and a kill cannot tear or mix lines.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def submit(store: Store, prefix: str) -> None:
    for number in count():
        job_id = f"{prefix}-{number:06}"
        store.job_enqueue(job(job_id), idempotency_key=f"key-{job_id}")
        say("enqueued", job_id)


def work(store: Store) -> None:
    while True:
        for leased in claim(store, limit=2):
            say("claimed", leased.id, leased.epoch)
            store.job_start(leased.id, leased.epoch, now=NOW)
            store.job_finish(leased.id, leased.epoch, DONE, state=JobState.SUCCEEDED, now=NOW)
            say("finished", leased.id)


if __name__ == "__main__":
    opened = SqliteStore(Path(sys.argv[1]))
    threading.Thread(target=work, args=(opened,), daemon=True).start()
    submit(opened, sys.argv[2])
