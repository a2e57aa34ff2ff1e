"""Jobs: hand in, look, end, repeat, move; their logs, artifacts and sources."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from control_plane.access.who import Identity
from control_plane.agents import log_key
from control_plane.api import positions
from control_plane.api.deps import ApiDeps
from control_plane.api.edge import BYTES_MAX_BYTES
from control_plane.api.etags import conditional, etag, expected, matches, required
from control_plane.api.idempotency import REPEATED, reused, scoped_key
from control_plane.api.names import SHA256
from control_plane.api.parameters import (
    Actor,
    Deps,
    IdempotencyKey,
    IfMatch,
    IfNoneMatch,
    Paged,
    PathId,
    QueryId,
    QueryName,
    Who,
)
from control_plane.api.polling import poll
from control_plane.api.redirects import redirect
from control_plane.api.repeats import is_repeat
from control_plane.api.requests import CloneRequest, JobRequest, PositionRequest, SourceRequest
from control_plane.api.views import (
    NO_HEADERS,
    JobView,
    Listing,
    StoredBlob,
    UploadView,
    job_view,
    not_modified,
    send,
    send_all,
    send_page,
)
from control_plane.core.access import Role
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Job, JobState
from control_plane.errors import InvalidInput, NotFound, Refused
from control_plane.ports import Page
from control_plane.reports import costs
from control_plane.reports.costs import CostRow

LOG_LIMIT = 1024 * 1024
LOG_LIMIT_MAX = 8 * 1024 * 1024
WAIT_MAX_S = 60.0

router = APIRouter(prefix="/v1", tags=["jobs"])

_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_ELSEWHERE = {"description": "It is at `Location`, to be fetched without a token."}
_STATES = "|".join(JobState)


@router.post("/jobs", response_model=JobView, status_code=201, operation_id="submit_job")
async def submit_job(
    body: JobRequest, request: Request, deps: Deps, who: Who, key: IdempotencyKey = ""
) -> Response:
    """Hand in a job. The same idempotency key never makes a second one: a repeat is answered with
    the job as it is now."""
    return await deps.together.do(lambda: _submit(deps, who, body, request, key))


@router.get("/jobs", response_model=Listing[JobView], operation_id="list_jobs")
def list_jobs(
    deps: Deps,
    paging: Paged,
    who: Who,
    queue: QueryName = "",
    state: Annotated[str, Query(pattern=f"^(({_STATES})(,({_STATES}))*)?$", max_length=200)] = "",
    machine: QueryId = "",
) -> Response:
    """Jobs that you may look at, newest first; the waiting ones of one queue in the order they will
    be taken. A page may be short with more to come."""
    if queue:
        who.require(Role.VIEWER, queue)
    page = deps.store.job_list(
        queue=queue,
        states=frozenset(JobState(each) for each in state.split(",") if each),
        machine_id=machine,
        cursor=paging.cursor,
        limit=paging.limit,
    )
    seen = [job for job in page.items if who.sees(job.queue)]
    places = positions.of_jobs(deps.store, seen, deps.clock.now())
    views = tuple(job_view(job, places.get(job.id)) for job in seen)
    return send_page(Page(items=views, cursor=page.cursor), paging)


@router.get("/jobs/{job_id}", response_model=JobView, operation_id="get_job")
def get_job(job_id: PathId, deps: Deps, if_none_match: IfNoneMatch = "") -> Response:
    """One job."""
    job = deps.store.job_get(job_id)
    # A waiting job's place changes without the job.
    if job.state is not JobState.QUEUED and matches(if_none_match, etag(job.version)):
        return not_modified(job.version)
    return _send(deps, job)


@router.get("/jobs/{job_id}/wait", response_model=JobView, operation_id="wait_for_job")
async def wait_for_job(
    job_id: PathId,
    request: Request,
    deps: Deps,
    timeout_s: Annotated[float, Query(ge=0, le=WAIT_MAX_S, allow_inf_nan=False)] = 20.0,
) -> Response:
    """The job as soon as it has ended, or as it is when the time is over."""
    job = await poll(
        request.receive,
        deps.changes,
        lambda: run_in_threadpool(deps.store.job_get, job_id),
        wait_s=lambda found: 0.0 if found.state in JOB_ENDED else timeout_s,
    )
    return await run_in_threadpool(_send, deps, job)


@router.get("/jobs/{job_id}/attempts", response_model=Listing[Attempt], operation_id="job_attempts")
def job_attempts(job_id: PathId, deps: Deps) -> Response:
    """Its attempts, first to last."""
    deps.store.job_get(job_id)
    return send_all(deps.store.job_attempts(job_id))


@router.get("/jobs/{job_id}/cost", response_model=CostRow, operation_id="job_cost")
def job_cost(job_id: PathId, deps: Deps) -> Response:
    """What it has cost so far, all attempts together."""
    deps.store.job_get(job_id)
    attempts = deps.store.job_attempts(job_id)
    return send(costs.job_cost(deps.store, job_id, attempts, deps.clock.now()))


@router.post("/jobs/{job_id}/cancel", response_model=JobView, operation_id="cancel_job")
def cancel_job(job_id: PathId, deps: Deps, actor: Actor, _key: IdempotencyKey = "") -> Response:
    """End it: at once while it waits, through its agent while it runs."""
    return _send(deps, deps.service.cancel(job_id, actor=actor))


@router.post(
    "/jobs/{job_id}/retry", response_model=JobView, status_code=201, operation_id="retry_job"
)
def retry_job(
    job_id: PathId, request: Request, deps: Deps, actor: Actor, key: IdempotencyKey = ""
) -> Response:
    """A new job like this one, which has ended."""
    job = deps.service.retry(job_id, actor=actor, idempotency_key=scoped_key(request, key))
    return _created(deps, job)


@router.post(
    "/jobs/{job_id}/clone", response_model=JobView, status_code=201, operation_id="clone_job"
)
def clone_job(
    job_id: PathId,
    request: Request,
    deps: Deps,
    who: Who,
    body: CloneRequest | None = None,
    key: IdempotencyKey = "",
) -> Response:
    """A new job like this one, with some things changed."""
    change = body or CloneRequest()
    if change.queue:
        who.require(Role.SUBMITTER, change.queue)
    job = deps.service.again(
        job_id,
        command=change.command or "",
        queue=change.queue or "",
        env=change.set,
        actor=who.actor,
        idempotency_key=scoped_key(request, key),
    )
    return _created(deps, job)


@router.put("/jobs/{job_id}/position", response_model=JobView, operation_id="move_job")
def move_job(
    job_id: PathId, body: PositionRequest, deps: Deps, who: Who, if_match: IfMatch = ""
) -> Response:
    """Put a waiting job elsewhere in its queue, or into another one."""
    if body.queue:
        who.require(Role.OPERATOR, body.queue)
    wanted = required(expected(if_match), "send the job's ETag as `If-Match`")
    with conditional():
        job = deps.service.move(
            job_id,
            queue=body.queue or "",
            place=body.wanted(),
            expected_version=wanted.version,
            actor=who.actor,
        )
    return _send(deps, job)


# -------------------------------------------------------------------------------------- bytes


@router.get(
    "/jobs/{job_id}/logs",
    response_class=Response,
    responses={200: _TEXT},
    operation_id="job_logs",
)
def job_logs(
    job_id: PathId,
    deps: Deps,
    offset: Annotated[int, Query(ge=0, lt=2**53)] = 0,
    limit: Annotated[int, Query(ge=0, le=LOG_LIMIT_MAX)] = LOG_LIMIT,
    attempt_epoch: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> Response:
    """A piece of the log of its last attempt that wrote one, or of the attempt asked for; it may be
    shorter than `limit` before the end.

    `X-Log-Size` is what there is now. `X-Log-Epoch` changes when another attempt has begun to
    write; its log starts at 0."""
    job = deps.store.job_get(job_id)
    epoch = _last_log(deps, job) if attempt_epoch is None else attempt_epoch
    key = log_key(job_id, epoch)
    limit = min(limit, deps.settings.log_piece_bytes)
    # The size is taken after the bytes: it may only be larger than what was sent, never smaller.
    data = deps.blobs.read(key, offset, limit)
    headers = {
        "X-Log-Size": str(deps.blobs.size(key)),
        "X-Log-Epoch": str(epoch),
        "X-Job-State": job.state.value,
    }
    return Response(data, 200, headers, "text/plain; charset=utf-8")


@router.get(
    "/jobs/{job_id}/artifacts", response_model=Listing[Artifact], operation_id="job_artifacts"
)
def job_artifacts(job_id: PathId, deps: Deps) -> Response:
    """The files that its last ended attempt left."""
    deps.store.job_get(job_id)
    return send_all(deps.store.job_artifacts(job_id))


@router.get(
    "/jobs/{job_id}/artifacts/{name:path}",
    response_class=Response,
    responses={200: _BYTES, 307: _ELSEWHERE},
    operation_id="job_artifact",
)
def job_artifact(
    job_id: PathId,
    name: Annotated[str, Path(max_length=400)],
    deps: Deps,
    if_none_match: IfNoneMatch = "",
) -> Response:
    """One of these files, as bytes."""
    found = next((each for each in deps.store.job_artifacts(job_id) if each.name == name), None)
    if found is None:
        raise NotFound(f"job {job_id} left no such file")
    tag = f'"{found.sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    file_name = name.rpartition("/")[2]
    elsewhere = deps.direct.download(found.blob, size=found.size_bytes, name=file_name)
    if elsewhere:
        return redirect(elsewhere)
    # Never shown in place: a job's file may be a page with a script in it.
    headers["Content-Disposition"] = "attachment"
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(deps.blobs.get(found.blob), 200, headers, kind)


@router.get(
    "/blobs/sources/{sha256}/upload",
    response_model=UploadView,
    operation_id="where_to_put_source",
)
def where_to_put_source(
    sha256: Annotated[str, Path(pattern=SHA256)],
    size_bytes: Annotated[int, Query(ge=1, le=BYTES_MAX_BYTES)],
    deps: Deps,
) -> Response:
    """Where to PUT a job's archive of that many bytes: a server behind a gateway takes large ones
    past itself."""
    to = deps.direct.upload(f"sources/{sha256}", size=size_bytes, sha256=sha256)
    return send(UploadView(url=to.url, headers=to.headers) if to else UploadView())


@router.put(
    "/blobs/sources/{sha256}",
    response_model=StoredBlob,
    status_code=201,
    openapi_extra={
        "requestBody": {
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
            "required": True,
        }
    },
    operation_id="put_source",
)
async def put_source(
    sha256: Annotated[str, Path(pattern=SHA256)], request: Request, deps: Deps
) -> Response:
    """Store a job's archive under the hash of its bytes; repeating it changes nothing."""
    data = await request.body()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InvalidInput("these bytes have another SHA-256", fix="send the archive again")
    key = f"sources/{sha256}"
    await run_in_threadpool(deps.blobs.put, key, data)
    return send(StoredBlob(blob=key), 201)


