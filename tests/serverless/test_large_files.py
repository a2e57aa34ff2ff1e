"""Proves that files too large for a function go past it: a source from the command line to a
machine, an artifact from there back, and that an address for one file is good for no other."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from agent_bootstrap.bundle import bundle
from agent_bootstrap.shutdown import kill_jobs
from control_plane.core.model import Machine, MachineState
from control_plane.serverless.limits import DIRECT_ABOVE_BYTES
from control_plane.serverless.shared import kept_secret
from control_plane.stores.dynamodb import INDEXES, DynamoStore
from control_plane.stores.dynamodb.client import TableClient
from control_plane.system import SystemClock
from control_plane.tokens import MachineTokens
from tests.api.world import offer
from tests.serverless.deployed import TOKEN, Deployed

pytestmark = pytest.mark.xdist_group("serverless")

SIZE = 9_000_000
"""More than Lambda takes or gives at a time."""
DATA = random.Random(9).randbytes(SIZE)
SHA256 = hashlib.sha256(DATA).hexdigest()

QUEUE = "large"
DOCUMENT = f"""\
apiVersion: orchctl/v1
kind: Autoscaler
name: {QUEUE}
queues:
  {QUEUE}: {{pools: [small]}}
pools:
  small:
    cpu: 2..
    clouds: {{aws: {{regions: [eu-central-1]}}}}
    machines: {{max: 1}}
"""


@pytest.fixture(autouse=True)
def _nothing_left(deployed: Deployed) -> Iterator[None]:
    with deployed.restored():
        yield


@pytest.fixture
def agent(deployed: Deployed, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts the agent of a machine that serves `QUEUE`. It is no cloud's and its autoscaler is
    paused, so nothing is bought."""
    document = tmp_path / "large.yaml"
    document.write_text(DOCUMENT)
    deployed.orchctl("autoscaler", "apply", str(document), "--yes")
    deployed.orchctl("autoscaler", "pause", QUEUE)
    token = tmp_path / "token"
    token.write_text(_one_time_token(deployed))
    token.chmod(0o600)
    file = tmp_path / "agent.pyz"
    file.write_bytes(bundle())
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        words = ["--server", deployed.url, "--machine", f"m-{QUEUE}", "--token-file", token]
        words += ["--dir", tmp_path / "machine", "--cache", tmp_path / "cache"]
        started.append(subprocess.Popen([sys.executable, "-I", file, *words]))

    yield start
    for process in started:
        process.kill()
        process.wait()
    kill_jobs(f"m-{QUEUE}")


def _one_time_token(deployed: Deployed) -> str:
    """Of a machine that was launched just now."""
    table, name = deployed.client("dynamodb"), deployed.outputs()["TableName"]
    store = DynamoStore(table, table=name, clock=SystemClock())
    machine = Machine(
        id=f"m-{QUEUE}",
        autoscaler=QUEUE,
        pool="small",
        state=MachineState.PLANNED,
        offers=(offer(),),
        planned_at=datetime.now(UTC),
    )
    machine = store.machine_put(machine, expected_version=0, fence=None)
    for state in (MachineState.LAUNCHING, MachineState.BOOTING):
        machine = replace(machine, state=state, launched_at=datetime.now(UTC))
        machine = store.machine_put(machine, expected_version=machine.version, fence=None)
    return MachineTokens(kept_secret(TableClient(table, name, indexes=INDEXES))).one_time(machine)


