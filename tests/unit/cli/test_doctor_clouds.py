"""`doctor --config`: the clouds of a document, here a fake one behind the real adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane import clouds
from providers.aws.client import AwsSettings
from providers.aws.provider import AwsProvider
from tests.fakes.ec2.account import Account
from tests.fakes.ec2.server import Ec2Server
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer

DOCUMENT = """
apiVersion: orchctl/v1
kind: Autoscaler
name: research
queues:
  default: {pools: [t4]}
pools:
  t4:
    gpu: T4:1
    market: spot
    clouds: {aws: {regions: [us-east-1]}}
"""


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    fake = Ec2Server()
    settings = AwsSettings(endpoint_url=fake.url, access_key="a", secret_key="b")
    provider = AwsProvider(settings, now=fake.account.now)
    monkeypatch.setattr(clouds, "cloud_providers", lambda _now: {"aws": provider})
    yield fake.account
    fake.close()
    assert not fake.account.violations


def test_clouds_of_a_document_are_looked_at(
    cli: Cli, server: FakeServer, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchctl.version.installed", lambda: "9.9")
    server.on("GET", "/v1/health", {"status": "ok", "version": "9.9"})
    server.on("GET", "/v1/queues", samples.page())
    document = tmp_path / "research.yaml"
    document.write_text(DOCUMENT)
    well = cli("doctor", "--config", str(document), "-o", "json")
    rows = {row["check"]: row for row in json.loads(well.out)}
    assert (well.code, well.err) == (0, "")
    assert rows["aws credentials"]["found"].startswith(f"arn:aws:iam::{account.id}:")
    quotas = {name for name in rows if name.startswith("aws quota ")}
    assert quotas == {"aws quota us-east-1 L-3819A6DF"}, "of what the pools accept, and no other"

    account.set_quota("us-east-1", "L-3819A6DF", 0)
    account.fail_next("UnauthorizedOperation", operation="RunInstances")
    broken = cli("doctor", "--config", str(document))
    assert broken.code == 1
    assert "fix: aws service-quotas request-service-quota-increase" in broken.err
    assert '"ec2:RunInstances"' in broken.err
    assert broken.err.count("fix: ") == 2
    assert not any(account.resources().values())
