"""Setting the clouds up costs nothing, and needs only the SDKs that are used."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from control_plane import clouds
from control_plane.clouds import cloud_providers, real_clouds


def now() -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC)


def test_each_cloud_sells_and_verifies() -> None:
    made = real_clouds("https://orchctl.example", now)
    assert {name: each.name for name, each in made.providers.items()} == {
        name: name for name in ("aws", "azure", "gcp")
    }
    assert not any(each.needs_token for each in made.providers.values())
    assert set(made.verifiers) == set(made.providers)


def test_no_sdk_is_read_before_a_document_names_its_cloud() -> None:
    script = """
import sys
from datetime import datetime
from control_plane.clouds import real_clouds
real_clouds("https://orchctl.example", datetime.now)
sdks = "botocore boto3 google.cloud.compute_v1 azure.mgmt.compute azure.identity jwt cryptography"
print([name for name in sdks.split() if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_cloud_whose_sdk_is_missing_is_not_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clouds._SDKS, "gcp", "google.cloud.not_there")
    monkeypatch.setitem(clouds._SDKS, "azure", "nobody.sells.this")
    assert list(cloud_providers(now)) == ["aws"]
