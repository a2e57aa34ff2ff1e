"""The tables, as steps from one schema version to the next; `pragma user_version` counts them.

What is asked for has a column; what only travels along is JSON of `core.codec`. Times are ISO 8601
text in UTC and of fixed width, so they sort as they are and a person can read the file.
A released step is never edited: a change is another step.
"""

from __future__ import annotations

_V1 = (
    "create table counters (name text primary key, value integer not null) without rowid",
    "insert into counters values ('position', 0)",
    """create table queues (
        name text primary key,
        paused integer not null,
        version integer not null,
        data text not null
    ) without rowid""",
    """create table jobs (
        id text primary key,
        queue text not null,
        spec text not null,
        state text not null,
        version integer not null,
        name text not null,
        owner text not null,
        labels text not null,
        priority integer not null,
        position real not null,
        epoch integer not null,
        attempt integer not null,
        failures integer not null,
        machine_losses integer not null,
        machine_id text not null,
        submitted_at text not null,
        queued_at text not null,
        not_before text,
        leased_at text,
        started_at text,
        finished_at text,
        exit_code integer,
        reason text,
        cancel_requested integer not null,
        cloned_from text not null,
        gpus integer not null,
        gpu_name text not null,
        gpu_memory_gib integer not null,
        cpus integer not null,
        memory_mib integer not null,
        disk_gib integer not null,
        share_ppm integer not null,
        on_demand_only integer not null,
        promoted_at text,
        idempotency_key text
    )""",
    # The order of claims. What follows `id` lets a claim pass over what does not fit, and demand be
    # counted, without touching a row of the table.
    """create index jobs_ready on jobs (
        queue, priority desc, position, id, not_before, queued_at, gpus, gpu_name,
        gpu_memory_gib, cpus, memory_mib, disk_gib, share_ppm, on_demand_only
    ) where state = 'queued'""",
    "create index jobs_waiting on jobs (queue, queued_at, promoted_at) where state = 'queued'",
    """create index jobs_held on jobs (machine_id, queue, priority, position)
       where state in ('leased', 'running')""",
    "create index jobs_by_time on jobs (submitted_at, id)",
    "create index jobs_by_queue on jobs (queue, submitted_at, id)",
    "create index jobs_by_machine on jobs (machine_id, submitted_at, id) where machine_id <> ''",
    """create unique index jobs_by_key on jobs (idempotency_key)
       where idempotency_key is not null""",
    """create table attempts (
        job_id text not null,
        number integer not null,
        epoch integer not null,
        queue text not null,
        owner text not null,
        machine_id text not null,
        need text not null,
        leased_at text not null,
        started_at text,
        ended_at text,
        outcome text not null,
        exit_code integer,
        reason text,
        artifacts text not null default '[]',
        primary key (job_id, number)
    ) without rowid""",
    "create index attempts_by_end on attempts (coalesce(ended_at, '9999'), leased_at)",
    """create table machines (
        id text primary key,
        autoscaler text not null,
        state text not null,
        version integer not null,
        planned_at text not null,
        last_beat_at text,
        idle_since text,
        data text not null
    )""",
    "create index machines_by_time on machines (planned_at, id)",
    """create index machines_open on machines (planned_at, id)
       where state not in ('terminated', 'launch_failed')""",
    """create table prices (
        machine_id text not null,
        started_at text not null,
        ended_at text,
        data text not null,
        primary key (machine_id, started_at)
    ) without rowid""",
    "create index prices_by_end on prices (coalesce(ended_at, '9999'), started_at)",
    """create table autoscalers (
        name text primary key,
        version integer not null,
        data text not null
    ) without rowid""",
    """create table autoscaler_versions (
        seq integer primary key autoincrement,
        name text not null,
        data text not null
    )""",
    "create index autoscaler_versions_by_name on autoscaler_versions (name, seq)",
    """create table leases (
        name text primary key,
        owner text not null,
        generation integer not null,
        expires_at text not null
    ) without rowid""",
    "create table cooldowns (key text primary key, data text not null) without rowid",
    """create table plans (
        id text primary key,
        autoscaler text not null,
        at text not null,
        plan text not null,
        snapshot text not null
    )""",
    "create index plans_by_time on plans (autoscaler, at, id)",
    """create table events (
        seq integer primary key autoincrement,
        kind text not null,
        subject text not null,
        data text not null
    )""",
    "create index events_by_kind on events (kind, seq)",
    "create index events_by_subject on events (subject, seq)",
    """create table answers (
        key text primary key,
        begun_at text not null,
        status integer not null,
        data text not null
    ) without rowid""",
    "create index answers_by_time on answers (begun_at)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1,)
