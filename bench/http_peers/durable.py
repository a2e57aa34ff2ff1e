"""A bare Starlette app that does durably what our hot endpoints do, with the fewest statements: it
believes every machine, checks nothing, and knows neither limits nor needs nor documents.

    python -m bench.http_peers.durable DIRECTORY

It works on a file that our store made. Requests that come together share a transaction and one trip
to the disk, as ours do.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bench.http_peers.apps import run
from bench.http_peers.ours import EMPTY, IDLE_MACHINE, QUEUE, plane_in
from bench.peers.raw_sqlite import FINISH, IDLE

FIRST = """
    select rowid, id, epoch + 1, attempt + 1, queue, name, need, spec
    from jobs indexed by jobs_ready where queue = ? and lane is not null
    order by lane, priority desc, position, id limit 1"""
LEASE = """
    update jobs set state = 'leased', lane = null, version = version + 1, epoch = epoch + 1,
        attempt = attempt + 1, machine_id = ?, leased_at = ?, reason = null
    where rowid = ?"""
"""Apart from the question, since `returning` takes longer than both."""
BEAT = "update machines set last_beat_at = ? where id = ?"
HELD = """
    select id, epoch, cancel_requested from jobs indexed by jobs_held
    where state in ('leased', 'running') and machine_id = ?"""
START = """
    update jobs set state = 'running', version = version + 1, started_at = ?
    where id = ? and epoch = ? and state = 'leased'"""
ATTEMPT = """
    insert into attempts (
        machine_id, job_id, number, epoch, queue, owner, need, leased_at, started_at, queued_at,
        ended_at, outcome, exit_code, artifacts)
    select machine_id, id, attempt, epoch, queue, owner, need, leased_at, started_at, queued_at,
        finished_at, 'succeeded', 0, '[]'
    from jobs where id = ?"""

Work = Callable[[sqlite3.Connection], Any]


class Together:
    """What requests that come together do with the file."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.execute("pragma synchronous=normal")
        self._file.execute("select 1 from jobs").fetchone()
        self._log = os.open(f"{path}-wal", os.O_RDONLY)
        self._line: list[tuple[Work, asyncio.Future[Any], bool]] = []

    def do(self, work: Work, *, lasting: bool = True) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._line.append((work, future, lasting))
        if len(self._line) == 1:
            loop.call_soon(self._gather, loop, 0)
        return future

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int) -> None:
        """Go when a turn of the loop has brought nobody more."""
        if seen < len(self._line):
            loop.call_soon(self._gather, loop, len(self._line))
        else:
            self._go()

    def _go(self) -> None:
        line, self._line = self._line, []
        changes = self._file.total_changes
        self._file.execute("begin immediate")
        found = [work(self._file) for work, _, _ in line]
        self._file.execute("commit")
        if any(lasting for _, _, lasting in line) and self._file.total_changes != changes:
            os.fdatasync(self._log)
        for (_, future, _), each in zip(line, found, strict=True):
            if not future.done():
                future.set_result(each)


def app(path: Path) -> ASGIApp:
    together = Together(path)

    async def claim(request: Request) -> Response:
        await request.json()
        machine_id = _machine_of(request)
        queue = EMPTY if machine_id == IDLE_MACHINE else QUEUE

        def leased(tx: sqlite3.Connection) -> list[dict[str, object]]:
            row = tx.execute(FIRST, (queue,)).fetchone()
            if row is None:
                return []
            tx.execute(LEASE, (machine_id, _now(), row[0]))
            return [_job(*row[1:])]

        return JSONResponse({"jobs": await together.do(leased), "drain": False})

    async def beat(request: Request) -> Response:
        running = (await request.json())["running"]
        machine_id = _machine_of(request)

        def noted(tx: sqlite3.Connection) -> list[tuple[str, int, int]]:
            tx.execute(BEAT, (_now(), machine_id))
            return tx.execute(HELD, (machine_id,)).fetchall()

        held = await together.do(noted, lasting=False)
        names = {f"{job_id}:{epoch}" for job_id, epoch, _ in held}
        return JSONResponse(
            {
                "cancel": [job_id for job_id, _, cancelled in held if cancelled],
                "lost": [name for name in running if name not in names],
            }
        )

    async def start(request: Request) -> Response:
        epoch = (await request.json())["epoch"]
        job_id = request.path_params["job_id"]
        await together.do(lambda tx: tx.execute(START, (_now(), job_id, epoch)))
        return JSONResponse({})

    async def finish(request: Request) -> Response:
        epoch = (await request.json())["epoch"]
        job_id, machine_id = request.path_params["job_id"], _machine_of(request)

        def ended(tx: sqlite3.Connection) -> None:
            now = _now()
            tx.execute(FINISH, (now, job_id, epoch))
            tx.execute(ATTEMPT, (job_id,))
            tx.execute(IDLE, (now, machine_id, machine_id))

        await together.do(ended)
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/v1/agent/claim", claim, methods=["POST"]),
            Route("/v1/agent/beat", beat, methods=["POST"]),
            Route("/v1/agent/jobs/{job_id}/start", start, methods=["POST"]),
            Route("/v1/agent/jobs/{job_id}/finish", finish, methods=["POST"]),
        ]
    )


def _job(
    job_id: str, epoch: int, attempt: int, queue: str, name: str, need: str, spec: str
) -> dict[str, object]:
    return {
        "job_id": job_id,
        "epoch": epoch,
        "attempt": attempt,
        "queue": queue,
        "name": name,
        "need": json.loads(need),
        **json.loads(spec),
    }


def _machine_of(request: Request) -> str:
    return request.headers["authorization"].removeprefix("Bearer ").partition(".")[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


if __name__ == "__main__":
    state_dir = Path(sys.argv[1])
    plane_in(state_dir)
    run(app(state_dir / "orchctl.db"))
