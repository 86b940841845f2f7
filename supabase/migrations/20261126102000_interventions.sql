-- What whoever looks after an installation does to tasks: pause, resume, requeue; and which tasks a choice means.
-- cancel_task and retry_task are older, see …_api.sql. All of them take a row together with its open descendants.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- pause --------------------------------------------------------------------------------------------------------

-- Mark the row and its open descendants: a paused row is not claimed. What runs goes on, and is held should it come back
-- to the queue. Returns the status now.
create function public.pause_task(p_task_id uuid) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
begin
    return private.set_paused(p_task_id, true);
end
$$;

-- The opposite.
create function public.resume_task(p_task_id uuid) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
begin
    return private.set_paused(p_task_id, false);
end
$$;

create function private.set_paused(p_task_id uuid, p_paused boolean) returns public.task_status
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    perform private.person();
    perform private.alone();
    v_task := private.visible(p_task_id);
    if v_task.status not in ('Queued', 'In Progress') then
        raise exception 'task % is %; only a task that has not ended can be paused or resumed', p_task_id, v_task.status
            using errcode = 'PT400', column = 'status';
    end if;
    with changed as (
        update public.tasks set paused = p_paused, updated_at = clock_timestamp()
        where id = any (private.open_subtree(p_task_id)) and status in ('Queued', 'In Progress') and paused <> p_paused
        returning id
    )
    insert into public.task_events (task_id, name)
    select id, case when p_paused then 'paused' else 'resumed' end from changed;
    return v_task.status;
end
$$;

