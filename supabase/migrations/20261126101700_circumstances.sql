-- Why a row waits, runs or ended as it did: the raw facts, for debug.py why.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- A row without what may be long.
create function private.brief_json(p_task public.tasks) returns jsonb
language sql stable set search_path = ''
as $$
    select private.task_json(p_task) - '{params,result_data}'::text[]
$$;

-- {now, task, passed_over, passed_over_since, needed, missing, children, parent, owner, type_active, workers, running,
-- ahead, loaded}. Rows come without params. Of what is not the caller's own there are numbers, and workers without names.
-- SECURITY DEFINER: the order depends on the rows of others.
create function public.task_circumstances(p_task_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' set jit = off
as $$
declare
    v_person uuid := private.person();
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id and private.may_use(project_id);
    if not found then
        raise exception 'there is no task %', p_task_id using errcode = 'PT404', column = 'task_id';
    end if;
    return jsonb_build_object(
            'now', private.iso(clock_timestamp()), 'task', private.brief_json(v_task),
            'passed_over', v_task.passed_over, 'passed_over_since', private.iso(v_task.passed_over_since),
            'parent', (select private.brief_json(parent) from public.tasks as parent where parent.id = v_task.parent_id),
            'children', (
                select coalesce(jsonb_agg(private.brief_json(child) order by child.seq), '[]')
                from (select * from public.tasks
                      where (parent_id = p_task_id or orchestrator_id = p_task_id) and status <> 'Complete'
                      order by seq limit 50) as child),
            'owner', private.owner_facts(v_task.owner_id),
            'type_active', coalesce((select is_active from public.task_types where name = v_task.task_type), true),
            'workers', private.workers_seen(v_person),
            'running', (
                select coalesce(jsonb_agg(private.brief_json(held) order by held.claimed_at), '[]')
                from (select * from public.tasks where status = 'In Progress' and not waiting
                          and private.may_use(project_id) order by claimed_at limit 100) as held))
        || private.needed_rows(v_task)
        || case when v_task.status = 'Queued' then private.rows_ahead(v_task) else '{"ahead": null, "loaded": {}}' end;
end
$$;

-- What the row waits for, directly or not: rows that are not Complete, and ids of rows that do not exist.
create function private.needed_rows(p_task public.tasks) returns jsonb
language sql stable set search_path = ''
as $$
    with recursive needed (id) as (
        select unnest(p_task.dependant_on)
        union
        select dependency.id from needed join public.tasks as task on task.id = needed.id,
            unnest(task.dependant_on) as dependency (id)
        where task.status <> 'Complete'
    ), listed as (select id from needed limit 500)
    select jsonb_build_object(
        'needed', (
            select coalesce(jsonb_agg(private.brief_json(task) order by task.seq), '[]')
            from listed join public.tasks as task on task.id = listed.id where task.status <> 'Complete'),
        'missing', (
            select coalesce(jsonb_agg(listed.id), '[]')
            from listed left join public.tasks as task on task.id = listed.id where task.id is null))
$$;

-- credits and limit are null where nothing is charged or limited.
create function private.owner_facts(p_owner_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select jsonb_build_object('credits', person.credits, 'max_in_progress', person.max_in_progress,
        'in_cloud', coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false',
        'running', (
            select count(*) from public.tasks
            where owner_id = p_owner_id and status = 'In Progress' and not waiting
                and not private.is_orchestrator(task_type)))
    from (select p_owner_id as id) as asked left join public.users as person on person.id = asked.id
$$;

-- The 20 workers that were seen last. To a person those of the service have no name, and say nothing of their machine.
create function private.workers_seen(p_person uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
            'id', case when p_person is null or seen.user_id = p_person then seen.id else 'a worker of the service' end,
            'status', seen.status, 'last_heartbeat', private.iso(seen.last_heartbeat),
            'current_model', seen.current_model, 'created_at', private.iso(seen.created_at),
            'metadata', case when p_person is null or seen.user_id = p_person then seen.metadata
                else jsonb_build_object('takes_first', seen.metadata -> 'takes_first') end) order by seen.last_heartbeat desc), '[]')
    from (select * from public.workers
          where last_heartbeat is not null and (p_person is null or user_id is null or user_id = p_person)
          order by last_heartbeat desc limit 20) as seen
$$;

-- What a claim could take before the row. ahead: higher, rows of higher priority; older, older rows of its owner; others,
-- how many rows of its priority each other owner has. loaded: younger rows of its owner by model, of the models that
-- workers have loaded.
create function private.rows_ahead(p_task public.tasks) returns jsonb
language sql stable set search_path = ''
as $$
    with level as (
        select owner_id, coalesce(model, task_type) as key, (created_at, seq) < (p_task.created_at, p_task.seq) as is_older
        from private.claimable where priority = p_task.priority and in_cloud and id <> p_task.id
    ), loaded as (
        select distinct coalesce(metadata ->> 'takes_first', current_model) as model from public.workers
        where last_heartbeat > clock_timestamp() - interval '5 min' and status <> 'stopped'
    )
    select jsonb_build_object(
        'ahead', jsonb_build_object(
            'higher', (select count(*) from private.claimable where priority > p_task.priority and in_cloud),
            'older', (select count(*) from level where owner_id = p_task.owner_id and is_older),
            'others', (select coalesce(jsonb_agg(rows order by rows desc), '[]') from (
                select count(*) as rows from level where owner_id <> p_task.owner_id group by owner_id) as other)),
        'loaded', (select coalesce(jsonb_object_agg(key, rows), '{}') from (
            select key, count(*) as rows from level
            where owner_id = p_task.owner_id and not is_older and key in (select model from loaded)
                and key <> coalesce(p_task.model, p_task.task_type)
            group by key) as of_model))
$$;

select private.open_to('{task_circumstances}', '{}');
