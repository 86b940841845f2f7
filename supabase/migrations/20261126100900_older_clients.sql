-- The functions of clients written against the older contract: names, parameters and answers are theirs. Their claims
-- last 2 hours and their heartbeats extend them; only rows claimed so (tasks.unfenced) accept writes without a claim
-- number. Every other such write raises PT409.
-- All SECURITY DEFINER, for the reason that …_api.sql gives.

set lock_timeout = '10s';
set statement_timeout = '5min';

create function private.claim_older(p_worker_id text, p_run_type text, p_same_model_only boolean)
returns setof public.tasks
language plpgsql set search_path = ''
as $$
begin
    perform private.check_worker(p_worker_id, null);
    perform private.end_unreadable();
    perform private.rescue_expired(3, null);
    return query
        select * from private.claim(row(p_worker_id, interval '2 hours',
            (select worker.current_model from public.workers as worker
             where worker.id = p_worker_id and worker.status = 'active'),
            p_same_model_only, null, p_run_type, null, null, 8, interval '5 min', true), 1);
end
$$;

-- p_include_active is a part of the older signature and changes nothing: rows of others are never handed out.
create function public.claim_next_task_service_role(
    p_worker_id text, p_include_active boolean default false, p_run_type text default null,
    p_same_model_only boolean default false
) returns table (task_id uuid, params jsonb, task_type text, project_id uuid, user_id uuid)
language sql security definer set search_path = ''
as $$
    select task.id, task.params, task.task_type, task.project_id,
        (select user_id from public.projects where id = task.project_id)
    from private.claim_older(p_worker_id, p_run_type, p_same_model_only) as task
$$;

-- The older contract stored no worker here; a row needs one, so the person stands for it.
create function public.claim_next_task_user_pat(
    p_user_id uuid, p_include_active boolean default false, p_run_type text default null
) returns table (task_id uuid, params jsonb, task_type text, project_id uuid, user_id uuid)
language plpgsql security definer set search_path = ''
as $$
begin
    if not private.is_service() and p_user_id is distinct from auth.uid() then
        raise exception 'a person claims their own tasks' using errcode = 'PT403', column = 'user_id';
    end if;
    perform private.end_unreadable();
    perform private.rescue_expired(3, p_user_id);
    return query
        select task.id, task.params, task.task_type, task.project_id, p_user_id
        from private.claim(row('user:' || p_user_id, interval '2 hours', null, false, null, p_run_type, p_user_id,
            null, 8, interval '5 min', true), 1) as task;
end
$$;

