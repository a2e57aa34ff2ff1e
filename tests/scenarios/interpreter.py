"""A small language for scenarios: commands that read like the product, over a simulated world.

A script is plain text. Lines that start with `#` are said again in the transcript, an indented
block belongs to the command above it, everything else is one command (`COMMANDS` lists them all).
The transcript shows the virtual time, the command, and what a person would have seen.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from control_plane.api.explanations import explain
from control_plane.config.diff import (
    changes,
    describe,
    describe_worst_case,
    worst_case_usd_hour,
)
from control_plane.config.errors import ConfigError
from control_plane.config.findings import findings
from control_plane.config.load import load_text
from control_plane.config.units import parse_duration_s
from control_plane.core.cost import interval_cost
from control_plane.core.model import Event, Machine, Market, Need
from control_plane.core.plan import (
    Adopt,
    Hold,
    Launch,
    Mark,
    Plan,
    Reap,
    Requeue,
    Resume,
    Terminate,
)
from control_plane.core.policy import Autoscaler, CloudPolicy
from control_plane.core.reasons import money, need_text, offer_text, span
from control_plane.errors import NotFound, OrchctlError
from control_plane.ports import BootSettings, LaunchRequest, Place
from control_plane.preview import right_now
from control_plane.reports.costs import cost_report
from providers.simulated.clock import EPOCH
from providers.simulated.cloud import SimulatedCloud
from tests.scenarios.clouds import CLOUDS
from tests.simulation.world import INSTALLATION, World

NAME = "research"
_HEADER = f"apiVersion: orchctl/v1\nkind: Autoscaler\nname: {NAME}\n"
_PERSON = "ann"


class ScriptError(AssertionError):
    """The script itself is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One command of a script with the block below it."""

    text: str
    block: str = ""


def transcript(script: str) -> str:
    """Play a script and return what was seen. Raises `ScriptError`."""
    stage = Stage()
    out = [text for line in _lines(script) for text in stage.play(line)]
    return stage.shortened("\n".join(out)) + "\n"


def _lines(script: str) -> Iterator[Line]:
    block: list[str] = []
    head = ""
    for raw in [*script.splitlines(), ""]:
        if raw.startswith(" ") and head:
            block.append(raw)
            continue
        if head:
            yield Line(text=head, block="\n".join(block))
        head, block = raw.rstrip(), []
        if not head:
            yield Line(text="")


class Stage:
    """A world, and somebody who types commands into it."""

    def __init__(self) -> None:
        self._clouds: Sequence[str] = ("aws",)
        self._start = EPOCH
        self._made: World | None = None
        self._seen: Counter[Event] = Counter()
        self._names: dict[str, str] = {}

    @property
    def world(self) -> World:
        if self._made is None:
            specs = {name: CLOUDS[name] for name in self._clouds}
            self._made = World(7, clouds=specs, start=self._start)
        return self._made

    def play(self, line: Line) -> Iterator[str]:
        """What a reader sees of one line."""
        if not line.text or line.text.startswith("#"):
            yield line.text
            return
        command, found = _parsed(line.text)
        words = {key: self._long(word) for key, word in found.groupdict().items() if word}
        if line.block:
            words["block"] = line.block
        shown = list(command(self, words))
        at = "" if self._made is None else f"{self.world.clock.now():%a %H:%M:%S} "
        if words.get("quiet"):
            shown = []
        yield f"{at}$ {line.text}"
        yield from line.block.splitlines()
        yield from (f"    {text}".rstrip() for text in shown)

    # ------------------------------------------------------------------------ names

    def shortened(self, text: str) -> str:
        """Ids as `m-1`, `j-1`, numbered as they first appear."""
        return re.sub(r"\b([mj])-(\d{4,})\b", self._short, text)

    def _short(self, found: re.Match[str]) -> str:
        kind, full = found[1], found[0]
        if full not in self._names:
            number = sum(each.startswith(kind) for each in self._names) + 1
            self._names[full] = f"{kind}-{number}"
        return self._names[full]

    def _long(self, word: str) -> str:
        """The id behind a short name; any other word as it is."""
        return next((full for full, short in self._names.items() if short == word), word)

    # ------------------------------------------------------------------------ the stage itself

    def clouds(self, words: dict[str, str]) -> Iterator[str]:
        """Which clouds there are; before anything else."""
        self._clouds = [name.strip() for name in words["names"].split(",")]
        yield from ()

    def start(self, words: dict[str, str]) -> Iterator[str]:
        """When the story begins, in UTC; before anything else."""
        self._start = datetime.strptime(words["at"], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        yield from ()

    def advance(self, words: dict[str, str]) -> Iterator[str]:
        """Let time go by and tell what happened."""
        self.world.run(parse_duration_s(words["time"]))
        yield from self._news(shown="job" not in words.get("without", ""))

    def until(self, words: dict[str, str]) -> Iterator[str]:
        """Let time go by until a moment, given as `08:30` of the same day or with its date."""
        text = words["at"]
        at = datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        self.world.run((at - self.world.clock.now()).total_seconds())
        yield from self._news()

    def tick(self, words: dict[str, str]) -> Iterator[str]:
        """One look of the controller, now."""
        self.world.tick()
        yield from self._news()

    def _news(self, *, shown: bool = True) -> Iterator[str]:
        happened = Counter(self.world.events())
        events, self._seen = list((happened - self._seen).elements()), happened
        for event in events:
            if event.kind in ("queue", "world") or event.text.startswith("queued"):
                continue
            if not shown and event.kind == "job":
                continue
            text = self.shortened(f"{event.subject} {event.text}")
            yield f"{event.at:%H:%M:%S}  {text}"

    # ------------------------------------------------------------------------ the document

    def apply(self, words: dict[str, str]) -> Iterator[str]:
        """Show what a document changes, then apply it."""
        document = _HEADER + _dedented(words["block"])
        try:
            policy = load_text(document)
        except ConfigError as error:
            yield from str(error).splitlines()
            return
        yield from self._preview(policy)
        self.world.fleet.apply(document, policy, expected_version=None, actor=_PERSON)

    def _preview(self, policy: Autoscaler) -> Iterator[str]:
        old = self._policy()
        clouds = [cloud for each in (policy, old) if each for cloud in each.clouds]
        offers = self.world.prices.offers(clouds)
        found = changes(old, policy, offers)
        many = (
            "no changes"
            if not found
            else "1 change"
            if len(found) == 1
            else f"{len(found)} changes"
        )
        yield f"{policy.name}: {many}"
        yield from (f"  {text}" for text in describe(found))
        before = worst_case_usd_hour(old, offers) if old else None
        after = worst_case_usd_hour(policy, offers)
        yield f"  {describe_worst_case(before, after, policy.budget.hour_usd)}"
        yield f"  right now: {right_now(self.world.eyes, self.world.clock, policy)}"
        for finding in findings(policy, offers):
            yield f"  {finding.severity}: {finding.path}: {finding.sentence}"

    def _policy(self) -> Autoscaler | None:
        try:
            return self.world.store.autoscaler_get(NAME).policy
        except NotFound:
            return None

    def pause(self, words: dict[str, str]) -> Iterator[str]:
        """Pause or resume the autoscaler or a queue."""
        paused = words["what"] == "pause"
        if queue := words.get("queue"):
            self.world.service.queue_pause(queue, paused=paused, actor=_PERSON)
        else:
            self.world.fleet.pause(NAME, paused=paused, actor=_PERSON)
        yield from ()

    def delete(self, words: dict[str, str]) -> Iterator[str]:
        """Delete the autoscaler."""
        self.world.fleet.delete(NAME, actor=_PERSON)
        yield from ()

    def autoscalers(self, words: dict[str, str]) -> Iterator[str]:
        """What is declared."""
        found = [record.name for record in self.world.store.autoscaler_list()]
        yield ", ".join(found) or "none"

    # ------------------------------------------------------------------------ jobs

    def submit(self, words: dict[str, str]) -> Iterator[str]:
        """Hand in jobs."""
        need = Need(
            gpus=int(words.get("gpus", "0")),
            gpu_name=words.get("model", ""),
            cpus=int(words.get("cpus", "0")),
        )
        exit_code = f" exit {words['exit']}" if "exit" in words else ""
        command = f"work {parse_duration_s(words.get('time', '10m'))}{exit_code}"
        count = int(words["count"]) if "count" in words else 1
        for _ in range(count):
            try:
                job = self.world.submit(
                    words["queue"], command, need, priority=int(words.get("priority", "0"))
                )
            except OrchctlError as error:
                yield f"refused: {error.message}"
                if error.fix:
                    yield f"    {error.fix}"
                return
            yield f"{self.shortened(job.id)} queued in {job.queue}"

    def cancel(self, words: dict[str, str]) -> Iterator[str]:
        """Cancel a job."""
        self.world.service.cancel(words["job"], actor=_PERSON)
        yield from ()

    def move(self, words: dict[str, str]) -> Iterator[str]:
        """Put a waiting job at the top or the bottom of its queue."""
        self.world.service.move(words["job"], place=Place(where=words["place"]), actor=_PERSON)
        yield from ()

    def jobs(self, words: dict[str, str]) -> Iterator[str]:
        """All jobs."""
        rows = [
            (
                self.shortened(job.id),
                job.queue,
                job.state,
                need_text(job.spec.need),
                self.shortened(job.machine_id) or "-",
                f"try {job.attempt}" if job.attempt else "-",
                self.shortened(job.reason.sentence) if job.reason else "",
            )
            for job in self.world.jobs()
        ]
        yield from _table(("ID", "QUEUE", "STATE", "NEEDS", "MACHINE", "TRY", "WHY"), rows)

    def queues(self, words: dict[str, str]) -> Iterator[str]:
        """All queues with what waits and runs."""
        rows = [
            (name, str(stats.waiting), str(stats.running))
            for name, stats in self.world.store.queue_stats().items()
        ]
        yield from _table(("QUEUE", "WAITING", "RUNNING"), rows)

    # ------------------------------------------------------------------------ machines

    def machines(self, words: dict[str, str]) -> Iterator[str]:
        """Machines that are there, or with `all` those that were."""
        machines = self.world.machines(open_only=not words.get("all"))
        rows = [self._machine_row(machine) for machine in machines]
        if not rows:
            yield "no machines"
            return
        yield from _table(("ID", "POOL", "STATE", "OFFER", "AGE", "COST", "RUNS"), rows)

    def _machine_row(self, machine: Machine) -> tuple[str, ...]:
        now = self.world.clock.now()
        since = machine.launched_at or machine.planned_at
        cost = sum(
            (
                interval_cost(each, each.started_at, now)
                for each in self.world.store.prices_between(EPOCH - timedelta(days=3650), now)
                if each.machine_id == machine.id
            ),
            Decimal(0),
        )
        leases = self.world.store.job_leases(machine_id=machine.id)
        return (
            self.shortened(machine.id),
            machine.pool,
            machine.state,
            offer_text(machine.offer),
            span(((machine.ended_at or now) - since).total_seconds()),
            money(cost),
            ", ".join(self.shortened(lease.job_id) for lease in leases) or "-",
        )

    def drain(self, words: dict[str, str]) -> Iterator[str]:
        """Drain, terminate, protect or unprotect a machine."""
        fleet, machine = self.world.fleet, words["machine"]
        try:
            if words["what"] == "drain":
                fleet.drain(machine, actor=_PERSON)
            elif words["what"] == "terminate":
                fleet.terminate(machine, actor=_PERSON)
            else:
                protected = words["what"] == "protect"
                fleet.protect(machine, protected=protected, actor=_PERSON)
        except OrchctlError as error:
            yield f"refused: {self.shortened(error.message)}"

    # ------------------------------------------------------------------------ why, and how much

    def plan(self, words: dict[str, str]) -> Iterator[str]:
        """What would be decided now, with reasons."""
        plan = self.world.preview(NAME)
        shown = [
            *_actions(plan),
            *_refusals(plan),
            *(each.reason.sentence for each in plan.reports),
        ]
        yield from (self.shortened(text) for text in shown or ["nothing to do"])

    def explain(self, words: dict[str, str]) -> Iterator[str]:
        """Why a queue has the machines it has."""
        explanation = explain(self.world.store, NAME, words["queue"])
        yield from (self.shortened(text) for text in explanation.lines)

    def cost(self, words: dict[str, str]) -> Iterator[str]:
        """What was spent so far, and what the clouds themselves will bill."""
        by = tuple(words.get("by", "queue").split(","))
        now = self.world.clock.now()
        report = cost_report(
            self.world.store, by=by, since=self._start, until=now, step="day", now=now
        )
        rows = (
            [
                (
                    *(self.shortened(row.group.get(each, "total")) for each in by),
                    *(
                        money(each)
                        for each in (row.cost_usd, row.work_usd, row.idle_usd, row.boot_usd)
                    ),
                    money(row.saved_usd),
                )
                for row in (*report.rows, report.totals)
                if row.group or len(report.rows) > 1
            ]
            if report.rows
            else []
        )
        heads = (*(each.upper() for each in by), "COST", "WORK", "IDLE", "BOOT", "SAVED")
        yield from _table(heads, rows)
        billed = sum(
            (line.cost_usd for cloud in self.world.clouds.values() for line in cloud.bill()),
            Decimal(0),
        )
        yield f"the clouds will bill {money(billed)}"

    # ------------------------------------------------------------------------ trouble

    def _cloud(self, words: dict[str, str]) -> Iterator[SimulatedCloud]:
        name = words.get("cloud", "")
        return (cloud for each, cloud in self.world.clouds.items() if name in ("", each))

    def capacity(self, words: dict[str, str]) -> Iterator[str]:
        """Sell out, or give back, some or all markets."""
        market = Market(words["market"]) if "market" in words else None
        count = None if words["what"] == "capacity again" else 0
        for cloud in self._cloud(words):
            places = [
                zone
                for region, zone in cloud.spec.places()
                if words.get("place", "") in ("", region, zone)
            ]
            kinds = [
                kind.name for kind in cloud.spec.types if words.get("type", "") in ("", kind.name)
            ]
            for zone, kind in itertools.product(places, kinds):
                cloud.set_capacity(count, instance_type=kind, zone=zone, market=market)
        yield from ()

    def interrupt(self, words: dict[str, str]) -> Iterator[str]:
        """The cloud takes a machine."""
        notice_s = parse_duration_s(words.get("time", "2m"))
        for cloud in self.world.clouds.values():
            if any(vm.machine_id == words["machine"] for vm in cloud.alive()):
                cloud.interrupt(words["machine"], notice_s=notice_s)
                yield f"taken in {span(notice_s)}"

    def fail(self, words: dict[str, str]) -> Iterator[str]:
        """Calls fail before they act."""
        for cloud in self._cloud(words):
            cloud.fail_next(words["code"], int(words.get("count", "1")), call=words["call"])
        yield from ()

    def lose(self, words: dict[str, str]) -> Iterator[str]:
        """Calls act, and nobody hears of it."""
        for cloud in self._cloud(words):
            cloud.drop_next_answer(int(words.get("count", "1")), call=words["call"])
        yield from ()

    def never_boot(self, words: dict[str, str]) -> Iterator[str]:
        """The next machines never come up."""
        for cloud in self._cloud(words):
            cloud.never_boot(int(words.get("count", "1")))
        yield from ()

    def region(self, words: dict[str, str]) -> Iterator[str]:
        """A region stops answering, or answers again."""
        for cloud in self._cloud(words):
            if words["region"] in cloud.spec.regions:
                silent = words["what"] == "does not answer"
                (cloud.partial if silent else cloud.readable)(words["region"])
        yield from ()

    def lag(self, words: dict[str, str]) -> Iterator[str]:
        """Listings show a new machine only after a while."""
        for cloud in self._cloud(words):
            cloud.spec = cloud.spec.but(listing_lag_s=parse_duration_s(words["time"]))
        yield from ()

    def stray(self, words: dict[str, str]) -> Iterator[str]:
        """A machine with our label appears that nobody has recorded."""
        name, cloud = next(iter(self.world.clouds.items()))
        cloud.never_boot()
        offer = next(o for o in cloud.offers(name) if o.capacity.gpus == 1)
        now = self.world.clock.now()
        launched = cloud.launch(
            LaunchRequest(
                machine_id="m-9999",
                key="m-9999.1",
                offer=offer,
                disk_gib=100,
                deadline=now + timedelta(days=1),
                boot=BootSettings(
                    server_url="https://control.test",
                    machine_id="m-9999",
                    fleet=f"{INSTALLATION}-{NAME}",
                    pool="l4",
                    agent_sha256="0" * 64,
                    boot_timeout_s=600,
                    max_lifetime_s=86_400,
                ),
                cloud=next(iter(self._pool_clouds())),
            )
        )
        yield f"{launched.provider_id} runs: {offer_text(offer)}"

    def _pool_clouds(self) -> Iterable[CloudPolicy]:
        policy = self._policy()
        assert policy is not None, "apply first"
        return (cloud for pool in policy.pools.values() for cloud in pool.clouds)

    def silent(self, words: dict[str, str]) -> Iterator[str]:
        """An agent hangs, with its whole machine."""
        self.world.freeze(words["machine"], parse_duration_s(words["time"]))
        yield from ()

    def crash(self, words: dict[str, str]) -> Iterator[str]:
        """The controller dies at its next checkpoint of this name; another follows."""
        self.world.crash_controller(words["checkpoint"])
        yield from ()

    def alive(self, words: dict[str, str]) -> Iterator[str]:
        """What really runs, in the clouds' own truth."""
        for name, cloud in self.world.clouds.items():
            for vm in cloud.alive():
                yield self.shortened(f"{name}: {vm.provider_id} for {vm.machine_id}, {vm.key}")
        if not self.world.alive():
            yield "nothing runs in any cloud"


