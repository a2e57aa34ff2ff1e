"""Our API over a durable store as a process of its own, and the jobs and machines in it.

python -m bench.http_peers.ours DIRECTORY
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread

from bench.http_peers.apps import say
from bench.http_peers.load import Call
from control_plane.agents import AgentSettings
from control_plane.api.server import Server, spare_the_collector
from control_plane.config.load import load_text
from control_plane.core.model import (
    Capacity,
    Job,
    JobSpec,
    JobState,
    Lease,
    Machine,
    MachineState,
    Need,
    Offer,
)
from control_plane.ports import Ending, TransferKind
from control_plane.stores.sqlite import SqliteStore
from control_plane.stores.transfer import row
from control_plane.tokens import MachineTokens
from control_plane.wiring import ControlPlane, EmbeddedSettings, embedded

QUEUE, EMPTY = "bench", "empty"
IDLE_MACHINE = "m-idle"
"""The one of the queue that stays empty."""
DOCUMENT = f"""\
apiVersion: orchctl/v1
kind: Autoscaler
name: bench
queues:
  {QUEUE}: {{pools: [full]}}
  {EMPTY}: {{pools: [idle]}}
pools:
  full: {{clouds: {{aws: {{regions: [us-east-1]}}}}, machines: {{max: 2}}}}
  idle: {{clouds: {{aws: {{regions: [us-east-1]}}}}, machines: {{max: 2}}}}
