"""A file of the first released schema is brought up to date with all it held, or left alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from control_plane.core.model import Artifact, Job, JobSpec, Need
from control_plane.errors import Unavailable
from control_plane.ports import TransferKind
from control_plane.stores.sqlite import SqliteStore, opening, rows
from control_plane.stores.sqlite.schema import MIGRATIONS
from tests.conformance.builders import BOX, QUEUED, at, claim, enqueue, ids

V1 = Path(__file__).with_name("v1.sql")
HELD = ("j-again", "j-running")


@pytest.fixture
def old(path: Path) -> Path:
    """A file as the first release left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("pragma journal_mode=wal")
        for statement in MIGRATIONS[0]:
            file.execute(statement)
        file.executescript(V1.read_text())
        file.execute("pragma user_version=1")
    return path


@pytest.fixture
def migrated(old: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(old)
    yield store
    store.close()


def table(path: Path, name: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        return [dict(row) for row in file.execute(f"select * from {name}")]


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as file:
        return opening.schema_version(file)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as file:
        return list(file.iterdump())


# ---------------------------------------------------------------------------- nothing is lost


def test_every_job_is_as_it_was(old: Path) -> None:
    before = {row["id"]: row for row in table(old, "jobs")}
    store = SqliteStore(old)
    jobs = {job.id: job for job in store.job_list(limit=1000).items}
    store.close()
    assert len(before) == 11
    assert jobs.keys() == before.keys()
    for job_id, row in before.items():
        check_job(jobs[job_id], row)
    assert version(old) == len(MIGRATIONS)


def check_job(job: Job, row: dict[str, Any]) -> None:
    """All that the old row says of it, the codec aside."""
    as_columns = rows.job_values(job)
    plain = {field.name for field in fields(Job)} - {"spec", "depends_on", "reason", "labels"}
    assert {name: as_columns[name] for name in plain} == {name: row[name] for name in plain}
    assert job.depends_on == ()
    assert job.labels == json.loads(row["labels"])
    assert (job.reason and job.reason.code) == (row["reason"] and json.loads(row["reason"])["code"])
    stated = json.loads(row["spec"])
    for field in fields(JobSpec):
        if field.name not in ("need", "source", "requirements", "artifacts"):
            assert getattr(job.spec, field.name) == stated[field.name]
    assert list(job.spec.requirements) == stated["requirements"]
    assert (job.spec.source and job.spec.source.kind) == (
        stated["source"] and stated["source"]["kind"]
    )
    need = {field.name: row[field.name] for field in fields(Need)}
    assert job.spec.need == Need(**{**need, "on_demand_only": bool(row["on_demand_only"])})


def test_every_attempt_is_as_it_was(old: Path) -> None:
    before = table(old, "attempts")
    waited = {
        row["id"]: max(row["queued_at"], row["not_before"] or "") for row in table(old, "jobs")
    }
    store = SqliteStore(old)
    shared = [name for name in before[0] if name not in ("need", "reason", "artifacts")]
    assert len(before) == 6
    for row in before:
        attempt = store.job_attempts(row["job_id"])[row["number"] - 1]
        # The first release wrote an open attempt's end as none, and so it is told.
        assert {name: rows.column(getattr(attempt, name)) for name in shared} == {
            name: row[name] for name in shared
        }
        assert rows.column(attempt.queued_at) == waited[row["job_id"]]
        assert attempt.need == rows.need_of(row["need"])
    assert store.job_artifacts("j-ended") == (
        Artifact(name="a.txt", size_bytes=3, sha256="ab", blob="artifacts/ended/a.txt"),
    )
    store.close()


@pytest.mark.parametrize(
    "name",
    ["autoscalers", "autoscaler_versions", "cooldowns", "leases", "plans", "prices"],
)
def test_other_tables_are_as_they_were(old: Path, name: str) -> None:
    before = table(old, name)
    SqliteStore(old).close()
    assert before
    assert table(old, name) == before


def test_the_record_of_a_machine_stands_apart(old: Path) -> None:
    before = table(old, "machines")
    store = SqliteStore(old)
    machines = {each.id: each for each in store.machine_list(open_only=False)}
    store.close()
    assert before
    for row in before:
        record = {"id": row["id"], "data": row.pop("data")}
        assert record in table(old, "machine_records")
        version = row.pop("version")
        assert {**row, "stamp": version} in table(old, "machines")
        assert machines[row["id"]].version == version
    assert len(machines) == len(before) == len(table(old, "machine_records"))


def test_queues_have_no_limits_and_events_know_their_time(old: Path) -> None:
    before = {name: table(old, name) for name in ("queues", "events")}
    SqliteStore(old).close()
    assert table(old, "queues") == [
        {**row, "max_running": None, "max_running_per_owner": None} for row in before["queues"]
    ]
    assert table(old, "events") == [
        {**before["events"][0], "at": "2026-03-01T12:00:00.000000+00:00"},
        {**before["events"][1], "at": "2026-03-01T12:00:00.250000+00:00"},
    ]


# ------------------------------------------------------------------------------- and it goes on


def test_the_order_of_claims_is_kept(migrated: SqliteStore) -> None:
    in_line = migrated.job_list(queue="q", states=QUEUED).items
    assert ids(in_line) == ["j-later", "j-waits", "j-aged", "j-returned", "j-delayed"]
    claimed = [claim(migrated, limit=1, now=at(20))[0].id for _ in range(4)]
    assert claimed == ["j-later", "j-waits", "j-aged", "j-returned"]
    assert claim(migrated, now=at(4000)) == []
    assert ids(claim(migrated, now=at(6000))) == ["j-delayed"]
    assert ids(claim(migrated, "other", free=BOX, now=at(20))) == ["j-elsewhere"]


def test_what_was_held_is_held_and_its_agents_go_on(migrated: SqliteStore) -> None:
    leases = {lease.job_id: lease for lease in migrated.job_leases()}
    assert sorted(leases) == sorted(HELD)
    migrated.job_start("j-again", leases["j-again"].epoch, now=at(20))
    assert migrated.job_get("j-again").started_at == at(20)


def test_keys_and_positions_go_on(migrated: SqliteStore) -> None:
    first = migrated.job_get("j-ended")
    again = migrated.job_enqueue(first, idempotency_key="k-ended")
    assert again == (first, False)
    others = migrated.job_list(limit=100).items
    [new] = enqueue(migrated, "j-new")
    assert new.position > max(job.position for job in others)


def test_ageing_remembers_whom_it_promoted(migrated: SqliteStore) -> None:
    exported = migrated.transfer_read(TransferKind.JOB).items
    promoted = {row["id"]: row["promoted_at"] for row in map(flat, exported)}
    assert promoted["j-waits"]
    assert promoted["j-running"] is None


def flat(row: Any) -> dict[str, Any]:
    return {**row["job"], "promoted_at": row["promoted_at"]}


# --------------------------------------------------------------------------------- all or nothing


def test_a_migration_that_breaks_off_leaves_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(old)
    broken = (MIGRATIONS[0], (*MIGRATIONS[1], "insert into nowhere values (1)"))
    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", broken)
        with pytest.raises(Unavailable, match="no such table: nowhere"):
            SqliteStore(old)
    assert version(old) == 1
    assert dump(old) == before
    SqliteStore(old).close()
    assert version(old) == len(MIGRATIONS)


def test_a_new_file_has_the_tables_of_a_migrated_one(old: Path, tmp_path: Path) -> None:
    SqliteStore(old).close()
    SqliteStore(tmp_path / "new.db").close()
    tables = "select name, sql from sqlite_master where name not like 'sqlite_%' order by name"
    found = []
    for path in (old, tmp_path / "new.db"):
        with closing(sqlite3.connect(path)) as file:
            found.append(file.execute(tables).fetchall())
    assert found[0] == found[1]


def test_a_file_that_a_newer_program_wrote_is_refused_and_not_touched(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(old).close()
    before = old.read_bytes()
    monkeypatch.setattr(opening, "MIGRATIONS", MIGRATIONS[:1])
    with pytest.raises(
        Unavailable, match=f"schema version {len(MIGRATIONS)}; this orchctl knows 1"
    ) as refused:
        SqliteStore(old)
    assert refused.value.fix == "Run the orchctl that wrote the file, or a newer one."
    assert old.read_bytes() == before
    assert [each.name for each in old.parent.iterdir()] == [old.name]
