"""`orchctl sweep` against a fake EC2: what it lists, what it removes, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import clouds
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer
from tests.unit.providers.aws.test_leftovers import ec2
from tests.unit.providers.aws.world import REGION, World

DOCUMENT = f"""\
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {{pools: [l4]}}
pools:
  l4:
    gpu: 1
    clouds: {{aws: {{regions: [{REGION}]}}, local: {{}}}}
"""
FLEET = "orchctl-4f2c1d-research"
TAGS = [
    {"Key": "orchctl-fleet", "Value": FLEET},
    {"Key": "orchctl-machine", "Value": "m-gone"},
]


class Swept:
    """A server that knows one of two machines, and a disk that serves neither."""

    def __init__(self, server: FakeServer) -> None:
        self.aws = World()
        self.known = self.aws.running("m-known", fleet=FLEET)
        self.stray = self.aws.running("m-stray", fleet=FLEET)
        made = ec2(self.aws).create_volume(
            Size=100,
            AvailabilityZone="us-east-1b",
            TagSpecifications=[{"ResourceType": "volume", "Tags": TAGS}],
        )
        self.disk = made["VolumeId"]
        health = {"status": "ok", "version": "0.1.0", "installation": "orchctl-4f2c1d"}
        server.on("GET", "/v1/health", health)
        applied = samples.autoscaler(name="research", document=DOCUMENT)
        server.on("GET", "/v1/autoscalers", samples.page(applied))
        machine = samples.machine(id="m-known", provider_id=self.known.provider_id)
        server.on("GET", "/v1/machines", samples.page(machine))

    def there(self) -> set[str]:
        """What exists and costs money."""
        self.aws.account.advance(60)
        found = self.aws.account.resources()
        return {*found["instance"], *found["volume"]} & {
            self.known.provider_id,
            self.stray.provider_id,
            self.disk,
        }


@pytest.fixture
def swept(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swept]:
    swept = Swept(server)
    monkeypatch.setattr(clouds, "cloud_providers", lambda now: {"aws": swept.aws.provider})
    yield swept
    swept.aws.close()


def listed(text: str) -> list[Any]:
    return [(row["kind"], row["id"], row["machine_id"]) for row in json.loads(text)]


def test_a_dry_run_lists_what_no_record_explains_and_touches_nothing(
    cli: Cli, swept: Swept
) -> None:
    ran = cli("sweep", "--dry-run", "-o", "json")
    assert ran.code == 0
    assert listed(ran.out) == [
        ("machine", swept.stray.provider_id, "m-stray"),
        ("disk", swept.disk, "m-gone"),
    ]
    machine, _ = json.loads(ran.out)
    assert (machine["region"], machine["detail"]) == (REGION, "g4dn.xlarge")
    assert float(machine["usd_hour"]) > 0
    assert len(swept.there()) == 3
    shown = cli("sweep", "--dry-run")
    assert "m-stray" in shown.out
    assert "2 strays" in shown.err
    assert "USD a month" in shown.err


def test_a_yes_removes_it_and_nothing_else(cli: Cli, swept: Swept) -> None:
    ran = cli("sweep", "--yes")
    assert (ran.code, "2 strays told to go" in ran.err) == (0, True)
    assert swept.there() == {swept.known.provider_id}
    assert listed(cli("sweep", "--dry-run", "-o", "json").out) == []


def test_without_a_terminal_and_a_yes_nothing_goes(cli: Cli, swept: Swept) -> None:
    assert cli("sweep").code == 2
    assert len(swept.there()) == 3


def test_a_region_that_does_not_answer_is_told(cli: Cli, swept: Swept) -> None:
    swept.aws.account.silence(REGION)
    ran = cli("sweep", "--dry-run")
    assert ran.code == 7
    assert "not everything is known: aws: " in ran.err


def test_with_the_records_lost_every_machine_of_the_fleet_is_a_stray(
    cli: Cli, swept: Swept, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(DOCUMENT)
    ran = cli("sweep", "--dry-run", "--config", str(config), "--fleet", FLEET, "-o", "json")
    found = {id_ for _, id_, _ in listed(ran.out)}
    assert found == {swept.known.provider_id, swept.stray.provider_id, swept.disk}
    assert cli("sweep", "--dry-run", "--config", str(config)).code == 2
