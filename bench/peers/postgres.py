"""PostgreSQL without a framework: `for update skip locked`, two transactions per job."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import LiteralString

import psycopg

from bench.peers.servers import Servers
from bench.peers.work import DEPTH, PAYLOAD_BYTES, Kind

SCHEMA: tuple[LiteralString, ...] = (
    """create table jobs (
        id bigint generated always as identity primary key,
        queue text not null,
        prio integer not null default 0,
        seq bigint not null,
        state smallint not null default 0,
        key text unique,
        payload text not null,
        token text,
        worker text,
        lease_exp timestamptz,
        attempts integer not null default 0
    )""",
    "create index ready on jobs (queue, prio, seq) where state = 0",
    "create index leased on jobs (lease_exp) where state = 1",
)
FILL: LiteralString = """
    insert into jobs (queue, seq, key, payload)
    select 'bench', n, 'key-' || n, rpad(n || '-', %s, 'x') from generate_series(1, %s) n"""
CLAIM: LiteralString = """
    update jobs set state = 1, token = %s, worker = %s, lease_exp = now() + interval '1 minute',
        attempts = attempts + 1
    where id = (
        select id from jobs where state = 0 and queue = 'bench'
        order by prio, seq limit 1 for update skip locked)
    returning id, payload"""
FINISH: LiteralString = """
    update jobs set state = 2, token = null, lease_exp = null
    where id = %s and token = %s and state = 1"""


class Postgres:
    """One table, filled anew for each phase."""

    kind: Kind = "processes"

    def __init__(self, servers: Servers) -> None:
        self._where = servers.postgres("raw")
        for statement in SCHEMA:
            run(self._where, statement)

    def ready(self) -> None:
        run(self._where, "truncate jobs restart identity")
        with psycopg.connect(self._where, autocommit=True) as connection:
            connection.execute(FILL, (PAYLOAD_BYTES, DEPTH))
        settle(self._where)

    def opener(self) -> Callable[[int], PostgresWorker]:
        return partial(PostgresWorker, self._where)

    def ended(self) -> int:
        return count(self._where, "select count(*) from jobs where state = 2")

    def rest(self) -> None:
        """The next phase truncates."""


class PostgresWorker:
    """One connection; psycopg prepares both statements after a few runs."""

    def __init__(self, where: str, number: int) -> None:
        self._connection = psycopg.connect(where, autocommit=True)
        self._worker = f"worker-{number}"
        self._tokens = 0

    def claim(self) -> tuple[int, str] | None:
        self._tokens += 1
        token = f"{self._worker}.{self._tokens}"
        row = self._connection.execute(CLAIM, (token, self._worker)).fetchone()
        return None if row is None else (row[0], token)

    def finish(self, job: tuple[int, str]) -> None:
        self._connection.execute(FINISH, job)

    def close(self) -> None:
        self._connection.close()


def run(where: str, statement: LiteralString) -> None:
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(statement)


def count(where: str, question: LiteralString) -> int:
    with psycopg.connect(where, autocommit=True) as connection:
        row = connection.execute(question).fetchone()
        assert row is not None
        return int(row[0])


def settle(where: str) -> None:
    """Statistics and visibility are fresh, and nothing is left to be written from memory."""
    run(where, "vacuum analyze")
    run(where, "checkpoint")
