"""The typed Python client of the API: one attribute a noun.

    client = orchctl.Client()                     # the current context
    job = client.jobs.submit(command="python train.py", queue="default", gpu="L4:1")
    job = client.jobs.wait(job.id)

Every call raises a class of `orchctl.errors`; listings are iterators that fetch page after page.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from control_plane.core.access import Federation
from control_plane.core.alerts import Delivery
from control_plane.core.codec import from_json
from control_plane.core.hooks import Hook
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Event, JobState
from orchctl import contexts
from orchctl.errors import NotFound
from orchctl.http import TRANSFER_S, Transport, not_understood, parsed
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

ASK_ABOVE_BYTES = 2**20
"""An archive as small as this any server takes in one request; for a larger one it is asked where
to put it."""
LOG_CHUNK_BYTES = 1_000_000
FOLLOW_PAUSE_S = 1.0
WAIT_STEP_S = 20.0
"""One long poll: below the half minute after which gateways give up on a silent request."""
WAIT_PAUSE_MAX_S = 10.0
"""Between two polls that were answered at once; the first pauses are shorter."""

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
        self.hooks = Hooks(self.transport)
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


class Hooks:
    """Webhooks: jobs that others start, and alerts that were sent."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Hook]:
        """All of them, by name."""
        return _pages(self._transport, Hook, "/v1/hooks")

    def apply(self, name: str, hook: Mapping[str, Any], *, new: bool) -> Hook:
        """Make this the hook of that name; a `new` one must not exist yet. Raises `Conflict`,
        `NotFound` for an unknown queue, `Refused` when no machine could ever run its job."""
        headers = _expected(0) if new else {}
        response = self._transport.request("PUT", _path("hooks", name), body=hook, headers=headers)
        return _read(Hook, parsed(response))

    def address(self, name: str) -> str:
        """Where its sender is to send."""
        return self._transport.server + _path("hooks", name)

    def secret(self, name: str) -> str:
        """What its sender signs with. Raises `NotFound`."""
        return str(self._transport.get(_path("hooks", name, "secret"))["secret"])

    def rotate(self, name: str) -> Hook:
        """Give it another secret; the former one is taken for another day. Raises `NotFound`."""
        return _read(Hook, self._transport.post(_path("hooks", name, "rotate")))

    def remove(self, name: str) -> None:
        """Take nothing for it any more. Raises `NotFound`."""
        self._transport.request("DELETE", _path("hooks", name))

    def deliveries(self, *, limit: int = 100) -> Iterator[Delivery]:
        """Alerts that were sent or are to be, newest first."""
        return _pages(self._transport, Delivery, "/v1/deliveries", limit=limit)

    def alert_secret(self, target: str) -> str:
        """What alerts to the receiver that documents name so are signed with."""
        return str(self._transport.get("/v1/alert-secret", target=target)["secret"])


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
        blob = f"sources/{source.sha256}" if source.archive else ""
        if blob:
            self._store(f"/v1/blobs/{blob}", source.archive)
        return {
            "kind": source.kind,
            "blob": blob,
            "sha256": source.sha256,
            "remote": source.remote,
            "commit": source.commit,
            "summary": source.summary,
        }

    def _store(self, path: str, archive: bytes) -> None:
        size = len(archive)
        if size > ASK_ABOVE_BYTES and self._transport.store(
            f"{path}/upload", {"size_bytes": size}, archive
        ):
            return
        self._transport.request(
            "PUT",
            path,
            content=archive,
            headers={"Content-Type": "application/gzip"},
            timeout_s=TRANSFER_S,
        )

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
        pause_s = FOLLOW_PAUSE_S
        while True:
            began = time.monotonic()
            step = round(max(0.0, min(WAIT_STEP_S, deadline - began)), 3)
            response = self._transport.request(
                "GET",
                _path("jobs", job_id, "wait"),
                query={"timeout_s": step},
                timeout_s=step + 30,
            )
            job = _read(JobView, parsed(response))
            now = time.monotonic()
            if job.ended or now >= deadline:
                return job
            if now - began < step / 2:  # where waiting costs money, the server answers at once
                self._sleep(min(pause_s, deadline - now))
                pause_s = min(pause_s * 1.5, WAIT_PAUSE_MAX_S)

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
        file = io.BytesIO()
        self._transport.download(_artifact_path(job_id, name), file)
        return file.getvalue()

    def download(self, job_id: str, name: str, to: Path) -> None:
        """Write one of these files, of any size, to `to`, whose folder is made when missing. What
        is there is replaced once all of the new file has come."""
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name[:50]}.part")
        try:
            with part.open("wb") as file:
                self._transport.download(_artifact_path(job_id, name), file)
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)


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


def _artifact_path(job_id: str, name: str) -> str:
    return f"{_path('jobs', job_id, 'artifacts')}/{quote(name)}"


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
