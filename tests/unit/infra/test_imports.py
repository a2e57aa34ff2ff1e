"""What a function imports it pays for at every cold start: no SDK that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.emulators.ministack import Ministack
from tests.unit.infra import history
from tests.unit.infra.plane import BUCKET, Plane, running

pytestmark = pytest.mark.xdist_group("permissions")

ABROAD = (
    "google.cloud.compute_v1",
    "google.api_core",
    "google.auth",
    "azure.core",
    "azure.mgmt.compute",
)
"""What the SDKs of the other clouds begin with."""
NEVER = ("boto3", "numpy", "paramiko", "pynvml", "sqlite3", "typer", "uvicorn")
"""What no function has a use for."""
LOOK = """
from types import SimpleNamespace
from control_plane.serverless import reconcile
context = SimpleNamespace(
    function_name="reconcile",
    memory_limit_in_mb=1024,
    invoked_function_arn="arn:aws:lambda:eu-central-1:123456789012:function:reconcile",
    aws_request_id="00000000-0000-4000-8000-000000000000",
    get_remaining_time_in_millis=lambda: 30_400,
)
assert reconcile.handler({}, context)["looks"] == 1
"""


@pytest.fixture(scope="module")
def plane(ministack: Ministack) -> Iterator[Plane]:
    with running(ministack, bucket=f"{BUCKET}-imports") as made:
        yield made


def imported(code: str) -> set[str]:
    """The modules of a fresh process, in the environment of the plane, after it has run `code`."""
    listing = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("function", ["api", "reconcile", "interruption", "prices"])
def test_a_function_starts_without_the_sdks_of_other_clouds(plane: Plane, function: str) -> None:
    modules = imported(f"import control_plane.serverless.{function}")
    assert f"control_plane.serverless.{function}" in modules
    assert "botocore.client" in modules
    assert not modules & {*ABROAD, *NEVER}


def test_the_api_starts_without_what_people_s_routes_are_written_for(plane: Plane) -> None:
    """Nearly all requests are agents'; the framework and its models take a third of a start."""
    code = "import control_plane.serverless.api as api"
    assert not imported(code) & {"fastapi", "pydantic", "jinja2", "control_plane.api.people"}
    assert "fastapi" in imported(f"{code}\nassert api.asgi.app.people")


def test_the_api_reads_nothing_but_dynamodb_of_boto(plane: Plane) -> None:
    """Each service's description is read from a file when its first client is made."""
    code = (
        "import botocore.loaders as loaders\n"
        "read, services = loaders.Loader.load_service_model, []\n"
        "def noted(self, service, *rest, **more):\n"
        "    services.append(service)\n"
        "    return read(self, service, *rest, **more)\n"
        "loaders.Loader.load_service_model = noted\n"
        "import control_plane.serverless.api\n"
        "assert set(services) == {'dynamodb'}, services"
    )
    assert "control_plane.serverless.api" in imported(code)


def test_a_look_imports_the_sdks_of_the_declared_clouds_alone(plane: Plane) -> None:
    history.apply(plane, "research", "spot")
    before = plane.account.called().get("DescribeInstances", 0)
    modules = imported(LOOK)
    assert plane.account.called().get("DescribeInstances", 0) > before
    assert not modules & {*ABROAD, *NEVER}
