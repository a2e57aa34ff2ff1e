"""What people do to queues and jobs: where the API, the embedded server and the simulator meet the
store. Every call is one step that may be repeated; none of them talks to a cloud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import get_close_matches

from control_plane.core.lifecycle import JOB_ENDED
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
from control_plane.core.policy import Autoscaler, Budget, PoolPolicy, QueuePolicy
from control_plane.core.reasons import need_text
from control_plane.errors import NotFound, Refused
from control_plane.ports import Clock, Ending, Ids, Place, PriceBook, Store

INTERRUPTIONS_BEFORE_ON_DEMAND = 3
"""A job that lost this many spot machines goes to on-demand capacity where its pools allow it: by
then another spot try is likelier to waste the work again than to save money."""

RETURNS_MAX = 20
"""How often a job may be given back by nobody's fault before it ends as `exhausted`. One that never
fits into a machine's whole life would else be paid for again and again for ever."""


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

    # ---------------------------------------------------------------------------- jobs

    def submit(self, submission: Submission, *, idempotency_key: str = "") -> tuple[Job, bool]:
        """Take a job and say whether it is new. Raises `NotFound` for an unknown queue and
        `Refused` for a job that no pool of its queue can ever run."""
        policy = self._policy_or_hint(submission.queue)
        spec = replace(submission.spec, need=self.full_need(submission.spec.need, policy))
        if policy is not None:
            self._refuse_the_impossible(spec.need, policy[0], policy[1])
        now = self.clock.now()
        job, is_new = self.store.job_enqueue(
            Job(
                id=self.ids.new("j"),
                queue=submission.queue,
                spec=spec,
                name=submission.name,
                owner=submission.owner,
                labels=submission.labels,
                priority=submission.priority,
                submitted_at=now,
                queued_at=now,
                not_before=submission.not_before,
                cloned_from=submission.cloned_from,
            ),
            idempotency_key=idempotency_key,
        )
        if is_new:
            self.note("job", job.id, f"queued in {job.queue}", actor=job.owner)
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
        """A new job like an earlier one, changed where a value is given."""
        old = self.store.job_get(job_id)
        # The share belongs to the old queue's policy; it is worked out anew for the new one.
        spec = replace(
            old.spec,
            command=command or old.spec.command,
            env={**old.spec.env, **(env or {})},
            need=replace(old.spec.need, share_ppm=0, on_demand_only=False),
        )
        job, _ = self.submit(
            Submission(
                spec=spec,
                queue=queue or old.queue,
                name=old.name,
                owner=actor or old.owner,
                labels=old.labels,
                priority=old.priority,
                cloned_from=old.id,
            ),
            idempotency_key=idempotency_key,
        )
        return job

    def retry(self, job_id: str, *, actor: str = "", idempotency_key: str = "") -> Job:
        """A new job like an ended one. Raises `Refused` while the old one has not ended."""
        old = self.store.job_get(job_id)
        if old.state not in JOB_ENDED:
            raise Refused(
                f"job {job_id} is {old.state}, only an ended job can be retried",
                fix=f"orchctl job clone {job_id}",
            )
        return self.again(job_id, actor=actor, idempotency_key=idempotency_key)

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
        self.note("job", job_id, f"moved to {target}, {where}", actor=actor)
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
            self.note("job", job.id, f"given back to {job.queue}: {reason.sentence}")
        else:
            if final is JobState.EXHAUSTED:
                ending = replace(ending, reason=_exhausted(job, outcome, reason))
            done = self.store.job_finish(job.id, epoch, ending, state=final, now=now)
            self.note("job", job.id, f"{final}: {reason.sentence}")
        self.changed()
        return done

    # ---------------------------------------------------------------------------- queues

    def queue_create(self, name: str, *, autoscaler: str = "", actor: str = "") -> QueueRecord:
        """Make a queue; one that exists already is returned as it is."""
        try:
            return self.store.queue_get(name)
        except NotFound:
            record = QueueRecord(name=name, autoscaler=autoscaler, created_at=self.clock.now())
            self.store.queue_put(record, expected_version=0)
            self.note("queue", name, "created", actor=actor)
            return record

    def queue_pause(self, name: str, *, paused: bool, actor: str = "") -> QueueRecord:
        """Stop or resume handing out a queue's jobs; what runs goes on."""
        record = self.store.queue_get(name)
        if record.paused != paused:
            record = replace(record, paused=paused, version=record.version + 1)
            self.store.queue_put(record, expected_version=record.version - 1)
            self.note("queue", name, "paused" if paused else "resumed", actor=actor)
            self.changed()
        return record

    def queue_clear(self, name: str, *, actor: str = "") -> Sequence[str]:
        """Cancel all waiting jobs of a queue and return their ids: the receipt."""
        reason = Reason(code="queue-cleared", sentence=f"queue {name} was cleared")
        cleared = self.store.queue_clear(name, now=self.clock.now(), reason=reason)
        self.note("queue", name, f"cleared: {len(cleared)} jobs cancelled", actor=actor)
        self.changed()
        return cleared

    def queue_delete(self, name: str, *, actor: str = "") -> None:
        """Remove an empty queue that no autoscaler declares. Raises `Refused`."""
        record = self.store.queue_get(name)
        if self.policy_of(name) is not None:
            raise Refused(
                f"queue {name} is declared by autoscaler {record.autoscaler}",
                fix="remove it from the document and apply that",
            )
        self.store.queue_remove(name)
        self.note("queue", name, "deleted", actor=actor)

    # ---------------------------------------------------------------------------- shared

    def policy_of(self, queue: str) -> tuple[QueuePolicy, Autoscaler] | None:
        """The policy of a queue and the document it stands in; None for a queue made by hand.
        Raises `NotFound` when there is no such queue."""
        record = self.store.queue_get(queue)
        if not record.autoscaler:
            return None
        try:
            document = self.store.autoscaler_get(record.autoscaler).policy
        except NotFound:
            return None
        found = document.queues.get(queue)
        return (found, document) if found else None

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
        pools = [document.pools[name] for name in queue.pools]
        offers = self._offers(pools)
        if self._may_ever_run(need, queue, document):
            return
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
        return self.prices.offers(sorted({c.provider for pool in pools for c in pool.clouds}))

    def _next_need(self, job: Job, outcome: str) -> Need:
        losses = job.machine_losses + (outcome in ("interrupted", "lost"))
        policy = self.policy_of(job.queue)
        if losses < INTERRUPTIONS_BEFORE_ON_DEMAND or policy is None:
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