_TIME = r"(?P<time>\d+[smhd][\dsmhd]*)"
_CLOUD = r"(?: at (?P<cloud>\w+))?"
_COUNT = r"(?:(?P<count>\d+) )?"

Command = Callable[[Stage, dict[str, str]], Iterator[str]]

COMMANDS: Sequence[tuple[str, Command]] = (
    (r"clouds (?P<names>.+)", Stage.clouds),
    (r"start (?P<at>.+)", Stage.start),
    (rf"advance {_TIME}(?: without (?P<without>jobs))?(?P<quiet> quietly)?", Stage.advance),
    (r"until (?P<at>[\d-]+ \d\d:\d\d)", Stage.until),
    (r"tick", Stage.tick),
    (r"apply", Stage.apply),
    (r"(?P<what>pause|resume) (?:autoscaler|queue (?P<queue>\w+))", Stage.pause),
    (r"delete autoscaler", Stage.delete),
    (r"autoscalers", Stage.autoscalers),
    (
        r"submit (?:a job|(?P<count>\d+) jobs?) to (?P<queue>\w+)"
        r"(?: needing (?P<gpus>\d+) (?:(?P<model>[A-Z]\w+) )?GPUs?)?(?: and (?P<cpus>\d+) CPUs?)?"
        rf"(?: lasting {_TIME})?(?: exit (?P<exit>\d+))?(?: at priority (?P<priority>\d+))?"
        r"(?P<quiet> quietly)?",
        Stage.submit,
    ),
    (r"cancel (?P<job>\S+)", Stage.cancel),
    (r"move (?P<job>\S+) to (?P<place>top|bottom)", Stage.move),
    (r"jobs", Stage.jobs),
    (r"queues", Stage.queues),
    (r"machines(?P<all> --all)?", Stage.machines),
    (r"(?P<what>drain|terminate|protect|unprotect) (?P<machine>\S+)", Stage.drain),
    (r"plan", Stage.plan),
    (r"explain (?P<queue>\w+)", Stage.explain),
    (r"cost(?: --by (?P<by>[\w,]+))?", Stage.cost),
    (
        r"cloud: (?P<what>no capacity|capacity again)(?: for (?P<market>spot|on-demand))?"
        rf"(?: of (?P<type>[\w.-]+))?(?: in (?P<place>[\w-]+))?{_CLOUD}",
        Stage.capacity,
    ),
    (rf"cloud: interrupt (?P<machine>\S+)(?: in {_TIME})?", Stage.interrupt),
    (rf"cloud: fail next {_COUNT}(?P<call>\w+) with (?P<code>\w+){_CLOUD}", Stage.fail),
    (rf"cloud: lose next {_COUNT}answers? to (?P<call>\w+){_CLOUD}", Stage.lose),
    (rf"cloud: next {_COUNT}machines? never boots?{_CLOUD}", Stage.never_boot),
    (r"cloud: (?P<region>[\w-]+) (?P<what>does not answer|answers)", Stage.region),
    (rf"cloud: listings show a new machine only after {_TIME}{_CLOUD}", Stage.lag),
    (r"cloud: a stray machine appears", Stage.stray),
    (r"cloud: what runs\?", Stage.alive),
    (rf"agent (?P<machine>\S+): hangs for {_TIME}", Stage.silent),
    (r"controller: crash at (?P<checkpoint>[\w-]+)", Stage.crash),
)
"""Every command: how it is written, what it does."""


