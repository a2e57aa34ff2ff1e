"""What a cloud tells from outside, or the agent of a machine, is acted on once: whatever is told
twice, late, early, in another order, or of somebody else's machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_bootstrap import wire
from control_plane.agents import TAKEN_S_MIN, Gone
from control_plane.core.model import JobState, Machine, MachineState
from control_plane.errors import Conflict, Denied, Unavailable
from control_plane.interruptions import HINTS_KEPT, TRIES, Interruptions, take
from control_plane.ports import CloudNotice, Fence, NoticeKind
from control_plane.stores.memory import MemoryStore
from tests.api.world import NOW, World, offer, policy
from tests.invariants.world import ready_world

TAKEN, HINT, ENDING = NoticeKind.TAKEN, NoticeKind.HINT, NoticeKind.ENDING
ID = "i-0123456789abcdef0"


class Heard:
    """A world with machines of AWS, and a cloud that tells of them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.world = World(self.store)
        self.world.fleet.apply("", policy(), expected_version=0)
        self.cloud = Interruptions(self.world.service, {})
        self.world.wakes = 0

    def machine(
        self, state: MachineState = MachineState.READY, machine_id: str = "m-1", cloud_id: str = ID
    ) -> Machine:
        """A machine that AWS has made, in a state that one can be in."""
        begun = self.world.machine(machine_id, min(state, MachineState.READY, key=_ORDER.index))
        sold = replace(offer(), provider="aws", region="us-east-1")
        made = replace(begun, offers=(sold,), provider_id=cloud_id, state=state)
        return self.store.machine_put(made, expected_version=begun.version, fence=None)

    def tell(
        self,
        kind: NoticeKind = TAKEN,
        cloud_id: str = ID,
        *,
        ago_s: float = 0.0,
        provider: str = "aws",
        region: str = "us-east-1",
        scope: str = "",
    ) -> list[str]:
        """The cloud tells of a machine; of which of ours that was."""
        said = CloudNotice(
            provider_id=cloud_id,
            kind=kind,
            said_at=self.world.clock.now() - timedelta(seconds=ago_s),
            seconds=120.0,
            region=region,
        )
        return list(self.cloud.hear(provider, [said], scope=scope))

    def read(self, machine_id: str = "m-1") -> Machine:
        return self.store.machine_get(machine_id)

    def told(self) -> list[str]:
        """What the event log says of machines, without their beginnings."""
        events = self.store.event_list(kind="machine").items
        return [each.text for each in events if "registered" not in each.text]


_ORDER = [MachineState.LAUNCHING, MachineState.BOOTING, MachineState.READY, *MachineState]


@pytest.fixture
def heard() -> Heard:
    return Heard()


# ------------------------------------------------------------------------------ it is taken


def test_a_machine_that_is_taken_drains_at_once(heard: Heard) -> None:
    heard.machine()
    assert heard.tell(ago_s=10.0) == ["m-1"]
    machine = heard.read()
    assert machine.state is MachineState.DRAINING
    assert machine.interruption_at == NOW + timedelta(seconds=110)
    assert machine.reason
    assert machine.reason.code == "interrupted"
    assert heard.told() == ["spot interruption announced, 110 s left"]
    assert heard.world.wakes == 1


def test_its_agent_is_told_with_every_answer_and_gets_no_job(heard: Heard) -> None:
    heard.machine()
    job_id = heard.world.submit()
    heard.tell()
    machine, agents = heard.read(), heard.world.agents
    claimed = agents.claim(machine, wire.Claim())
    assert (claimed.jobs, claimed.drain, claimed.taken_in_s) == ([], True, 120.0)
    heard.world.clock.sleep(100)
    assert agents.beat(machine, wire.Beat()).taken_in_s == 20.0
    heard.world.clock.sleep(100)
    # As long as it answers there is time to end well.
    assert agents.beat(machine, wire.Beat()).taken_in_s == TAKEN_S_MIN
    assert heard.store.job_get(job_id).state is JobState.QUEUED


def test_the_agent_of_a_machine_that_stays_is_told_nothing(heard: Heard) -> None:
    machine, agents = heard.machine(), heard.world.agents
    assert agents.claim(machine, wire.Claim()).taken_in_s < 0
    assert agents.beat(machine, wire.Beat()).taken_in_s < 0


def test_a_machine_that_still_boots_never_serves(heard: Heard) -> None:
    booting = heard.machine(MachineState.BOOTING)
    assert heard.tell() == ["m-1"]
    assert heard.read().state is MachineState.INTERRUPTED
    proof = {"kind": "one-time", "token": heard.world.one_time_token(booting)}
    with pytest.raises(Gone):
        heard.world.agents.register(wire.Register(machine_id="m-1", instance="a", proof=proof))


def test_a_machine_that_drains_already_is_told_too(heard: Heard) -> None:
    heard.machine()
    heard.world.fleet.drain("m-1", actor="somebody")
    heard.tell()
    assert heard.read().interruption_at == NOW + timedelta(seconds=120)


