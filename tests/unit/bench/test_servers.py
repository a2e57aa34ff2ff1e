"""A peer that is not installed is left out with the reason and the way to get it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.peers import phases, servers
from bench.peers.phases import OTHERS
from bench.peers.servers import NotInstalled, Servers


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any of the servers."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "_DEBIAN_POSTGRES", tmp_path)


@pytest.mark.parametrize(
    ("start", "package"),
    [
        (lambda servers: servers.redis(), "redis-server"),
        (lambda servers: servers.beanstalkd(), "beanstalkd"),
        (lambda servers: servers.postgres("raw"), "postgresql"),
    ],
)
def test_a_missing_server_says_what_to_install(
    bare: None, tmp_path: Path, start: Callable[[Servers], object], package: str
) -> None:
    with ExitStack() as stack, pytest.raises(NotInstalled, match=f"apt-get install {package}$"):
        start(Servers(tmp_path, stack))


def test_phases_without_their_server_or_client_are_named_with_the_reason(
    bare: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "DEPTH", 3)
    with ExitStack() as stack:
        found, missing = phases.prepare(tmp_path, OTHERS, 3, stack)
    assert not found
    assert set(missing) == set(OTHERS)
    assert all(" install " in reason for reason in missing.values())
