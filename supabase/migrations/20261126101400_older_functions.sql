-- The rest of the functions of the older contract, made of those of …_older_clients.sql: the same rules hold.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- The next row for a worker; its params are called task_data. None for a worker that is to stop.
create function public.func_claim_available_task(worker_id_param text)
returns table (
    id uuid, status text, attempts integer, worker_id text, generation_started_at timestamptz, task_data jsonb,
    created_at timestamptz, task_type text
)
language plpgsql security definer set search_path = ''
as $$
begin
    if exists (select from public.workers as worker
               where worker.id = worker_id_param and worker.status = 'terminating') then
        return;
    end if;
    return query
        select task.id, task.status::text, task.attempts::integer, task.worker_id, task.generation_started_at,
            task.params, task.created_at, task.task_type
        from private.claim_older(worker_id_param, null, false) as task;
end
$$;

create function public.complete_task_with_timing(p_task_id text, p_output_location text) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    return private.update_unfenced(private.id_of(p_task_id, 'task_id'), 'Complete', null, p_output_location);
end
$$;

create function public.func_mark_task_failed(p_task_id text, p_error_message text) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
    return private.update_unfenced(private.id_of(p_task_id, 'task_id'), 'Failed', null, p_error_message);
end
$$;

-- Why queued rows are not handed out. As with task-counts, orchestrators count as queued. p_include_active: the running
-- rows count in total_tasks too.
create function public.analyze_task_availability_service_role(
    p_include_active boolean default false, p_run_type text default null
) returns jsonb
language sql stable security definer set search_path = ''
as $$
    select jsonb_build_object(
        'total_tasks', coalesce(sum(count), 0)
            + case when p_include_active then private.running(null, p_run_type) else 0 end,
        'eligible_tasks', coalesce(sum(count) filter (where reason = 'eligible'), 0),
        'rejection_reasons', '{"no_credits": 0, "cloud_disabled": 0, "dependency_blocked": 0, "at_limit": 0,
            "held_up": 0}'::jsonb || coalesce(jsonb_object_agg(reason, count) filter (where reason <> 'eligible'), '{}'),
        'user_stats', (select coalesce(jsonb_agg(to_jsonb(stats) - 'at_limit' order by stats.user_id), '[]')
                       from public.per_user_capacity_stats_service_role() as stats))
    from private.queued_by_reason(p_run_type)
$$;

-- What a person's own worker would find, and their 20 newest rows: the queued ones, with p_include_active also the
-- running.
create function public.analyze_task_availability_user_pat(p_user_id uuid, p_include_active boolean default false)
returns jsonb
language plpgsql stable security definer set search_path = ''
as $$
begin
    return jsonb_build_object(
        -- refuses others
        'eligible_count', public.count_eligible_tasks_user_pat(p_user_id),
        'user_info', private.user_info(p_user_id),
        'projects', (select coalesce(jsonb_agg(jsonb_build_object('id', id, 'name', name) order by created_at, id), '[]')
                     from public.projects where user_id = p_user_id),
        'recent_tasks', (
            select coalesce(jsonb_agg(jsonb_build_object('id', id, 'task_type', task_type, 'status', status,
                    'created_at', private.iso(created_at), 'dependant_on', dependant_on,
                    'has_dependency', dependant_on <> '{}', 'deps_complete', public.all_dependencies_complete(dependant_on),
                    'dependency_blocking', not public.all_dependencies_complete(dependant_on))
                order by created_at desc, seq desc), '[]')
            from (
                select * from public.tasks
                where (status = 'Queued' or (p_include_active and status = 'In Progress'))
                    and project_id in (select id from public.projects where user_id = p_user_id)
                order by created_at desc, seq desc limit 20
            ) as recent));
end
$$;

select private.open_to(
    '{complete_task_with_timing,func_mark_task_failed,analyze_task_availability_user_pat}',
    '{func_claim_available_task,analyze_task_availability_service_role}');
