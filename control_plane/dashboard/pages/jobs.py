"""Jobs: the list by state, and one job with its attempts, cost and log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from control_plane.agents import log_key
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Artifact, Attempt, Job, JobState
from control_plane.dashboard import format as fmt
from control_plane.dashboard.deps import Deps
from control_plane.dashboard.pages.activity import event_table
from control_plane.dashboard.parts import Action, Cell, Empty, Fact, Table, badge, fact, num, url
from control_plane.reports.costs import CostRow, job_cost
from control_plane.reports.stories import job_story

TAIL_BYTES = 32_768
"""Of the log in the page itself; the script follows from there, the rest is a link."""

EVENTS_MAX = 50

STATES: Mapping[str, frozenset[JobState]] = {
    "waiting": frozenset({JobState.QUEUED}),
    "blocked": frozenset({JobState.BLOCKED}),
    "running": frozenset({JobState.LEASED, JobState.RUNNING}),
    "succeeded": frozenset({JobState.SUCCEEDED}),
    "failed": frozenset({JobState.FAILED, JobState.EXHAUSTED}),
    "cancelled": frozenset({JobState.CANCELLED}),
}
_CSS = {
    JobState.BLOCKED: "plain",
    JobState.LEASED: "info",
    JobState.RUNNING: "info",
    JobState.SUCCEEDED: "good",
    JobState.FAILED: "bad",
    JobState.EXHAUSTED: "bad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPage:
    """A page of the list."""

    note: str
    tabs: Sequence[tuple[str, str, bool]]
    table: Table
    more: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The end of a log, and where the script goes on."""

    text: str
    url: str
    epoch: int
    offset: int
    """Bytes up to the end of `text`."""
    clipped: str
    """Address of the whole when `text` does not begin at its start; else empty."""
    live: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """One job."""

    job_id: str
    name: str
    state: Markup
    command: str
    facts: Sequence[Fact]
    env: Sequence[str]
    """Names only: a value may be a secret, and a page is easily shown around."""
    actions: Sequence[Action]
    attempts: Table
    artifacts: Table
    log: Log
    events: Table


def jobs_page(deps: Deps, *, state: str, queue: str, machine: str, cursor: str) -> JobsPage:
    """Jobs, the newest first. Raises `InvalidInput` for a cursor that is none."""
    states = STATES.get(state, frozenset())
    found = deps.store.job_list(
        queue=queue, states=states, machine_id=machine, cursor=cursor, limit=50
    )
    kept = {"queue": queue, "machine": machine}
    more = url("jobs", state=state, **kept, cursor=found.cursor) if found.cursor else ""
    where = [f"in {queue}"] * bool(queue) + [f"on {machine}"] * bool(machine)
    return JobsPage(
        note=", ".join(where) or "newest first",
        tabs=[
            ("all", url("jobs", **kept), state not in STATES),
            *((each, url("jobs", state=each, **kept), state == each) for each in STATES),
        ],
        table=job_table(found.items, deps.clock.now()),
        more=more,
    )


def job_table(jobs: Sequence[Job], now: datetime) -> Table:
    """A row for each job."""
    return Table(
        columns=(
            ("Job", ""),
            ("Name", ""),
            ("Queue", ""),
            ("State", ""),
            ("Owner", ""),
            ("Needs", ""),
            ("Waited", "num"),
            ("Ran", "num"),
            ("Tries", "num"),
            ("Machine", ""),
            ("Handed in", ""),
        ),
        rows=[_row(each, now) for each in jobs],
        empty=Empty(text="No such job.", command="orchctl run -- python train.py"),
    )


def state_badge(job: Job) -> Markup:
    """Its state as a coloured word."""
    return badge("cancelling" if _cancelling(job) else job.state.value, _CSS.get(job.state, ""))


def job_page(deps: Deps, job_id: str) -> JobPage:
    """One job. Raises `NotFound`."""
    job = deps.store.job_get(job_id)
    attempts = deps.store.job_attempts(job_id)
    now = deps.clock.now()
    costs = job_cost(deps.store, job_id, attempts, now)
    return JobPage(
        job_id=job_id,
        name=job.name,
        state=state_badge(job),
        command=job.spec.command,
        facts=_facts(job, costs, now),
        env=sorted(job.spec.env),
        actions=_actions(job),
        attempts=_attempt_table(attempts, now),
        artifacts=_artifact_table(job_id, deps.store.job_artifacts(job_id)),
        log=_log(deps, job, attempts),
        events=event_table(job_story(deps.store, job_id)[: -EVENTS_MAX - 1 : -1]),
    )


# ------------------------------------------------------------------------------------ the list


def _row(job: Job, now: datetime) -> Sequence[Cell]:
    return (
        Cell(text=job.id, href=url("jobs", job.id), css="id"),
        Cell(text=job.name or _first_words(job.spec.command)),
        Cell(text=job.queue, href=url("queues", job.queue)),
        Cell(text=state_badge(job), tip=job.reason.sentence if job.reason else ""),
        Cell(text=job.owner or fmt.NOTHING),
        Cell(text=fmt.need(job.spec.need)),
        num(_waited(job, now)),
        num(_ran(job, now)),
        num(str(job.attempt)),
        Cell(
            text=job.machine_id or fmt.NOTHING,
            href=url("machines", job.machine_id) if job.machine_id else "",
            css="id",
        ),
        Cell(text=fmt.moment(job.submitted_at), css="when"),
    )


def _first_words(command: str) -> str:
    return command if len(command) <= 40 else f"{command[:39]}…"


