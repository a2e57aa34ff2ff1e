"""The typed Python client of the API: one attribute a noun.

    client = orchctl.Client()                     # the current context
    job = client.jobs.submit(command="python train.py", queue="default", gpu="L4:1")
    job = client.jobs.wait(job.id)

Every call raises a class of `orchctl.errors`; listings are iterators that fetch page after page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from control_plane.core.access import Federation
from control_plane.core.codec import from_json
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Event, JobState
from orchctl import contexts
from orchctl.errors import NotFound
from orchctl.http import Transport, not_understood, parsed
from orchctl.views import (
    AutoscalerView,
    CostReport,
    CostRow,
    Explanation,
    Health,
    JobView,
    LogChunk,
    MachineView,
    NewTokenView,
    OfferView,
    PlanView,
    Preview,
    QueueView,
    SessionView,
    TokenView,
    WaitsView,
    WhoView,
)

if TYPE_CHECKING:
    import httpx2

    from orchctl.capture import Captured

LOG_CHUNK_BYTES = 1_000_000
FOLLOW_PAUSE_S = 1.0
WAIT_STEP_S = 20.0
"""One long poll: below the half minute after which gateways give up on a silent request."""

T = TypeVar("T")


class Client:
    """A connection to one control plane; usable as a context manager.

    Without arguments it talks to the current context: `ORCHCTL_SERVER` and `ORCHCTL_TOKEN` win over
    the contexts file. Raises `InvalidInput` when no server is chosen."""

    def __init__(
        self,
        server: str = "",
        token: str = "",
        *,
        context: str = "",
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        target = contexts.resolve(context=context, server=server, token=token)
        self.transport = Transport(
            target.server.value, target.token.value, transport=transport, sleep=sleep
        )
        self.autoscalers = Autoscalers(self.transport)
        self.queues = Queues(self.transport)
        self.jobs = Jobs(self.transport, sleep)
        self.machines = Machines(self.transport)
        self.tokens = Tokens(self.transport)
        self.federations = Federations(self.transport)
        self._sleep = sleep

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self.transport.close()

    def health(self) -> Health:
        """Whether the server works; needs no token."""
        return _read(Health, self.transport.get("/v1/health"))

    def whoami(self) -> WhoView:
        """Who you are for this server, and what you may do. Raises `Denied`."""
        return _read(WhoView, self.transport.get("/v1/whoami"))

    def exchange(self, token: str) -> SessionView:
        """A session for what a CI system's issuer has signed; good once. Raises `Denied`."""
        return _read(SessionView, self.transport.post("/v1/sessions", {"token": token}))

    def costs(
        self, *, by: Sequence[str] = ("queue",), since: str = "30d", step: str = "day"
    ) -> CostReport:
        """What was spent, grouped by `queue`, `cloud`, `market`, `pool`, `region`, `type`, `owner`,
        `job` or `machine`; `since` is a duration such as `30d` or a date."""
        data = self.transport.get("/v1/costs", by=",".join(by), since=since, step=step)
        return _read(CostReport, data)

    def events(self, *, kind: str = "", subject: str = "") -> Iterator[Event]:
        """What happened, newest first."""
        return _pages(self.transport, Event, "/v1/events", kind=kind, subject=subject)

    def offers(self, *, pool: str = "") -> Iterator[OfferView]:
        """What can be bought."""
        return _pages(self.transport, OfferView, "/v1/offers", pool=pool)

    def reconcile(self) -> None:
        """Wake the loop now instead of at its next tick."""
        self.transport.post("/v1/reconcile")


class Tokens:
    """Tokens of people and programs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[TokenView]:
        """All of them, oldest first."""
        return _pages(self._transport, TokenView, "/v1/tokens")

    def create(
        self, name: str, *, role: str, queues: Sequence[str], expires_at: datetime | None = None
    ) -> NewTokenView:
        """Make one; `queues` is `["*"]` for all. Its text is in this answer alone."""
        body = {
            "name": name,
            "role": role,
            "queues": list(queues),
            "expires_at": expires_at.isoformat() if expires_at else None,
        }
        return _read(NewTokenView, self._transport.post("/v1/tokens", body))

    def revoke(self, token_id: str) -> None:
        """End it now. Raises `NotFound`."""
        self._transport.request("DELETE", _path("tokens", token_id))


class Federations:
    """CI systems and other issuers whose word is taken."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Federation]:
        """All of them, by name."""
        return _pages(self._transport, Federation, "/v1/federations")

    def get(self, name: str) -> Federation:
        """Raises `NotFound`."""
        return _read(Federation, self._transport.get(_path("federations", name)))

    def apply(self, name: str, document: Mapping[str, Any], *, expected_version: int) -> Federation:
        """Make this the federation of that name; `expected_version` is the version it was compared
        with, 0 = it is new. Raises `Conflict`, `InvalidInput` for one that lets in strangers."""
        response = self._transport.request(
            "PUT",
            _path("federations", name),
            body=document,
            headers=_expected(expected_version),
        )
        return _read(Federation, parsed(response))

    def version(self, name: str) -> int:
        """The applied version, 0 when there is none."""
        try:
            return self.get(name).version
        except NotFound:
            return 0

    def remove(self, name: str) -> None:
        """Take its word no more. Raises `NotFound`."""
        self._transport.request("DELETE", _path("federations", name))


