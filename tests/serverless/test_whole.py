"""Proves the main job without a server: the installed command line at a deployment on Lambda, which
buys machines that boot what they were given, prove themselves, run the job and go."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.clouds.world import CLOUDS
from tests.serverless.deployed import Deployed
from tests.serverless.world import Country

pytestmark = pytest.mark.xdist_group("serverless")


@pytest.fixture
def country(deployed: Deployed, tmp_path: Path) -> Iterator[Country]:
    made = Country(deployed, tmp_path, [each() for each in CLOUDS.values()])
    yield made
    made.close()


def test_jobs_bring_machines_of_three_clouds_and_the_machines_go(country: Country) -> None:
    for cloud in country.clouds.values():
        country.apply(cloud)
    jobs = {name: country.submit(name, f"echo done at {name}") for name in country.clouds}
    for name, job_id in jobs.items():
        country.until(lambda job_id=job_id: country.state(job_id) == "succeeded", f"{name} runs it")
        assert f"done at {name}" in country.deployed.orchctl("job", "logs", job_id)
    country.until(
        lambda: all(each["state"] == "terminated" for each in country.machines()),
        "the machines go",
    )
    machines = country.machines()
    assert {each["offers"][0]["provider"] for each in machines} == set(country.clouds)
    bill = country.cost("machine")
    billed = {row["group"]["machine"]: Decimal(row["cost_usd"]) for row in bill["rows"]}
    assert billed == {each["id"]: Decimal(each["cost_usd"]) for each in machines}
    assert Decimal(bill["totals"]["cost_usd"]) == sum(billed.values())
    assert all(billed.values())
    for cloud in country.clouds.values():
        assert cloud.left() == []
        assert cloud.violations() == []