def _parsed(text: str) -> tuple[Command, re.Match[str]]:
    for pattern, command in COMMANDS:
        if found := re.fullmatch(pattern, text):
            return command, found
    raise ScriptError(f"not a command: {text}")


def _actions(plan: Plan) -> Iterator[str]:
    for action in plan.actions():
        match action:
            case Launch():
                others = f" (and {len(action.offers) - 1} to fall back on)"
                yield f"launch in {action.pool}{others}: {action.reason.sentence}"
            case Mark():
                yield f"mark {action.machine_id} {action.state}: {action.reason.sentence}"
            case Hold():
                until = f"until {action.until:%H:%M}" if action.until else "no longer"
                yield f"hold {action.machine_id} {until}: {action.reason.sentence}"
            case Requeue():
                yield f"give back {action.job_id}: {action.reason.sentence}"
            case Reap():
                yield f"end stray {action.provider_id}: {action.reason.sentence}"
            case Terminate():
                yield f"terminate {action.machine_id}: {action.reason.sentence}"
            case Adopt():
                yield f"adopt {action.machine_id}: {action.reason.sentence}"
            case Resume():
                yield f"resume {action.machine_id}: {action.reason.sentence}"


def _refusals(plan: Plan) -> Iterator[str]:
    for refusal in plan.refusals:
        yield f"not for {refusal.subject} ({refusal.wanted} wanted): {refusal.reason.sentence}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    table = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _dedented(block: str) -> str:
    depth = min(len(row) - len(row.lstrip()) for row in block.splitlines() if row.strip())
    return "\n".join(row[depth:] for row in block.splitlines()) + "\n"
