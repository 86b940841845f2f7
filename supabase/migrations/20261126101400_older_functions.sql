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

create function private.is_free(p_dependant_on uuid[]) returns boolean
language sql stable set search_path = ''
as $$
    select not exists (
        select from unnest(p_dependant_on) as needed (id)
        left join public.tasks as found on found.id = needed.id where found.status is distinct from 'Complete')
$$;

-- Why queued rows are not handed out; each counts under the first reason. As with task-counts, orchestrators count as
-- queued. p_include_active: the running rows count in total_tasks too.
create function public.analyze_task_availability_service_role(
    p_include_active boolean default false, p_run_type text default null
) returns jsonb
language sql stable security definer set search_path = ''
as $$
    select jsonb_build_object(
        'total_tasks', count(*) + case when p_include_active then private.running(null, p_run_type) else 0 end,
        'eligible_tasks', count(*) filter (where reason = 'eligible'),
        'rejection_reasons', jsonb_build_object(
            'no_credits', count(*) filter (where reason = 'no_credits'),
            'cloud_disabled', count(*) filter (where reason = 'cloud_disabled'),
            'dependency_blocked', count(*) filter (where reason = 'dependency_blocked'),
            'at_limit', count(*) filter (where reason = 'at_limit'),
            -- paused, not due yet, of a type that is switched off
            'held_up', count(*) filter (where reason = 'held_up')),
        'user_stats', (select coalesce(jsonb_agg(to_jsonb(stats) - 'at_limit' order by stats.user_id), '[]')
                       from public.per_user_capacity_stats_service_role() as stats))
    from (
        select case
            when person.credits <= 0 then 'no_credits'
            when person.settings #>> '{ui,generationMethods,inCloud}' = 'false' then 'cloud_disabled'
            when not private.is_free(task.dependant_on) then 'dependency_blocked'
            when task.project_id = any (closed.ids) then 'at_limit'
            when free.id is null then 'held_up'
            else 'eligible' end as reason
        from public.tasks as task
        cross join (select private.full_projects() as ids) as closed
        join public.projects as project on project.id = task.project_id
        left join public.users as person on person.id = project.user_id
        left join private.claimable as free on free.id = task.id
        where task.status = 'Queued' and (p_run_type is null or public.get_task_run_type(task.task_type) = p_run_type)
    ) as queued
$$;

-- What a person's own worker would find, and their 20 newest rows: the queued ones, with p_include_active also the running.
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
                    'has_dependency', dependant_on <> '{}', 'deps_complete', private.is_free(dependant_on),
                    'dependency_blocking', not private.is_free(dependant_on))
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
