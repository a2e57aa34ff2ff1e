"""What a server behind a gateway says of files too large for one request: where they go instead.
That the storage keeps its word is proven in `tests/serverless/test_large_files.py`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from control_plane.agents import artifact_key, log_key
from control_plane.api.app import create_app
from control_plane.blobs.s3 import PUT_MAX_BYTES, S3Blobs, connect
from control_plane.direct import Direct
from control_plane.stores.memory import MemoryStore
from tests.api.test_agent import Agent, submit
from tests.api.world import World

ABOVE = 1000
DATA = b"x" * (ABOVE + 1)
SHA256 = hashlib.sha256(DATA).hexdigest()
SOURCE = {"kind": "archive", "blob": f"sources/{SHA256}", "sha256": SHA256}


@pytest.fixture(scope="module")
def storage() -> S3Blobs:
    """An address is worked out without asking anybody."""
    client = connect(region="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    return S3Blobs(lambda: client, "orchctl-blobs")


@pytest.fixture
def world(storage: S3Blobs) -> World:
    return World(MemoryStore(), direct=Direct(storage=storage, above_bytes=ABOVE))


@pytest.fixture
def agent(world: World, applied: TestClient) -> Iterator[Agent]:
    """The agent of a machine that has registered and holds a job with a source."""
    world.blobs.put(SOURCE["blob"], DATA)
    submit(applied, source=SOURCE)
    agent = Agent(world)
    with agent.http:
        agent.register()
        yield agent


def _claim(agent: Agent) -> tuple[str, dict[str, Any]]:
    """The job's id, and the advice that came with it."""
    claimed = agent.ask("claim", {}).json()
    return claimed["jobs"][0]["job_id"], claimed["advice"]


def _signed(url: str) -> tuple[str, dict[str, str]]:
    """Host and path of an address, and what was signed."""
    parts = urlsplit(url)
    assert parts.scheme == "https"
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query["X-Amz-Expires"] == "300"
    return f"{parts.netloc}{parts.path}", query


# ------------------------------------------------------------------------------- sources


def test_a_large_source_is_put_where_its_length_and_its_hash_are_signed(
    client: TestClient,
) -> None:
    asked = client.get(f"/v1/blobs/sources/{SHA256}/upload", params={"size_bytes": len(DATA)})
    place, query = _signed(asked.json()["url"])
    assert place == f"orchctl-blobs.s3.eu-central-1.amazonaws.com/sources/{SHA256}"
    assert query["X-Amz-SignedHeaders"] == "content-length;host;x-amz-checksum-sha256"
    digest = base64.b64encode(bytes.fromhex(SHA256)).decode()
    assert asked.json()["headers"] == {
        "Content-Length": str(len(DATA)),
        "x-amz-checksum-sha256": digest,
    }
    assert asked.headers["Cache-Control"] == "no-store"


def test_a_small_source_comes_to_the_server(client: TestClient) -> None:
    asked = client.get(f"/v1/blobs/sources/{SHA256}/upload", params={"size_bytes": ABOVE})
    assert asked.json() == {"url": "", "headers": {}}


@pytest.mark.parametrize("size", ["", "0", "-1", "x", str(64 * 2**20 + 1)])
def test_a_source_has_a_size_that_makes_sense(client: TestClient, size: str) -> None:
    asked = client.get(f"/v1/blobs/sources/{SHA256}/upload", params={"size_bytes": size})
    assert asked.status_code == 422


def test_the_machine_fetches_a_large_source_elsewhere(agent: Agent) -> None:
    job_id, _ = _claim(agent)
    path = f"/v1/agent/jobs/{job_id}/source?epoch=1"
    answer = agent.http.get(path, headers=agent.headers, follow_redirects=False)
    assert (answer.status_code, answer.content) == (307, b"")
    place, _ = _signed(answer.headers["Location"])
    assert place.endswith(f"/sources/{SHA256}")


def test_where_a_source_is_only_its_machine_hears(agent: Agent) -> None:
    job_id, _ = _claim(agent)
    other = Agent(agent.world, "m-2")
    other.register()
    for holder, epoch in ((other, 1), (agent, 2)):
        path = f"/v1/agent/jobs/{job_id}/source?epoch={epoch}"
        answer = holder.http.get(path, headers=holder.headers, follow_redirects=False)
        assert (answer.status_code, answer.json()["code"]) == (409, "stale-epoch")


