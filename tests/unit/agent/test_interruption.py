"""Proves that every readable form of a notice is understood and none is overlooked."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_bootstrap.interruption import DEFAULT_SECONDS_LEFT, FileWatcher, read_notice
from agent_bootstrap.wire import Notice


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("", Notice("spot", DEFAULT_SECONDS_LEFT)),
        ("soon", Notice("spot", DEFAULT_SECONDS_LEFT)),
        ("[1]", Notice("spot", DEFAULT_SECONDS_LEFT)),
        ("12.5\n", Notice("spot", 12.5)),
        ('{"seconds_left": 25}', Notice("spot", 25.0)),
        ('{"kind": "rebalance", "seconds_left": "?"}', Notice("rebalance", DEFAULT_SECONDS_LEFT)),
    ],
)
def test_a_notice_is_read(text: str, notice: Notice) -> None:
    assert read_notice(text) == notice


def test_a_notice_is_given_once(tmp_path: Path) -> None:
    watcher = FileWatcher(tmp_path)
    assert watcher.poll() is None
    (tmp_path / "interrupt").write_text("9")
    assert watcher.poll() == Notice("spot", 9.0)
    assert watcher.poll() is None
