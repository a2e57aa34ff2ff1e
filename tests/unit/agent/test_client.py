"""Proves what the agent's client makes of each kind of answer, and how long it tries."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from agent_bootstrap import client as module
from agent_bootstrap.client import (
    Client,
    Elsewhere,
    Refusal,
    SessionOver,
    Stale,
    Unanswered,
)
from agent_bootstrap.wire import Left
from tests.loopback import Loopback

STALE = '{"type": "https://orchctl.dev/problems/stale-epoch"}'


class Server(Loopback):
    """Answers each request with the next of the scripted answers."""

    def __init__(self) -> None:
        self.script: list[tuple[int, dict[str, str], str]] = []
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, self.headers["Authorization"]))
                status, headers, text = outer.script.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        super().__init__(Handler)

    @property
    def url(self) -> str:
        return f"{super().url}/stage/"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def ask(client: Client) -> Left:
    return client.ask("leave", Left(agreed=False), Left)


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (400, "{}", Refusal),
        (401, "{}", SessionOver),
        (404, "not even json", Refusal),
        (409, '{"code": "conflict"}', Refusal),
        (409, '{"code": "stale-epoch"}', Stale),
        (409, STALE, Stale),
        (410, "{}", SessionOver),
        (429, "{}", Unanswered),
        (500, "{}", Unanswered),
        (503, "", Unanswered),
        (200, "<html>log in to the wifi", Unanswered),
        (200, "[]", Unanswered),
        (302, "", Refusal),
        (307, "", Elsewhere),
    ],
)
def test_each_answer_has_one_meaning(
    server: Server, status: int, text: str, error: type[Exception]
) -> None:
    server.script.append((status, {"Location": "http://127.0.0.1:1/"}, text))
    with pytest.raises(error) as caught:
        ask(Client(server.url))
    assert type(caught.value) is error


def test_contact_and_the_end_of_the_session_are_told(server: Server) -> None:
    heard: list[str] = []
    client = Client(server.url, on_contact=lambda: heard.append("contact"), on_over=heard.append)
    server.script = [(200, {}, '{"agreed": true}'), (500, {}, ""), (409, {}, STALE)]
    server.script += [(410, {}, '{"code": "gone", "detail": "ended"}')]
    assert ask(client).agreed
    for error in (Unanswered, Stale, SessionOver):
        with pytest.raises(error):
            ask(client)
    assert heard == ["contact", "contact", "410 gone ended"]


def test_the_token_goes_along_below_the_servers_own_path(server: Server) -> None:
    client = Client(server.url)
    client.token = "t"
    server.script.append((200, {}, '{"agreed": true}'))
    ask(client)
    assert server.requests == [("/stage/v1/agent/leave", "Bearer t")]


def test_a_request_is_repeated_until_it_is_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    server.script = [(503, {"Retry-After": "0.01"}, "")] * 5 + [(200, {}, '{"agreed": true}')]
    client = Client(server.url)
    assert client.repeat(lambda: ask(client)).agreed
    assert len(server.requests) == 6


def test_a_refusal_is_not_repeated(server: Server) -> None:
    server.script.append((422, {}, "{}"))
    client = Client(server.url)
    with pytest.raises(Refusal):
        client.repeat(lambda: ask(client))
    assert len(server.requests) == 1


def test_whoever_repeats_gives_up_when_told_or_when_the_client_is_closed(server: Server) -> None:
    client = Client(server.url)
    server.script = [(500, {}, "")] * 2
    with pytest.raises(Unanswered):
        client.repeat(lambda: ask(client), lambda: True)
    client.close()
    with pytest.raises(Unanswered):
        client.repeat(lambda: ask(client))
    assert len(server.requests) == 2


@pytest.mark.parametrize("url", ["ftp://host", "host:80", ""])
def test_only_web_addresses_are_taken(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Client(url)
