"""A process that fills the disk its store lies on, and says as JSON how that went.

Run by `test_full_disk`, which has put a small file system there; takes its folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from control_plane.errors import Unavailable
from control_plane.stores.sqlite import SqliteStore
from control_plane.stores.sqlite.backup import backup
from tests.conformance.builders import enqueue, ids, queue


def submit(store: SqliteStore, said: list[str]) -> Unavailable:
    """Submit until that is refused; `said` gets the jobs that were not."""
    while True:
        try:
            said += ids(enqueue(store, f"j-{len(said):04}", name="x" * 2000))
        except Unavailable as error:
            return error


def stored(store: SqliteStore) -> list[str]:
    return sorted(ids(store.job_list(limit=10_000).items))


def main(folder: Path) -> None:
    path, ballast, copy = folder / "store.db", folder / "ballast", folder / "copy.db"
    ballast.write_bytes(bytes(256 * 1024))
    store = SqliteStore(path)
    queue(store)
    said: list[str] = []
    refused = submit(store, said)
    full = stored(store)
    try:
        backup(path, copy)
        raise AssertionError("there was room for a copy")
    except Unavailable as error:
        no_copy = error
    names = sorted(each.name for each in folder.iterdir())
    ballast.unlink()
    enqueue(store, "j-last")
    store.close()
    store = SqliteStore(path)
    again = stored(store)
    store.close()
    told = {
        "said": said,
        "refused": [refused.message, refused.fix],
        "full": full,
        "no_copy": [no_copy.message, no_copy.fix],
        "names": names,
        "again": again,
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
