"""Carrying out a plan. Every step is durable before the call that depends on it, every call may be
repeated, and one row that fails never stops the others.

The order of writes is the crash story: intent, call, record. A crash between any two of them leaves
a row that the next tick finishes with the same idempotency key (`core/recovery.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor as Pool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from control_plane import throttle
from control_plane.core import reasons
from control_plane.core.cooldowns import (
    api_key,
    last_refusal,
    next_boot_failure,
    next_rest,
    rest_key,
    rests,
)
from control_plane.core.lifecycle import MACHINE_ENDED
from control_plane.core.model import (
    Cooldown,
    ErrorClass,
    JobState,
    Machine,
    MachineState,
    Offer,
    PriceInterval,
    Reason,
    Sighting,
)
from control_plane.core.placement import interchangeable
from control_plane.core.plan import (
    Action,
    Adopt,
    Hold,
    Launch,
    Mark,
    Plan,
    Reap,
    Requeue,
    Resume,
    Terminate,
    planned_machine,
)
from control_plane.core.policy import Autoscaler, CloudPolicy
from control_plane.core.snapshot import Timing
from control_plane.errors import Conflict, FencedOut, NotFound, ProviderError, StaleEpoch
from control_plane.lease import Lease
from control_plane.loop_figures import FAILED, LAUNCHED, REFUSED, LoopFigures
from control_plane.observe import machine_ref
from control_plane.ports import (
    BootSettings,
    Launched,
    LaunchRequest,
    MachineRef,
    Provider,
)
from control_plane.service import Service
from control_plane.throttle import CallKind, Pacer, Rests
from control_plane.tokens import MachineTokens

UNCLEAR_TRIES = 5
"""Tries of one launch with one key whose answers are unclear; then it is given up."""

UNKNOWN_TRIES = 3
"""Tries of one launch that a cloud refuses with a code we do not know; then, when the cloud shows
no machine either, it is taken for a lack of capacity."""


ACT_S = 20.0
"""So long a look calls clouds; what is left by then is taken up by the next one, which sees what
has happened meanwhile. The intents are durable, so nothing is forgotten or bought twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """What a new machine is told."""

    server_url: str
    """Where an agent on this computer reaches the control plane."""
    public_url: str = ""
    """Where one in a cloud does."""
    agent_sha256: str


@dataclass(slots=True)
class Done:
    """What one execution came to."""

    actions: int = 0
    errors: list[str] = field(default_factory=list)
    unsettled: bool = False
    """Something is on its way: look again soon rather than in a minute."""


def no_checkpoint(name: str) -> None:
    """Where a crash test stops the program; otherwise nothing."""


class Throttled(Exception):
    """An API rests: this call is left out, and made at a later tick."""


class Executor:
    """Carries out the plans of one controller."""

    def __init__(
        self,
        service: Service,
        providers: Mapping[str, Provider],
        tokens: MachineTokens,
        settings: LaunchSettings,
        timing: Timing,
        pool: Pool,
        checkpoint: Callable[[str], None] = no_checkpoint,
    ) -> None:
        """`pool` runs cloud calls side by side; `checkpoint` is called at every boundary of the
        crash story with its name."""
        self._service = service
        self._store = service.store
        self._clock = service.clock
        self._providers = providers
        self._tokens = tokens
        self._settings = settings
        self._timing = timing
        self._pool = pool
        self._checkpoint = checkpoint
        self.figures = LoopFigures()
        """What this process has launched and seen taken back."""
        self._complaints: dict[str, set[str]] = {}
        """By subject, what was noted since its last success."""

    def execute(
        self, plan: Plan, policy: Autoscaler, *, fleet: str, lease: Lease, rests: Rests
    ) -> Done:
        """Carry out every action; `rests` are those known at the look. Raises `FencedOut` as soon
        as another controller has taken over; everything else that goes wrong is in the result."""
        if not plan.empty:
            rests.read_again()
        run = _Run(self, policy, fleet, lease, rests)
        for action in plan.actions():
            if not isinstance(action, (Launch, Resume)):
                run.settle(action)
        intended = [launch for launch in plan.launches if run.intend(launch)]
        self._checkpoint("intents-committed")
        calls: list[Launch | Resume] = [*plan.resumes, *intended]
        for each in calls:
            run.pacer.expect(*_kind_and_place(each))
        for call in [self._pool.submit(run.launch, each) for each in calls]:
            call.result()
        if run.fenced_out:
            raise FencedOut("another controller has taken over")
        return run.done


