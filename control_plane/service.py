"""What people do to queues and jobs: where the API, the embedded server and the simulator meet the
store. Every call is one step that may be repeated; none of them talks to a cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches

from control_plane.alerts import tell_of_job
from control_plane.core.job_ids import id_for
from control_plane.core.lifecycle import DEAD_LETTERS, JOB_ENDED
from control_plane.core.model import (
    WHOLE_MACHINE_PPM,
    Event,
    Job,
    JobSpec,
    JobState,
    Need,
    Offer,
    QueueRecord,
    Reason,
)
from control_plane.core.policy import (
    Autoscaler,
    AutoscalerRecord,
    Budget,
    PoolPolicy,
    QueuePolicy,
)
from control_plane.core.reasons import need_text
from control_plane.errors import NotFound, Refused
from control_plane.kept import Kept
from control_plane.ports import Clock, Ending, Ids, Place, PriceBook, Store
from control_plane.timeline import MOVED

INTERRUPTIONS_BEFORE_ON_DEMAND = 3
"""A job that lost this many spot machines goes to on-demand capacity where its pools allow it: by
then another spot try is likelier to waste the work again than to save money."""

RETURNS_MAX = 20
"""How often a job may be given back by nobody's fault before it ends as `exhausted`. One that never
fits into a machine's whole life would else be paid for again and again for ever."""

REDRIVE_MAX = 1000
"""Dead letters handed in again by one call: what a request has time for. Call it again for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job as somebody hands it in."""

    spec: JobSpec
    queue: str = "default"
    name: str = ""
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    not_before: datetime | None = None
    depends_on: tuple[str, ...] = ()
    """Ids of jobs that have to succeed first."""
    cloned_from: str = ""


