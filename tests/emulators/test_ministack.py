"""The emulator dies with its test run, keeps what it should, and keeps accounts apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.errors import Unavailable
from control_plane.stores.dynamodb.calls import Waiting, connect
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.table import create_table
from tests import requires
from tests.emulators.ministack import Ministack

HOLDER = """
import sys, time
from pathlib import Path
from tests.emulators.ministack import Ministack
server = Ministack(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_dies_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    requires.ministack()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        pid = int(holder.stdout.readline())
        assert alive(pid)
        holder.send_signal(signal.SIGKILL)
    until(lambda: not alive(pid))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Ministack]]:
    """Makes a server for this test alone."""
    made: list[Ministack] = []

    def make(*, persist: bool) -> Ministack:
        made.append(Ministack(tmp_path, persist=persist))
        made[0].start()
        return made[0]

    yield make
    made[0].kill()


def table(server: Ministack, account: str) -> TableClient:
    client = connect(
        region="eu-central-1", endpoint_url=server.endpoint, access_key=account, secret_key="any"
    )
    return TableClient(client, "jobs", waiting=Waiting(deadline_s=1.0))


@pytest.mark.parametrize("persist", [True, False])
def test_a_restart_at_the_same_address_keeps_what_it_was_told_to(
    own: Callable[..., Ministack], persist: bool
) -> None:
    server = own(persist=persist)
    endpoint = server.endpoint
    jobs = table(server, server.new_account())
    create_table(jobs._client, "jobs", [])
    jobs.put({"pk": "a", "sk": "b", "n": 1})
    server.restart()
    assert server.endpoint == endpoint
    if persist:
        assert jobs.get("a", "b") == {"pk": "a", "sk": "b", "n": 1}
    else:
        with pytest.raises(Unavailable, match="no DynamoDB table 'jobs'"):
            jobs.get("a", "b")
    jobs.close()


def test_killed_it_answers_no_more_until_it_is_started(own: Callable[..., Ministack]) -> None:
    server = own(persist=False)
    jobs = table(server, server.new_account())
    create_table(jobs._client, "jobs", [])
    server.kill()
    with pytest.raises(Unavailable, match="did not answer GetItem"):
        jobs.get("a", "b")
    server.start()
    create_table(jobs._client, "jobs", [])
    assert jobs.get("a", "b") is None
    jobs.close()


def test_accounts_see_nothing_of_each_other(ministack: Ministack) -> None:
    one, other = (table(ministack, ministack.new_account()) for _ in range(2))
    create_table(one._client, "jobs", [])
    one.put({"pk": "a", "sk": "b"})
    with pytest.raises(Unavailable, match="no DynamoDB table"):
        other.get("a", "b")
    create_table(other._client, "jobs", [])
    assert other.get("a", "b") is None
    one.close()
    other.close()


def test_a_start_that_fails_shows_its_output(
    tmp_path: Path, ministack: Ministack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(ministack.endpoint.rpartition(":")[2])
    monkeypatch.setattr("tests.emulators.ministack._free_port", lambda: port)
    server = Ministack(tmp_path)
    with pytest.raises(RuntimeError, match="already in use"):
        server.start()


def test_without_ministack_the_reason_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requires, "MINISTACK", tmp_path / "ministack-1.5.33")
    monkeypatch.delenv("ORCHCTL_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no ministack-.*: make emulators"):
        requires.ministack()
    monkeypatch.setenv("ORCHCTL_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="make emulators"):
        requires.ministack()