@pytest.mark.parametrize(
    "state",
    [MachineState.TERMINATING, MachineState.INTERRUPTED, MachineState.LOST],
)
def test_a_machine_that_ends_ends_as_it_did(heard: Heard, state: MachineState) -> None:
    before = heard.machine(state)
    for kind in (TAKEN, HINT):
        heard.tell(kind)
    assert heard.read() == before


def test_a_machine_that_has_ended_is_nobodys(heard: Heard) -> None:
    before = heard.machine(MachineState.TERMINATED)
    for kind in NoticeKind:
        assert heard.tell(kind) == []
    assert heard.read() == before
    assert (heard.told(), heard.world.wakes) == ([], 0)


# ------------------------------------------------------------------ twice, late, out of order


def test_what_is_told_twice_is_done_once(heard: Heard) -> None:
    heard.machine()
    heard.tell()
    once = heard.read()
    heard.world.clock.sleep(3)
    assert heard.tell(ago_s=3.0) == ["m-1"]
    assert heard.read() == once
    assert (len(heard.told()), heard.world.wakes) == (1, 1)


def test_the_agent_that_saw_it_too_changes_nothing(heard: Heard) -> None:
    heard.machine()
    heard.tell(ago_s=10.0)
    once = heard.read()
    heard.world.agents.notice(once, wire.Notice("spot", 110.0))
    assert heard.read() == once
    assert len(heard.told()) == 1


def test_an_earlier_end_counts_and_is_not_told_again(heard: Heard) -> None:
    heard.machine()
    heard.world.agents.notice(heard.read(), wire.Notice("maintenance", 900.0))
    heard.tell()
    assert heard.read().interruption_at == NOW + timedelta(seconds=120)
    assert heard.told() == ["maintenance interruption announced, 900 s left"]
    heard.world.agents.notice(heard.read(), wire.Notice("maintenance", 900.0))
    assert heard.read().interruption_at == NOW + timedelta(seconds=120)


def test_what_comes_hours_late_takes_a_machine_that_is_still_there(heard: Heard) -> None:
    heard.machine()
    heard.tell(ago_s=7200.0)
    assert heard.read().state is MachineState.DRAINING
    assert heard.told() == ["spot interruption announced, 0 s left"]


def test_a_cloud_whose_clock_is_ahead_gives_no_more_time(heard: Heard) -> None:
    heard.machine()
    heard.tell(ago_s=-300.0)
    assert heard.read().interruption_at == NOW + timedelta(seconds=120)


def test_an_old_hint_undoes_nothing(heard: Heard) -> None:
    heard.machine()
    heard.tell()
    taken = heard.read()
    heard.tell(HINT, ago_s=60.0)
    assert heard.read() == taken


@given(
    told=st.lists(
        st.tuples(st.sampled_from(NoticeKind), st.sampled_from([0.0, 5.0, 60.0])), min_size=1
    )
)
def test_order_and_number_make_no_difference(told: list[tuple[NoticeKind, float]]) -> None:
    outcomes = set()
    for order in (told, told[::-1], told + told):
        heard = Heard()
        heard.machine()
        for kind, ago_s in order:
            heard.tell(kind, ago_s=ago_s)
        machine = heard.read()
        outcomes.add((machine.state, machine.interruption_at, len(heard.told())))
    ((state, at, lines),) = outcomes
    oldest = max((ago_s for kind, ago_s in told if kind is TAKEN), default=None)
    assert (state is MachineState.DRAINING) == (oldest is not None)
    assert at == (None if oldest is None else NOW + timedelta(seconds=120.0 - oldest))
    assert lines == len({kind for kind, _ in told} - {ENDING})


# ---------------------------------------------------------------------- hints, and ends


def test_a_hint_is_noted_once_and_stops_nothing(heard: Heard) -> None:
    before = heard.machine()
    assert heard.tell(HINT) == heard.tell(HINT) == ["m-1"]
    assert heard.read() == before
    assert heard.told() == ["the cloud hints at an interruption"]
    assert heard.world.wakes == 0


def test_what_is_remembered_of_hints_is_bounded(heard: Heard) -> None:
    heard.machine()
    for number in range(HINTS_KEPT + 1):
        heard.cloud._hinted.append(f"m-{number + 2}")
    heard.tell(HINT)
    heard.tell(HINT)
    assert len(heard.told()) == 1


def test_a_machine_that_ends_is_a_reason_to_look(heard: Heard) -> None:
    before = heard.machine()
    assert heard.tell(ENDING) == ["m-1"]
    assert heard.read() == before
    assert heard.world.wakes == 1


# ------------------------------------------------------------------------ whose machine it is


def test_machines_of_others_are_ignored(heard: Heard) -> None:
    before = heard.machine()
    for kind in NoticeKind:
        assert heard.tell(kind, "i-of-somebody-else") == []
        assert heard.tell(kind, provider="gcp") == []
    assert heard.read() == before
    assert (heard.told(), heard.world.wakes) == ([], 0)


def test_ids_are_compared_whatever_their_case(heard: Heard) -> None:
    cloud_id = "/subscriptions/0/resourceGroups/ML/providers/Microsoft.Compute/x/vm-1"
    heard.machine(cloud_id=cloud_id)
    assert heard.tell(cloud_id=cloud_id.lower().replace("vm", "VM")) == ["m-1"]


