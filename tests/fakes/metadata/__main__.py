"""`python -m tests.fakes.metadata`: one machine's metadata service, until it is interrupted."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress

from tests.fakes.metadata.server import Metadata


def main() -> None:
    """Serve until the program is interrupted; its address is the first line of output."""
    metadata = Metadata()
    sys.stdout.write(f"{metadata.url}\n")
    sys.stdout.flush()
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    metadata.close()


if __name__ == "__main__":
    main()
