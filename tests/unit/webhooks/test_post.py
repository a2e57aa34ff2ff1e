"""What a POST to somebody's address reaches, and what it never does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control_plane.errors import InvalidInput, Unavailable
from control_plane.webhooks import post as posting
from control_plane.webhooks.post import Post
from tests.unit.webhooks.receiver import Receiver, certificate

PUBLIC = "93.184.215.14"


def resolved(*addresses: str) -> Post:
    return Post(lookup=lambda _host, _port: addresses)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_a_receiver_on_this_computer_is_for_a_server_beside_it(receiver: Receiver) -> None:
    url = f"{receiver.url}/take?key=1"
    assert Post(local=True)(url, b"{}", {"X-One": "1"}) == 200
    (asked,) = receiver.asked
    assert (asked.path, asked.body, asked.headers["x-one"]) == ("/take?key=1", b"{}", "1")
    with pytest.raises(InvalidInput, match="not `https`"):
        Post()(url, b"{}", {})
    with pytest.raises(InvalidInput, match="public network"):
        Post()(url.replace("http:", "https:"), b"{}", {})


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "ff02::1",
    ],
)
def test_what_is_not_public_is_not_spoken_to(address: str) -> None:
    with pytest.raises(InvalidInput, match="public network"):
        resolved(address)("https://hooks.example/x", b"{}", {})
    with pytest.raises(InvalidInput, match="public network"):
        resolved(PUBLIC, address)("https://hooks.example/x", b"{}", {})


@pytest.mark.parametrize("address", [PUBLIC, "10.0.0.1", "127.0.0.1"])
def test_without_tls_only_this_computer(address: str) -> None:
    with pytest.raises(InvalidInput, match="not `https`"):
        resolved(address)("http://hooks.example/x", b"{}", {})
    if address != "127.0.0.1":
        here = Post(local=True, lookup=lambda _host, _port: ["127.0.0.1", address])
        with pytest.raises(InvalidInput, match="not `https`"):
            here("http://hooks.example/x", b"{}", {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example/x",
        "ftp://hooks.example/x",
        "file:///etc/passwd",
        "https:///x",
        "https://user:pass@hooks.example/x",
        "https://hooks.example:0/x",
        "https://hooks.example:99999/x",
        "https://hooks.example/x\r\nX-Evil: 1",
        "https://hooks.example/a b",
        "https://hooks.example/ä",
        "https://[::1/x",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidInput, match="no `https"):
        resolved(PUBLIC)(url, b"{}", {})


def test_a_redirect_is_an_answer_and_nobody_follows_it(receiver: Receiver) -> None:
    receiver.answer(302, {"Location": f"{receiver.url}/elsewhere"})
    assert Post(local=True)(receiver.url, b"{}", {}) == 302
    assert [each.path for each in receiver.asked] == ["/"]


def test_a_large_message_is_not_sent(receiver: Receiver) -> None:
    post = Post(local=True)
    assert post(receiver.url, b"x" * posting.BODY_MAX_BYTES, {}) == 200
    with pytest.raises(InvalidInput, match="64 KiB"):
        post(receiver.url, b"x" * (posting.BODY_MAX_BYTES + 1), {})
    assert len(receiver.asked) == 1


def test_a_name_is_looked_up_once(receiver: Receiver) -> None:
    """One that leads elsewhere the second time would lead inside."""
    looked: list[tuple[str, int]] = []

    def lookup(host: str, port: int) -> list[str]:
        looked.append((host, port))
        return ["127.0.0.1"]

    url = f"http://hooks.example:{receiver.port}/"
    assert Post(local=True, lookup=lookup)(url, b"{}", {}) == 200
    assert looked == [("hooks.example", receiver.port)]
    assert receiver.asked[0].headers["host"] == f"hooks.example:{receiver.port}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The certificate of `hooks.example`, and somebody who believes it."""
    file = certificate(tmp_path_factory.mktemp("tls"), "hooks.example")
    return file, ssl.create_default_context(cafile=str(file))


def test_a_certificate_must_be_of_the_name(keys: tuple[Path, ssl.SSLContext]) -> None:
    file, trust = keys
    with Receiver(certificate=file) as receiver:
        post = Post(local=True, trust=trust, lookup=lambda _host, _port: ["127.0.0.1"])
        assert post(f"https://hooks.example:{receiver.port}/x", b"{}", {}) == 200
        with pytest.raises(Unavailable, match="SSLCertVerificationError"):
            post(f"https://evil.example:{receiver.port}/x", b"{}", {})
        stranger = Post(local=True, lookup=post.lookup)
        with pytest.raises(Unavailable, match="SSLCertVerificationError"):
            stranger(f"https://hooks.example:{receiver.port}/x", b"{}", {})
        assert len(receiver.asked) == 1


@contextmanager
def talking(talk: bytes, *, pause_s: float = 0.0) -> Iterator[str]:
    """A receiver that says this, again and again, until nobody listens."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            try:
                while talk:
                    connection.sendall(talk)
                    time.sleep(pause_s)
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


@pytest.mark.parametrize("talk", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 " + b"x" * 70_000])
def test_what_is_no_answer(talk: bytes) -> None:
    with talking(talk) as url, pytest.raises(Unavailable, match="does not answer"):
        Post(local=True)(url, b"{}", {})


def test_a_receiver_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "TOTAL_S", 0.3)
    began = time.monotonic()
    with talking(b"H", pause_s=0.05) as url, pytest.raises(Unavailable):
        Post(local=True)(url, b"{}", {})
    assert time.monotonic() - began < posting.CONNECT_S


def test_nobody_there_says_nothing_of_the_address() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    with pytest.raises(Unavailable) as refused:
        Post(local=True)(f"http://127.0.0.1:{port}/secret-path", b"{}", {})
    assert "secret-path" not in str(refused.value)
    assert str(port) not in str(refused.value)


def test_names_are_looked_up_for_real() -> None:
    found = Post().lookup("localhost", 80)
    assert set(found) & {"127.0.0.1", "::1"}
