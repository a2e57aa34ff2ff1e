"""What the page on notices tells people to type fits what the server takes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from control_plane.api.edge import NOTICES, NOTICES_MAX_BYTES
from control_plane.clouds import cloud_sources
from control_plane.identity.gcp import PUSH_ACCOUNT
from control_plane.identity.web import Web
from control_plane.wiring import EmbeddedSettings, embedded
from providers.aws import events as aws
from providers.azure import events as azure
from providers.gcp import events as gcp
from providers.gcp.names import PREFIX
from tests.docs.pages import ROOT
from tests.fakes import notices

PAGE = (ROOT / "docs" / "how-to" / "notices-from-the-clouds.md").read_text(encoding="utf-8")
AT = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
VM = "/subscriptions/0/resourceGroups/orchctl/providers/Microsoft.Compute/virtualMachines/m1"


def quoted(option: str) -> str:
    """What stands in single quotes after an option."""
    found = re.search(option + r"[ =](?:\\\n *)?'([^']+)'", PAGE)
    assert found, option
    return found[1]


def test_every_event_that_eventbridge_is_asked_for_is_understood() -> None:
    pattern = json.loads(quoted("--event-pattern"))
    assert pattern["source"] == ["aws.ec2"]
    assert len(pattern["detail-type"]) == 3
    for name in pattern["detail-type"]:
        detail = {"instance-id": "i-1", "state": "terminated"}
        event = notices.aws(name, AT, **detail)
        assert aws.read(json.dumps(event).encode()).notices, name


def test_every_entry_that_the_sink_lets_through_is_understood() -> None:
    methods = re.findall(r'"(compute\.instances\.\w+)"', quoted("--log-filter"))
    assert len(methods) == 4
    for method in methods:
        pushed = notices.gcp_push(notices.gcp_entry("projects/p/zones/z-a/instances/m", method, AT))
        assert gcp.read(json.dumps(pushed).encode()).notices, method
    assert f'"/instances/{PREFIX}"' in quoted("--log-filter")


def test_every_event_that_event_grid_is_asked_for_is_understood() -> None:
    names = re.findall(r"--included-event-types (\S+)", PAGE)
    deliveries = [*notices.azure_preempted(VM, AT), *notices.azure_deleted(VM, AT)]
    assert names == [each["eventType"] for each in deliveries]
    assert len(azure.read(json.dumps(deliveries).encode()).notices) == len(names)
    assert PAGE.count("--event-delivery-schema eventgridschema") == len(names)


def test_the_policies_on_the_page_are_json() -> None:
    for document in re.findall(r"-policy-document \\\n +'([^']+)'", PAGE):
        assert json.loads(document)["Version"] == "2012-10-17"


def test_addresses_accounts_and_files_are_those_of_the_server(tmp_path: Path) -> None:
    clouds = set(re.findall(rf"\$SERVER{NOTICES}(\w+)", PAGE))
    assert clouds == set(cloud_sources(Web(), lambda: AT, ""))
    assert set(re.findall(r'"([\w-]+)@\$PROJECT\.iam', PAGE)) == {PUSH_ACCOUNT}
    plane = embedded(EmbeddedSettings(state_dir=tmp_path, server_url="http://127.0.0.1:1"))
    plane.store.close()
    (name,) = set(re.findall(r"cat \.orchctl/([\w-]+)", PAGE))
    assert (tmp_path / name).read_text() == plane.notices_token
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert plane.notices_token != plane.admin_token
    assert f"over {NOTICES_MAX_BYTES // 2**20} MiB" in PAGE