create function public.func_worker_heartbeat_with_logs(
    worker_id_param text, vram_total_mb_param bigint default null, vram_used_mb_param bigint default null,
    logs_param jsonb[] default '{}', current_task_id_param uuid default null, status_param text default 'active'
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_inserted bigint;
begin
    perform private.check_worker(worker_id_param, null);
    perform private.beside_others();
    update public.tasks set lease_expires_at = clock_timestamp() + interval '2 hours', updated_at = clock_timestamp()
    where worker_id = worker_id_param and unfenced and status = 'In Progress' and not waiting;
    perform private.see_worker(worker_id_param, null, status_param,
        (select current_model from public.workers where id = worker_id_param),
        case when vram_total_mb_param is null then '{}' else jsonb_build_object(
            'vram_total_mb', vram_total_mb_param, 'vram_used_mb', vram_used_mb_param,
            'vram_timestamp', private.iso(clock_timestamp())) end);
    v_inserted := private.insert_logs(to_jsonb(coalesce(logs_param, '{}')), worker_id_param);
    return jsonb_build_object('success', true, 'heartbeat_updated', true, 'logs_inserted', v_inserted,
        'log_errors', coalesce(cardinality(logs_param), 0) - v_inserted);
end
$$;

create function public.func_insert_logs_batch(logs jsonb[]) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_inserted bigint := private.insert_logs(to_jsonb(coalesce(logs, '{}')), null);
begin
    return jsonb_build_object('success', true, 'inserted', v_inserted,
        'errors', coalesce(cardinality(logs), 0) - v_inserted);
end
$$;

-- Returns how many entries were removed.
create function public.func_cleanup_old_logs(retention_hours bigint default 48) returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
    v_count bigint;
begin
    delete from public.system_logs where timestamp < now() - make_interval(hours => retention_hours::integer);
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

-- A write without a claim number.
create function private.update_unfenced(p_task_id uuid, p_status text, p_worker_id text, p_text text) returns boolean
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    if p_status not in ('Queued', 'In Progress', 'Complete', 'Failed', 'Cancelled') then
        raise exception '% is no status', p_status using errcode = 'PT400', column = 'status';
    end if;
    perform private.person();
    perform private.alone();
    v_task := private.visible(p_task_id);
    if p_status = 'Cancelled' and v_task.status in ('Queued', 'In Progress') then
        perform private.cancel(p_task_id);
    elsif p_status = 'Queued' and v_task.status = 'Failed' then
        perform private.retry(p_task_id);
    elsif v_task.status in ('Complete', 'Failed', 'Cancelled') and v_task.status::text <> p_status then
        raise exception 'task % is %, it cannot become %', p_task_id, v_task.status, p_status using errcode = 'PT422';
    elsif v_task.status = 'Queued' and p_status = 'In Progress' then
        perform private.claim_unfenced(v_task, p_worker_id);
    elsif v_task.status::text = p_status and p_status <> 'In Progress' then
        null;
    elsif not private.holds_unfenced(v_task, p_worker_id) then
        perform private.raise_stale(p_task_id, coalesce(p_worker_id, 'an unnamed worker'), null);
    else
        perform private.write_unfenced(v_task, p_status, p_text);
    end if;
    return true;
end
$$;

create function private.claim_unfenced(p_task public.tasks, p_worker_id text) returns void
language plpgsql set search_path = ''
as $$
begin
    if p_worker_id is null then
        raise exception 'a row becomes In Progress by claim_next_task_service_role (claim-next-task), or by a worker_id'
            using errcode = 'PT400', column = 'worker_id';
    end if;
    perform private.check_worker(p_worker_id, private.person());
    if not exists (select from private.claimable where id = p_task.id) then
        raise exception 'task % cannot run yet: it is paused, waits for others, or for its time', p_task.id
            using errcode = 'PT409';
    end if;
    perform private.take(row(p_worker_id, interval '2 hours', null, false, null, null, null, null, null, null, true),
        p_task.id);
end
$$;

-- Older workers put texts where outputs go: of progress while In Progress, of the error when Failed.
create function private.write_unfenced(p_task public.tasks, p_status text, p_text text) returns void
language plpgsql set search_path = ''
as $$
begin
    if p_status = 'Complete' then
        perform private.complete_row(p_task.id, p_text, null);
        perform private.settle(array[p_task.id]);
    elsif p_status = 'Failed' then
        perform private.fail(p_task, p_text, 'unknown');
    elsif p_status = 'Queued' then
        perform private.requeue(p_task, 'released');
    else
        update public.tasks set progress = case when p_text is null then progress
                else jsonb_build_object('message', p_text) end,
            updated_at = clock_timestamp()
        where id = p_task.id;
        perform private.await_children(p_task);
    end if;
end
$$;

-- p_worker_id, which the older contract has not: the write is refused when the row is another worker's by now.
create function public.func_update_task_status(
    p_task_id uuid, p_status text, p_table_name text default 'tasks', p_output_location text default null,
    p_worker_id text default null
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    if p_table_name <> 'tasks' then
        raise exception 'tasks is the only table, not %', p_table_name using errcode = 'PT400', column = 'table_name';
    end if;
    return private.update_unfenced(p_task_id, p_status, p_worker_id, p_output_location);
end
$$;

create function public.safe_update_task_status(
    p_task_id uuid, p_status text, p_worker_id text default null, p_generation_started_at timestamptz default null
) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.update_unfenced(p_task_id, p_status, p_worker_id, null);
    update public.tasks set generation_started_at = p_generation_started_at
    where id = p_task_id and p_generation_started_at is not null and unfenced and status = 'In Progress';
    return true;
end
$$;

-- -- small questions ----------------------------------------------------------------------------------------------

create function public.all_dependencies_complete(p_dependant_on uuid[]) returns boolean
language sql stable security definer set search_path = ''
as $$
    select not exists (
        select from unnest(p_dependant_on) as needed (id)
        left join public.tasks as found on found.id = needed.id and private.may_use(found.project_id)
        where found.status is distinct from 'Complete')
$$;

create function public.get_task_model(p_params jsonb) returns text
language sql immutable set search_path = ''
as $$
    select private.model_of(p_params)
$$;

create function public.get_task_run_type(p_task_type text) returns text
language sql stable set search_path = ''
as $$
    select coalesce((select run_type from public.task_types where name = p_task_type), 'gpu')
$$;

-- -- numbers for task-counts --------------------------------------------------------------------------------------

-- Orchestrators count among the queued rows (a worker that looks here first would overlook a lone one otherwise), not
-- among the running ones.
create function private.running(p_user_id uuid, p_run_type text) returns bigint
language sql stable set search_path = ''
as $$
    select count(*)
    from public.tasks as task join public.projects as project on project.id = task.project_id
    where task.status = 'In Progress' and not task.waiting and not private.is_orchestrator(task.task_type)
        and (p_user_id is null or project.user_id = p_user_id)
        and (p_run_type is null or public.get_task_run_type(task.task_type) = p_run_type)
$$;

create function public.count_eligible_tasks_service_role(
    p_include_active boolean default false, p_run_type text default null
) returns bigint
language sql stable security definer set search_path = ''
as $$
    select count(*) + case when p_include_active then private.running(null, p_run_type) else 0 end
    from private.claimable
    where in_cloud and (p_run_type is null or run_type = p_run_type)
        -- the subquery: once, and not for every row
        and project_id <> all ((select private.full_projects())::uuid[])
$$;

create function public.count_eligible_tasks_user_pat(p_user_id uuid, p_include_active boolean default false)
returns bigint
language plpgsql stable security definer set search_path = ''
as $$
begin
    if not private.is_service() and p_user_id is distinct from auth.uid() then
        raise exception 'a person counts their own tasks' using errcode = 'PT403', column = 'user_id';
    end if;
    return (
        select count(*) + case when p_include_active then private.running(p_user_id, null) else 0 end
        from private.claimable
        where on_computer and project_id in (select id from public.projects where user_id = p_user_id));
end
$$;

-- The queued rows by what holds them back. A row that several things hold back counts once, under the first:
-- dependencies; being paused, not due, or of a type that is switched off; the owner's credits and settings; the owner's
-- limit.
create function private.queued_by_reason(p_run_type text) returns table (reason text, count bigint)
language sql stable set search_path = '' set jit = off
as $$
    select case
        when free.id is null and exists (
            select from unnest(task.dependant_on) as needed (id)
            left join public.tasks as found on found.id = needed.id where found.status is distinct from 'Complete')
            then 'dependency_blocked'
        when free.id is null then 'held_up'
        when person.credits <= 0 then 'no_credits'
        when not free.in_cloud then 'cloud_disabled'
        when task.project_id = any ((select private.full_projects())::uuid[]) then 'at_limit'
        else 'eligible' end as reason, count(*)
    from public.tasks as task
    join public.projects as project on project.id = task.project_id
    left join public.users as person on person.id = project.user_id
    left join public.task_types as type on type.name = task.task_type
    left join private.claimable as free on free.id = task.id
    where task.status = 'Queued' and (p_run_type is null or coalesce(type.run_type, 'gpu') = p_run_type)
    group by 1
$$;

create function public.count_queued_tasks_breakdown_service_role(p_run_type text default null)
returns table (
    claimable_now bigint, blocked_by_capacity bigint, blocked_by_deps bigint, blocked_by_settings bigint,
    total_queued bigint
)
language sql stable security definer set search_path = ''
as $$
    select coalesce(sum(count) filter (where reason = 'eligible'), 0)::bigint,
        coalesce(sum(count) filter (where reason = 'at_limit'), 0)::bigint,
        coalesce(sum(count) filter (where reason = 'dependency_blocked'), 0)::bigint,
        coalesce(sum(count) filter (where reason in ('no_credits', 'cloud_disabled')), 0)::bigint,
        coalesce(sum(count), 0)::bigint
    from private.queued_by_reason(p_run_type)
$$;

create function public.per_user_capacity_stats_service_role()
returns table (
    user_id uuid, credits numeric, queued_tasks bigint, in_progress_tasks bigint, allows_cloud boolean,
    at_limit boolean
)
language sql stable security definer set search_path = ''
as $$
    select person.id, person.credits, found.queued, found.running,
        coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false',
        found.running >= person.max_in_progress
    from public.users as person
    join (
        select project.user_id, count(*) filter (where task.status = 'Queued') as queued,
            count(*) filter (where task.status = 'In Progress' and not task.waiting
                and not private.is_orchestrator(task.task_type)) as running
        from public.tasks as task join public.projects as project on project.id = task.project_id
        where task.status in ('Queued', 'In Progress') group by project.user_id
    ) as found on found.user_id = person.id
$$;
