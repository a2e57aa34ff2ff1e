"""Bare web apps, the floors of what a framework costs, and running one of them as a process.

python -m bench.http_peers.apps starlette
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

BODY = json.dumps(
    {
        "name": "train-7",
        "queue": "default",
        "priority": 3,
        "gpus": 1,
        "command": "python train.py --lr 3e-4 --seed 7",
        "env": {"WANDB_MODE": "offline"},
    }
)


class JobIn(BaseModel):
    """A job as a bare app takes it."""

    name: str
    queue: str
    priority: int
    gpus: int
    command: str
    env: dict[str, str]


class JobOut(JobIn):
    """A job as a bare app answers with it."""

    id: str
    state: str


def fastapi_app() -> ASGIApp:
    """One POST with models in and out that does nothing."""
    app = FastAPI()

    @app.post("/jobs")
    async def submit(job: JobIn) -> JobOut:
        return JobOut(id="j-1", state="queued", **dict(job))

    return app


def starlette_app() -> ASGIApp:
    """One POST with JSON in and out that does nothing."""

    async def submit(request: Request) -> Response:
        job = await request.json()
        return JSONResponse({"id": "j-1", "state": "queued", **job})

    return Starlette(routes=[Route("/jobs", submit, methods=["POST"])])


def floor_app() -> ASGIApp:
    """Submit wakes a worker's long poll, which starts the process: the least that does it, with
    nothing kept anywhere."""
    app = FastAPI()
    waiting: asyncio.Queue[JobIn] = asyncio.Queue()

    @app.post("/jobs")
    async def submit(job: JobIn) -> JobOut:
        waiting.put_nowait(job)
        return JobOut(id="j-1", state="queued", **dict(job))

    @app.post("/claim")
    async def claim() -> JobIn:
        return await waiting.get()

    return app


APPS: dict[str, Callable[[], ASGIApp]] = {
    "fastapi": fastapi_app,
    "starlette": starlette_app,
    "floor": floor_app,
}


class _Server(uvicorn.Server):
    """Says where it is as soon as it answers."""

    async def startup(self, sockets: list[object] | None = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        say(self.servers[0].sockets[0].getsockname()[1])


def say(port: int) -> None:
    """Tell who started this process where it listens."""
    print(port, flush=True)


def heard(process: subprocess.Popen[str]) -> int:
    """The port that a process says it listens on. Raises `RuntimeError` when it ends before."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} does not start")
    return int(line)


def run(app: ASGIApp) -> None:
    """Answer until killed."""
    config = uvicorn.Config(
        app, port=0, log_level="warning", access_log=False, timeout_keep_alive=75
    )
    _Server(config).run()


if __name__ == "__main__":
    run(APPS[sys.argv[1]]())
