"""`orchctl server backup|restore|export|import`: a team's history goes from one place to another,
and nothing of it is lost on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane import moving, transfer
from control_plane.blobs.local import LocalBlobs
from control_plane.errors import InvalidInput, NotFound, Refused, Unavailable
from control_plane.local import serving
from control_plane.lock import alone
from control_plane.ports import TransferKind
from control_plane.stores.dynamodb import INDEXES
from control_plane.stores.dynamodb.calls import connect
from control_plane.stores.dynamodb.client import TableClient
from control_plane.stores.dynamodb.table import create_table
from control_plane.stores.memory import MemoryStore
from orchctl.main import main
from tests.conformance.builders import enqueue, queue
from tests.emulators.ministack import Ministack
from tests.transfer.conftest import (
    BLOBS,
    SECRETS,
    crash_at,
    files_of,
    opened,
    sums,
    tree,
    tries_needed,
)

REGION = "eu-central-1"


@pytest.fixture
def aws(ministack: Ministack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An AWS account of our own, as a shell is set up for one; also its number."""
    account = ministack.new_account()
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", account)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", ministack.endpoint)
    return account


@pytest.fixture
def table(aws: str, table_name: str) -> str:
    """The address of an empty table."""
    client = connect(region=REGION)
    create_table(client, table_name, INDEXES)
    client.close()
    return f"dynamodb:{table_name}"