# ----------------------------------------------------------------------------- artifacts


def _upload(agent: Agent, job_id: str, size: int, epoch: int = 1) -> Any:
    body = {"epoch": epoch, "size_bytes": size, "sha256": SHA256}
    return agent.ask(f"jobs/{job_id}/artifacts/out/model%20a.pt", body)


def test_a_large_artifact_is_put_below_its_attempt(agent: Agent) -> None:
    job_id, advice = _claim(agent)
    assert advice["direct_above_bytes"] == ABOVE
    to = _upload(agent, job_id, ABOVE + 1).json()
    place, _ = _signed(to["url"])
    assert place.endswith(f"/{artifact_key(job_id, 1, 'out/model a.pt')}")
    assert to["headers"]["Content-Length"] == str(ABOVE + 1)
    assert _upload(agent, job_id, ABOVE).json() == {"url": "", "headers": {}}


def test_an_artifact_has_a_size_that_storage_takes(agent: Agent) -> None:
    job_id, _ = _claim(agent)
    assert _upload(agent, job_id, PUT_MAX_BYTES).status_code == 200
    refused = _upload(agent, job_id, PUT_MAX_BYTES + 1)
    assert (refused.status_code, refused.json()["detail"]) == (422, "one blob has at most 5 GiB")


def test_a_late_writer_gets_no_address(agent: Agent) -> None:
    job_id, _ = _claim(agent)
    other = Agent(agent.world, "m-2")
    other.register()
    for writer, epoch in ((agent, 2), (agent, 0), (other, 1)):
        late = _upload(writer, job_id, ABOVE + 1, epoch)
        assert (late.status_code, late.json()["code"]) == (409, "stale-epoch")
    stranger = agent.http.post(f"/v1/agent/jobs/{job_id}/artifacts/x", json={})
    assert stranger.status_code == 401


def test_a_large_artifact_is_fetched_elsewhere_under_its_name(
    agent: Agent, applied: TestClient
) -> None:
    job_id, _ = _claim(agent)
    names = {"out/gewichte \N{GREEK SMALL LETTER BETA}.pt": ABOVE + 1, "small.txt": ABOVE}
    agent.world.blobs.put(artifact_key(job_id, 1, "small.txt"), b"small")
    kept = [{"name": name, "size_bytes": size, "sha256": SHA256} for name, size in names.items()]
    finished = {"epoch": 1, "outcome": "succeeded", "exit_code": 0, "artifacts": kept}
    assert agent.ask(f"jobs/{job_id}/finish", finished).status_code == 200

    large, small = (
        applied.get(f"/v1/jobs/{job_id}/artifacts/{name}", follow_redirects=False) for name in names
    )

    assert (small.status_code, small.content) == (200, b"small")
    assert (large.status_code, large.content) == (307, b"")
    place, query = _signed(large.headers["Location"])
    assert place.endswith(f"/{artifact_key(job_id, 1, next(iter(names)))}")
    shown = "attachment; filename*=UTF-8''gewichte%20%CE%B2.pt"
    assert query["response-content-disposition"] == shown
    assert large.headers["Cache-Control"] == "no-store"
    again = {"If-None-Match": f'"{SHA256}"'}
    path = f"/v1/jobs/{job_id}/artifacts/{next(iter(names))}"
    assert applied.get(path, headers=again).status_code == 304


# ------------------------------------------------------------------------------ otherwise


def test_a_log_comes_in_pieces_that_fit(world: World) -> None:
    text = bytes(range(256)) * 5
    with world.client(create_app(world.deps(log_piece_bytes=500))) as client:
        client.post("/v1/queues", json={"name": "default"})
        job_id = submit(client)
        world.blobs.append(log_key(job_id, 0), 0, text)
        pieces: list[bytes] = []
        while sum(map(len, pieces)) < len(text):
            query = {"offset": sum(map(len, pieces)), "limit": 1_000_000}
            piece = client.get(f"/v1/jobs/{job_id}/logs", params=query)
            assert piece.headers["X-Log-Size"] == str(len(text))
            pieces.append(piece.content)
    assert [len(piece) for piece in pieces] == [500, 500, 280]
    assert b"".join(pieces) == text