def _waited(job: Job, now: datetime) -> str:
    until = job.leased_at or job.finished_at or now
    return fmt.since(job.queued_at, max(until, job.queued_at))


def _ran(job: Job, now: datetime) -> str:
    return fmt.since(job.started_at, job.finished_at or now)


def _cancelling(job: Job) -> bool:
    return job.cancel_requested and job.state not in JOB_ENDED


# ------------------------------------------------------------------------------------- one job


def _facts(job: Job, costs: CostRow, now: datetime) -> Sequence[Fact]:
    spec = job.spec
    code = f", exit code {job.exit_code}" if job.exit_code is not None else ""
    return [
        fact("Queue", job.queue, href=url("queues", job.queue)),
        fact("Owner", job.owner),
        fact(
            "Needs", fmt.need(spec.need), sub="on demand only" if spec.need.on_demand_only else ""
        ),
        fact("Handed in", fmt.moment(job.submitted_at)),
        *([fact("After", _links(job.depends_on))] if job.depends_on else ()),
        *([fact("Not before", fmt.moment(job.not_before))] if job.not_before else ()),
        fact("Waited", _waited(job, now)),
        fact("Ran", _ran(job, now)),
        fact(
            "Machine",
            job.machine_id,
            href=url("machines", job.machine_id) if job.machine_id else "",
        ),
        fact(
            "Cost",
            fmt.cents(costs.cost_usd),
            href=url("cost", by="machine", since="90d", where=f"job:{job.id}"),
            sub=f"{fmt.cents(costs.saved_usd)} saved" if costs.saved_usd else "",
        ),
        fact("Tries", f"{job.attempt} of {spec.max_attempts}", sub=_losses(job)),
        fact("Source", spec.source.summary if spec.source else ""),
        fact(
            "Copy of",
            job.cloned_from,
            href=url("jobs", job.cloned_from) if job.cloned_from else "",
        ),
        fact("Why", f"{job.reason.sentence}{code}" if job.reason else code.lstrip(", ")),
    ]


def _links(job_ids: Sequence[str]) -> Markup:
    """Jobs side by side, each leading to its page."""
    link = Markup('<a href="{}">{}</a>')
    return Markup(", ").join(link.format(url("jobs", each), each) for each in job_ids)


def _losses(job: Job) -> str:
    if not job.machine_losses:
        return ""
    return f"lost its machine {job.machine_losses} of {job.spec.max_machine_losses} times"


def _actions(job: Job) -> Sequence[Action]:
    at = ("jobs", job.id)
    clone = Action(label="clone", url=url(*at, "clone"))
    if job.state in JOB_ENDED:
        return [Action(label="retry", url=url(*at, "retry"), css="primary"), clone]
    waits = job.state in (JobState.QUEUED, JobState.BLOCKED)
    label = "cancel" if waits else "cancel…"
    return [clone, Action(label=label, url=url(*at, "cancel"), css="danger", asks=not waits)]


def _attempt_table(attempts: Sequence[Attempt], now: datetime) -> Table:
    return Table(
        columns=(
            ("Try", "num"),
            ("Machine", ""),
            ("Leased", ""),
            ("Ran", "num"),
            ("Outcome", ""),
            ("Exit", "num"),
            ("Why", "wide"),
        ),
        rows=[
            (
                num(str(each.number)),
                Cell(text=each.machine_id, href=url("machines", each.machine_id), css="id"),
                Cell(text=fmt.clock(each.leased_at), css="when"),
                num(fmt.since(each.started_at, each.ended_at or now)),
                Cell(text=badge(each.outcome or "running", _OUTCOMES.get(each.outcome, "info"))),
                num(fmt.NOTHING if each.exit_code is None else str(each.exit_code)),
                Cell(text=each.reason.sentence if each.reason else "", css="wide"),
            )
            for each in attempts
        ],
        empty=Empty(text="It has not been given to a machine yet."),
    )


_OUTCOMES = {
    "succeeded": "good",
    "failed": "bad",
    "lost": "warn",
    "interrupted": "warn",
    "cancelled": "plain",
    "returned": "plain",
}


def _artifact_table(job_id: str, artifacts: Sequence[Artifact]) -> Table:
    return Table(
        columns=(("File", ""), ("Size", "num"), ("SHA-256", "")),
        rows=[
            (
                Cell(text=each.name, href=f"/v1{url('jobs', job_id, 'artifacts', each.name)}"),
                num(fmt.size(each.size_bytes)),
                Cell(text=each.sha256[:16], css="id"),
            )
            for each in artifacts
        ],
        empty=Empty(text="It has left no files.", command="orchctl run --artifact 'out/*' -- …"),
    )


def _log(deps: Deps, job: Job, attempts: Sequence[Attempt]) -> Log:
    # A job given back has a new epoch and no log yet: what its last attempt said is worth more.
    epochs = [job.epoch, *(each.epoch for each in reversed(attempts))]
    epoch = next((each for each in epochs if deps.blobs.size(log_key(job.id, each))), job.epoch)
    key = log_key(job.id, epoch)
    start = max(0, deps.blobs.size(key) - TAIL_BYTES)
    data = deps.blobs.read(key, start, TAIL_BYTES)
    # The first character may be cut; the broken half of one is not worth showing.
    text = data.decode("utf-8", "replace").lstrip("\ufffd" if start else "")
    address = f"/v1{url('jobs', job.id, 'logs')}"
    return Log(
        text=text,
        url=address,
        epoch=epoch,
        offset=start + len(data),
        clipped=address if start else "",
        live=job.state not in JOB_ENDED,
    )
