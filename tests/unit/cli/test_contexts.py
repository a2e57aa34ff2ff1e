"""Which server: a flag wins, then the environment, then the file; each setting has its origin."""

from __future__ import annotations

import io
import json
import stat

import pytest

from orchctl import contexts
from orchctl.errors import InvalidInput, NotFound
from tests.unit.cli import samples
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import FakeServer

PROD = "https://prod.example.com"
TEST = "https://test.example.com"


@pytest.fixture
def two() -> None:
    contexts.add("prod", server=PROD, token="prod-token")
    contexts.add("test", server=TEST, token="test-token", use=False)


def test_nothing_chosen_says_what_to_do() -> None:
    with pytest.raises(InvalidInput) as caught:
        contexts.resolve()
    assert "orchctl up" in caught.value.fix


@pytest.mark.usefixtures("two")
def test_the_file_gives_the_current_context() -> None:
    target = contexts.resolve()
    assert (target.server.value, target.token.value) == (PROD, "prod-token")
    assert target.server.origin == f"context prod, from {contexts.path()}"


@pytest.mark.usefixtures("two")
def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHCTL_CONTEXT", "test")
    target = contexts.resolve()
    assert (target.server.value, target.token.value) == (TEST, "test-token")
    assert target.server.origin == "context test, from ORCHCTL_CONTEXT"

    monkeypatch.setenv("ORCHCTL_SERVER", PROD)
    monkeypatch.setenv("ORCHCTL_TOKEN", "mine")
    target = contexts.resolve()
    assert (target.server.origin, target.token.origin) == ("ORCHCTL_SERVER", "ORCHCTL_TOKEN")
    assert (target.server.value, target.token.value) == (PROD, "mine")


@pytest.mark.usefixtures("two")
def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHCTL_CONTEXT", "prod")
    monkeypatch.setenv("ORCHCTL_SERVER", PROD)
    assert contexts.resolve(context="test").context.origin == "--context"
    target = contexts.resolve(server="https://other.example.com/")
    assert (target.server.value, target.server.origin) == ("https://other.example.com", "--server")


@pytest.mark.usefixtures("two")
def test_a_stored_token_is_never_sent_to_another_server() -> None:
    assert contexts.resolve(server="https://evil.example.com").token.value == ""
    assert contexts.resolve(server=PROD + "/").token.value == "prod-token"


@pytest.mark.usefixtures("two")
def test_the_file_is_for_its_owner_only() -> None:
    assert stat.S_IMODE(contexts.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(contexts.directory().stat().st_mode) == 0o700
    assert [each.name for each in contexts.directory().iterdir()] == ["contexts.json"]


@pytest.mark.usefixtures("two")
def test_tokens_stay_out_of_texts() -> None:
    assert "prod-token" not in repr(contexts.load())
    assert "prod-token" not in repr(contexts.resolve())


@pytest.mark.usefixtures("two")
def test_unknown_names_list_the_known_ones() -> None:
    for act in (contexts.use, contexts.remove):
        with pytest.raises(NotFound) as caught:
            act("staging")
        assert "prod, test" in caught.value.why


def test_a_damaged_file_is_reported_by_its_path() -> None:
    contexts.directory().mkdir()
    for text in ("{", "[]", '{"contexts": {"a": {}}}', '{"contexts": []}'):
        contexts.path().write_text(text)
        with pytest.raises(InvalidInput, match=r"contexts\.json"):
            contexts.load()


@pytest.mark.parametrize("address", ["prod.example.com", "ftp://x", "localhost:8080"])
def test_an_address_needs_its_scheme(address: str) -> None:
    with pytest.raises(InvalidInput):
        contexts.add("x", server=address)
    with pytest.raises(InvalidInput):
        contexts.resolve(server=address)


def test_the_commands_from_add_to_remove(
    cli: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHCTL_SERVER")
    monkeypatch.setattr("sys.stdin", io.StringIO("secret-token\n"))
    server.on("GET", "/v1/queues", samples.page(samples.queue()))

    assert cli("context", "add", "here").code == 2
    added = cli("context", "add", "here", "--server", server.url, "--token-stdin")
    assert added.out == "context here added\n"
    assert cli("context", "add", "there", "--server", TEST).code == 0
    assert cli("context", "list", "-o", "name").out == "here\nthere\n"
    assert "secret-token" not in cli("context", "list", "-o", "json").out

    assert cli("queue", "list", "-o", "name").out == "default\n"
    assert server.asked[0].headers["authorization"] == "Bearer secret-token"

    shown = cli("context", "show", "-o", "json")
    assert "secret-token" not in shown.out
    assert {row["setting"]: row["value"] for row in json.loads(shown.out)} == {
        "context": "here",
        "server": server.url,
        "token": "set",
    }
    assert cli("context", "use", "there").code == 0
    assert contexts.load().current == "there"
    assert cli("context", "remove", "there").code == 0
    assert cli("context", "use", "there").code == 4
    assert cli("queue", "list", "--context", "nowhere").code == 4