class _Run:
    """One plan being carried out."""

    def __init__(
        self, parts: Executor, policy: Autoscaler, fleet: str, lease: Lease, rests: Rests
    ) -> None:
        self.parts = parts
        self.policy = policy
        self.fleet = fleet
        self.lease = lease
        self.rests = rests
        self.pacer = Pacer(parts._store, parts._clock, parts._providers)
        self.done = Done()
        self.fenced_out = False
        self._act_until = self._now() + timedelta(seconds=ACT_S)

    # ---------------------------------------------------------------------- isolation

    def settle(self, action: Action) -> None:
        """Carry out one action that buys nothing; what goes wrong stays in its row."""
        if isinstance(action, (Terminate, Reap)) and self._late():
            return
        self._guarded(self._subject(action), lambda: self._act(action))

    def launch(self, action: Launch | Resume) -> None:
        """Take one launch as far as it goes in this tick."""
        if self.pacer.spent(*_kind_and_place(action)):
            self.done.unsettled = True
        elif not self._late():
            self._guarded(action.machine_id, lambda: self._launch(action.machine_id))

    def _late(self) -> bool:
        """Whether the next look is to go on."""
        late = self._now() > self._act_until
        self.done.unsettled |= late
        return late

    def intend(self, launch: Launch) -> bool:
        """Make the intent of a launch durable; whether that was done."""
        machine = planned_machine(launch, self.policy.name, self._now())
        made: list[str] = []

        def write() -> None:
            self.parts._store.machine_put(machine, expected_version=0, fence=self.lease.fence)
            made.append(machine.id)
            self._note("machine", machine.id, f"planned: {launch.reason.sentence}")
            self.parts._checkpoint("intent-written")

        self._guarded(machine.id, write)
        return bool(made)

    def _guarded(self, subject: str, act: Callable[[], None]) -> None:
        if self.fenced_out:
            return
        try:
            act()
        except FencedOut:
            self.fenced_out = True
        except (Conflict, NotFound, Throttled):
            # The row changed since the snapshot was read, or its API rests; the next tick decides
            # on what is then.
            self.done.unsettled = True
        except Exception as error:  # noqa: BLE001 - one bad row must never stop the others
            said = error if isinstance(error, ProviderError) else _as_transient(error)
            self.done.errors.append(f"{subject}: {said.raw_code}: {said}")
            self._complain(subject, f"{said.raw_code}: {said}")
        else:
            self.done.actions += 1
            self.parts._complaints.pop(subject, None)

    def _complain(self, subject: str, text: str) -> None:
        """Note what went wrong, once: what fails again and again would bury everything else."""
        known = self.parts._complaints.setdefault(subject, set())
        if text not in known:
            known.add(text)
            self._note("error", subject, text, code="action-failed")

    # ---------------------------------------------------------------------- actions

    def _act(self, action: Action) -> None:
        match action:
            case Adopt():
                self._adopt(action)
            case Mark():
                self._mark(action)
            case Requeue():
                self._requeue(action)
            case Hold():
                machine = self.parts._store.machine_get(action.machine_id)
                self._put(replace(machine, hold_until=action.until))
            case Terminate():
                self._terminate(action)
            case Reap():
                self._reap(action)
            case Launch() | Resume():
                self.launch(action)

    def _subject(self, action: Action) -> str:
        return action.job_id if isinstance(action, Requeue) else action.machine_id

    def _adopt(self, action: Adopt) -> None:
        machine = self.parts._store.machine_get(action.machine_id)
        launched = replace(
            machine.buying(action.offer),
            provider_id=action.provider_id,
            launched_at=action.created_at,
            identity=action.identity,
            operation="",
        )
        if machine.state is MachineState.LAUNCHING:
            launched = replace(launched, state=MachineState.BOOTING)
        self._open_price(launched, action.created_at)
        self._put(launched)
        self._note("machine", machine.id, action.reason.sentence, code=action.reason.code)

    def _mark(self, action: Mark) -> None:
        machine = self.parts._store.machine_get(action.machine_id)
        changed = replace(machine, state=action.state, reason=action.reason)
        if action.state in MACHINE_ENDED:
            self._end(changed)
            return
        self._put(changed)
        if action.state is MachineState.BOOT_FAILED:
            self._count_boot_failure(machine)
        self._note("machine", machine.id, action.reason.sentence, code=action.reason.code)

    def _requeue(self, action: Requeue) -> None:
        job = self.parts._store.job_get(action.job_id)
        try:
            done = self.parts._service.give_back(
                job, action.epoch, outcome=action.outcome, reason=action.reason
            )
        except StaleEpoch:
            return  # its agent ended it first: nothing is left to give back
        if done.state is JobState.QUEUED:
            text = f"given back to {done.queue}: {action.reason.sentence}"
            self._note("job", done.id, text, code=action.reason.code)
        self.done.unsettled = True  # the job waits again: somebody has to look who runs it

    def _reap(self, action: Reap) -> None:
        """End a machine that no record explains, in two phases: the first look raises the alarm
        and notes it in the store, a later one that finds it still unexplained ends it."""
        if self._explained(action) or not self._due(action):
            return
        with self._calling(action.provider, action.region) as provider:
            self._note_stray(action, self.parts._timing.terminate_repeat_s)
            provider.terminate(
                MachineRef(
                    machine_id=action.machine_id,
                    provider_id=action.provider_id,
                    region=action.region,
                    zone=action.zone,
                )
            )
        self.done.unsettled = True
        self._note("machine", action.provider_id, action.reason.sentence, code=action.reason.code)

    def _explained(self, action: Reap) -> bool:
        """The last look: a record may have been written since the plan was made."""
        try:
            machine = self.parts._store.machine_get(action.machine_id)
        except NotFound:
            return False
        closed = machine.state in MACHINE_ENDED
        return not closed and machine.provider_id in ("", action.provider_id)

    def _due(self, action: Reap) -> bool:
        """Whether it was noted long enough ago, or ended so long ago that it is time to repeat; it
        is noted now if it was not."""
        noted = self.rests.known.get(_stray_key(action))
        if noted is not None:
            return noted.until <= self._now()
        pause_s = self.parts._timing.unknown_grace_s
        self._note_stray(action, pause_s)
        text = f"{action.reason.sentence}; it is ended in {reasons.span(pause_s)}"
        self._note("error", self.policy.name, text, code="books-wrong")
        return False

    def _note_stray(self, action: Reap, pause_s: int) -> None:
        """Remember that nothing is to be done about it for a while."""
        self.rests.put(
            Cooldown(
                key=_stray_key(action),
                error_class=ErrorClass.TRANSIENT,
                code=action.reason.code,
                until=self._now() + timedelta(seconds=pause_s),
            )
        )

    # ---------------------------------------------------------------------- ending

    def _terminate(self, action: Terminate) -> None:
        machine = self.parts._store.machine_get(action.machine_id)
        if machine.state in MACHINE_ENDED:
            return
        if machine.state is not MachineState.TERMINATING:
            cordoned = machine if action.hard else self._cordon(machine, action.reason)
            if cordoned is None:
                return
            self.parts._checkpoint("cordoned")
            told = machine.reason == action.reason
            machine = self._put(
                replace(cordoned, state=MachineState.TERMINATING, reason=action.reason)
            )
            if not told:
                self._note("machine", machine.id, action.reason.sentence, code=action.reason.code)
        self._give_back_leases(machine, action.reason)
        self.done.unsettled = True
        if not machine.provider_id:
            self._begin_to_end(machine)
            return
        with self._calling(machine.offer.provider, machine.offer.region) as provider:
            machine = self._begin_to_end(machine)
            seen = self._end_at(provider, machine)
        if seen is None or seen.state == "gone":
            self._end(replace(machine, state=MachineState.TERMINATED))

    def _cordon(self, machine: Machine, reason: Reason) -> Machine | None:
        """Close a machine to new claims, then look whether it was given a job in between: if so it
        goes on working and None is returned."""
        if machine.state is MachineState.READY:
            machine = self._put(replace(machine, state=MachineState.DRAINING, reason=reason))
            if self.parts._store.job_leases(machine_id=machine.id):
                self._put(replace(machine, state=MachineState.READY, reason=None))
                return None
        elif self.parts._store.job_leases(machine_id=machine.id):
            return None
        return machine

    def _give_back_leases(self, machine: Machine, reason: Reason) -> None:
        for lease in self.parts._store.job_leases(machine_id=machine.id):
            self._requeue(
                Requeue(job_id=lease.job_id, epoch=lease.epoch, outcome="returned", reason=reason)
            )

    def _begin_to_end(self, machine: Machine) -> Machine:
        return self._put(replace(machine, terminating_at=self._now()))

    def _end_at(self, provider: Provider, machine: Machine) -> Sighting | None:
        self.parts._checkpoint("before-terminate")
        self.lease.keep()
        provider.terminate(machine_ref(machine))
        self.parts._checkpoint("terminate-called")
        return provider.sighting(machine_ref(machine))

    def _end(self, machine: Machine) -> None:
        now = self._now()
        ended_at = min(now, _taken_at(machine) or now)
        self._put(replace(machine, ended_at=ended_at))
        self.parts._store.price_close(machine.id, at=ended_at)
        if machine.reason and machine.reason.code == "interrupted":
            self.parts.figures.interruption()
        text = machine.reason.sentence if machine.reason else "ended"
        self._note("machine", machine.id, f"{machine.state}: {text}")

    # ---------------------------------------------------------------------- launching

    def _launch(self, machine_id: str) -> None:
        found = self.parts._store.machine_get(machine_id)
        repeated = found.state is MachineState.LAUNCHING
        machine = self._begin(found) if found.state is MachineState.PLANNED else found
        allowed = not repeated
        while machine is not None and machine.state is MachineState.LAUNCHING:
            if not (allowed or self._may_call(machine)):
                machine = None
                break
            self.parts._checkpoint("before-launch")
            self.lease.keep()
            try:
                launched = self._call(machine)
            except ProviderError as error:
                machine = self._refused(machine, error, repeated=repeated)
            except Exception as error:  # noqa: BLE001 - the port says: all else counts as transient
                machine = self._refused(machine, _as_transient(error), repeated=repeated)
            else:
                self.parts._checkpoint("launch-answered")
                machine = self._record(machine, launched)
            repeated = allowed = False
        self.done.unsettled |= machine is None

    def _begin(self, machine: Machine) -> Machine | None:
        """The machine at the first offer that does not rest: another launch of this tick may have
        been refused meanwhile what this one wants. Failed when all rest by now; None while it has
        to wait for its turn, as it was."""
        if self._resting(machine.offer.provider, machine.offer.region):
            return None
        attempt = self._free(machine, machine.attempt)
        if attempt is None:
            code = last_refusal(machine.offer, self.rests.known)
            resting = ProviderError(
                "all others rest", error_class=ErrorClass.CAPACITY_ZONE, raw_code=code
            )
            return self._fail(machine, resting)
        begun = replace(machine, state=MachineState.LAUNCHING, attempt=attempt)
        return self._put(self._settled(begun)) if self._may_call(begun) else None

    def _settled(self, machine: Machine) -> Machine:
        """With the cloud's settings of its current attempt, as the document has them now."""
        pool = self.policy.pools[machine.pool]
        cloud = _cloud(pool.clouds, machine.offer)
        return replace(machine, options=cloud.options)

    def _call(self, machine: Machine) -> Launched:
        provider = self._provider(machine.offer.provider)
        request = self._request(machine, provider)
        if machine.operation:
            return provider.launch_result(request, machine.operation)
        return provider.launch(request)

    def _request(self, machine: Machine, provider: Provider) -> LaunchRequest:
        pool = self.policy.pools[machine.pool]
        settings = self.parts._settings
        return LaunchRequest(
            machine_id=machine.id,
            key=machine.launch_key,
            offer=machine.offer,
            disk_gib=pool.disk_gib,
            deadline=machine.planned_at
            + timedelta(seconds=pool.boot_timeout_s + pool.max_lifetime_s),
            boot=BootSettings(
                server_url=(settings.server_url if provider.needs_token else settings.public_url),
                machine_id=machine.id,
                fleet=self.fleet,
                pool=machine.pool,
                agent_sha256=settings.agent_sha256,
                boot_timeout_s=pool.boot_timeout_s,
                max_lifetime_s=pool.max_lifetime_s,
                one_time_token=(
                    self.parts._tokens.one_time(machine) if provider.needs_token else ""
                ),
            ),
            cloud=CloudPolicy(
                provider=machine.offer.provider,
                regions=(machine.offer.region,),
                options=machine.options,
            ),
            alternatives=self._alternatives(machine),
        )

    def _alternatives(self, machine: Machine) -> tuple[Offer, ...]:
        """Later choices of the plan that one call may buy instead of the current one: the same at
        every repeat, resting or not, for a key is good only for the call that it was used for."""
        later = machine.offers[machine.attempt :]
        return tuple(offer for offer in later if interchangeable(machine.offer, offer))

    def _record(self, machine: Machine, launched: Launched) -> Machine | None:
        machine = machine.buying(launched.offer or machine.offer)
        if launched.operation:
            self._put(
                replace(machine, operation=launched.operation, provider_id=launched.provider_id)
            )
            return None
        # The price comes first: a crash after it leaves a launch to take up again, which opens the
        # same interval; a crash before it would leave a machine that is in no bill of ours.
        self._open_price(machine, launched.at)
        booting = self._put(
            replace(
                machine,
                state=MachineState.BOOTING,
                provider_id=launched.provider_id,
                operation="",
                launched_at=launched.at,
                identity=launched.identity,
            )
        )
        self.parts.figures.launch(LAUNCHED)
        self.parts._checkpoint("launch-recorded")
        self._note("machine", machine.id, f"launched: {reasons.offer_text(machine.offer)}")
        return booting

    def _refused(self, machine: Machine, error: ProviderError, *, repeated: bool) -> Machine | None:
        """What follows a refusal: the machine at its next offer, failed for good, or None when it
        stays as it is for the next tick."""
        self.parts.figures.launch(REFUSED)
        self._note("machine", machine.id, f"{error.raw_code}: {error}", code=error.error_class)
        unclear = _unclear(error, repeated=repeated)
        tries = self._tries(machine, error) if unclear else 0
        if not error.known and tries >= UNKNOWN_TRIES:
            error = self._as_capacity(machine, error)
            unclear = error.error_class is ErrorClass.TRANSIENT
        gave_way = error.error_class is ErrorClass.THROTTLE and self.pacer.refused(
            _kind(machine), machine.offer.provider, machine.offer.region
        )
        if error.error_class is not ErrorClass.TRANSIENT:
            self._rest(machine, error, grows=not gave_way)
        if unclear:
            self._doubt(machine, error, tries)
            return None
        if error.raw_code == "Ended":
            self._give_up(machine, reasons.launch_ended(machine))
            return None
        attempt = self._free(machine, machine.attempt + 1)
        if attempt is not None:
            following = replace(machine, attempt=attempt, operation="", provider_id="")
            return self._put(self._settled(following))
        if error.error_class is ErrorClass.THROTTLE:
            return None
        return self._fail(machine, error)

    def _as_capacity(self, machine: Machine, error: ProviderError) -> ProviderError:
        """The same refusal as a lack of capacity, unless the launch has come to something."""
        try:
            seen = self._provider(machine.offer.provider).sighting(machine_ref(machine))
        except Exception:  # noqa: BLE001 - whatever went wrong, it stays unclear
            return error
        if seen is not None and seen.state != "gone":
            return error
        return ProviderError(
            str(error), error_class=ErrorClass.CAPACITY_ZONE, raw_code=error.raw_code
        )

    def _free(self, machine: Machine, first: int) -> int | None:
        """The first attempt, counting from `first`, whose offer does not rest."""
        known = self.rests.known
        for attempt in range(first, len(machine.offers) + 1):
            if not rests(machine.offers[attempt - 1], known, self._now()):
                return attempt
        return None

    def _doubt(self, machine: Machine, error: ProviderError, tries: int) -> None:
        """Keep the key until an answer to it is clear. After some tries the launch is given up as
        one that may have come to something: it counts until it was found and ended, or shown
        nowhere. Trying the next offer instead could make a second machine."""
        if tries < UNCLEAR_TRIES:
            return
        # A place that does not give one clear answer in so many tries is left alone for a while.
        self._rest(machine, error, whole_region=True)
        self._give_up(machine, reasons.launch_unclear(machine, error.raw_code, UNCLEAR_TRIES))

    def _give_up(self, machine: Machine, reason: Reason) -> None:
        now = self._now()
        self._put(
            replace(machine, state=MachineState.TERMINATING, reason=reason, terminating_at=now)
        )
        self._note("machine", machine.id, reason.sentence, code=reason.code)

    def _fail(self, machine: Machine, error: ProviderError) -> Machine:
        reason = Reason(
            code="launch-failed",
            sentence=(
                f"no offer took machine {machine.id} after {machine.attempt} of "
                f"{len(machine.offers)} tries; the last refusal was {error.raw_code}: {error}"
            ),
            numbers={"attempts": str(machine.attempt), "last_code": error.raw_code},
        )
        failed = self._put(
            replace(
                machine,
                state=MachineState.LAUNCH_FAILED,
                reason=reason,
                operation="",
                ended_at=self._now(),
            )
        )
        self.parts.figures.launch(FAILED)
        self._note("machine", machine.id, reason.sentence, code=reason.code)
        return failed

    def _tries(self, machine: Machine, error: ProviderError) -> int:
        """Count an unclear answer to one launch key, in the store: a crash does not forget it. An
        API that asks for fewer calls has not been tried."""
        if error.error_class is ErrorClass.THROTTLE:
            return 0
        key = f"try/{machine.launch_key}"
        before = self.rests.known.get(key)
        count = before.count + 1 if before else 1
        self.rests.put(
            Cooldown(
                key=key,
                error_class=error.error_class,
                code=error.raw_code,
                until=self._now(),
                count=count,
            )
        )
        return count

    def _rest(
        self,
        machine: Machine,
        error: ProviderError,
        *,
        whole_region: bool = False,
        grows: bool = True,
    ) -> None:
        offer = machine.offer
        error_class = ErrorClass.CAPACITY_REGION if whole_region else error.error_class
        region = api_key(offer.provider, offer.region)
        key = region if whole_region else rest_key(offer, error_class)
        self.rests.put(
            next_rest(
                offer,
                error_class,
                error.raw_code,
                before=self.rests.known.get(key),
                retry_after_s=error.retry_after_s,
                now=self._now(),
                key=key,
                grows=grows,
            )
        )

    def _count_boot_failure(self, machine: Machine) -> None:
        window_s = self.parts._timing.breaker_window_s
        probe = next_boot_failure(machine, before=None, window_s=window_s, now=self._now())
        self.rests.put(
            next_boot_failure(
                machine,
                before=self.rests.known.get(probe.key),
                window_s=window_s,
                now=self._now(),
            )
        )

    # ---------------------------------------------------------------------- shared

    def _put(self, machine: Machine) -> Machine:
        return self.parts._store.machine_put(
            machine, expected_version=machine.version, fence=self.lease.fence
        )

    def _open_price(self, machine: Machine, at: datetime) -> None:
        offer = machine.offer
        self.parts._store.price_open(
            PriceInterval(
                machine_id=machine.id,
                autoscaler=machine.autoscaler,
                pool=machine.pool,
                provider=offer.provider,
                region=offer.region,
                zone=offer.zone,
                instance_type=offer.instance_type,
                market=offer.market,
                total=machine.total,
                price_usd_hour=offer.price_usd_hour,
                on_demand_usd_hour=offer.on_demand_usd_hour,
                started_at=at,
            )
        )

    def _provider(self, name: str) -> Provider:
        try:
            return self.parts._providers[name]
        except KeyError:
            raise ProviderError(
                f"provider {name} is not set up here",
                error_class=ErrorClass.AUTH,
                raw_code="NotConfigured",
            ) from None

    @contextmanager
    def _calling(self, name: str, region: str) -> Iterator[Provider]:
        """A provider that is to end something in a region. While its API rests or has had enough,
        the row waits for the next tick."""
        if not self._may(CallKind.END, name, region):
            raise Throttled(f"{name} {region} takes no more calls for now")
        self.lease.keep()
        try:
            yield self._provider(name)
        except ProviderError as error:
            gave_way = error.error_class is ErrorClass.THROTTLE and self.pacer.refused(
                CallKind.END, name, region
            )
            throttle.heed(self.rests, error, name, region, self._now(), grows=not gave_way)
            raise

    def _may_call(self, machine: Machine) -> bool:
        return self._may(_kind(machine), machine.offer.provider, machine.offer.region)

    def _may(self, kind: CallKind, name: str, region: str) -> bool:
        return not self._resting(name, region) and self.pacer.may(kind, name, region)

    def _resting(self, name: str, region: str) -> bool:
        return throttle.resting(self.rests, name, region, self._now())

    def _note(self, kind: str, subject: str, text: str, *, code: str = "") -> None:
        self.parts._service.note(kind, subject, text, code=code)

    def _now(self) -> datetime:
        return self.parts._clock.now()


