-- The functions that workers and Edge Functions call, one for each operation of the worker's store. They take and give
-- JSON; times are UTC text. Those that write are SECURITY DEFINER: the fencing would be worth nothing if their callers
-- could update the table themselves. Each looks at the owner of the row first (private.may_use, private.person). Those
-- that only read run with the caller's rights, so row level security holds.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- adding and reading -------------------------------------------------------------------------------------------

-- Insert rows in one transaction; an id that exists already is left alone. An entry: id, task_type, params,
-- dependant_on, project_id, priority, parent_id, child_key, run_after, paused. Returns the ids in order.
-- SECURITY DEFINER: a child's parent_id and child_key may not be inserted directly.
create function public.add_tasks(p_tasks jsonb) returns jsonb
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.person();
    perform private.beside_others();
    return to_jsonb(private.insert_tasks(p_tasks));
end
$$;

create function public.get_task(p_task_id uuid) returns jsonb
language plpgsql stable set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id;
    if not found then
        raise exception 'there is no task %', p_task_id using errcode = 'PT404', column = 'task_id';
    end if;
    return private.task_json(v_task);
end
$$;

-- The newest rows first.
create function public.list_tasks(
    p_status public.task_status default null, p_task_type text default null, p_limit bigint default 50
) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(private.task_json(task) order by task.created_at desc, task.seq desc), '[]')
    from (
        select * from public.tasks
        where (p_status is null or status = p_status) and (p_task_type is null or task_type = p_task_type)
        order by created_at desc, seq desc limit greatest(p_limit, 0)
    ) as task
$$;

-- In the order in which they were added.
create function public.task_children(p_parent_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(private.task_json(task) order by task.seq), '[]')
    from public.tasks as task where task.parent_id = p_parent_id
$$;

-- In the order of dependant_on.
create function public.task_dependencies(p_task_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(private.task_json(needed) order by dependency.place), '[]')
    from public.tasks as task, unnest(task.dependant_on) with ordinality as dependency (id, place)
    join public.tasks as needed on needed.id = dependency.id
    where task.id = p_task_id
$$;

-- The timeline, oldest first.
create function public.task_timeline(p_task_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(to_jsonb(event) - 'id' || jsonb_build_object('at', private.iso(event.at))
        order by event.id), '[]')
    from public.task_events as event where event.task_id = p_task_id
$$;

-- Rows by status; every status is a key.
create function public.count_tasks() returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_object_agg(status, coalesce(found.count, 0))
    from unnest(enum_range(null::public.task_status)) as status
    left join (select task.status as name, count(*) from public.tasks as task group by 1) as found
        on found.name = status
$$;

-- The workers that ever sent a heartbeat, the latest first.
create function public.list_workers() returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(to_jsonb(worker) - 'served' || jsonb_build_object(
            'last_heartbeat', private.iso(worker.last_heartbeat), 'created_at', private.iso(worker.created_at))
        order by worker.last_heartbeat desc, worker.created_at desc), '[]')
    from public.workers as worker where worker.last_heartbeat is not null
$$;

-- How many rows are neither terminal nor held up: paused, or waiting for a paused row.
create function public.open_tasks() returns bigint
language sql stable set search_path = '' set jit = off
as $$
    with recursive held (id) as (
        select id from public.tasks where status = 'Queued' and paused
        union
        select next.id from held, lateral (
            select id from public.tasks
            where dependant_on @> array[held.id] and dependant_on <> '{}' and status = 'Queued'
            union all
            select parent.id from public.tasks as child
            join public.tasks as parent on parent.id = coalesce(child.parent_id, child.orchestrator_id)
            where child.id = held.id and parent.status = 'In Progress' and parent.waiting
        ) as next (id)
    )
    select count(*) from public.tasks
    where status in ('Queued', 'In Progress') and id not in (select id from held)
$$;

-- -- from outside -------------------------------------------------------------------------------------------------

-- The row, locked. Raises PT404 when there is none, or the caller does not see it.
create function private.visible(p_task_id uuid) returns public.tasks
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id and private.may_use(project_id) for update;
    if not found then
        raise exception 'there is no task %', p_task_id using errcode = 'PT404', column = 'task_id';
    end if;
    return v_task;
end
$$;

-- Ask for cancellation of a row and its children: queued and waiting ones end at once, running ones when their worker
-- stops. Terminal rows stay. Returns the status now.
create function public.cancel_task(p_task_id uuid) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    perform private.person();
    perform private.alone();
    v_task := private.visible(p_task_id);
    if v_task.status in ('Queued', 'In Progress') then
        perform private.cancel(p_task_id);
    end if;
    return (select status from public.tasks where id = p_task_id);
end
$$;

-- Failed -> Queued with attempts 0, together with what failed because of it. Returns the status now.
create function public.retry_task(p_task_id uuid) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    perform private.person();
    perform private.alone();
    v_task := private.visible(p_task_id);
    if v_task.status <> 'Failed' then
        raise exception 'task % is %; only a Failed task can be retried', p_task_id, v_task.status
            using errcode = 'PT400', column = 'status';
    end if;
    perform private.retry(p_task_id);
    perform private.end_stuck();
    return (select status from public.tasks where id = p_task_id);
end
$$;
