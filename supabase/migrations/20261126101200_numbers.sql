-- What those who watch ask for: whether anything changed, what this installation is, how much there is to do.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- The id of the newest event that can matter to another worker (no claims, progress, notes), at least p_since. A person
-- is told of their own tasks only, and of those that are among the last 1000 events: a hint, after which a worker looks
-- for itself. SECURITY DEFINER: under row level security the look back would end nowhere for somebody who has no
-- events.
create function public.latest_change(p_since bigint default null) returns bigint
language plpgsql stable security definer set search_path = ''
as $$
declare
    v_person uuid := private.person();
begin
    return greatest(coalesce(p_since, 0), (
        select max(recent.id)
        from (
            select id, task_id from public.task_events
            where id > coalesce(p_since, 0) and name in ('queued', 'released', 'rescued', 'retry', 'fanned_out',
                'complete', 'failed', 'cancelled', 'cancel_requested')
            order by id desc limit case when v_person is null then 1 else 1000 end
        ) as recent
        -- a scalar subquery: as an EXISTS it becomes a join that reads all tasks
        where v_person is null or v_person = (
            select project.user_id
            from public.tasks as task join public.projects as project on project.id = task.project_id
            where task.id = recent.task_id)));
end
$$;

-- {schema: the newest applied migration, now, postgres, tables_without_rls: [names]}. `supabase db push` writes down
-- what it applied; without its table schema is null. SECURITY DEFINER: that table is not for callers.
create function public.installation() returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
declare
    v_schema text;
begin
    if to_regclass('supabase_migrations.schema_migrations') is not null then
        execute 'select max(version) from supabase_migrations.schema_migrations' into v_schema;
    end if;
    return jsonb_build_object('schema', v_schema, 'now', private.iso(clock_timestamp()),
        'postgres', current_setting('server_version'), 'tables_without_rls', (
            select coalesce(jsonb_agg(relname order by relname), '[]') from pg_catalog.pg_class
            where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace and not relrowsecurity));
end
$$;

-- -- task-counts --------------------------------------------------------------------------------------------------

-- For the limit of create-task: how many rows the caller made within a minute. Children of a fan-out do not count.
create function public.creations_in_last_minute() returns bigint
language sql stable set search_path = ''
as $$
    select count(*)
    from (
        select from public.tasks
        where created_at > now() - interval '1 minute' and parent_id is null and orchestrator_id is null limit 1000
    ) as made
$$;

-- How much there is to do: for the service of everybody, for a person of their own. p_include_active false leaves out
-- the list active_tasks. SECURITY DEFINER: claimable is not for callers.
create function public.task_counts(p_run_type text default null, p_include_active boolean default true) returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
declare
    v_person uuid := private.person();
begin
    return jsonb_build_object('mode', 'count', 'timestamp', private.iso(clock_timestamp()),
            'run_type_filter', p_run_type,
            'queued_tasks', private.queued_tasks(v_person, p_run_type),
            'active_tasks', case when p_include_active then private.active_tasks(v_person, p_run_type) else '[]' end,
            'workers', private.worker_numbers(v_person))
        || case when v_person is null then private.numbers_of_all(p_run_type)
                else private.numbers_of_person(v_person, p_run_type) end;
end
$$;

create function private.numbers_of_all(p_run_type text) returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_build_object(
        'totals', jsonb_build_object('queued_only', queued.claimable_now, 'active_only', running.count,
            'queued_plus_active', queued.claimable_now + running.count,
            'blocked_by_capacity', queued.blocked_by_capacity, 'blocked_by_deps', queued.blocked_by_deps,
            'blocked_by_settings', queued.blocked_by_settings,
            'potentially_claimable', queued.claimable_now + queued.blocked_by_capacity),
        'users', (select coalesce(jsonb_agg(to_jsonb(stats) order by stats.queued_tasks desc, stats.user_id), '[]')
                  from public.per_user_capacity_stats_service_role() as stats))
    from public.count_queued_tasks_breakdown_service_role(p_run_type) as queued,
        private.running(null, p_run_type) as running (count)
$$;