class Autoscalers:
    """Declared documents."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[AutoscalerView]:
        """All of them, by name."""
        return _pages(self._transport, AutoscalerView, "/v1/autoscalers")

    def get(self, name: str) -> AutoscalerView:
        """The applied version. Raises `NotFound`."""
        return _read(AutoscalerView, self._transport.get(_path("autoscalers", name)))

    def history(self, name: str) -> Iterator[AutoscalerView]:
        """All versions, newest first."""
        return _pages(self._transport, AutoscalerView, _path("autoscalers", name, "history"))

    def plans(self, name: str) -> Iterator[PlanView]:
        """The plans that did or refused something, newest first."""
        return _pages(self._transport, PlanView, _path("autoscalers", name, "plans"))

    def preview(self, name: str, document: str, *, expected_version: int) -> Preview:
        """What `apply` with the same arguments would change; writes nothing. Raises `ConfigError`,
        `Conflict`."""
        response = self._transport.request(
            "PUT",
            _path("autoscalers", name),
            query={"dry_run": "true"},
            body={"document": document},
            headers=_expected(expected_version),
        )
        return _read(Preview, parsed(response))

    def apply(self, name: str, document: str, *, expected_version: int) -> AutoscalerView:
        """Make a document the applied one; `expected_version` is the version it was compared with,
        0 = it is new. Raises `Conflict` when somebody else applied since, `ConfigError`."""
        response = self._transport.request(
            "PUT",
            _path("autoscalers", name),
            body={"document": document},
            headers=_expected(expected_version),
        )
        return _read(AutoscalerView, parsed(response))

    def version(self, name: str) -> int:
        """The applied version, 0 when there is none."""
        try:
            return self.get(name).version
        except NotFound:
            return 0

    def pause(self, name: str) -> None:
        """No launches; running jobs finish, idle machines still end."""
        self._transport.post(_path("autoscalers", name, "pause"))

    def resume(self, name: str) -> None:
        """The opposite of `pause`."""
        self._transport.post(_path("autoscalers", name, "resume"))

    def delete(self, name: str) -> None:
        """Drain its machines, then forget it. Raises `NotFound`."""
        self._transport.request("DELETE", _path("autoscalers", name))

    def explain(self, name: str, queue: str) -> Explanation:
        """Why a queue has the machines it has. Raises `NotFound`."""
        data = self._transport.get(_path("autoscalers", name, "explain"), queue=queue)
        return _read(Explanation, data)


class Queues:
    """Ordered lists of waiting jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[QueueView]:
        """All of them, by name."""
        return _pages(self._transport, QueueView, "/v1/queues")

    def get(self, name: str) -> QueueView:
        """Raises `NotFound`."""
        return _read(QueueView, self._transport.get(_path("queues", name)))

    def create(
        self,
        name: str,
        *,
        max_running: int | None = None,
        max_running_per_owner: int | None = None,
    ) -> QueueView:
        """A queue outside any document, for own workers. Raises `Conflict` when it exists."""
        body = {
            "name": name,
            "max_running": max_running,
            "max_running_per_owner": max_running_per_owner,
        }
        return _read(QueueView, self._transport.post("/v1/queues", body))

    def limit(
        self, name: str, *, max_running: int | None, max_running_per_owner: int | None
    ) -> QueueView:
        """How many of its jobs may run at a time; None = no limit. Raises `Refused` for a queue
        that a document declares."""
        body = {"max_running": max_running, "max_running_per_owner": max_running_per_owner}
        response = self._transport.request("PUT", _path("queues", name, "limits"), body=body)
        return _read(QueueView, parsed(response))

    def waits(self, name: str) -> WaitsView:
        """How long the jobs waited that were taken from it last."""
        return _read(WaitsView, self._transport.get(_path("queues", name, "waits")))

    def redrive(self, name: str) -> Sequence[str]:
        """Hand in its failed and exhausted jobs again, each only once; returns the new ids."""
        return tuple(self._transport.post(_path("queues", name, "redrive"))["jobs"])

    def delete(self, name: str) -> None:
        """Raises `Refused` while a job in it has not ended."""
        self._transport.request("DELETE", _path("queues", name))

    def pause(self, name: str) -> None:
        """Its waiting jobs stay waiting."""
        self._transport.post(_path("queues", name, "pause"))

    def resume(self, name: str) -> None:
        """The opposite of `pause`."""
        self._transport.post(_path("queues", name, "resume"))

    def clear(self, name: str) -> Sequence[str]:
        """Cancel every waiting job; returns their ids."""
        return tuple(self._transport.post(_path("queues", name, "clear"))["cancelled"])

    def clear_preview(self, name: str) -> int:
        """How many jobs `clear` would cancel; cancels nothing."""
        path = _path("queues", name, "clear")
        return int(self._transport.post(path, query={"dry_run": "true"})["would_cancel"])


