"""Proves that an agent whose start-up text names no machine learns from its own tag which it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent_bootstrap import __main__ as agent
from agent_bootstrap.identity import MACHINE_TAG, machine_of_tag
from agent_bootstrap.user_data import aws_startup
from providers.aws import labels
from tests.fakes.metadata.server import Metadata

PATH = "/latest/meta-data/tags/instance/" + labels.MACHINE


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    metadata = Metadata()
    metadata.tags = {labels.MACHINE: "m-0abc"}
    yield metadata
    metadata.close()


def test_its_tag_tells(metadata: Metadata) -> None:
    assert machine_of_tag(metadata.url) == "m-0abc"


def test_tag_is_the_one_that_the_provider_sets() -> None:
    assert MACHINE_TAG == labels.MACHINE


def test_without_tags_in_metadata_there_is_no_telling(metadata: Metadata) -> None:
    metadata.tags = {}
    with pytest.raises(OSError, match="404"):
        machine_of_tag(metadata.url)


def test_agent_asks_until_it_is_told(metadata: Metadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "ASK_AGAIN_S", 0.0)
    metadata.fail_next(PATH, 404, times=2)
    metadata.fail_next("/latest/api/token", 503)
    assert agent._machine(metadata.url, 60) == "m-0abc"
    assert metadata.count(PATH) == 3


def test_agent_that_is_never_told_ends(metadata: Metadata) -> None:
    metadata.tags = {}
    with pytest.raises(SystemExit, match="does not learn its id"):
        agent._machine(metadata.url, 0)


@pytest.mark.parametrize("cloud", ["gcp", "azure", "local"])
def test_elsewhere_a_machine_must_be_named(cloud: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--server", "http://127.0.0.1:1", "--machine", "", "--cloud", cloud]
    with pytest.raises(SystemExit):
        agent.main([*arguments, "--token-file", "nowhere"])
    assert "--machine" in capsys.readouterr().err


def test_text_without_a_name_is_the_same_for_all() -> None:
    settings = {
        "server_url": "https://orchctl.example",
        "fleet": "f",
        "pool": "p",
        "agent_sha256": "0" * 64,
        "boot_timeout_s": 600,
        "max_lifetime_s": 3600,
    }
    text = aws_startup(machine_id="", **settings)  # type: ignore[arg-type]
    assert "machine=''\n" in text
    named = aws_startup(machine_id="m-1", **settings)  # type: ignore[arg-type]
    assert text == named.replace("machine=m-1\n", "machine=''\n")