budget: {{hour: 100 USD}}
"""
_CAPACITY = Capacity(
    gpus=8, gpu_name="L4", gpu_memory_gib=24, cpus=32, memory_mib=65_536, disk_gib=500
)
_OFFER = Offer(
    provider="aws",
    region="us-east-1",
    zone="us-east-1d",
    instance_type="g6.48xlarge",
    capacity=_CAPACITY,
    price_usd_hour=Decimal("13.35"),
)
_AT_ONCE = 500


class Fleet:
    """Machines with a session each, and jobs for them; written from outside, beside the server."""

    def __init__(self, state_dir: Path, machines: int) -> None:
        self._store = SqliteStore(state_dir / "orchctl.db", durability="normal")
        tokens = MachineTokens(bytes.fromhex((state_dir / "secret").read_text().strip()))
        names = [f"m-{number:05}" for number in range(machines)]
        self._tokens = {name: tokens.session(name, "one") for name in names}
        self._idle = tokens.session(IDLE_MACHINE, "one")
        self._numbers = itertools.count(1)
        self._put(_machine(name, "full") for name in names)
        self._put([_machine(IDLE_MACHINE, "idle")])

    def close(self) -> None:
        self._store.close()

    def refill(self) -> None:
        """As many jobs wait as there are machines, which hold none."""
        missing = len(self._tokens) - self._store.queue_stats()[QUEUE].waiting
        now = datetime.now(UTC)
        for number in itertools.islice(self._numbers, missing):
            spec = JobSpec(
                command=f"python train.py --lr 3e-4 --seed {number}",
                need=Need(gpus=1),
                env={"WANDB_MODE": "offline"},
            )
            job = Job(id=f"j-{number:09}", queue=QUEUE, spec=spec, submitted_at=now, queued_at=now)
            self._store.job_enqueue(job)

    def claims(self) -> Sequence[Call]:
        """Each machine asks for a job, holding none."""
        body = '{"running": [], "limit": 1}'
        return [
            Call(path="/v1/agent/claim", token=token, body=body) for token in self._tokens.values()
        ]

    def idle_claims(self) -> Sequence[Call]:
        """A machine asks for a job where there is none."""
        return [Call(path="/v1/agent/claim", token=self._idle, body='{"running": [], "limit": 1}')]

    def idle_beats(self) -> Sequence[Call]:
        """Each machine says that it lives and runs nothing."""
        return [
            Call(path="/v1/agent/beat", token=token, body='{"running": []}')
            for token in self._tokens.values()
        ]

    def check_leases(self, answers: int) -> None:
        """Raise `RuntimeError` unless there is a lease for each claim that was answered."""
        held = len(self._leases())
        if held < answers:
            raise RuntimeError(f"{answers} claims were answered, {held} jobs are leased")

    def check_ended(self, answers: int) -> None:
        """Raise `RuntimeError` unless a job has ended for each `finish` that was answered."""
        ended = len(self._tokens) - len(self._leases())
        if ended < answers:
            raise RuntimeError(f"{answers} ends were answered, {ended} jobs have ended")

    def claim_the_rest(self) -> None:
        """Every machine holds a job; one whose claim was under way when the load ended may hold
        two."""
        busy = {lease.machine_id for lease in self._leases()}
        for name in self._tokens.keys() - busy:
            now = datetime.now(UTC)
            self._store.job_claim(name, [QUEUE], _CAPACITY, limit=1, now=now)

    def beats(self) -> Sequence[Call]:
        """Each machine says that it lives, and what it runs."""
        return self._each("/v1/agent/beat", '{{"running": ["{id}:{epoch}"]}}')

    def starts(self) -> Sequence[Call]:
        """Each machine begins to run what it holds."""
        return self._each("/v1/agent/jobs/{id}/start", '{{"epoch": {epoch}}}')

    def finishes(self) -> Sequence[Call]:
        """Each machine has done what it holds."""
        return self._each(
            "/v1/agent/jobs/{id}/finish",
            '{{"epoch": {epoch}, "outcome": "succeeded", "exit_code": 0}}',
        )

    def finish_the_rest(self) -> None:
        """No machine holds a job."""
        for lease in self._leases():
            self._store.job_finish(
                lease.job_id,
                lease.epoch,
                Ending(outcome="succeeded", exit_code=0),
                state=JobState.SUCCEEDED,
                now=datetime.now(UTC),
            )

    def _leases(self) -> Sequence[Lease]:
        return self._store.job_leases()

    def _each(self, path: str, body: str) -> Sequence[Call]:
        return [
            Call(
                path=path.format(id=lease.job_id),
                body=body.format(id=lease.job_id, epoch=lease.epoch),
                token=self._tokens[lease.machine_id],
            )
            for lease in self._leases()
        ]

    def _put(self, machines: Iterator[Machine] | Sequence[Machine]) -> None:
        rows = (row(each) for each in machines)
        while batch := list(itertools.islice(rows, _AT_ONCE)):
            self._store.transfer_write(TransferKind.MACHINE, batch)


def _machine(name: str, pool: str) -> Machine:
    now = datetime.now(UTC)
    return Machine(
        id=name,
        autoscaler="bench",
        pool=pool,
        state=MachineState.READY,
        version=3,
        attempt=1,
        offers=(_OFFER,),
        planned_at=now,
        launched_at=now,
        registered_at=now,
        last_beat_at=now,
        idle_since=now,
        instance="one",
        capacity=_CAPACITY,
    )


def plane_in(state_dir: Path) -> ControlPlane:
    """A control plane that has the document."""
    plane = embedded(
        EmbeddedSettings(
            state_dir=state_dir, server_url="http://127.0.0.1", agents=AgentSettings(wait_s=0.0)
        )
    )
    plane.fleet.apply(DOCUMENT, load_text(DOCUMENT, name="bench"), expected_version=None)
    return plane


def serve(state_dir: Path) -> None:
    """Answer until killed; nothing decides here, so nobody ends the machines that are none."""
    plane = plane_in(state_dir)
    server = Server(plane.app, plane.changes, host="127.0.0.1", port=0)
    Thread(target=_announce, args=[server], daemon=True).start()
    spare_the_collector()  # as `orchctl up` does
    server.run()


def _announce(server: Server) -> None:
    while not server.started:
        time.sleep(0.01)
    say(server.bound_port)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