@dataclass(frozen=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Runs one `orchctl server` command, as the program would."""
    monkeypatch.setenv("ORCHCTL_CONFIG_DIR", str(tmp_path / "config"))

    def run(*words: object) -> Ran:
        capsys.readouterr()
        code = main(["server", *map(str, words)])
        out, err = capsys.readouterr()
        return Ran(code=code, out=out, err=err)

    return run


Cli = Callable[..., Ran]


def check_arrived(state: Path, busy: MemoryStore) -> None:
    """It is the directory that the journey began with."""
    with opened(state) as store:
        assert sums(store) == sums(busy)
    assert {name: (state / name).read_text() for name in SECRETS} == SECRETS
    blobs = LocalBlobs(state / "blobs")
    assert {key: blobs.get(key) for key in BLOBS} == BLOBS


def digests(export: Path) -> Any:
    return json.loads((export / transfer.MANIFEST).read_text())["records"]


# --------------------------------------------------------------------------- there and back


def test_a_directory_goes_to_a_table_and_comes_back(
    cli: Cli, state: Path, table: str, tmp_path: Path, busy: MemoryStore
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    ran = cli("export", here, "--store", state, "-o", "json")
    assert ran.code == 0, ran.err
    counts = json.loads(ran.out)
    assert counts.pop("blobs") == len(BLOBS)
    assert counts == {kind.value: tally.count for kind, tally in sums(busy).items()}
    ran = cli("import", here, "--store", table)
    assert ran.code == 0, ran.err
    assert f"{sum(counts.values())} records and 0 blobs imported into {table}" in ran.out
    ran = cli("export", there, "--store", table)
    assert ran.code == 0, ran.err
    assert digests(there) == digests(here)
    back = tmp_path / "back"
    shutil.copytree(here / "blobs", there / "blobs")
    for name in SECRETS:
        shutil.copy2(here / name, there / name)
    ran = cli("import", there, "--store", back)
    assert ran.code == 0, ran.err
    assert f"and {len(BLOBS)} blobs imported" in ran.out
    check_arrived(back, busy)


def test_a_directory_goes_to_another_directory(
    state: Path, tmp_path: Path, busy: MemoryStore
) -> None:
    here = tmp_path / "here"
    before = tree(state / "blobs")
    moved = moving.export(str(state), here)
    assert {path.name for path in here.iterdir()} == {
        *(transfer.MANIFEST, "records", "blobs"),
        *SECRETS,
    }
    assert moving.import_(here, str(tmp_path / "new" / "state")) == moved
    check_arrived(tmp_path / "new" / "state", busy)
    assert tree(state / "blobs") == before


def test_a_table_goes_to_another_table(
    state: Path, table: str, table_name: str, tmp_path: Path, busy: MemoryStore
) -> None:
    client = connect(region=REGION)
    create_table(client, f"{table_name}-2", INDEXES)
    client.close()
    moving.export(str(state), tmp_path / "one")
    moving.import_(tmp_path / "one", table)
    moving.export(table, tmp_path / "two")
    moving.import_(tmp_path / "two", f"{table}-2")
    moving.export(f"{table}-2", tmp_path / "three")
    assert digests(tmp_path / "three") == digests(tmp_path / "one")


def test_a_directory_in_use_is_exported_as_of_one_instant(state: Path, tmp_path: Path) -> None:
    with alone(state), opened(state) as store:
        expected = sums(store)
        moved = moving.export(str(state), tmp_path / "here")
        queue(store, "later")
    assert transfer.verify(tmp_path / "here") == expected
    assert moved.blobs == len(BLOBS)


def test_a_running_server_is_backed_up_and_exported(cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(state) as server:
        queue(server.plane.store)
        enqueue(server.plane.store, "j-1", "j-2")
        ran = cli("backup", tmp_path / "now.tar", "--state-dir", state)
        assert (ran.code, ran.err) == (0, "")
        assert "now.tar: 2 jobs, 0 blobs, " in ran.out
        assert cli("export", tmp_path / "out", "--store", state).code == 0
        for words in (("restore", tmp_path / "now.tar", "--yes"), ("import", tmp_path / "out")):
            option = "--state-dir" if words[0] == "restore" else "--store"
            ran = cli(*words, option, state)
            assert ran.code == 7
            assert "another control plane uses" in ran.err
    restored = tmp_path / "restored"
    ran = cli("restore", tmp_path / "now.tar", "--state-dir", restored)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{restored}: 2 jobs, 0 blobs\n"
    token = (state / "admin-token").read_text()
    with serving(restored) as server:
        assert server.plane.admin_token in token
        assert server.plane.store.job_get("j-1").queue == "q"


def test_a_restore_over_a_directory_needs_a_yes(cli: Cli, state: Path, tmp_path: Path) -> None:
    tar = tmp_path / "monday.tar"
    assert cli("backup", tar, "--state-dir", state).code == 0
    before = tree(state)
    ran = cli("restore", tar, "--state-dir", state)
    assert ran.code != 0
    assert "--yes" in ran.err
    assert tree(state) == before
    assert cli("restore", tar, "--state-dir", state, "--yes").code == 0
    assert tree(tmp_path / "state.replaced-1") == before


# ---------------------------------------------------------------------------------- crashes


def test_an_export_of_a_directory_goes_on_after_a_crash_at_any_step(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.export(str(state), tmp_path / "whole")
    for step in range(1, 1000):
        folder = tmp_path / f"export-{step}"
        with crash_at(step, monkeypatch) as crashed:
            moving.export(str(state), folder)
        if not crashed():
            assert step > 20
            return
        moving.export(str(state), folder)
        assert files_of(folder) == files_of(tmp_path / "whole"), "no more and no less"


def test_an_import_into_a_directory_goes_on_after_a_crash_at_any_step(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: MemoryStore
) -> None:
    moving.export(str(state), tmp_path / "whole")
    for step in range(1, 1000):
        target = tmp_path / f"state-{step}"
        with crash_at(step, monkeypatch) as crashed:
            moving.import_(tmp_path / "whole", str(target))
        if not crashed():
            assert step > 20
            return
        moving.import_(tmp_path / "whole", str(target))
        check_arrived(target, busy)


def test_an_import_into_a_table_goes_on_after_a_crash_at_any_page(
    state: Path, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    moving.export(str(state), here)
    assert tries_needed(5, monkeypatch, lambda: moving.import_(here, table)) > 5
    moving.export(table, tmp_path / "there")
    assert digests(tmp_path / "there") == digests(here)


def test_an_export_of_a_table_goes_on_after_a_crash_at_any_page(
    state: Path, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.export(str(state), tmp_path / "here")
    moving.import_(tmp_path / "here", table)
    for step in range(1, 100):
        with crash_at(step, monkeypatch) as crashed:
            moving.export(table, tmp_path / "there")
        if not crashed():
            break
    assert 5 < step < 99
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


def test_what_a_crash_behind_the_end_has_left_goes_at_the_next_try(
    state: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    moving.export(str(state), here)
    (here / "snapshot").mkdir()
    (here / "snapshot" / "orchctl.db").touch()
    with pytest.raises(Refused, match="finished export"):
        moving.export(str(state), here)
    assert not (here / "snapshot").exists()


# ------------------------------------------------------------------------- what is not right


def test_what_is_no_directory_of_a_server_is_not_exported(cli: Cli, tmp_path: Path) -> None:
    ran = cli("export", tmp_path / "here", "--store", tmp_path / "nowhere")
    assert ran.code == 4
    assert "no orchctl.db in" in ran.err


def test_a_directory_with_something_in_it_is_not_imported_into(state: Path, tmp_path: Path) -> None:
    moving.export(str(state), tmp_path / "here")
    other = tmp_path / "other"
    other.mkdir()
    with opened(other) as store:
        queue(store)
    (other / "secret").write_text("its own")
    (other / "lock").touch()
    before = tree(other)
    with pytest.raises(Refused, match="is not empty: it holds records of kind queue"):
        moving.import_(tmp_path / "here", str(other))
    assert tree(other) == before, "its secrets above all"


def test_an_import_of_nothing_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no finished export"):
        moving.import_(tmp_path / "nowhere", str(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_export_is_not_imported_into_a_table(
    state: Path, table: str, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    moving.export(str(state), here)
    events = here / "records" / "event.jsonl"
    events.write_text(events.read_text().replace("event 1", "event 7"))
    with pytest.raises(InvalidInput, match="not what its manifest says"):
        moving.import_(here, table)
    assert sum(moving.export(table, tmp_path / "there").records.values()) == 0


def test_a_table_with_something_in_it_is_not_imported_into(
    state: Path, table: str, tmp_path: Path
) -> None:
    moving.export(str(state), tmp_path / "here")
    moving.import_(tmp_path / "here", table)
    with pytest.raises(Refused, match="is not empty"):
        moving.import_(tmp_path / "here", table)


def test_a_table_that_is_not_there_is_said_so(cli: Cli, aws: str, tmp_path: Path) -> None:
    ran = cli("export", tmp_path / "here", "--store", "dynamodb:nowhere")
    assert ran.code == 7
    assert "there is no DynamoDB table 'nowhere'" in ran.err
    assert "fix: " in ran.err


@pytest.mark.parametrize("name", ["", "ab", "my table", "x/y"])
def test_what_no_table_is_called_is_invalid(cli: Cli, tmp_path: Path, name: str) -> None:
    ran = cli("export", tmp_path / "here", "--store", f"dynamodb:{name}")
    assert ran.code == 2
    assert f"{name!r} is no name of a table" in ran.err


def test_a_table_of_something_else_is_left_alone(aws: str, table_name: str, tmp_path: Path) -> None:
    client = connect(region=REGION)
    create_table(client, table_name, [])
    TableClient(client, table_name).put({"pk": "a", "sk": "b"})
    client.close()
    with pytest.raises(Unavailable, match="has no index 'ready'"):
        moving.export(f"dynamodb:{table_name}", tmp_path / "here")


def test_without_a_region_the_way_to_set_one_is_told(
    cli: Cli, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION")
    ran = cli("export", tmp_path / "here", "--store", "dynamodb:orchctl")
    assert ran.code == 7
    assert "AWS_REGION" in ran.err


def test_every_kind_of_record_is_told_in_the_result(state: Path, tmp_path: Path) -> None:
    moved = moving.export(str(state), tmp_path / "here")
    assert set(moved.records) == set(TransferKind)
