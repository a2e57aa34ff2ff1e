"""Proves that a job's log arrives whole and in order, and that no failure holds the job up."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bootstrap import logs
from agent_bootstrap.client import Refusal, Unanswered
from agent_bootstrap.logs import JobLog


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(logs, "LONGEST_PAUSE_S", 0.01)


class Sink:
    """A server that takes, fails or refuses."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.data = b""

    def __call__(self, offset: int, data: bytes) -> int:
        if self.faults:
            raise self.faults.pop(0)
        assert offset == len(self.data)
        self.data += data
        return len(self.data)


def log(tmp_path: Path, sink: Sink) -> JobLog:
    return JobLog(tmp_path / "log", sink, lambda: None)


def test_a_failed_chunk_is_sent_again(tmp_path: Path) -> None:
    sink = Sink(Unanswered("no"), Unanswered("no"))
    made = log(tmp_path, sink)
    made.path.write_bytes(b"abc" * 200_000)
    made.start()
    made.close(patience_s=5)
    assert sink.data == b"abc" * 200_000


def test_patience_ends(tmp_path: Path) -> None:
    made = log(tmp_path, Sink(*[Unanswered("no")] * 100_000))
    made.path.write_bytes(b"abc")
    made.start()
    made.close(patience_s=0.05)
    assert not made._thread.is_alive()


def test_a_refused_log_is_given_up_at_once(tmp_path: Path) -> None:
    sink = Sink(Refusal(413, "too-large", ""))
    made = log(tmp_path, sink)
    made.path.write_bytes(b"abc")
    made.start()
    made.close(patience_s=60)
    assert sink.data == b""


def test_too_large_a_backlog_loses_its_older_half_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "UNSENT_BYTES_MAX", 1000)
    sink = Sink()
    made = log(tmp_path, sink)
    made.path.write_bytes(b"a" * 600 + b"b" * 500)
    made.start()
    made.close(patience_s=5)
    assert sink.data == b"\n[orchctl] 600 bytes of the log were left out here\n" + b"b" * 500


def test_the_tail_is_the_last_lines_since_a_place(tmp_path: Path) -> None:
    made = log(tmp_path, Sink())
    made.path.write_bytes(b"before\n")
    since = made.size()
    made.note("working")
    with made.path.open("ab") as file:
        file.write(b"one\ntwo\xff\n")
    assert made.tail(since) == "[orchctl] working\none\ntwo\ufffd"
    assert made.tail(since, lines=1) == "two\ufffd"