def test_nobody_speaks_of_machines_outside_their_scope(heard: Heard) -> None:
    cloud_id = "projects/acme-ml/zones/z/instances/vm-1"
    before = heard.machine(cloud_id=cloud_id)
    with pytest.raises(Denied, match="projects/acme/"):
        heard.tell(cloud_id=cloud_id, scope="projects/acme/")
    assert heard.read() == before
    assert heard.tell(cloud_id=cloud_id, scope="projects/acme-ml/") == ["m-1"]


def test_several_at_once_each_count(heard: Heard) -> None:
    heard.machine()
    heard.machine(machine_id="m-2", cloud_id="i-2")
    said = [
        CloudNotice(provider_id=each, kind=TAKEN, said_at=NOW, seconds=120.0)
        for each in ("i-2", "i-9", ID)
    ]
    assert heard.cloud.hear("aws", said) == ["m-2", "m-1"]
    assert heard.read("m-2").state is heard.read().state is MachineState.DRAINING


# ---------------------------------------------------------------- before a launch is recorded


def test_what_may_be_about_a_launch_under_way_is_to_come_again(heard: Heard) -> None:
    launching = heard.machine(MachineState.LAUNCHING, cloud_id="")
    with pytest.raises(Unavailable):
        heard.tell()
    booting = replace(launching, state=MachineState.BOOTING, provider_id=ID)
    heard.store.machine_put(booting, expected_version=launching.version, fence=None)
    assert heard.tell() == ["m-1"]
    assert heard.read().state is MachineState.INTERRUPTED


def test_what_is_known_is_done_though_something_is_to_come_again(heard: Heard) -> None:
    heard.machine()
    heard.machine(MachineState.LAUNCHING, machine_id="m-2", cloud_id="")
    said = [
        CloudNotice(provider_id=each, kind=TAKEN, said_at=NOW, seconds=120.0)
        for each in ("i-unknown", ID)
    ]
    with pytest.raises(Unavailable):
        heard.cloud.hear("aws", said)
    assert heard.read().state is MachineState.DRAINING


def test_a_launch_elsewhere_or_a_hint_keeps_nobody_waiting(heard: Heard) -> None:
    heard.machine(MachineState.LAUNCHING, cloud_id="")
    assert heard.tell(region="eu-west-1") == []
    assert heard.tell(HINT) == heard.tell(ENDING) == []


def test_a_launch_that_is_not_finished_is_not_interrupted_yet(heard: Heard) -> None:
    """Google and Azure name a machine before they have made it."""
    launching = heard.machine(MachineState.LAUNCHING)
    with pytest.raises(Unavailable):
        heard.tell()
    assert heard.read() == launching


# -------------------------------------------------------------------------- at the same time


class Rival:
    """A store in which somebody else writes a machine just before we do."""

    def __init__(self, heard: Heard, times: int) -> None:
        self._heard = heard
        self._put = heard.store.machine_put
        self._times = times

    def put(self, machine: Machine, *, expected_version: int, fence: Fence | None) -> Machine:
        if self._times:
            self._times -= 1
            now = self._heard.read(machine.id)
            self._put(replace(now, protected=True), expected_version=now.version, fence=None)
        return self._put(machine, expected_version=expected_version, fence=fence)


def test_what_others_write_meanwhile_is_kept(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    heard.machine()
    monkeypatch.setattr(heard.store, "machine_put", Rival(heard, TRIES - 1).put)
    heard.tell()
    assert heard.read().protected
    assert heard.read().state is MachineState.DRAINING


def test_it_is_not_tried_for_ever(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = heard.machine()
    monkeypatch.setattr(heard.store, "machine_put", Rival(heard, TRIES).put)
    with pytest.raises(Conflict):
        take(heard.world.service, machine, "spot", NOW)
    assert heard.read().state is MachineState.READY


# ------------------------------------------------------------------------------- what it costs


def test_a_machine_that_works_on_after_its_announced_end_costs_as_long_as_it_lived() -> None:
    """A notice of long ago, or one that is not true, takes nothing off the bill."""
    world, (guest,), _ = ready_world()
    guest.claim()
    world.run(600)
    said = CloudNotice(
        provider_id=guest.vm.provider_id,
        kind=TAKEN,
        said_at=world.clock.now() - timedelta(hours=30),
        seconds=120.0,
    )
    Interruptions(world.service, {}).hear("aws", [said])
    world.run(60)
    lived = world.store.machine_get(guest.vm.machine_id).last_beat_at
    world.fleet.terminate(guest.vm.machine_id)
    world.run(120)
    ended = world.store.machine_get(guest.vm.machine_id)
    day = timedelta(days=1)
    (paid, *_) = world.store.prices_between(world.clock.now() - day, world.clock.now() + day)
    assert ended.state is MachineState.TERMINATED
    assert lived is not None
    assert ended.ended_at is not None
    assert (paid.machine_id, paid.ended_at) == (ended.id, ended.ended_at)
    assert lived <= ended.ended_at <= world.clock.now()