def test_a_large_source_reaches_the_job_and_a_large_artifact_comes_back(
    deployed: Deployed, agent: Callable[[], None], tmp_path: Path
) -> None:
    front = deployed.front
    front.seen.clear()
    front.largest_bytes = 0
    project = tmp_path / "project"
    project.mkdir()
    (project / "data.bin").write_bytes(DATA)
    words = ("--queue", QUEUE, "--cpu", "1", "-o", "name", "--artifact", "out/*")
    command = "mkdir out && tail -c +2 data.bin > 'out/most of it.bin'"
    job = deployed.orchctl("run", *words, command, folder=project).strip().rpartition("/")[2]
    agent()
    deployed.orchctl("job", "wait", job, "--timeout", "60")

    deployed.orchctl("job", "artifacts", job, "--download", "got", folder=tmp_path)

    assert (tmp_path / "got/out/most of it.bin").read_bytes() == DATA[1:]
    assert front.largest_bytes <= DIRECT_ABOVE_BYTES
    seen = [(method, path.partition("?")[0], status) for method, path, status in front.seen]
    artifact = "artifacts/out/most%20of%20it.bin"
    assert ("GET", f"/v1/agent/jobs/{job}/source", 307) in seen
    assert ("POST", f"/v1/agent/jobs/{job}/{artifact}", 200) in seen
    assert ("GET", f"/v1/jobs/{job}/{artifact}", 307) in seen
    assert [path for method, path, _ in seen if method == "PUT"] == []


# ------------------------------------------------------------------------------- addresses


Attempt = Callable[[str, Mapping[str, str]], tuple[str, Mapping[str, str], bytes]]
OTHER = DATA[::-1]

REFUSED: Mapping[str, tuple[Attempt, int, str]] = {
    "other bytes": (lambda url, headers: (url, headers, OTHER), 400, "BadDigest"),
    "other bytes under their own checksum": (
        lambda url, headers: (url, {**headers, "x-amz-checksum-sha256": "A" * 43 + "="}, OTHER),
        403,
        "SignatureDoesNotMatch",
    ),
    "without a checksum": (
        lambda url, headers: (url, {"Content-Length": str(SIZE)}, OTHER),
        403,
        "SignatureDoesNotMatch",
    ),
    "more bytes": (
        lambda url, headers: (url, {**headers, "Content-Length": str(SIZE + 1)}, DATA + b"."),
        403,
        "SignatureDoesNotMatch",
    ),
    "another name": (
        lambda url, headers: (url.replace(SHA256, "0" * 64), headers, DATA),
        403,
        "SignatureDoesNotMatch",
    ),
    "a longer life": (
        lambda url, headers: (url.replace("Expires=300", "Expires=3000"), headers, DATA),
        403,
        "SignatureDoesNotMatch",
    ),
}


def test_an_address_is_good_for_the_bytes_it_was_asked_for_alone(deployed: Deployed) -> None:
    url, headers = _where(deployed)
    for what, (attempt, status, code) in REFUSED.items():
        wrong, others, content = attempt(url, headers)
        answer = httpx2.put(wrong, content=content, headers=dict(others), timeout=30)
        assert (answer.status_code, code in answer.text) == (status, True), what
    early = _submit(deployed)
    assert (early.status_code, early.json()["code"]) == (409, "refused")
    assert f"/v1/blobs/sources/{SHA256}/upload" in early.json()["fix"]
    assert httpx2.put(url, content=DATA, headers=headers, timeout=30).status_code == 200
    assert _submit(deployed).json()["spec"]["source"]["sha256"] == SHA256


def _where(deployed: Deployed) -> tuple[str, dict[str, str]]:
    asked = _ask(deployed, "GET", f"/v1/blobs/sources/{SHA256}/upload?size_bytes={SIZE}")
    assert asked.status_code == 200, asked.text
    return asked.json()["url"], asked.json()["headers"]


def _submit(deployed: Deployed) -> httpx2.Response:
    """A job with `DATA` as its source."""
    _ask(deployed, "POST", "/v1/queues", {"name": "sources"})
    source = {"kind": "archive", "blob": f"sources/{SHA256}", "sha256": SHA256}
    return _ask(
        deployed, "POST", "/v1/jobs", {"command": "true", "queue": "sources", "source": source}
    )


def _ask(deployed: Deployed, method: str, path: str, body: object = None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.request(method, f"{deployed.url}{path}", json=body, headers=headers, timeout=30)
