"""A move that is killed on its way.

    python -m tests.transfer.killed NTH write|read DATABASE FOLDER

At the NTH time it has noted its progress, the process gets SIGKILL from itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from control_plane import transfer
from control_plane.stores.sqlite import SqliteStore
from tests.transfer.conftest import PAGE


def main() -> None:
    left, database, folder = int(sys.argv[1]), Path(sys.argv[3]), Path(sys.argv[4])
    replace = Path.replace

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal left
        done = replace(self, target)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = replace_or_die  # type: ignore[method-assign,assignment]
    transfer.PAGE = PAGE
    store = SqliteStore(database)
    if sys.argv[2] == "write":
        transfer.write(store, folder)
    else:
        transfer.read(folder, store, target=str(database))


if __name__ == "__main__":
    main()
