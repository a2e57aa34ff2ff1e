"""What machines left behind goes, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest

from control_plane.core.model import ErrorClass, Leftover
from control_plane.core.policy import CloudPolicy
from control_plane.errors import ProviderError
from control_plane.ports import Launched
from control_plane.sweep import AGE, GRACE, PAUSE, Sweeper, look, open_machines
from providers.simulated.spec import CloudSpec
from tests.invariants.world import Watched, World, small_world

FLEET = "test-research"


class Untidy(Watched):
    """A cloud on which machines leave disks behind."""

    def __init__(self, inner: Watched) -> None:
        super().__init__(inner.cloud, inner.name)
        self.left: dict[str, Leftover] = {}
        self.silent = False

    def leave(self, name: str, machine_id: str, *, dated: bool = True) -> None:
        self.left[name] = Leftover(
            provider=self.name,
            region="us-east-1",
            zone="us-east-1a",
            kind="disk",
            id=name,
            fleet=FLEET,
            machine_id=machine_id,
            created_at=self.cloud.clock.now() if dated else None,
            size="100 GiB",
            usd_hour=Decimal("0.011"),
        )

    def strays(self, fleet: str, clouds: Sequence[CloudPolicy]) -> Sequence[Leftover]:
        assert fleet == FLEET
        assert [cloud.provider for cloud in clouds] == [self.name]
        if self.silent:
            raise refused("strays")
        return list(self.left.values())

    def remove(self, leftover: Leftover) -> None:
        if self.silent:
            raise refused("remove")
        del self.left[leftover.id]


def refused(call: str) -> ProviderError:
    return ProviderError(
        f"no {call} now", error_class=ErrorClass.TRANSIENT, raw_code="ServiceUnavailable"
    )


class Sweeping:
    """A world with one cloud that is swept."""

    def __init__(self) -> None:
        two = CloudSpec(regions={"us-east-1": ("1a",), "eu-west-1": ("1b",)})
        self.world: World = small_world(spec=two)
        self.cloud = Untidy(self.world.provider)
        self.sweeper = Sweeper(self.world.service, {"aws": self.cloud}, lambda name: f"test-{name}")

    def round(self, later: timedelta = PAUSE) -> list[str]:
        """One round, so much later; what is left."""
        self.world.clock.advance(later.total_seconds())
        self.sweeper.sweep()
        return sorted(self.cloud.left)

    def told(self) -> list[str]:
        events = self.world.store.event_list(kind="machine").items
        return [each.text for each in events if each.code == "leftover-removed"]


@pytest.fixture
def sweeping() -> Sweeping:
    return Sweeping()


def test_a_disk_that_serves_nobody_goes_at_the_second_look_and_is_told(sweeping: Sweeping) -> None:
    sweeping.cloud.leave("d-1", "m-gone")
    assert sweeping.round() == ["d-1"]
    assert sweeping.round(GRACE) == []
    assert sweeping.told() == ["disk d-1 (100 GiB) of m-gone was left over: removed"]


def test_an_old_one_goes_at_first_sight(sweeping: Sweeping) -> None:
    sweeping.cloud.leave("d-1", "m-gone")
    assert sweeping.round(AGE) == []


def test_one_without_a_date_goes_at_the_second_look(sweeping: Sweeping) -> None:
    sweeping.cloud.leave("d-1", "", dated=False)
    assert sweeping.round(AGE) == ["d-1"]
    assert sweeping.round(GRACE) == []


def test_what_belongs_to_an_open_machine_stays(sweeping: Sweeping) -> None:
    sweeping.world.submit()
    sweeping.world.tick()
    sweeping.cloud.leave("d-1", sweeping.world.machine().id)
    assert sweeping.round(AGE) == ["d-1"]
    assert sweeping.round(AGE) == ["d-1"]


def test_one_that_served_somebody_in_between_is_new_again(sweeping: Sweeping) -> None:
    sweeping.cloud.leave("d-1", "m-gone", dated=False)
    sweeping.round()
    left = sweeping.cloud.left.pop("d-1")
    sweeping.round()
    sweeping.cloud.left["d-1"] = left
    assert sweeping.round() == ["d-1"]
    assert sweeping.round() == []


def test_rounds_are_some_time_apart(sweeping: Sweeping) -> None:
    sweeping.round()
    sweeping.cloud.leave("d-1", "m-gone", dated=False)
    assert sweeping.round(PAUSE / 2) == ["d-1"]
    assert not sweeping.sweeper._seen


def test_a_cloud_that_does_not_answer_keeps_nobody_from_anything(sweeping: Sweeping) -> None:
    sweeping.cloud.leave("d-1", "m-gone")
    sweeping.cloud.silent = True
    assert sweeping.round(AGE) == ["d-1"]
    sweeping.cloud.silent = False
    assert sweeping.round() == []


def test_a_provider_that_leaves_nothing_behind_is_not_asked() -> None:
    world = small_world()
    Sweeper(world.service, world.providers, lambda name: name).sweep()
    assert not world.provider.calls


# ---------------------------------------------------------------------------------- for people


def machine(world: World) -> Launched:
    world.submit()
    world.tick()
    world.run(300)
    found = world.machine()
    assert found.launched_at
    return Launched(provider_id=found.provider_id, at=found.launched_at)


def test_a_look_shows_what_no_open_record_explains(sweeping: Sweeping) -> None:
    world, cloud = sweeping.world, sweeping.cloud
    launched = machine(world)
    cloud.leave("d-1", "m-gone")
    known = lambda: open_machines(world.store)  # noqa: E731
    assert list(known().values()) == [launched.provider_id]
    clouds = [CloudPolicy(provider="aws")]

    (disk,) = look(cloud, FLEET, clouds, known).strays
    assert (disk.kind, disk.id, disk.usd_hour) == ("disk", "d-1", Decimal("0.011"))

    # As if the books had been lost.
    found = look(cloud, FLEET, clouds, dict).strays
    assert [each.kind for each in found] == ["machine", "disk"]
    for each in found:
        each.remove(cloud, {})
    world.clock.advance(120)
    assert not world.alive()
    assert not cloud.left


def test_a_second_vm_of_one_machine_is_not_explained_by_its_record(sweeping: Sweeping) -> None:
    launched = machine(sweeping.world)
    (machine_id,) = open_machines(sweeping.world.store)
    clouds = [CloudPolicy(provider="aws")]
    assert not look(sweeping.cloud, FLEET, clouds, lambda: {machine_id: ""}).strays
    (stray,) = look(sweeping.cloud, FLEET, clouds, lambda: {machine_id: "i-other"}).strays
    assert stray.id == launched.provider_id


def test_a_look_says_what_did_not_answer(sweeping: Sweeping) -> None:
    sweeping.cloud.silent = True
    sweeping.cloud.cloud.partial("eu-west-1")
    found = look(sweeping.cloud, FLEET, [CloudPolicy(provider="aws")], dict)
    assert found.problem == "eu-west-1: no answer; no strays now"
    sweeping.cloud.refuses["observe"] = "AuthFailure"
    assert look(sweeping.cloud, FLEET, [CloudPolicy(provider="aws")], dict).strays == ()