-- The children of a paused parent are paused. (The trigger's name sorts behind the one that finds the orchestrator.)
create function private.pause_with_parent() returns trigger
language plpgsql set search_path = ''
as $$
begin
    new.paused := new.paused or coalesce(
        (select paused from public.tasks where id = coalesce(new.parent_id, new.orchestrator_id)), false);
    return new;
end
$$;

create trigger tasks_pause_with_parent before insert on public.tasks
for each row when (new.parent_id is not null or new.orchestrator_id is not null) execute function private.pause_with_parent();

-- -- requeue ------------------------------------------------------------------------------------------------------

-- Queue again what runs of the row and its descendants, without burning an attempt. The claims are stale from then on:
-- their workers hear of it by the next heartbeat. Returns the status now.
create function public.requeue_task(p_task_id uuid) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
    v_running public.tasks;
    v_count bigint := 0;
begin
    perform private.person();
    perform private.alone();
    v_task := private.visible(p_task_id);
    for v_running in
        select * from public.tasks
        where id = any (private.open_subtree(p_task_id)) and status = 'In Progress' and not waiting
        order by seq for update
    loop
        continue when private.await_children(v_running);
        perform private.requeue(v_running, 'requeued');
        v_count := v_count + 1;
    end loop;
    if v_count = 0 then
        raise exception 'task % is %, and nothing of it runs; only what runs can be requeued', p_task_id, v_task.status
            using errcode = 'PT400', column = 'status';
    end if;
    return (select status from public.tasks where id = p_task_id);
end
$$;

-- -- choosing -----------------------------------------------------------------------------------------------------

-- An orchestrator by its id, or those of a travel by its run_id: the search for the latter reads the whole table, so it
-- comes second.
create function private.roots_of(p_run text) returns uuid[]
language plpgsql stable set search_path = ''
as $$
declare
    v_roots uuid[] := '{}';
begin
    if p_run ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
        v_roots := array(select id from public.tasks where id = p_run::uuid);
    end if;
    if p_run is not null and v_roots = '{}' then
        v_roots := array(select id from public.tasks
            where private.is_orchestrator(task_type) and params #>> '{orchestrator_details,run_id}' = p_run);
    end if;
    return v_roots;
end
$$;

-- What matches the id of the worker asked for, by its id or by the name that it was given: a worker's id is that and 8
-- digits, so gpu is not gpu-1. Asked once for a query: a function for each row would cost more than all else.
create function private.worker_pattern(p_asked text) returns text
language sql immutable set search_path = ''
as $$
    select '^' || regexp_replace(p_asked, '([^[:alnum:]_-])', '\\\1', 'g') || '(-[0-9a-f]{8})?$'
$$;

-- The rows for which everything that is given holds, the oldest first. p_worker_id: a worker, or the name that it was
-- given; p_older_than_s, p_newer_than_s: seconds since it was added, at least and at most; p_ended_within_s: seconds since
-- it ended, at most; p_run: the id of an orchestrator, or the run_id of a travel, with
-- all that came of it; p_text: a part of the id, type, model, error message or prompt, in any case; p_top: whether it is
-- nobody's child. p_newest: the newest first; p_after: those that follow this row. (A plan for what is given: what is not asked costs nothing.)
create function public.select_tasks(
    p_statuses text[] default null, p_task_type text default null, p_worker_id text default null,
    p_error_class text default null, p_older_than_s double precision default null, p_run text default null,
    p_paused boolean default null, p_text text default null, p_top boolean default null,
    p_newest boolean default false, p_after uuid default null, p_limit bigint default 1000,
    p_newer_than_s double precision default null, p_ended_within_s double precision default null
) returns jsonb
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
declare
    v_roots uuid[] := private.roots_of(p_run);
    v_worker text := private.worker_pattern(p_worker_id);
    v_at timestamptz;
    v_seq bigint;
    -- a moment that stands still, which an index can be asked for
    v_newer_than timestamptz := clock_timestamp() - make_interval(secs => p_newer_than_s);
    v_ended_since timestamptz := clock_timestamp() - make_interval(secs => p_ended_within_s);
begin
    if p_after is not null then
        select created_at, seq into v_at, v_seq from public.tasks where id = p_after;
        if not found then
            raise exception 'there is no task %', p_after using errcode = 'PT404', column = 'after';
        end if;
    end if;
    return (
        with recursive run (id) as (
            select unnest(v_roots)
            union
            select child.id from run, lateral (
                select id from public.tasks where parent_id = run.id
                union all
                select id from public.tasks where orchestrator_id = run.id
            ) as child
        )
        select coalesce(jsonb_agg(private.task_json(task) order by
            case when p_newest then task.created_at end desc, case when p_newest then task.seq end desc,
            task.created_at, task.seq), '[]')
        from (
            select * from public.tasks
            where (p_statuses is null or status = any (p_statuses::public.task_status[]))
                and (p_task_type is null or task_type = p_task_type)
                and (p_worker_id is null or worker_id ~ v_worker)
                and (p_error_class is null or error_class = p_error_class)
                and (p_older_than_s is null or created_at <= clock_timestamp() - make_interval(secs => p_older_than_s))
                and (p_newer_than_s is null or created_at >= v_newer_than)
                and (p_ended_within_s is null or (status in ('Complete', 'Failed', 'Cancelled')
                    and generation_processed_at >= v_ended_since))
                and (p_run is null or id in (select id from run))
                and (p_paused is null or paused = p_paused)
                and (p_text is null or strpos(lower(concat_ws(E'\n', id, task_type, model, error_message,
                    params ->> 'prompt', params ->> 'base_prompt')), lower(p_text)) > 0)
                and (p_top is null or (parent_id is null and orchestrator_id is null) = p_top)
                and (p_after is null or (p_newest and (created_at, seq) < (v_at, v_seq))
                    or (not p_newest and (created_at, seq) > (v_at, v_seq)))
            -- what is not asked is a constant, and no part of the order
            order by case when p_newest then created_at end desc, case when p_newest then seq end desc, created_at, seq
            limit greatest(p_limit, 0)
        ) as task);
end
$$;

-- The children of each parent by status: {id: {status: number}}, without parents that have none.
create function public.count_children(p_parent_ids uuid[]) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_object_agg(parent_id, numbers), '{}') from (
        select parent_id, jsonb_object_agg(status, number) as numbers from (
            select parent_id, status, count(*) as number from public.tasks
            where parent_id = any (p_parent_ids) group by parent_id, status
        ) as each_status group by parent_id
    ) as each_parent
$$;

grant execute on function private.roots_of(text), private.worker_pattern(text) to authenticated, service_role;
select private.open_to('{pause_task,resume_task,requeue_task,select_tasks,count_children}', '{}');
