"""`python -m tests.fakes.ec2`: a fake that follows the real time, until it is interrupted."""

from __future__ import annotations

import threading
from contextlib import suppress

from tests.fakes.ec2.account import Account
from tests.fakes.ec2.server import Ec2Server

if __name__ == "__main__":
    server = Ec2Server(Account(start=None))
    print(server.url, flush=True)  # noqa: T201 - whoever starts it reads where it listens
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    server.close()