# ------------------------------------------------------------------------------------- shared


def _send(deps: ApiDeps, job: Job) -> Response:
    place = positions.of_jobs(deps.store, [job], deps.clock.now()).get(job.id)
    return send(job_view(job, place), version=job.version)


def _created(deps: ApiDeps, job: Job, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    place = positions.of_new_job(deps.store, job, deps.clock.now())
    location = f"/v1/jobs/{job.id}"
    return send(job_view(job, place), 201, version=job.version, location=location, headers=headers)


def _submit(deps: ApiDeps, who: Identity, body: JobRequest, request: Request, key: str) -> Response:
    _check_submission(deps, who, body)
    _check_source(deps, body.source)
    submission = body.submission(who.actor)
    job, is_new = deps.service.submit(submission, idempotency_key=scoped_key(request, key))
    # Handing in is what is done most: the job itself says who did it.
    request.state.told = job.owner == who.actor
    if is_new:
        return _created(deps, job)
    if not is_repeat(job, submission):
        raise reused()
    return _created(deps, job, REPEATED)


def _check_submission(deps: ApiDeps, who: Identity, body: JobRequest) -> None:
    """Raise `RoleNeeded`: for a queue that is not theirs, in another's name, or behind a job that
    they may not look at."""
    who.require(Role.SUBMITTER, body.queue)
    if body.owner not in ("", who.actor):
        who.require(Role.OPERATOR, body.queue)
    if not who.grant.everywhere:
        for each in body.depends_on:
            who.require(Role.VIEWER, deps.store.job_get(each).queue)


def _check_source(deps: ApiDeps, source: SourceRequest | None) -> None:
    if source and source.blob and not deps.blobs.size(source.blob):
        raise Refused(
            "the archive of this job is not here",
            fix=f"PUT it to /v1/blobs/{source.blob} first, or to where "
            f"/v1/blobs/{source.blob}/upload says",
        )


def _last_log(deps: ApiDeps, job: Job) -> int:
    """The epoch of the last attempt that wrote a log; the current one when none did."""
    epochs = [job.epoch, *(each.epoch for each in reversed(deps.store.job_attempts(job.id)))]
    return next((each for each in epochs if deps.blobs.size(log_key(job.id, each))), job.epoch)
