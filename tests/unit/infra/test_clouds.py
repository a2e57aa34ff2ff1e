"""What a controller is allowed at each cloud is what `orchctl doctor` asks for there, no more and
no less."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from control_plane.core.policy import CloudPolicy
from control_plane.ports import Check
from infra.iam import clouds
from infra.iam.permissions import actions
from providers.aws import examine as aws
from providers.azure.provider import AzureProvider
from providers.catalog.loader import load_offers
from providers.gcp.provider import GcpProvider
from tests.fakes.azure.cloud import SUBSCRIPTION, AzureCloud
from tests.fakes.azure.connection import connect
from tests.fakes.azure.server import AzureServer
from tests.fakes.clock import RunningClock
from tests.fakes.gcp.cloud import GcpCloud
from tests.fakes.gcp.connection import to
from tests.fakes.gcp.server import GcpServer

PROJECT = "acme-ml"


def _fixes(checks: Iterator[Check]) -> str:
    return "\n".join(check.fix for check in checks if not check.ok)


@pytest.fixture
def gcp_fix() -> str:
    """What doctor says to a controller that may do nothing in a project."""
    cloud = GcpCloud(clock := RunningClock())
    cloud.forbid(PROJECT)
    with GcpServer(cloud) as server:
        provider = GcpProvider(to(server.url), now=clock.now)
        policy = CloudPolicy(provider="gcp", regions=("us-central1",), options={"project": PROJECT})
        return _fixes(provider.examine([policy], load_offers(("gcp",))))


@pytest.fixture
def azure_fix() -> Iterator[str]:
    """The same in a subscription."""
    cloud = AzureCloud(RunningClock())
    cloud.add_group("ml", "eastus")
    for call in ("virtualMachines_list", "disks_list", "resource_skus_list"):
        cloud.fail_next("AuthorizationFailed", call=call, status=403, times=99)
    server = AzureServer(cloud)
    provider = AzureProvider(connect(server), now=cloud.clock.now)
    options = {"resource_group": "ml", "subscription": SUBSCRIPTION}
    policy = CloudPolicy(provider="azure", regions=("eastus",), options=options)
    yield _fixes(provider.examine([policy], load_offers(("azure",))))
    server.stop()


def test_the_role_of_google_cloud_is_what_doctor_asks_for(gcp_fix: str) -> None:
    role = YAML(typ="safe", pure=True).load(clouds.GCP.read_text(encoding="utf-8"))
    (asked,) = re.findall(r"--permissions (\S+)", gcp_fix)
    assert sorted([*role["includedPermissions"], clouds.ACT_AS]) == sorted(asked.split(","))


@pytest.mark.parametrize(
    ("path", "name"), [(clouds.AZURE, "orchctl"), (clouds.AZURE_QUOTAS, "orchctl-quotas")]
)
def test_the_roles_of_azure_are_what_doctor_asks_for(azure_fix: str, path: Any, name: str) -> None:
    role = json.loads(path.read_text(encoding="utf-8"))
    asked = {
        told["Name"]: told["Actions"]
        for line in azure_fix.splitlines()
        for word in shlex.split(line)
        if word.startswith("{") and (told := json.loads(word))
    }
    assert role["Actions"] == sorted(asked[name])


def test_no_role_of_another_cloud_has_a_wildcard() -> None:
    for text in clouds.files().values():
        assert "*" not in text


def test_the_files_are_the_rendered_ones() -> None:
    for path, text in clouds.files().items():
        assert path.read_text(encoding="utf-8") == text, "run: make docs"


def _doctors() -> set[str]:
    """The actions that doctor's policies for AWS name."""
    statements = [*aws.launch_statements("machine"), *aws.fleet_statements()]
    return {action for each in statements for action in each["Action"]}


def test_doctor_reads_at_aws_what_the_functions_read() -> None:
    read = {
        each for name in ("reconcile", "prices") for each in actions(name) if "Describe" in each
    }
    assert read == {f"ec2:{name}" for name in aws.READS}


def test_doctor_asks_at_aws_for_nothing_that_no_function_has() -> None:
    assert _doctors() <= {*actions("reconcile"), *actions("prices")}
