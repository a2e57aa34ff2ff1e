"""The image runs as Lambda runs it: as nobody, on a file system that cannot be written, asked and
answered through the Runtime API."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty

import httpx2
import pytest

from tests.agent import image as agents_image
from tests.agent.podman import PODMAN, podman
from tests.requires import ROOT
from tests.serverless.attacker import answer_of, request_event
from tests.serverless.deployed import FUNCTIONS, TOKEN, Deployed
from tests.serverless.image import Container, Image
from tests.serverless.osls import REGION, packaged
from tests.serverless.runtime import FunctionFailed, Runtime

pytestmark = pytest.mark.xdist_group("serverless")


@contextmanager
def running(
    functions: Image, deployed: Deployed, *command: str
) -> Iterator[tuple[Runtime, Container]]:
    """A function in the place of the one that was deployed as a zip, over the same table."""
    name = deployed.name("api")
    deployment = deployed.client("lambda").get_function_configuration(FunctionName=name)
    told = deployment["Environment"]["Variables"]
    runtime = Runtime()
    container = functions.start(
        {
            **{key: value for key, value in told.items() if key.startswith("ORCHCTL_")},
            "AWS_LAMBDA_RUNTIME_API": runtime.address,
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_ENDPOINT_URL": deployed.ministack.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
        *command,
    )
    try:
        yield runtime, container
    except Empty:
        pytest.fail(f"the function is silent:\n{container.log()}")
    finally:
        runtime.close()
        container.remove()


def test_the_image_answers(functions: Image, deployed: Deployed) -> None:
    with running(functions, deployed) as (runtime, container):
        health = answer_of(runtime.invoke(request_event("GET", "/v1/health")))
        assert (health.status, health.json["status"]) == (200, "ok"), health
        known = {"authorization": f"Bearer {TOKEN}"}
        queues = answer_of(runtime.invoke(request_event("GET", "/v1/queues", headers=known)))
        assert queues.status == 200
        assert queues.json["items"] == deployed_queues(deployed)
        page = answer_of(runtime.invoke(request_event("GET", "/", headers=known)))
        assert page.headers["content-type"].startswith("text/html")
        assert container.log().count('"message":"answered"') == 3
        assert container.run("id -u").strip() == "993"
        assert container.run("touch /var/task/x 2>&1 || true").strip().endswith("system")
        assert container.run("touch /tmp/x").strip() == ""


def deployed_queues(deployed: Deployed) -> object:
    known = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.get(f"{deployed.url}/v1/queues", headers=known, timeout=30).json()["items"]


def test_another_function_is_a_matter_of_its_command(functions: Image, deployed: Deployed) -> None:
    handler = "control_plane.serverless.interruption.handler"
    with running(functions, deployed, handler) as (runtime, _):
        event = {"source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning"}
        detail = {"instance-id": "i-00000000000000000", "instance-action": "terminate"}
        told = {"version": "0", "id": "1", "time": "2026-01-01T00:00:00Z", "resources": []}
        found = runtime.invoke({**event, **told, "region": "us-east-1", "detail": detail})
        assert found == {"machines": []}


def test_a_function_that_cannot_start_says_why(functions: Image, deployed: Deployed) -> None:
    handler = "control_plane.serverless.nothing.handler"
    with (
        running(functions, deployed, handler) as (runtime, _),
        pytest.raises(FunctionFailed, match=r"/init/error: .*No module named"),
    ):
        runtime.invoke({})


def test_osls_deploys_it_where_that_is_wanted(tmp_path: Path) -> None:
    """Each function runs the image by a command of its own, and nothing is said of a zip."""
    uri = f"orchctl@sha256:{'0' * 64}"
    where = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{uri}"
    file = packaged(tmp_path, tmp_path / "none.zip", ORCHCTL_CODE="image", ORCHCTL_IMAGE=where)
    template = json.loads(file.read_text())
    made = [
        each["Properties"]
        for each in template["Resources"].values()
        if each["Type"] == "AWS::Lambda::Function"
    ]
    assert {each["FunctionName"]: each["ImageConfig"]["Command"] for each in made} == {
        f"orchctl-prod-{name}": [f"control_plane.serverless.{name}.handler"] for name in FUNCTIONS
    }
    assert [each["Code"] for each in made] == [{"ImageUri": where}] * len(FUNCTIONS)
    assert {each["PackageType"] for each in made} == {"Image"}
    assert not any({"Handler", "Runtime"} & set(each) for each in made)


@pytest.mark.long
@pytest.mark.parametrize(
    ("arch", "kind", "machine"), [("arm64", "arm64", 183), ("x86_64", "amd64", 62)]
)
def test_make_builds_it_for_both_processors(arch: str, kind: str, machine: int) -> None:
    """On nothing, since AWS's base cannot be had everywhere: it is the same recipe. All machine
    code in it is of that kind (the number is ELF's)."""
    agents_image.image()
    name = f"orchctl-lambda:{arch}"
    words = ["make", "lambda-image", f"ARCH={arch}", "ENGINE=" + " ".join(PODMAN)]
    subprocess.run([*words, "ARGS=--layers=false --build-arg=BASE=scratch"], cwd=ROOT, check=True)
    try:
        assert podman("inspect", "--format={{.Architecture}}", name).strip() == kind
        built = list((ROOT / "dist" / f"lambda-{arch}").rglob("*.so"))
        assert {int.from_bytes(path.read_bytes()[18:20], "little") for path in built} == {machine}
    finally:
        podman("rmi", name)
        shutil.rmtree(ROOT / "dist" / f"lambda-{arch}", ignore_errors=True)
