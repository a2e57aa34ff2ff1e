"""Proves that a machine which a fleet of AWS has bought finds out who it is and does its work: its
start-up text is that of others too, and which type it is, the cloud has chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.core.model import JobState, Offer
from tests.clouds.test_whole import gone
from tests.clouds.world import Aws, Land

FIRST, SECOND = "m7i.xlarge", "c6i.xlarge"
"""Types that would do: the first is cheaper and sold out."""
PRICE = Decimal("0.0800")


class TwoTypes(Aws):
    """It sells a second type on spot, for a little more."""

    def __init__(self) -> None:
        super().__init__()
        self.account.set_price(SECOND, "use1-az2", str(PRICE))
        self.account.set_capacity(0, instance_type=FIRST, market="spot")

    def catalogue(self) -> Sequence[Offer]:
        shipped = super().catalogue()
        first = next(
            offer
            for offer in shipped
            if (offer.instance_type, offer.zone) == (FIRST, "use1-az2") and offer.market == "spot"
        )
        return [*shipped, replace(first, instance_type=SECOND, price_usd_hour=PRICE)]


@pytest.fixture
def cloud() -> TwoTypes:
    return TwoTypes()


@pytest.fixture
def land(cloud: TwoTypes, tmp_path: Path) -> Iterator[Land]:
    land = Land(cloud, tmp_path)
    yield land
    land.close()


def test_a_machine_bought_by_a_fleet_works_and_goes(land: Land, cloud: TwoTypes) -> None:
    job = land.submit("echo done")
    land.until(lambda: land.job(job).state is JobState.SUCCEEDED, "the job runs")
    land.until(lambda: gone(land), "the machine goes")
    (machine,) = land.machines()
    assert (machine.offer.instance_type, machine.attempt) == (SECOND, 1)
    (paid,) = land.plane.store.prices_between(machine.planned_at, land.plane.service.clock.now())
    assert (paid.machine_id, paid.price_usd_hour) == (machine.id, PRICE)
    called = cloud.account.called()
    assert called["CreateFleet"] == called["CreateLaunchTemplate"] == 1
    assert "RunInstances" not in called
    (template,) = cloud.account.templates.values()
    assert machine.id not in str(template.data)
    assert cloud.left() == []
    assert cloud.violations() == []