create function private.user_info(p_person uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_build_object('user_id', p_person, 'credits', person.credits,
        'allows_local', coalesce(person.settings #>> '{ui,generationMethods,onComputer}', 'true') <> 'false',
        'allows_cloud', coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false')
    from (select p_person as id) as asked left join public.users as person on person.id = asked.id
$$;

-- Their own workers may take more than max_in_progress rows; the summary is about workers of the service.
create function private.numbers_of_person(p_person uuid, p_run_type text) returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_build_object(
        'user_id', p_person,
        'totals', jsonb_build_object('queued_only', queued.count, 'active_only', running.count,
            'queued_plus_active', queued.count + running.count, 'eligible_queued', queued.count),
        'user_info', private.user_info(p_person),
        'debug_summary', jsonb_build_object('at_capacity', running.count >= allowed.count,
            'capacity_used_pct', round(100.0 * running.count / greatest(allowed.count, 1)),
            'can_claim_more', running.count < allowed.count))
    from private.running(p_person, p_run_type) as running (count)
    cross join (
        select count(*) from private.claimable
        where on_computer and (p_run_type is null or run_type = p_run_type)
            and project_id in (select id from public.projects where user_id = p_person)) as queued
    cross join (
        select coalesce((select max_in_progress from public.users where id = p_person), 5)) as allowed (count)
$$;

-- The first 100 of the rows that count as queued, in the order of claims. No orchestrators.
create function private.queued_tasks(p_person uuid, p_run_type text) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object('task_id', listed.id, 'task_type', listed.task_type,
            'user_id', (select user_id from public.projects where id = listed.project_id),
            'created_at', private.iso(listed.created_at))
        order by listed.priority desc, listed.created_at, listed.seq), '[]')
    from (
        select id, task_type, project_id, created_at, priority, seq from private.claimable
        where not private.is_orchestrator(task_type) and (p_run_type is null or run_type = p_run_type)
            and case when p_person is null then in_cloud and project_id <> all ((select private.full_projects())::uuid[])
                else on_computer and project_id in (select id from public.projects where user_id = p_person) end
        order by priority desc, created_at, seq limit 100
    ) as listed
$$;

-- The first 100 of the running rows, the longest running first. No orchestrators.
create function private.active_tasks(p_person uuid, p_run_type text) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object('task_id', listed.id, 'task_type', listed.task_type,
            'worker_id', listed.worker_id, 'user_id', listed.user_id,
            'started_at', private.iso(listed.generation_started_at))
        order by listed.generation_started_at), '[]')
    from (
        select task.id, task.task_type, task.worker_id, task.generation_started_at, project.user_id
        from public.tasks as task join public.projects as project on project.id = task.project_id
        where task.status = 'In Progress' and not task.waiting and not private.is_orchestrator(task.task_type)
            and (p_person is null or project.user_id = p_person)
            and (p_run_type is null or public.get_task_run_type(task.task_type) = p_run_type)
        order by task.generation_started_at limit 100
    ) as listed
$$;

-- The workers seen within a day, the latest first. What they ended within the last hour; no orchestrators and no
-- parents, whose time is that of their children. average_seconds is that of completed rows, null when there is none.
create function private.worker_numbers(p_person uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object('id', worker.id, 'status', worker.status,
            'seconds_since_heartbeat', round(extract(epoch from clock_timestamp() - worker.last_heartbeat), 1),
            'current_model', worker.current_model, 'tasks_in_progress', coalesce(held.count, 0),
            'completed_last_hour', coalesce(ended.completed, 0), 'failed_last_hour', coalesce(ended.failed, 0),
            'average_seconds', ended.average)
        order by worker.last_heartbeat desc, worker.id), '[]')
    from public.workers as worker
    left join (
        select worker_id, count(*) from public.tasks where status = 'In Progress' and not waiting group by worker_id
    ) as held on held.worker_id = worker.id
    left join (
        select worker_id, count(*) filter (where status = 'Complete') as completed,
            count(*) filter (where status = 'Failed') as failed,
            round(extract(epoch from avg(generation_processed_at - generation_started_at)
                filter (where status = 'Complete')), 1) as average
        from public.tasks
        where status in ('Complete', 'Failed') and generation_processed_at > now() - interval '1 hour'
            and worker_id is not null and not private.is_orchestrator(task_type)
            and not exists (select from public.tasks as child where child.parent_id = tasks.id)
        group by worker_id
    ) as ended on ended.worker_id = worker.id
    where worker.last_heartbeat > now() - interval '1 day' and (p_person is null or worker.user_id = p_person)
$$;

select private.open_to('{latest_change,installation,task_counts,creations_in_last_minute}', '{}');
