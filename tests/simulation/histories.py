"""Random histories: what people, clouds and networks do to a deployment, drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from control_plane.agents import AgentSettings
from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import JobState, MachineState, Market, Need
from control_plane.errors import OrchctlError
from control_plane.loop import Pace
from control_plane.ports import Place, Store
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.spec import CloudSpec
from tests.simulation.invariants import Watch
from tests.simulation.world import CHECKPOINTS, Habits, World

AUTOSCALER = "fleet"

_GPU_POOLS = {
    "l4": "gpu: L4:1",
    "l4s": "gpu: L4:1..4",
    "any": 'gpu: "nvidia:1"',
}
_MANY = "l4s"
"""The one pool with more than one GPU in a machine."""


class History:
    """One deployment and one path through its trouble."""

    def __init__(self, seed: int, *, steps: int = 30, store: Store | None = None) -> None:
        self.chance = random.Random(f"history/{seed}")
        self._steps = steps
        habits = Habits(
            agents=AgentSettings(wait_s=0.0, poll_s=15.0),
            pace=Pace(unsettled_s=5.0, settle_s=1.0),
            message_loss_rate=self.chance.choice((0.0, 0.0, 0.02, 0.1)),
        )
        names = self.chance.choice((("aws",), ("aws", "gcp")))
        specs = {name: self._spec() for name in names}
        self.world = World(seed, clouds=specs, habits=habits, store=store)
        self.watch = Watch(self.world)
        self._hidden_since: dict[tuple[str, str], datetime] = {}
        self._caps = {pool: self.chance.randint(1, 5) for pool in self._pools()}
        self._queues = self._queue_lines()
        self._budget = self.chance.choice((3, 8, 30))
        self._idle = self.chance.choice((60, 120, 300))
        self._life = self.chance.choice(("40m", "2h", "24h"))
        self.apply()

    def play(self) -> None:
        """Trouble, then peace, then the end of everything. Raises `Broken`."""
        for _ in range(self._steps):
            self._one_of(self._deeds())()
            self.watch.step()
            self.world.run(self.chance.choice((1, 5, 30, 120, 600)))
        self.make_peace()
        self._come_to_rest()

    # ------------------------------------------------------------------------ the document

    def _spec(self) -> CloudSpec:
        storm = CloudSpec.stormy()
        return self.chance.choice(
            (
                CloudSpec(),
                storm,
                storm.but(scarcity=0.7, interruptions_per_hour=2.0),
                storm.but(life_limit=True, price_locked=False, lost_answer_rate=0.15),
                storm.but(listing_lag_s=90, slow_launch_rate=0.6, quota_machines=3),
            )
        )

    def _pools(self) -> list[str]:
        return sorted(self.chance.sample(sorted(_GPU_POOLS), self.chance.randint(1, 3)))

    def _queue_lines(self) -> dict[str, str]:
        lines = {}
        for name in ("urgent", "default", "bulk")[: self.chance.randint(1, 3)]:
            pools = self.chance.sample(sorted(self._caps), self.chance.randint(1, len(self._caps)))
            extra = self.chance.choice(
                (
                    "",
                    ", launch_after: 90s",
                    ", jobs_per_machine: 3",
                    ", ageing: 10m",
                    ", max_running: 2",
                    ", max_running_per_owner: 1",
                )
            )
            priority = self.chance.randint(0, 9)
            lines[name] = f"{{priority: {priority}, pools: [{', '.join(pools)}]{extra}}}"
        return lines

    def document(self) -> str:
        """The document as it is now declared."""
        clouds = "{" + ", ".join(_cloud(name) for name in self.world.clouds) + "}"
        lines = ["apiVersion: orchctl/v1", "kind: Autoscaler", f"name: {AUTOSCALER}", "queues:"]
        lines += [f"  {name}: {text}" for name, text in self._queues.items()]
        lines.append("pools:")
        for pool, most in self._caps.items():
            lines += [
                f"  {pool}:",
                f"    {_GPU_POOLS[pool]}",
                f"    clouds: {clouds}",
                f"    machines: {{max: {most}}}",
                "    gpus_max: 8",
                f"    idle_timeout: {self._idle}s",
                "    boot_timeout: 5m",
                f"    max_lifetime: {self._life}",
            ]
        lines.append(f"budget: {{hour: {self._budget} USD, day: 900 USD, month: 9000 USD}}")
        return "\n".join(lines) + "\n"

    def apply(self) -> None:
        """Put the document in force."""
        self.world.apply(self.document())

    # ------------------------------------------------------------------------ deeds

    def _deeds(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            (30, self._submit),
            (4, self._cancel),
            (4, self._move),
            (3, self._drain),
            (2, self._terminate),
            (2, self._protect),
            (2, self._pause_autoscaler),
            (2, self._pause_queue),
            (3, self._change_maximum),
            (10, self._crash),
            (4, self._stall),
            (2, self._second_controller),
            (5, self._freeze),
            (5, self._cut_off),
            (5, self._interrupt),
            (5, self._empty_market),
            (4, self._hide_region),
            (6, self._fail_calls),
            (6, self._drop_answers),
            (3, self._never_boot),
            (3, self._slow_launch),
        ]

    def _one_of(self, deeds: list[tuple[int, Callable[[], None]]]) -> Callable[[], None]:
        weights = [weight for weight, _ in deeds]
        return self.chance.choices([deed for _, deed in deeds], weights)[0]

    def _submit(self) -> None:
        queue = self.chance.choice(sorted(self._queues))
        need = self.chance.choice((Need(), Need(gpus=1), Need(gpus=1, cpus=2), Need(gpus=2)))
        seconds = self.chance.choice((5, 40, 300, 1500))
        command = f"work {seconds}" + self.chance.choice(("", "", "", " exit 1"))
        for _ in range(self.chance.randint(1, 5)):
            try:
                job = self.world.submit(
                    queue,
                    command,
                    need,
                    max_attempts=self.chance.randint(1, 2),
                    max_machine_losses=self.chance.choice((2, 5)),
                    priority=self.chance.randint(0, 2),
                    owner=self.chance.choice(("ann", "bob")),
                    **self.chance.choice((_nothing, _nothing, self._later, self._after))(),
                )
            except OrchctlError:
                return  # no pool of this queue has such machines, or what it depends on has failed
            self.watch.accepted.add(job.id)

    def _later(self) -> dict[str, Any]:
        wait = timedelta(seconds=self.chance.choice((20, 200, 2000)))
        return {"not_before": self.world.clock.now() + wait}

    def _after(self) -> dict[str, Any]:
        jobs = [job.id for job in self.world.jobs()]
        most = min(2, len(jobs))
        return {"depends_on": tuple(self.chance.sample(jobs, self.chance.randint(0, most)))}

    def _cancel(self) -> None:
        jobs = [job for job in self.world.jobs() if job.state not in JOB_ENDED]
        if jobs:
            self.world.service.cancel(self.chance.choice(jobs).id, actor="ann")

    def _move(self) -> None:
        jobs = [job for job in self.world.jobs() if job.state is JobState.QUEUED]
        if jobs:
            place = Place(where=self.chance.choice(("top", "bottom")))
            queue = self.chance.choice(sorted(self._queues))
            self._try(
                lambda: self.world.service.move(
                    self.chance.choice(jobs).id, queue=queue, place=place, actor="ann"
                )
            )

    def _machine(self, *states: MachineState) -> str:
        found = [m.id for m in self.world.machines() if not states or m.state in states]
        return self.chance.choice(found) if found else ""

    def _drain(self) -> None:
        if machine := self._machine(MachineState.READY):
            self._try(lambda: self.world.fleet.drain(machine, actor="ann"))

    def _terminate(self) -> None:
        if machine := self._machine():
            self._try(lambda: self.world.fleet.terminate(machine, actor="ann"))

    def _protect(self) -> None:
        if machine := self._machine(MachineState.READY):
            on = self.chance.random() < 0.5
            self._try(lambda: self.world.fleet.protect(machine, protected=on, actor="ann"))

    def _pause_autoscaler(self) -> None:
        paused = self.chance.random() < 0.5
        self.world.fleet.pause(AUTOSCALER, paused=paused, actor="ann")

    def _pause_queue(self) -> None:
        queue = self.chance.choice(sorted(self._queues))
        self.world.service.queue_pause(queue, paused=self.chance.random() < 0.5, actor="ann")

    def _change_maximum(self) -> None:
        pool = self.chance.choice(sorted(self._caps))
        before = self._caps[pool]
        self._caps[pool] = self.chance.randint(1, 5)
        # What was bought under the old maximum may stay until its work is done.
        if self._caps[pool] < before:
            self.watch.loosened[pool] = max(before, self.watch.loosened.get(pool, 0))
        self.apply()

    def _crash(self) -> None:
        which = self.chance.randrange(len(self.world.controllers))
        self.world.crash_controller(self.chance.choice(CHECKPOINTS), which=which)

    def _stall(self) -> None:
        if len(self.world.controllers) < 2:
            self.world.add_controller()
        seconds = self.chance.choice((30.0, 150.0, 400.0))
        self.world.stall_controller(self.chance.choice(CHECKPOINTS), seconds)

    def _second_controller(self) -> None:
        if len(self.world.controllers) < 3:
            self.world.add_controller()

    def _freeze(self) -> None:
        if machine := self._machine(MachineState.READY, MachineState.DRAINING):
            seconds = self.chance.choice((60, 200, 2000))
            self.world.note(f"{machine} hangs for {seconds} s")
            self.world.freeze(machine, seconds)

    def _cut_off(self) -> None:
        machine = self._machine(MachineState.READY, MachineState.DRAINING, MachineState.BOOTING)
        if machine:
            seconds = self.chance.choice((20, 80, 200, 1000))
            self.world.note(f"{machine} is cut off for {seconds} s")
            with self.world.cut_off(machine):
                self.world.run(seconds)

    def _interrupt(self) -> None:
        cloud = self._cloud()
        spot = [vm for vm in cloud.alive() if vm.offer.market is Market.SPOT]
        if spot:
            vm, notice_s = self.chance.choice(spot), self.chance.choice((0, 2, 30, 120))
            self.world.note(f"{vm.machine_id} is taken in {notice_s} s")
            cloud.interrupt(vm.provider_id, notice_s=notice_s)

    def _empty_market(self) -> None:
        capacity = self.chance.choice((0, 0, 1, None))
        market = self.chance.choice((Market.SPOT, Market.ON_DEMAND, None))
        self.world.note(f"capacity of {market or 'all markets'} is now {capacity}")
        self._cloud().set_capacity(capacity, market=market)

    def _hide_region(self) -> None:
        name = self.chance.choice(sorted(self.world.clouds))
        region = self.chance.choice(sorted(self.world.clouds[name].spec.regions))
        if self.chance.random() < 0.5:
            self._show_region(name, region)
        elif (name, region) not in self._hidden_since:
            self.world.note(f"{name} {region} does not answer")
            self.world.clouds[name].partial(region)
            self._hidden_since[name, region] = self.world.clock.now()

    def _show_region(self, name: str, region: str) -> None:
        since = self._hidden_since.pop((name, region), None)
        if since is not None:
            self.world.note(f"{name} {region} answers")
            self.world.clouds[name].readable(region)
            self.watch.hidden[name, region].append((since, self.world.clock.now()))

    def _fail_calls(self) -> None:
        code = self.chance.choice(
            ("InternalError", "RequestLimitExceeded", "AuthFailure", "InvalidParameterValue")
        )
        call = self.chance.choice(("launch", "terminate", "observe", "sighting", ""))
        times = self.chance.randint(1, 6)
        self.world.note(f"the next {times} calls of {call or 'anything'} fail with {code}")
        self._cloud().fail_next(code, times, call=call)

    def _drop_answers(self) -> None:
        call = self.chance.choice(("launch", "launch", "terminate", "launch_result"))
        times = self.chance.randint(1, 7)
        self.world.note(f"the next {times} answers to {call} are lost")
        self._cloud().drop_next_answer(times, call=call)

    def _never_boot(self) -> None:
        self._cloud().never_boot(self.chance.randint(1, 4))

    def _slow_launch(self) -> None:
        refused = self.chance.choice(("", "ZONE_RESOURCE_POOL_EXHAUSTED"))
        self._cloud().slow_next_launch(refused_code=refused)

    def _cloud(self) -> SimulatedCloud:
        return self.world.clouds[self.chance.choice(sorted(self.world.clouds))]

    def _try(self, deed: Callable[[], object]) -> None:
        try:
            deed()
        except OrchctlError as error:
            self.world.note(f"refused: {error}")

    # ------------------------------------------------------------------------ the end

    def make_peace(self) -> None:
        """Everything that somebody switched off is on again; chance goes on."""
        self.world.note("peace")
        self.world.fleet.pause(AUTOSCALER, paused=False)
        for queue in self._queues:
            self.world.service.queue_pause(queue, paused=False)
        for machine in self.world.machines():
            self._try(lambda chosen=machine.id: self.world.fleet.protect(chosen, protected=False))  # type: ignore[misc]
        # A job is taken while a cloud's prices are unknown, even if it turns out that none of them
        # can ever run it. Its reason says so; a person cancels it.
        for job in self.world.jobs():
            if job.spec.need.gpus > 1 and _MANY not in self._queues[job.queue]:
                self.world.service.cancel(job.id, actor="ann")
        for cloud in self.world.clouds.values():
            cloud.set_capacity(None)
        for name, region in list(self._hidden_since):
            self._show_region(name, region)

    def _come_to_rest(self) -> None:
        ended = self.world.run_until(
            lambda: all(job.state in JOB_ENDED for job in self.world.jobs()),
            at_most_s=timedelta(days=2).total_seconds(),
            step_s=60,
        )
        assert ended, "some jobs never end: " + ", ".join(
            f"{job.id} {job.state}" for job in self.world.jobs() if job.state not in JOB_ENDED
        )
        self.world.fleet.delete(AUTOSCALER, actor="ann")
        gone = self.world.run_until(
            lambda: not self.world.store.autoscaler_list() and not self.world.alive(),
            at_most_s=timedelta(hours=6).total_seconds(),
            step_s=60,
        )
        assert gone, "something of the fleet stays: " + ", ".join(
            f"{machine.id} {machine.state}" for machine in self.world.machines()
        )
        self.watch.at_rest()


def _nothing() -> dict[str, Any]:
    return {}


def _cloud(name: str) -> str:
    regions = "regions: [us-east-1, eu-west-1]"
    return f"gcp: {{{regions}, project: p}}" if name == "gcp" else f"{name}: {{{regions}}}"
