-- What workers say of themselves, for those who watch: samples of how they do, log lines; how long both are kept; and
-- what ended when.

set lock_timeout = '10s';
set statement_timeout = '5min';

create table public.worker_samples (
    id bigint generated always as identity primary key,
    worker_id text not null references public.workers (id) on delete cascade,
    at timestamptz not null default clock_timestamp(),
    measured jsonb not null check (jsonb_typeof(measured) = 'object')
);
create index worker_samples_by_age on public.worker_samples (at);
create index worker_samples_by_worker on public.worker_samples (worker_id, at);

create trigger worker_samples_check_measured before insert or update of measured on public.worker_samples
for each row execute function private.check_column('measured');

revoke all on public.worker_samples from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.worker_samples to service_role;
grant select on public.worker_samples to authenticated;
alter table public.worker_samples enable row level security;
create policy service on public.worker_samples to service_role using (true) with check (true);
create policy own on public.worker_samples for select to authenticated
    using (worker_id in (select id from public.workers where user_id = (select auth.uid())));
-- What a person's own worker says is for that person, also where it names no task.
create policy own_worker on public.system_logs for select to authenticated
    using (worker_id in (select id from public.workers where user_id = (select auth.uid())));

-- -- how long it is kept ------------------------------------------------------------------------------------------

-- One row, for whoever owns the installation to change with SQL.
create table private.retention (
    only_row boolean primary key default true check (only_row),
    log_lines bigint not null default 1000000 check (log_lines >= 0),
    logs interval not null default '7 days',
    samples interval not null default '1 day',
    -- since the last heartbeat of a worker
    workers interval not null default '30 days'
);
insert into private.retention default values;
revoke all on private.retention from public, anon, authenticated, service_role;
alter table private.retention enable row level security;

-- A little of what was kept for long goes with each heartbeat, whoever sends it; rows of workers with the first one of a
-- new worker. What another heartbeat removes at the moment is left to it.
create function private.prune_facts() returns trigger
language plpgsql security definer set search_path = ''
as $$
declare
    v_kept private.retention;
begin
    select * into v_kept from private.retention;
    delete from public.system_logs where id in (
        select id from public.system_logs where timestamp < now() - v_kept.logs
        order by timestamp limit 1000 for update skip locked);
    delete from public.system_logs where id in (
        select id from public.system_logs where id <= (select max(id) from public.system_logs) - v_kept.log_lines
        order by id limit 1000 for update skip locked);
    delete from public.worker_samples where id in (
        select id from public.worker_samples where at < now() - v_kept.samples
        order by at limit 1000 for update skip locked);
    if tg_op = 'INSERT' then
        delete from public.workers where id in (
            select id from public.workers where last_heartbeat < now() - v_kept.workers
            limit 1000 for update skip locked);
    end if;
    return null;
end
$$;

create trigger workers_prune_facts after insert or update of last_heartbeat on public.workers
for each row when (new.last_heartbeat is not null) execute function private.prune_facts();

-- -- reading ------------------------------------------------------------------------------------------------------

-- The newest lines for which everything that is given holds, oldest first. p_worker_id: a worker, or the name that it
-- was given; p_text: a part of the message, in any case. (A plan for what is given: what is not asked costs nothing.)
create function public.list_logs(
    p_task_id uuid default null, p_worker_id text default null, p_levels text[] default null,
    p_since_s double precision default null, p_text text default null, p_limit bigint default 200
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
declare
    v_worker text := private.worker_pattern(p_worker_id);
    -- a moment that stands still, which an index can be asked for
    v_since timestamptz := clock_timestamp() - make_interval(secs => p_since_s);
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object('at', private.iso(line.timestamp), 'level', line.log_level,
                'message', line.message, 'worker_id', line.worker_id, 'task_id', line.task_id,
                'metadata', line.metadata) order by line.timestamp, line.id), '[]')
        from (
            select * from public.system_logs
            where (p_task_id is null or task_id = p_task_id)
                and (p_worker_id is null or worker_id ~ v_worker)
                and (p_levels is null or log_level = any (p_levels))
                and (p_since_s is null or timestamp >= v_since)
                and (p_text is null or strpos(lower(message), lower(p_text)) > 0)
            order by timestamp desc, id desc limit greatest(p_limit, 0)
        ) as line);
end
$$;

-- The newest ones, oldest first.
create function public.list_samples(
    p_worker_id text default null, p_since_s double precision default 3600, p_limit bigint default 2000
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
declare
    v_worker text := private.worker_pattern(p_worker_id);
    -- a moment that stands still, which an index can be asked for
    v_since timestamptz := clock_timestamp() - make_interval(secs => p_since_s);
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object('worker_id', sample.worker_id, 'at', private.iso(sample.at),
                'measured', sample.measured) order by sample.at, sample.id), '[]')
        from (
            select * from public.worker_samples
            where at >= v_since
                and (p_worker_id is null or worker_id ~ v_worker)
            order by at desc, id desc limit greatest(p_limit, 0)
        ) as sample);
end
$$;

-- What ended within the last p_since_s seconds, by span of p_bucket_s seconds, status and type. seconds: from the begin
-- of the generation to the end, all of them together.
create function public.throughput(p_since_s double precision, p_bucket_s bigint) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
declare
    -- a moment that stands still, which an index can be asked for
    v_since timestamptz := clock_timestamp() - make_interval(secs => p_since_s);
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object('at', private.iso(to_timestamp(ended.span * p_bucket_s)),
                'status', ended.status, 'task_type', ended.task_type, 'count', ended.count,
                'seconds', round(ended.seconds, 3)) order by ended.span, ended.status, ended.task_type), '[]')
        from (
            select floor(extract(epoch from generation_processed_at) / p_bucket_s)::bigint as span, status, task_type,
                count(*), coalesce(sum(extract(epoch from
                    greatest(generation_processed_at - generation_started_at, interval '0'))), 0) as seconds
            from public.tasks
            where status in ('Complete', 'Failed', 'Cancelled')
                and generation_processed_at >= v_since
            group by 1, 2, 3
        ) as ended);
end
$$;

-- The rows that have not ended, by state and type: claimable, blocked (by a dependency or its run_after), paused, running,
-- waiting for its children. oldest_s: seconds since the oldest of them was added.
create function public.queue_depths() returns jsonb
language sql stable set search_path = '' set jit = off
as $$
    select coalesce(jsonb_agg(jsonb_build_object('state', depth.state, 'task_type', depth.task_type,
            'count', depth.count, 'oldest_s', round(greatest(extract(epoch from clock_timestamp() - depth.oldest), 0), 3))
        order by depth.state, depth.task_type), '[]')
    from (
        select case
                when status = 'In Progress' then case when waiting then 'waiting' else 'running' end
                when paused then 'paused'
                when run_after > clock_timestamp() or (dependant_on <> '{}' and exists (
                    select from unnest(task.dependant_on) as needed (id)
                    left join public.tasks as found on found.id = needed.id
                    where found.status is distinct from 'Complete')) then 'blocked'
                else 'claimable' end as state,
            task_type, count(*), min(created_at) as oldest
        from public.tasks as task where status in ('Queued', 'In Progress') group by 1, 2
    ) as depth
$$;

select private.open_to('{list_logs,list_samples,throughput,queue_depths,worker_heartbeat}', '{}');