def _stray_key(action: Reap) -> str:
    return f"stray/{action.provider}/{action.provider_id}"


def _taken_at(machine: Machine) -> datetime | None:
    """When the cloud took a machine, if it did: as it had announced, but not before the last sign
    of life."""
    announced, lived = machine.interruption_at, machine.last_beat_at
    return max(announced, lived) if announced and lived else announced


def _kind(machine: Machine) -> CallKind:
    return CallKind.RESULT if machine.operation else CallKind.LAUNCH


def _kind_and_place(action: Launch | Resume) -> tuple[CallKind, str, str]:
    """The call that an action begins with."""
    if isinstance(action, Launch):
        return CallKind.LAUNCH, action.offers[0].provider, action.offers[0].region
    kind = CallKind.RESULT if action.pending else CallKind.LAUNCH
    return kind, action.provider, action.region


def _unclear(error: ProviderError, *, repeated: bool) -> bool:
    """Whether a launch may have come to something in spite of this answer. To a repeat, a refusal
    at the door says nothing: it is the earlier call that may have acted."""
    if error.raw_code == "Ended":
        return False
    at_the_door = (ErrorClass.THROTTLE, ErrorClass.AUTH, ErrorClass.INVALID)
    return error.error_class is ErrorClass.TRANSIENT or (
        repeated and error.error_class in at_the_door
    )


def _as_transient(error: Exception) -> ProviderError:
    return ProviderError(
        str(error), error_class=ErrorClass.TRANSIENT, raw_code=type(error).__name__
    )


def _cloud(clouds: tuple[CloudPolicy, ...], offer: Offer) -> CloudPolicy:
    """The settings an offer is bought under."""
    mine = (cloud for cloud in clouds if cloud.provider == offer.provider)
    held = (cloud for cloud in mine if not cloud.regions or offer.region in cloud.regions)
    return next(held, CloudPolicy(provider=offer.provider))
