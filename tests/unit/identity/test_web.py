"""Proves the limits of the requests that strangers can cause."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from control_plane.errors import Unavailable
from control_plane.identity import web as module
from control_plane.identity.web import AT_ONCE, Web


class Cloud(httpx2.BaseTransport):
    """Answers in pieces, each after a wait."""

    def __init__(self, *pieces: bytes, wait_s: float = 0.0, status: int = 200) -> None:
        self.pieces, self.wait_s, self.status = pieces, wait_s, status
        self.asked = 0
        self.go = threading.Event()
        self.go.set()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        self.go.wait(30)
        headers = {"Location": "https://elsewhere.example/"} if self.status == 307 else {}
        return httpx2.Response(self.status, headers=headers, stream=_Pieces(self))


class _Pieces(httpx2.SyncByteStream):
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.cloud.pieces:
            time.sleep(self.cloud.wait_s)
            yield piece


def test_an_answer_comes_back_whole() -> None:
    assert Web(Cloud(b"a", b"b")).get("https://cloud.example/") == b"ab"
    answer = Web(Cloud(b"no", status=403)).post("https://cloud.example/", b"x", {"A": "b"})
    assert (answer.status, answer.body) == (403, b"no")


@pytest.mark.parametrize("status", [204, 302, 307, 404, 500])
def test_what_did_not_succeed_is_no_answer_to_a_get(status: int) -> None:
    cloud = Cloud(b"x", status=status)
    with pytest.raises(Unavailable, match=str(status)):
        Web(cloud).get("https://cloud.example/")
    assert cloud.asked == 1


def test_an_answer_without_end_is_broken_off() -> None:
    with pytest.raises(Unavailable, match="without end"):
        Web(Cloud(*[b"x" * 1000] * 1000)).get("https://cloud.example/")


def test_a_packed_answer_is_not_unpacked() -> None:
    class Packing(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            assert request.headers["Accept-Encoding"] == "identity"
            packed = gzip.compress(b"x" * 10_000_000)
            return httpx2.Response(
                200, headers={"Content-Encoding": "gzip"}, stream=httpx2.ByteStream(packed)
            )

    assert len(Web(Packing()).get("https://cloud.example/")) < 20_000


def test_an_answer_drop_by_drop_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_S", 0.1)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="without end"):
        Web(Cloud(*[b"x"] * 10_000, wait_s=0.01)).get("https://cloud.example/")
    assert time.monotonic() - began < 20


def test_a_cloud_that_does_not_answer() -> None:
    class Silent(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectTimeout("too long")

    with pytest.raises(Unavailable, match="does not answer: ConnectTimeout"):
        Web(Silent()).get("https://cloud.example/")


def test_a_flood_takes_a_few_threads_only() -> None:
    cloud = Cloud(b"x")
    cloud.go.clear()
    web = Web(cloud)
    threads = [
        threading.Thread(target=web.get, args=("https://cloud.example/",)) for _ in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while cloud.asked < AT_ONCE:
        assert time.monotonic() < deadline, "they never asked"
        time.sleep(0.005)
    with pytest.raises(Unavailable, match="too many"):
        web.get("https://cloud.example/")
    cloud.go.set()
    for thread in threads:
        thread.join()
    assert web.get("https://cloud.example/") == b"x"
    assert cloud.asked == AT_ONCE + 1
