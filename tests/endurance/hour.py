"""One seed is one history: jobs all along, and all kinds of trouble at the same time."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from control_plane.core.lifecycle import JOB_ENDED
from control_plane.core.model import Market, Need
from tests.endurance.clouds import Cloud, Vm
from tests.endurance.promises import Promises, tally
from tests.endurance.world import MACHINES_MAX, NAME, World
from tests.simulation.world import CHECKPOINTS

_HIDDEN_S = (30, 90, 240)


class Hour:
    """A deployment, its trouble, and its peace."""

    def __init__(self, seed: int, folder: Path, *, minutes: int) -> None:
        self.chance = random.Random(f"hour/{seed}")
        self.world = World(seed, folder)
        self.promises = Promises(self.world)
        self.minutes = minutes
        self.deeds: Counter[str] = Counter()
        self.preempted = 0
        self._ends = self.world.clock.now() + timedelta(minutes=minutes)

    def play(self) -> None:
        """Trouble, then peace, then the end of everything. Raises `Broken`."""
        self.world.later(0, self._work)
        self.world.later(20, self._trouble)
        for _ in range(self.minutes):
            self.world.run(60)
        self._peace()
        self._come_to_rest()

    # ------------------------------------------------------------------------ work

    def _work(self) -> None:
        """Jobs arrive all along."""
        queue = self.chance.choice(sorted(MACHINES_MAX))
        need = Need(cpus=self.chance.choice((1, 2, 4))) if queue == "any" else Need(gpus=1)
        for _ in range(self.chance.randint(1, 3)):
            seconds = self.chance.choice((5, 20, 60, 150, 300))
            failing = " exit 1" if self.chance.random() < 0.1 else ""
            attempts = self.chance.randint(1, 2)
            job = self.world.submit(queue, f"work {seconds}{failing}", need, attempts)
            if job is not None:
                self.promises.accepted.add(job.id)
        if self.world.clock.now() < self._ends:
            self.world.later(self.chance.uniform(5, 35), self._work)

    # ------------------------------------------------------------------------ trouble

    def _trouble(self) -> None:
        if self.world.clock.now() >= self._ends:
            return
        cloud = self.chance.choice(self.world.clouds)
        kinds = self._kinds()
        names = sorted(kinds)
        name = self.chance.choices(names, [kinds[each][0] for each in names])[0]
        self.deeds[name] += 1
        said = kinds[name][1](cloud)
        self.world.note(f"{cloud.name}: {name} {said}")
        self.world.later(self.chance.uniform(3, 20), self._trouble)

    def _kinds(self) -> dict[str, tuple[int, Callable[[Cloud], str]]]:
        return {
            "throttled": (6, self._throttle),
            "sold out": (6, self._sell_out),
            "hidden": (4, self._hide),
            "lost": (8, lambda cloud: cloud.lose()),
            "failing": (6, lambda cloud: cloud.fail()),
            "preempted": (8, self._preempt),
            "unbootable": (2, self._never_boot),
            "left behind": (3, lambda cloud: cloud.leave_something()),
            "listing lag": (2, self._lag),
            "crash": (8, self._crash),
            "two at once": (3, self._two_at_once),
            "stall": (2, self._stall),
        }

    def _throttle(self, cloud: Cloud) -> str:
        times, wait_s = self.chance.randint(1, 4), self.chance.choice((0, 0, 5, 20, 60))
        cloud.throttle(times, wait_s)
        return f"{times} times, for {wait_s} s"

    def _sell_out(self, cloud: Cloud) -> str:
        room = self.chance.choice((0, 0, 1))
        what = cloud.run_out(room)
        self.world.later(self.chance.uniform(60, 400), cloud.restock)
        return f"{what}: {room}"

    def _hide(self, cloud: Cloud) -> str:
        self.world.later(self.chance.choice(_HIDDEN_S), cloud.show)
        return cloud.hide()

    def _preempt(self, cloud: Cloud) -> str:
        spot = [
            vm
            for vm in cloud.look()
            if vm.offer.market is Market.SPOT and vm.provider_id not in cloud.taken and vm.running
        ]
        if not spot:
            return "nothing"
        vm: Vm = self.chance.choice(spot)
        notice_s = self.chance.choice((0.0, 30.0, 30.0, 120.0))
        cloud.preempt(vm, notice_s)
        self.preempted += 1
        return f"{vm.machine_id} in {notice_s:.0f} s"

    def _never_boot(self, cloud: Cloud) -> str:
        cloud.unbootable += 1
        return "the next machine"

    def _lag(self, cloud: Cloud) -> str:
        seconds = self.chance.choice((0.0, 10.0, 45.0))
        cloud.lag(seconds)
        return f"of {seconds:.0f} s"

    def _crash(self, cloud: Cloud) -> str:
        if not self.world.planes:
            return "while nobody is there"
        plane = self.chance.choice(self.world.planes)
        plane.crash_at = self.chance.choice(CHECKPOINTS)
        return f"of {plane.owner} at {plane.crash_at}"

    def _two_at_once(self, cloud: Cloud) -> str:
        """A second control plane over the same file, for a while; then it is dropped."""
        if len(self.world.planes) != 1:
            return "not now"
        second = self.world.add_plane()

        def drop() -> None:
            if second in self.world.planes and not second.acting:
                self.world.bury(second)

        self.world.later(self.chance.uniform(30, 240), drop)
        return second.owner

    def _stall(self, cloud: Cloud) -> str:
        """One stands still in the middle, and another takes over."""
        if not self.world.planes:
            return "while nobody is there"
        plane = self.world.planes[0]
        self._two_at_once(cloud)
        plane.stall_at = self.chance.choice(CHECKPOINTS)
        plane.stall_s = self.chance.choice((30.0, 150.0, 300.0))
        return f"of {plane.owner} at {plane.stall_at}"

    # ------------------------------------------------------------------------ the end

    def _peace(self) -> None:
        for cloud in self.world.clouds:
            cloud.recover()
            cloud.unbootable = 0
        for plane in self.world.planes:
            plane.crash_at = plane.stall_at = ""

    def _come_to_rest(self) -> None:
        def all_ended() -> bool:
            return all(job.state in JOB_ENDED for job in self.world.jobs())

        ended = self.world.run_until(all_ended, within_s=3 * 3600)
        assert ended, f"some jobs never end: {self._why_not()}"
        # All machines go idle and leave; what they left behind is seen twice and swept.
        self.world.run_until(self._nothing_left, within_s=3600)
        self.promises.at_rest()

    def _nothing_left(self) -> bool:
        left = any(cloud.resources() for cloud in self.world.clouds)
        return not left and not self.world.store.machine_list()

    def _why_not(self) -> str:
        """What waits, and what the last plans say of it."""
        waiting = Counter(f"{job.queue} {job.state}" for job in self.world.jobs())
        plans = self.world.store.plan_list(NAME, limit=1)
        said = [json.loads(each.plan)["refusals"] for each in plans]
        return f"{tally(waiting)}; {said}"

    def figures(self) -> str:
        """What it came to, in one line each."""
        world, promises = self.world, self.promises
        calls = {cloud.name: cloud.called() for cloud in world.clouds}
        machines = {cloud.name: len(cloud.vms) for cloud in world.clouds}
        jobs = Counter(str(job.state) for job in world.jobs())
        return "\n".join(
            (
                f"calls: {tally(calls)}",
                f"machines: {tally(machines)}; at most {promises.machines_most} at once",
                f"jobs: {tally(jobs)}",
                f"preempted: {self.preempted}; processes: {len(world.dead) + len(world.planes)}",
                f"trouble: {tally(self.deeds)}",
                f"longest stray: {promises.longest_stray_s:.0f} s; "
                f"billed {promises.billed_usd:.4f} USD, booked {promises.paid_usd:.4f} USD, "
                f"{promises.latest_looks} looks late at most; {promises.unbooked} never heard of",
            )
        )
