"""The tables, as steps from one schema version to the next; `pragma user_version` counts them.

What is asked for has a column; what only travels along is JSON of `core.codec`. Times are ISO 8601
text in UTC and of fixed width, so they sort as they are and a person can read the file.
A released step is never edited: a change is another step.

A waiting job stands in a *lane*: the jobs of one queue that a machine may take or not take alike.
Its name is their need as JSON, and behind it their owner where the queue limits each owner. A claim
looks at the first job of each lane, so it costs the same however many jobs wait. A job without a
lane cannot be claimed: it is blocked, held or ended, or it waits for its time.

An attempt that goes on is told by the columns of its job; its row is written when it ends.
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

_SPARSE_NEED = """(select json_group_object(
    key, case type when 'true' then json('true') else value end)
    from json_each(json_object('gpus', gpus, 'gpu_name', gpu_name,
        'gpu_memory_gib', gpu_memory_gib, 'cpus', cpus, 'memory_mib', memory_mib,
        'disk_gib', disk_gib, 'share_ppm', share_ppm,
        'on_demand_only', json(case on_demand_only when 0 then 'false' else 'true' end)))
    where value not in (0, ''))"""
"""The need of a row of the first schema, without what is not stated."""

_V2 = (
    "alter table queues add column max_running integer",
    "alter table queues add column max_running_per_owner integer",
    # The spec may be long and stands last: what is before it is read without it.
    """create table new_jobs (
        id text primary key,
        queue text not null,
        state text not null,
        lane text,
        version integer not null,
        epoch integer not null,
        attempt integer not null,
        failures integer not null,
        machine_losses integer not null,
        machine_id text not null,
        priority integer not null,
        position real not null,
        submitted_at text not null,
        queued_at text not null,
        not_before text,
        promoted_at text,
        leased_at text,
        started_at text,
        finished_at text,
        exit_code integer,
        cancel_requested integer not null,
        owner text not null,
        name text not null,
        cloned_from text not null,
        idempotency_key text,
        need text not null,
        depends_on text,
        reason text,
        labels text not null,
        spec text not null
    )""",
    f"""insert into new_jobs
        select id, queue, state, null, version, epoch, attempt, failures, machine_losses,
            machine_id, priority, position, submitted_at, queued_at, not_before, promoted_at,
            leased_at, started_at, finished_at, exit_code, cancel_requested, owner, name,
            cloned_from, idempotency_key, {_SPARSE_NEED}, null, reason, labels, spec
        from jobs order by rowid""",
    """update new_jobs set lane = need where state = 'queued'
       and (attempt > 0 or not_before is null or not_before <= queued_at)""",
    """alter table attempts add column queued_at text""",
    """update attempts set queued_at = (
        select max(queued_at, coalesce(not_before, queued_at)) from jobs where id = job_id)""",
    "drop index attempts_by_end",
    "delete from attempts where ended_at is null",
    # Behind the time: what is asked for by time, so that it is found without the rows.
    """create index attempts_by_end on attempts (
        ended_at, leased_at, queue, queued_at, machine_id)""",
    "drop table jobs",
    "alter table new_jobs rename to jobs",
    # What follows `id` lets demand be counted without touching a row of the table.
    """create index jobs_ready on jobs (
        queue, lane, priority desc, position, id, queued_at, not_before, promoted_at
    ) where lane is not null""",
    """create index jobs_delayed on jobs (queue, not_before, id)
       where state = 'queued' and lane is null""",
    "create index jobs_blocked on jobs (queue, id) where state = 'blocked'",
    """create index jobs_held on jobs (machine_id, queue, owner, leased_at, id, epoch, need)
       where state in ('leased', 'running')""",
    """create index jobs_dead on jobs (queue, id)
       where state in ('failed', 'exhausted')""",
    "create index jobs_ended on jobs (finished_at, id) where finished_at is not null",
    "create index jobs_by_queue on jobs (queue, id)",
    """create unique index jobs_by_key on jobs (idempotency_key)
       where idempotency_key is not null""",
    # A row for each job that a blocked one waits for.
    """create table dependencies (
        dependency text not null,
        dependent text not null,
        primary key (dependency, dependent)
    ) without rowid""",
    "create index dependencies_by_dependent on dependencies (dependent)",
    "alter table events add column at text not null default ''",
    """update events set at = case when instr(data ->> 'at', '.') then data ->> 'at'
       else substr(data ->> 'at', 1, 19) || '.000000' || substr(data ->> 'at', 20) end""",
)

_V3 = (
    "drop index jobs_held",
    # Behind the time: all that a lease says, so that leases are read without the rows.
    """create index jobs_held on jobs (
        machine_id, queue, owner, leased_at, id, epoch, need, cancel_requested
    ) where state in ('leased', 'running')""",
)

_V4 = (
    """create table buckets (
        key text primary key,
        version integer not null,
        data text not null
    ) without rowid""",
)

_V5 = (
    """create table access (
        kind text not null,
        name text not null,
        version integer not null,
        data text not null,
        primary key (kind, name)
    ) without rowid""",
)

_V6 = (
    """create table deliveries (
        id text primary key,
        version integer not null,
        state text not null,
        created_at text not null,
        data text not null
    ) without rowid""",
    "create index deliveries_waiting on deliveries (id) where state = 'waiting'",
    "create index deliveries_by_time on deliveries (created_at)",
)

_V7 = (
    # Apart from what each beat writes and each look reads of all machines: it is twenty times as
    # long, and seldom another one.
    """create table machine_records (
        id text primary key,
        data text not null
    )""",
    "insert into machine_records select id, data from machines",
    # A new one: what is taken out of the old one would leave its pages as far apart as they are.
    """create table new_machines (
        id text primary key,
        autoscaler text not null,
        state text not null,
        version integer not null,
        planned_at text not null,
        last_beat_at text,
        idle_since text
    )""",
    """insert into new_machines
        select id, autoscaler, state, version, planned_at, last_beat_at, idle_since
        from machines order by planned_at, id""",
    "drop table machines",
    "alter table new_machines rename to machines",
    "create index machines_by_time on machines (planned_at, id)",
    """create index machines_open on machines (planned_at, id)
       where state not in ('terminated', 'launch_failed')""",
)

_V8 = (
    # Another number with each record that is written: `machine_records` says why. The version
    # stands in the record.
    "alter table machines rename column version to stamp",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8)
