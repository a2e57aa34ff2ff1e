"""Moving a team's whole history between a server's directory and a DynamoDB table, either way.

An export is a folder: the records (`control_plane.transfer`), and of a server's directory also its
blobs and the secrets that make it that installation.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control_plane import transfer
from control_plane.archive import DATABASE, IDENTITY, blobs_of, check_state
from control_plane.errors import InvalidInput
from control_plane.lock import alone
from control_plane.ports import Store, TransferKind
from control_plane.stores.sqlite import SqliteStore
from control_plane.stores.sqlite import backup as sqlite_backup
from control_plane.system import SystemClock

DYNAMODB = "dynamodb:"
"""Begins the address of a table; any other address is a server's directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What an export or an import came to."""

    records: dict[TransferKind, int]
    blobs: int


def export(address: str, folder: Path) -> Moved:
    """Write a store into a folder; after a crash it goes on where it was. A server's directory may
    be in use: it is exported as of one instant. Nothing else may write to a table meanwhile."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if address.startswith(DYNAMODB):
        with _table(address) as store:
            return Moved(records=_counts(transfer.write(store, folder)), blobs=0)
    state, snapshot = Path(address), folder / "snapshot"
    check_state(state)
    if transfer.is_finished(folder):
        shutil.rmtree(snapshot, ignore_errors=True)  # a crash behind the end has left it
        raise transfer.finished(folder)
    if not (snapshot / DATABASE).exists():
        sqlite_backup.backup(state / DATABASE, snapshot / DATABASE)
    # The snapshot comes first and the manifest last: all blobs that the records name are there.
    _copy_files(state, folder)
    with _sqlite(snapshot / DATABASE) as store:
        records = transfer.write(store, folder)
    shutil.rmtree(snapshot)
    return Moved(records=_counts(records), blobs=_count_blobs(folder))


def import_(folder: Path, address: str) -> Moved:
    """Read an export into an empty store and compare; after a crash it goes on where it was. The
    blobs go into a server's directory; beside a table they stay where they are, to be uploaded."""
    if address.startswith(DYNAMODB):
        with _table(address) as store:
            return Moved(records=_counts(transfer.read(folder, store, target=address)), blobs=0)
    transfer.check_finished(folder)
    state = Path(address)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(state), _sqlite(state / DATABASE) as store:
        records = transfer.read(
            folder,
            store,
            target=str(state.resolve()),
            beforehand=lambda: _copy_files(folder, state),
        )
    return Moved(records=_counts(records), blobs=_count_blobs(state))


def _copy_files(source: Path, target: Path) -> None:
    """Copy secrets and blobs. What was copied before is copied again only if it has grown."""
    for path in (*(source / name for name in IDENTITY), *blobs_of(source)):
        copy = target / path.relative_to(source)
        try:
            if not copy.exists() or copy.stat().st_size != path.stat().st_size:
                copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copy2(path, copy)
        except FileNotFoundError:
            continue  # a table's export has none, and a server in use forgets old blobs


def _count_blobs(folder: Path) -> int:
    return sum(1 for _ in blobs_of(folder))


def _counts(tallies: dict[TransferKind, transfer.Tally]) -> dict[TransferKind, int]:
    return {kind: tally.count for kind, tally in tallies.items()}


@contextmanager
def _sqlite(path: Path) -> Iterator[Store]:
    store = SqliteStore(path)
    try:
        yield store
    finally:
        store.close()


_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
"""DynamoDB developer guide, "Naming rules"."""


@contextmanager
def _table(address: str) -> Iterator[Store]:
    """The store in a table. Region, credentials and endpoint (`AWS_ENDPOINT_URL_DYNAMODB`,
    `AWS_ENDPOINT_URL`) come from where the AWS SDK looks for them, and the region also from
    `AWS_REGION`, which only the other SDKs know."""
    # The cloud's SDK is loaded by those who use it only.
    from control_plane.stores.dynamodb import INDEXES, DynamoStore
    from control_plane.stores.dynamodb.calls import connect
    from control_plane.stores.dynamodb.table import check_table

    name = address.removeprefix(DYNAMODB)
    if not _TABLE_NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name of a table", fix=f"write {DYNAMODB}NAME")
    client = connect(region=os.environ.get("AWS_REGION", ""))
    store = DynamoStore(client, table=name, clock=SystemClock())
    try:
        check_table(client, name, INDEXES)
        yield store
    finally:
        store.close()