class Jobs:
    """Commands to run."""

    def __init__(self, transport: Transport, sleep: Callable[[float], None]) -> None:
        self._transport = transport
        self._sleep = sleep

    def submit(
        self,
        *,
        command: str,
        queue: str = "default",
        name: str = "",
        gpu: str = "",
        cpu: int = 0,
        memory: str = "",
        disk: str = "",
        market: str = "",
        env: Mapping[str, str] | None = None,
        python: str = "",
        requirements: Sequence[str] = (),
        artifacts: Sequence[str] = (),
        source: Captured | None = None,
        timeout: str = "",
        grace: str = "10s",
        max_attempts: int = 1,
        max_machine_losses: int = 5,
        priority: int = 0,
        owner: str = "",
        labels: Mapping[str, str] | None = None,
        not_before: datetime | None = None,
        depends_on: Sequence[str] = (),
        idempotency_key: str = "",
    ) -> JobView:
        """Hand in one shell command line; returns the queued job.

        `gpu` is like `L4:1`, `memory` and `disk` like `16GB`, `timeout` and `grace` like `2h`.
        `source` comes from `orchctl.capture.capture()`. It starts at `not_before` at the earliest,
        and when the jobs of `depends_on` have succeeded. The same `idempotency_key` never makes a
        second job. Raises `InvalidInput`, `NotFound` for an unknown queue, `Refused` when no
        machine could ever run it."""
        body = {
            "command": command,
            "queue": queue,
            "name": name,
            "gpu": gpu,
            "cpu": cpu,
            "memory": memory,
            "disk": disk,
            "market": market,
            "env": dict(env or {}),
            "python": python,
            "requirements": list(requirements),
            "artifacts": list(artifacts),
            "source": self.upload(source) if source else None,
            "timeout": timeout,
            "grace": grace,
            "max_attempts": max_attempts,
            "max_machine_losses": max_machine_losses,
            "priority": priority,
            "owner": owner,
            "labels": dict(labels or {}),
            "not_before": not_before.isoformat() if not_before else None,
            "depends_on": list(depends_on),
        }
        return _read(JobView, self._transport.post("/v1/jobs", body, key=idempotency_key))

    def upload(self, source: Captured) -> dict[str, str]:
        """Store a captured directory's archive; returns the `source` of a job."""
        blob = ""
        if source.archive:
            response = self._transport.request(
                "PUT",
                f"/v1/blobs/sources/{source.sha256}",
                content=source.archive,
                headers={"Content-Type": "application/gzip"},
                timeout_s=300.0,
            )
            blob = str(parsed(response)["blob"])
        return {
            "kind": source.kind,
            "blob": blob,
            "sha256": source.sha256,
            "remote": source.remote,
            "commit": source.commit,
            "summary": source.summary,
        }

    def list(
        self, *, queue: str = "", state: str = "", machine: str = "", page_size: int = 100
    ) -> Iterator[JobView]:
        """Jobs, newest first; waiting jobs of one queue in the order they will be taken."""
        return _pages(
            self._transport,
            JobView,
            "/v1/jobs",
            queue=queue,
            state=state,
            machine=machine,
            limit=page_size,
        )

    def get(self, job_id: str) -> JobView:
        """Raises `NotFound`."""
        return _read(JobView, self._transport.get(_path("jobs", job_id)))

    def attempts(self, job_id: str) -> Iterator[Attempt]:
        """Its attempts, first to last."""
        return _pages(self._transport, Attempt, _path("jobs", job_id, "attempts"))

    def cost(self, job_id: str) -> CostRow:
        """What it has cost so far, all attempts together."""
        return _read(CostRow, self._transport.get(_path("jobs", job_id, "cost")))

    def events(self, job_id: str) -> Iterator[Event]:
        """What happened to it, newest first."""
        return _pages(self._transport, Event, "/v1/events", kind="job", subject=job_id)

    def cancel(self, job_id: str) -> JobView:
        """A waiting job ends at once, a running one after its grace time."""
        return _read(JobView, self._transport.post(_path("jobs", job_id, "cancel")))

    def retry(self, job_id: str) -> JobView:
        """A new job with the same specification."""
        return _read(JobView, self._transport.post(_path("jobs", job_id, "retry")))

    def clone(
        self,
        job_id: str,
        *,
        set_env: Mapping[str, str] | None = None,
        queue: str = "",
        command: str = "",
    ) -> JobView:
        """A new job like this one, with some environment values, queue or command replaced."""
        body: dict[str, Any] = {"set": dict(set_env or {})}
        body |= {name: value for name, value in (("queue", queue), ("command", command)) if value}
        return _read(JobView, self._transport.post(_path("jobs", job_id, "clone"), body))

    def move(self, job_id: str, *, place: str, of: str = "", queue: str = "") -> JobView:
        """Put a waiting job at the `top` or `bottom` of a queue, or `before` or `after` the job
        `of`. Raises `Conflict` when it changed meanwhile, `Refused` when it does not wait."""
        body = {"place": place}
        body |= {name: value for name, value in (("queue", queue), ("of", of)) if value}
        response = self._transport.request(
            "PUT",
            _path("jobs", job_id, "position"),
            body=body,
            headers=_expected(self.get(job_id).version),
        )
        return _read(JobView, parsed(response))

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> JobView:
        """The job when it has ended, or as it is after `timeout_s`."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            step = round(max(0.0, min(WAIT_STEP_S, deadline - time.monotonic())), 3)
            response = self._transport.request(
                "GET",
                _path("jobs", job_id, "wait"),
                query={"timeout_s": step},
                timeout_s=step + 30,
            )
            job = _read(JobView, parsed(response))
            if job.ended or time.monotonic() >= deadline:
                return job

    def log(self, job_id: str, *, offset: int = 0, limit: int = LOG_CHUNK_BYTES) -> LogChunk:
        """A piece of the log, from a byte offset."""
        query = {"offset": offset, "limit": limit}
        response = self._transport.request("GET", _path("jobs", job_id, "logs"), query=query)
        return LogChunk(
            data=response.content,
            size=int(response.headers.get("X-Log-Size", offset + len(response.content))),
            epoch=response.headers.get("X-Log-Epoch", ""),
            state=JobState(response.headers["X-Job-State"]),
        )

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[bytes]:
        """The log in pieces; with `follow` until the job has ended, through all its attempts."""
        offset, epoch = 0, ""
        while True:
            chunk = self.log(job_id, offset=offset)
            if offset and chunk.epoch != epoch:
                offset = 0  # another attempt writes now: this piece began in the middle of its log
                continue
            epoch = chunk.epoch
            offset += len(chunk.data)
            if chunk.data:
                yield chunk.data
            if offset < chunk.size and chunk.data:
                continue
            if not follow or chunk.state in JOB_ENDED:
                return
            self._sleep(FOLLOW_PAUSE_S)

    def artifacts(self, job_id: str) -> Iterator[Artifact]:
        """The files its last attempt left."""
        return _pages(self._transport, Artifact, _path("jobs", job_id, "artifacts"))

    def artifact(self, job_id: str, name: str) -> bytes:
        """One of these files."""
        path = _path("jobs", job_id, "artifacts") + "/" + quote(name)
        return self._transport.request("GET", path, timeout_s=300.0).content


class Machines:
    """VMs, local processes and own boxes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, all: bool = False) -> Iterator[MachineView]:  # noqa: A002 - the API's word
        """Machines that exist; with `all` ended ones too."""
        return _pages(self._transport, MachineView, "/v1/machines", all="true" if all else None)

    def get(self, machine_id: str) -> MachineView:
        """Raises `NotFound`."""
        return _read(MachineView, self._transport.get(_path("machines", machine_id)))

    def events(self, machine_id: str) -> Iterator[Event]:
        """What happened to it, newest first."""
        return _pages(self._transport, Event, _path("machines", machine_id, "events"))

    def drain(self, machine_id: str) -> None:
        """It takes no new job and ends when its jobs have."""
        self._transport.post(_path("machines", machine_id, "drain"))

    def protect(self, machine_id: str) -> None:
        """It is not ended for idleness."""
        self._transport.post(_path("machines", machine_id, "protect"))

    def unprotect(self, machine_id: str) -> None:
        """The opposite of `protect`."""
        self._transport.post(_path("machines", machine_id, "unprotect"))

    def terminate(self, machine_id: str) -> None:
        """End it now; its jobs go back to their queues."""
        self._transport.post(_path("machines", machine_id, "terminate"))


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _expected(version: int) -> dict[str, str]:
    return {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"}


def _read(kind: type[T], data: Any) -> T:
    try:
        return from_json(kind, data)
    except ValueError as error:
        raise not_understood(str(error)) from error


def _pages(transport: Transport, kind: type[T], path: str, /, **query: object) -> Iterator[T]:
    cursor = ""
    while True:
        page = transport.get(path, **query, cursor=cursor)
        for item in page["items"]:
            yield _read(kind, item)
        cursor = page.get("cursor") or ""
        if not cursor:
            return
