"""Files too large for the API: the command line takes them to the storage behind it and from there,
and the token stays at home."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchctl.capture import Captured
from orchctl.client import ASK_ABOVE_BYTES, Client
from orchctl.errors import OrchctlError, Refused, Unavailable
from orchctl.http import ATTEMPTS, Transport
from tests.agent.storage import FakeStorage
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import Answer, Asked, FakeServer

BUSY = (503, b"<Error><Code>SlowDown</Code></Error>")
DENIED = (403, b"<Error><Code>AccessDenied</Code></Error>")
ARTIFACT = "/v1/jobs/j-1/artifacts/out/model.pt"


@pytest.fixture
def storage() -> Iterator[FakeStorage]:
    storage = FakeStorage()
    yield storage
    storage.close()


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.url, "secret", sleep=lambda _: None) as client:
        yield client


def captured(size: int) -> Captured:
    data = bytes(size)
    return Captured(
        kind="archive", archive=data, sha256=hashlib.sha256(data).hexdigest(), summary="x"
    )


def tell(server: FakeServer, source: Captured, *urls: str) -> str:
    """Where the archive goes, in answer to each question; the last one stays."""
    path = f"/v1/blobs/sources/{source.sha256}"
    for url in urls:
        server.on("GET", f"{path}/upload", {"url": url, "headers": {"x-signed": "yes"}})
    return path


# ------------------------------------------------------------------------------- sources


def test_a_large_archive_goes_where_the_server_says(
    client: Client, server: FakeServer, storage: FakeStorage
) -> None:
    source = captured(ASK_ABOVE_BYTES + 1)
    path = tell(server, source, f"{storage.url}/a?s=1", f"{storage.url}/a?s=2")
    storage.script = [BUSY]
    sent = client.jobs.upload(source)
    assert sent["blob"] == f"sources/{source.sha256}"
    assert storage.files == {"/a": source.archive}
    assert [each.path for each in storage.seen] == ["/a?s=1", "/a?s=2"]
    for each in storage.seen:
        assert each.headers["x-signed"] == "yes"
        assert "authorization" not in each.headers
    assert [asked.query for asked in server.of("GET", f"{path}/upload")] == [
        {"size_bytes": str(ASK_ABOVE_BYTES + 1)}
    ] * 2
    assert server.of("PUT", path) == []


def test_a_server_may_take_a_large_archive_itself(client: Client, server: FakeServer) -> None:
    source = captured(ASK_ABOVE_BYTES + 1)
    path = tell(server, source, "")
    server.on("PUT", path, {"blob": path}, status=201)
    client.jobs.upload(source)
    (sent,) = server.of("PUT", path)
    assert sent.content == source.archive
    assert sent.headers["authorization"] == "Bearer secret"


def test_a_small_archive_goes_to_the_server_without_a_question(
    client: Client, server: FakeServer
) -> None:
    source = captured(ASK_ABOVE_BYTES)
    path = f"/v1/blobs/sources/{source.sha256}"
    server.on("PUT", path, {"blob": path}, status=201)
    client.jobs.upload(source)
    assert [asked.method for asked in server.asked] == ["PUT"]


def test_a_storage_that_does_not_get_well_is_given_up(
    client: Client, server: FakeServer, storage: FakeStorage
) -> None:
    source = captured(ASK_ABOVE_BYTES + 1)
    tell(server, source, f"{storage.url}/a")
    storage.script = [BUSY] * (ATTEMPTS + 1)
    with pytest.raises(Unavailable, match="answered 503") as caught:
        client.jobs.upload(source)
    assert caught.value.why == "SlowDown"
    assert len(storage.seen) == ATTEMPTS


def test_a_refusal_of_the_storage_is_final(
    client: Client, server: FakeServer, storage: FakeStorage
) -> None:
    source = captured(ASK_ABOVE_BYTES + 1)
    tell(server, source, f"{storage.url}/a")
    storage.script = [DENIED]
    with pytest.raises(Refused, match="answered 403") as caught:
        client.jobs.upload(source)
    assert caught.value.why == "AccessDenied"
    assert len(storage.seen) == 1


def test_a_run_submits_nothing_when_its_files_cannot_be_stored(
    cli: Cli,
    server: FakeServer,
    storage: FakeStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "data.bin").write_bytes(random.Random(1).randbytes(ASK_ABOVE_BYTES + 1))
    monkeypatch.chdir(project)
    plain = server.answer
    url = {"url": f"{storage.url}/a", "headers": {}}

    def answer(asked: Asked) -> Answer:
        server.on("GET", asked.path, url)
        return plain(asked)

    monkeypatch.setattr(server, "answer", answer)
    storage.script = [DENIED]
    done = cli("run", "--", "python", "x.py")
    assert done.code == 1
    assert "the storage behind the server answered 403" in done.err
    assert "AccessDenied" in done.err
    assert [asked.method for asked in server.asked] == ["GET"]


# ----------------------------------------------------------------------------- artifacts


def point(server: FakeServer, *urls: str) -> None:
    """Where the artifact is, in answer to each question; the last one stays."""
    for url in urls:
        server.on("GET", ARTIFACT, status=307, content=b"", headers={"Location": url})


def test_an_artifact_is_fetched_from_where_the_server_points_to(
    client: Client, server: FakeServer, storage: FakeStorage
) -> None:
    point(server, *(f"{storage.url}/m?s={number}" for number in (1, 2, 3)))
    storage.files["/m"] = b"weights"
    storage.script = [None, BUSY]  # what has come half-way is not kept
    assert client.jobs.artifact("j-1", "out/model.pt") == b"weights"
    assert [each.path for each in storage.seen] == ["/m?s=1", "/m?s=2", "/m?s=3"]
    assert not [each for each in storage.seen if "authorization" in each.headers]


def test_a_download_writes_the_whole_file_or_leaves_the_old_one(
    cli: Cli, server: FakeServer, storage: FakeStorage, tmp_path: Path
) -> None:
    kept = {"name": "out/model.pt", "size_bytes": 7, "sha256": "", "blob": ""}
    server.on("GET", "/v1/jobs/j-1/artifacts", samples.page(kept))
    point(server, f"{storage.url}/m")
    target = tmp_path / "results"
    words = ("job", "artifacts", "j-1", "--download", str(target))
    storage.files["/m"] = b"weights"
    assert cli(*words).code == 0
    storage.script = [None] * ATTEMPTS
    failed = cli(*words)
    assert failed.code == 7
    assert "the storage behind the server does not answer" in failed.err
    assert [path.name for path in (target / "out").iterdir()] == ["model.pt"]
    assert (target / "out/model.pt").read_bytes() == b"weights"


def test_an_artifact_that_the_storage_lost_is_an_error(
    client: Client, server: FakeServer, storage: FakeStorage, tmp_path: Path
) -> None:
    point(server, f"{storage.url}/gone")
    with pytest.raises(OrchctlError) as caught:
        client.jobs.download("j-1", "out/model.pt", tmp_path / "a" / "model.pt")
    assert (caught.value.message, caught.value.why) == (
        "the storage behind the server answered 404",
        "NoSuchKey",
    )
    assert list((tmp_path / "a").iterdir()) == []


def test_no_other_redirect_is_followed(server: FakeServer, storage: FakeStorage) -> None:
    server.on("GET", "/v1/jobs", status=307, content=b"", headers={"Location": storage.url})
    server.on("GET", "/v1/x", status=302, content=b"", headers={"Location": storage.url})
    transport = Transport(server.url, "secret")
    with pytest.raises(OrchctlError, match="not understood"):
        transport.get("/v1/jobs")
    with pytest.raises(OrchctlError, match="not understood"):
        transport.download("/v1/x", io.BytesIO())
    transport.close()
    assert storage.seen == []
