"""A table at the end of a bad line, on a clock that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from control_plane.stores.dynamodb.calls import Waiting, connect
from control_plane.stores.dynamodb.client import TableClient


@dataclass(kw_only=True)
class Clock:
    """Time passes by sleeping only."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def waiting(self, *, deadline_s: float = 10.0) -> Waiting:
        return Waiting(sleep=self.sleep, monotonic=lambda: self.now, deadline_s=deadline_s)


@contextmanager
def line_to(
    url: str,
    *,
    table: str = "jobs",
    account: str = "100000000000",
    clock: Clock | None = None,
    deadline_s: float = 10.0,
    read_timeout_s: float = 4.0,
) -> Iterator[TableClient]:
    """The table of that name at the other end."""
    client = connect(
        region="eu-central-1",
        endpoint_url=url,
        access_key=account,
        secret_key="any",
        read_timeout_s=read_timeout_s,
    )
    waiting = (clock or Clock()).waiting(deadline_s=deadline_s)
    made = TableClient(client, table, waiting=waiting)
    yield made
    made.close()
