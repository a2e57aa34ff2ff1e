"""Proves that a machine deletes itself with its own identity, repeats what may pass, gives up what
may not, and speaks to nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_bootstrap import cloud as module
from agent_bootstrap.cloud import Later, Refused, call, delete_self
from tests.fakes.metadata.server import NAME, PROJECT, RESOURCE, ZONE, Metadata, Reply

MACHINE = {
    "gcp": f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{NAME}",
    "azure": RESOURCE,
}
TOKEN = {
    "gcp": "/computeMetadata/v1/instance/service-accounts/default/token",
    "azure": "/metadata/identity/oauth2/token",
}
clouds = pytest.mark.parametrize("cloud", list(MACHINE))


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    metadata = Metadata()
    yield metadata
    metadata.close()


@clouds
def test_a_machine_deletes_itself(cloud: str, metadata: Metadata) -> None:
    delete_self(cloud, metadata.url, metadata.url)
    assert metadata.deleted == [MACHINE[cloud]]


def test_azure_is_asked_for_a_token_for_its_resource_manager(metadata: Metadata) -> None:
    delete_self("azure", metadata.url, metadata.url)
    (query,) = [each.query for each in metadata.asked if each.path == TOKEN["azure"]]
    assert query["resource"] == "https://management.azure.com/"


@clouds
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
@pytest.mark.parametrize("where", [MACHINE, TOKEN], ids=["machine", "token"])
def test_what_may_pass_is_asked_again(
    cloud: str, status: int, where: dict[str, str], metadata: Metadata
) -> None:
    metadata.faults[where[cloud]] = [status] * 3
    delete_self(cloud, metadata.url, metadata.url)
    assert metadata.deleted == [MACHINE[cloud]]


@clouds
def test_a_machine_that_is_gone_already_is_deleted(cloud: str, metadata: Metadata) -> None:
    metadata.faults[MACHINE[cloud]] = [404]
    delete_self(cloud, metadata.url, metadata.url)
    assert metadata.count(MACHINE[cloud]) == 1


@clouds
@pytest.mark.parametrize("status", [301, 400, 401, 403])
def test_what_will_not_pass_is_given_up_at_once(
    cloud: str, status: int, metadata: Metadata
) -> None:
    metadata.faults[MACHINE[cloud]] = [status]
    with pytest.raises(Refused, match=str(status)):
        delete_self(cloud, metadata.url, metadata.url)
    assert metadata.count(MACHINE[cloud]) == 1


@clouds
def test_a_machine_without_an_identity_gives_up_at_once(cloud: str, metadata: Metadata) -> None:
    del metadata.documents[TOKEN[cloud]]
    with pytest.raises(Refused, match="404"):
        delete_self(cloud, metadata.url, metadata.url)


@clouds
def test_in_the_end_it_gives_up(cloud: str, metadata: Metadata) -> None:
    metadata.documents[TOKEN[cloud]] = lambda _: '{"no": "token"}'
    with pytest.raises(Later, match="token"):
        delete_self(cloud, metadata.url, metadata.url, try_s=0.1)
    metadata.close()
    with pytest.raises(Later):
        delete_self(cloud, metadata.url, metadata.url, try_s=0.1)


@clouds
def test_it_runs_from_its_text_alone(cloud: str, metadata: Metadata, tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-", cloud, metadata.url, metadata.url],
            input=Path(str(module.__file__)).read_text(),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    assert run().returncode == 0
    assert metadata.deleted == [MACHINE[cloud]]
    metadata.faults[MACHINE[cloud]] = [403]
    refused = run()
    assert refused.returncode == 1
    assert "not deleted: 403" in refused.stderr
    assert metadata.access_token not in refused.stderr


def test_no_redirect_is_followed_and_no_proxy_asked(
    metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Metadata()
    moved = Reply(307, "", {"Location": elsewhere.url + "/computeMetadata/v1/"})
    monkeypatch.setattr(metadata, "_gcp", lambda *_: moved)
    monkeypatch.setenv("http_proxy", elsewhere.url)
    try:
        answer = call("GET", metadata.url + "/computeMetadata/v1/", {})
        assert answer.status == 307
        assert elsewhere.asked == []
    finally:
        elsewhere.close()
