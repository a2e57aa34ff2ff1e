"""Who may come in, in SQLite: tokens by id, federations and hooks by name, in one table."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from control_plane.core.access import ApiToken, Federation
from control_plane.core.hooks import Hook
from control_plane.errors import NotFound
from control_plane.stores import transitions
from control_plane.stores.sqlite import rows
from control_plane.stores.sqlite.database import Table, reads, writes

TOKEN = "token"
FEDERATION = "federation"
HOOK = "hook"


class Access(Table):
    """`ports.AccessStore`, and the hooks of `ports.HookStore`."""

    @writes
    def token_put(self, tx: sqlite3.Connection, record: ApiToken, *, expected_version: int) -> None:
        _check(tx, TOKEN, record.id, record.version, expected_version)
        put_token(tx, record)

    @reads
    def token_get(self, tx: sqlite3.Connection, token_id: str) -> ApiToken:
        return rows.loads(ApiToken, _data(tx, TOKEN, token_id))

    @reads
    def token_list(self, tx: sqlite3.Connection) -> Sequence[ApiToken]:
        return tuple(rows.loads(ApiToken, data) for data in _all(tx, TOKEN))

    @writes
    def token_remove(self, tx: sqlite3.Connection, token_id: str) -> None:
        _remove(tx, TOKEN, token_id)

    @writes
    def federation_put(
        self, tx: sqlite3.Connection, record: Federation, *, expected_version: int
    ) -> None:
        _check(tx, FEDERATION, record.name, record.version, expected_version)
        put_federation(tx, record)

    @reads
    def federation_get(self, tx: sqlite3.Connection, name: str) -> Federation:
        return rows.loads(Federation, _data(tx, FEDERATION, name))

    @reads
    def federation_list(self, tx: sqlite3.Connection) -> Sequence[Federation]:
        return tuple(rows.loads(Federation, data) for data in _all(tx, FEDERATION))

    @writes
    def federation_remove(self, tx: sqlite3.Connection, name: str) -> None:
        _remove(tx, FEDERATION, name)

    @writes
    def hook_put(self, tx: sqlite3.Connection, record: Hook, *, expected_version: int) -> None:
        _check(tx, HOOK, record.name, record.version, expected_version)
        put_hook(tx, record)

    @reads
    def hook_get(self, tx: sqlite3.Connection, name: str) -> Hook:
        return rows.loads(Hook, _data(tx, HOOK, name))

    @reads
    def hook_list(self, tx: sqlite3.Connection) -> Sequence[Hook]:
        return tuple(rows.loads(Hook, data) for data in _all(tx, HOOK))

    @writes
    def hook_remove(self, tx: sqlite3.Connection, name: str) -> None:
        _remove(tx, HOOK, name)


def put_token(tx: sqlite3.Connection, record: ApiToken) -> None:
    """Write a token's record over what is there."""
    _put(tx, TOKEN, record.id, record.version, rows.dumps(record))


def put_federation(tx: sqlite3.Connection, record: Federation) -> None:
    """Write a federation over what is there."""
    _put(tx, FEDERATION, record.name, record.version, rows.dumps(record))


def put_hook(tx: sqlite3.Connection, record: Hook) -> None:
    """Write a hook over what is there."""
    _put(tx, HOOK, record.name, record.version, rows.dumps(record))


def _put(tx: sqlite3.Connection, kind: str, name: str, version: int, data: str) -> None:
    tx.execute("insert or replace into access values (?, ?, ?, ?)", (kind, name, version, data))


def _check(tx: sqlite3.Connection, kind: str, name: str, version: int, expected: int) -> None:
    row = tx.execute(
        "select version from access where kind = ? and name = ?", (kind, name)
    ).fetchone()
    transitions.check_version(f"{kind} {name}", row[0] if row else 0, version, expected)


def _data(tx: sqlite3.Connection, kind: str, name: str) -> str:
    row = tx.execute("select data from access where kind = ? and name = ?", (kind, name)).fetchone()
    if row is None:
        raise NotFound(f"there is no {kind} {name}")
    return str(row[0])


def _all(tx: sqlite3.Connection, kind: str) -> Sequence[str]:
    found = tx.execute("select data from access where kind = ? order by name", (kind,))
    return [data for (data,) in found]


def _remove(tx: sqlite3.Connection, kind: str, name: str) -> None:
    tx.execute("delete from access where kind = ? and name = ?", (kind, name))