class Service:
    """Queue and job operations."""

    def __init__(
        self,
        store: Store,
        prices: PriceBook,
        clock: Clock,
        ids: Ids,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after everything that the loop or a waiting agent may want to know
        of. It is a hint: losing it costs time, never a job."""
        self.store = store
        self.prices = prices
        self.clock = clock
        self.ids = ids
        self.changed = changed
        self._autoscalers = Kept(store.autoscaler_get, clock.now)
        self._queues = Kept(store.queue_get, clock.now)

    # ---------------------------------------------------------------------------- jobs

    def submit(self, submission: Submission, *, idempotency_key: str = "") -> tuple[Job, bool]:
        """Take a job and say whether it is new. Raises `NotFound` for an unknown queue or job it
        depends on, and `Refused` for a job that no pool of its queue can ever run, or that depends
        on one that failed."""
        need = self.full_need_in(submission.queue, submission.spec.need)
        spec = replace(submission.spec, need=need)
        now = self.clock.now()
        job, is_new = self.store.job_enqueue(
            Job(
                # A store can tell a repeat by the id alone where the id follows from the key.
                id=id_for(idempotency_key) or self.ids.new("j"),
                queue=submission.queue,
                spec=spec,
                name=submission.name,
                owner=submission.owner,
                labels=submission.labels,
                priority=submission.priority,
                submitted_at=now,
                queued_at=now,
                not_before=submission.not_before,
                depends_on=submission.depends_on,
                cloned_from=submission.cloned_from,
            ),
            idempotency_key=idempotency_key,
        )
        if is_new:
            self.changed()
        return job, is_new

    def cancel(self, job_id: str, *, actor: str = "") -> Job:
        """End a job: a waiting one at once, a running one through its agent."""
        reason = Reason(code="cancelled", sentence=f"cancelled by {actor or 'request'}")
        job = self.store.job_cancel(job_id, reason=reason, now=self.clock.now())
        what = "cancelled" if job.state is JobState.CANCELLED else "cancel requested"
        self.note("job", job_id, what, actor=actor)
        self.changed()
        return job

    def again(
        self,
        job_id: str,
        *,
        command: str = "",
        queue: str = "",
        env: Mapping[str, str] | None = None,
        actor: str = "",
        idempotency_key: str = "",
    ) -> Job:
        """A new job like an earlier one, changed where a value is given. It waits for nothing that
        the earlier one had to wait for."""
        old = self.store.job_get(job_id)
        copy = self._copy(old, actor=actor, command=command, queue=queue, env=env)
        return self._submit_copy(copy, "clone", actor, idempotency_key)[0]

    def retry(self, job_id: str, *, actor: str = "", idempotency_key: str = "") -> Job:
        """A new job like an ended one. Raises `Refused` while the old one has not ended."""
        old = self.store.job_get(job_id)
        if old.state not in JOB_ENDED:
            raise Refused(
                f"job {job_id} is {old.state}, only an ended job can be retried",
                fix=f"orchctl job clone {job_id}",
            )
        return self._submit_copy(self._copy(old, actor=actor), "retry", actor, idempotency_key)[0]

    @staticmethod
    def _copy(
        old: Job,
        *,
        actor: str,
        command: str = "",
        queue: str = "",
        env: Mapping[str, str] | None = None,
    ) -> Submission:
        # The share belongs to the old queue's policy; it is worked out anew for the new one.
        spec = replace(
            old.spec,
            command=command or old.spec.command,
            env={**old.spec.env, **(env or {})},
            need=replace(old.spec.need, share_ppm=0, on_demand_only=False),
        )
        return Submission(
            spec=spec,
            queue=queue or old.queue,
            name=old.name,
            owner=actor or old.owner,
            labels=old.labels,
            priority=old.priority,
            cloned_from=old.id,
        )

    def _submit_copy(
        self, copy: Submission, what: str, actor: str, idempotency_key: str
    ) -> tuple[Job, bool]:
        job, is_new = self.submit(copy, idempotency_key=idempotency_key)
        if is_new:
            self.note("job", job.id, f"{what} of {copy.cloned_from}", actor=actor)
        return job, is_new

    def move(
        self,
        job_id: str,
        *,
        queue: str = "",
        place: Place,
        expected_version: int | None = None,
        actor: str = "",
    ) -> Job:
        """Put a waiting job elsewhere in its queue or into another one."""
        job = self.store.job_get(job_id)
        target = queue or job.queue
        if target != job.queue:
            policy = self.policy_of(target)
            if policy is not None:
                self._refuse_the_impossible(job.spec.need, policy[0], policy[1])
        moved = self.store.job_move(
            job_id,
            queue=target,
            place=place,
            expected_version=expected_version,
            now=self.clock.now(),
        )
        where = f"{place.where} {place.job_id}".strip()
        self.note("job", job_id, f"moved to {target}, {where}", actor=actor, code=MOVED)
        self.changed()
        return moved

    def give_back(
        self, job: Job, epoch: int, *, outcome: str, reason: Reason, exit_code: int | None = None
    ) -> Job:
        """End an attempt that is not the job's last word: requeue it in its place, or end it when
        it has used up its attempts. Raises `StaleEpoch` like the store."""
        now = self.clock.now()
        ending = Ending(outcome=outcome, exit_code=exit_code, reason=reason)
        final = final_state(job, outcome)
        if final is None:
            need = self._next_need(job, outcome)
            done = self.store.job_requeue(job.id, epoch, ending, need=need, now=now)
            if done.cancel_requested:
                # Somebody asked while it was on its way back: it must not run again.
                done = self.store.job_cancel(job.id, reason=reason, now=now)
        elif final is JobState.EXHAUSTED:
            why = _exhausted(job, outcome, reason)
            ending = replace(ending, reason=why)
            done = self._finished(job.id, epoch, ending, final, now)
            self.note("job", job.id, f"{final}: {why.sentence}", code=why.code)
        else:
            done = self._finished(job.id, epoch, ending, final, now)
        self.ended(done)
        self.changed()
        return done

    def _finished(
        self, job_id: str, epoch: int, ending: Ending, state: JobState, now: datetime
    ) -> Job:
        self.store.job_finish(job_id, epoch, ending, state=state, now=now)
        return self.store.job_get(job_id)

    def ended(self, job: Job) -> None:
        """Tell of a job that has ended without success, where its document wants that told."""
        if job.state not in DEAD_LETTERS:
            return
        with suppress(NotFound):  # its queue is gone
            policy = self.policy_of(job.queue)
            if policy is not None:
                tell_of_job(self.store, policy[1], job, self.clock.now())

    # ---------------------------------------------------------------------------- queues

    def queue_create(
        self,
        name: str,
        *,
        max_running: int | None = None,
        max_running_per_owner: int | None = None,
        actor: str = "",
    ) -> QueueRecord:
        """Make a queue by hand; one that exists already is returned as it is."""
        try:
            return self.store.queue_get(name)
        except NotFound:
            record = QueueRecord(
                name=name,
                max_running=max_running,
                max_running_per_owner=max_running_per_owner,
                created_at=self.clock.now(),
            )
            self.queue_write(record, "created", actor=actor)
            return record

    def queue_write(self, record: QueueRecord, what: str, *, actor: str = "") -> None:
        """Write the next version of a queue's record and note what was done to it. Raises
        `Conflict`."""
        self.store.queue_put(record, expected_version=record.version - 1)
        self.forget()
        self.note("queue", record.name, what, actor=actor)
        self.changed()

    def queue_pause(self, name: str, *, paused: bool, actor: str = "") -> QueueRecord:
        """Stop or resume handing out a queue's jobs; what runs goes on."""
        record = self.store.queue_get(name)
        if record.paused != paused:
            record = replace(record, paused=paused, version=record.version + 1)
            self.queue_write(record, "paused" if paused else "resumed", actor=actor)
        return record

    def queue_limit(
        self,
        name: str,
        *,
        max_running: int | None,
        max_running_per_owner: int | None,
        actor: str = "",
    ) -> QueueRecord:
        """Set how many jobs of a queue may run at a time; None = no limit. What runs goes on.
        Raises `Refused` for a queue that an autoscaler declares."""
        old = self.store.queue_get(name)
        self._refuse_if_declared(old)
        record = replace(
            old,
            max_running=max_running,
            max_running_per_owner=max_running_per_owner,
            version=old.version + 1,
        )
        text = f"limits: {max_running or 'no'} in all, {max_running_per_owner or 'no'} per owner"
        self.queue_write(record, text, actor=actor)
        return record

    def redrive(self, name: str, *, actor: str = "") -> Sequence[str]:
        """Hand in again the dead letters of a queue, its failed and exhausted jobs, and return the
        ids of the new jobs. A job is handed in again only once this way, however often this is
        called; at most `REDRIVE_MAX` at a time."""
        self.store.queue_get(name)
        fresh: list[str] = []
        cursor = ""
        while len(fresh) < REDRIVE_MAX:
            page = self.store.job_list(queue=name, states=DEAD_LETTERS, cursor=cursor)
            fresh += [made for job in page.items if (made := self._redriven(job, actor))]
            cursor = page.cursor
            if not cursor:
                break
        return fresh

    def _redriven(self, job: Job, actor: str) -> str:
        """The id of the job that a dead letter became; empty when it had become one before."""
        copy = self._copy(job, actor=actor)
        made, is_new = self._submit_copy(copy, "retry", actor, f"redrive {job.id}")
        return made.id if is_new else ""

    def queue_clear(self, name: str, *, actor: str = "") -> Sequence[str]:
        """Cancel all waiting jobs of a queue and return their ids: the receipt."""
        reason = Reason(code="queue-cleared", sentence=f"queue {name} was cleared")
        cleared = self.store.queue_clear(name, now=self.clock.now(), reason=reason)
        self.note("queue", name, f"cleared: {len(cleared)} jobs cancelled", actor=actor)
        self.changed()
        return cleared

    def queue_delete(self, name: str, *, actor: str = "") -> None:
        """Remove an empty queue that no autoscaler declares. Raises `Refused`."""
        self._refuse_if_declared(self.store.queue_get(name))
        self.store.queue_remove(name)
        self.forget()
        self.note("queue", name, "deleted", actor=actor)

    def _refuse_if_declared(self, record: QueueRecord) -> None:
        if self.policy_of(record.name) is not None:
            raise Refused(
                f"queue {record.name} is declared by autoscaler {record.autoscaler}",
                fix="change the document and apply that",
            )

    # ---------------------------------------------------------------------------- shared

    def document(self, autoscaler: str) -> AutoscalerRecord | None:
        """The document in force, or the one before it for a moment where another process has
        changed it; None when there is none."""
        try:
            return self._autoscalers.get(autoscaler)
        except NotFound:
            return None

    def policy_of(self, queue: str) -> tuple[QueuePolicy, Autoscaler] | None:
        """The policy of a queue and the document it stands in, as `document` has it; None for a
        queue made by hand. Raises `NotFound` when there is no such queue."""
        record = self._queues.get(queue)
        document = self.document(record.autoscaler) if record.autoscaler else None
        found = document.policy.queues.get(queue) if document else None
        return (found, document.policy) if found and document else None

    def forget(self) -> None:
        """A document or a queue was changed by this process: look at it anew."""
        self._autoscalers.forget()
        self._queues.forget()

    def full_need_in(self, queue: str, need: Need) -> Need:
        """`full_need` by the policy of a queue. Raises `NotFound` for an unknown one, and `Refused`
        where no pool of it can ever run such a job."""
        policy = self._policy_or_hint(queue)
        full = self.full_need(need, policy)
        if policy is not None:
            self._refuse_the_impossible(full, policy[0], policy[1])
        return full

    @staticmethod
    def full_need(need: Need, policy: tuple[QueuePolicy, Autoscaler] | None) -> Need:
        """A need with its share of a machine filled in: what `jobs_per_machine` says, or the whole
        machine for a job that states nothing at all."""
        per_machine = policy[0].jobs_per_machine if policy else None
        if per_machine:
            return replace(need, share_ppm=WHOLE_MACHINE_PPM // per_machine)
        states_something = need.gpus or need.cpus or need.memory_mib
        return replace(need, share_ppm=0 if states_something else WHOLE_MACHINE_PPM)

    def note(self, kind: str, subject: str, text: str, *, actor: str = "", code: str = "") -> None:
        """Add a line to the event log."""
        self.store.event_append(
            Event(
                at=self.clock.now(), kind=kind, subject=subject, text=text, actor=actor, code=code
            )
        )

    def _policy_or_hint(self, queue: str) -> tuple[QueuePolicy, Autoscaler] | None:
        try:
            return self.policy_of(queue)
        except NotFound:
            names = [record.name for record in self.store.queue_list()]
            close = get_close_matches(queue, names, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            known = f"queues: {', '.join(names)}" if names else "there is no queue yet"
            raise NotFound(
                f"there is no queue {queue}",
                fix=f"{hint}{known}; `orchctl queue create {queue}` makes one",
            ) from None

    def _refuse_the_impossible(self, need: Need, queue: QueuePolicy, document: Autoscaler) -> None:
        if self._may_ever_run(need, queue, document):
            return
        pools = [document.pools[name] for name in queue.pools]
        offers = self._offers(pools)
        raise Refused(
            f"no pool of queue {queue.name} can ever run this job: it needs {need_text(need)}; "
            + "; ".join(_nearest(pool, offers, document.budget) for pool in pools),
            fix="ask for less, or add a pool with such machines to the queue",
        )

    def _may_ever_run(self, need: Need, queue: QueuePolicy, document: Autoscaler) -> bool:
        """Whether a machine that the document allows could run it. A provider that shows no offer
        at all has not answered yet: what it sells is unknown, not nothing."""
        pools = [document.pools[name] for name in queue.pools]
        offers = self._offers(pools)
        answered = {offer.provider for offer in offers}
        return any(
            any(cloud.provider not in answered for cloud in pool.clouds)
            or any(o.capacity.fits(need) for o in _buyable(pool, offers, document.budget))
            for pool in pools
        )

    def _offers(self, pools: Sequence[PoolPolicy]) -> Sequence[Offer]:
        return self.prices.offers([cloud for pool in pools for cloud in pool.clouds])

    def _next_need(self, job: Job, outcome: str) -> Need:
        losses = job.machine_losses + (outcome in ("interrupted", "lost"))
        if losses < INTERRUPTIONS_BEFORE_ON_DEMAND:
            return job.spec.need
        policy = self.policy_of(job.queue)
        if policy is None:
            return job.spec.need
        safer = replace(job.spec.need, on_demand_only=True)
        return safer if self._may_ever_run(safer, *policy) else job.spec.need


def final_state(job: Job, outcome: str) -> JobState | None:
    """The state in which an attempt with this outcome ends the job; None = it is to be requeued."""
    if job.cancel_requested and outcome != "succeeded":
        return JobState.CANCELLED
    if outcome == "failed":
        return JobState.FAILED if job.failures + 1 >= job.spec.max_attempts else None
    if outcome in ("interrupted", "lost"):
        used_up = job.machine_losses + 1 >= job.spec.max_machine_losses
        return JobState.EXHAUSTED if used_up else None
    if outcome == "returned":
        returns = job.attempt - job.failures - job.machine_losses
        return JobState.EXHAUSTED if returns >= RETURNS_MAX else None
    return JobState(outcome)


def _buyable(pool: PoolPolicy, offers: Sequence[Offer], budget: Budget) -> Sequence[Offer]:
    """What a pool may buy, were it and its autoscaler empty."""
    return [
        offer
        for offer in pool.matching(offers)
        if pool.machines_max > 0
        and offer.capacity.gpus <= pool.gpus_max
        and offer.price_usd_hour <= budget.hour_usd
    ]


def _nearest(pool: PoolPolicy, offers: Sequence[Offer], budget: Budget) -> str:
    mine = _buyable(pool, offers, budget)
    if not mine:
        which = "within its caps" if pool.matching(offers) else "at all"
        return f"pool {pool.name} has no offer {which}"
    biggest = max(mine, key=lambda o: (o.capacity.gpus, o.capacity.cpus, o.key)).capacity
    gpus = f"{biggest.gpus} x {biggest.gpu_name}, " if biggest.gpus else ""
    return (
        f"pool {pool.name} offers at most {gpus}{biggest.cpus} CPUs, "
        f"{biggest.memory_mib / 1024:g} GiB memory within its caps"
    )


def _exhausted(job: Job, outcome: str, last: Reason) -> Reason:
    lost = job.machine_losses + (outcome in ("interrupted", "lost"))
    returned = job.attempt - job.failures - lost
    what = f"was given back {returned}" if outcome == "returned" else f"lost its machine {lost}"
    return Reason(
        code="exhausted",
        sentence=f"{what} times, which is its limit; the last time: {last.sentence}",
        numbers={"machine_losses": str(lost), "returns": str(returned)},
    )
