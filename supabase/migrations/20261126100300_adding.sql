-- How rows get into the queue, and what is refused. All inside the caller's transaction.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- dependant_on as a client writes it: an array of ids, or one bare id.
create function private.ids_of(p_ids jsonb) returns uuid[]
language plpgsql immutable set search_path = ''
as $$
begin
    return case coalesce(jsonb_typeof(p_ids), 'null')
        when 'null' then '{}'
        when 'string' then array[private.id_of(p_ids #>> '{}', 'dependant_on')]
        else array(select private.id_of(id, 'dependant_on') from jsonb_array_elements_text(p_ids) as id
                   where id is not null)
    end;
exception when invalid_parameter_value then
    raise exception 'must be an array of ids, or one id' using errcode = 'PT400', column = 'dependant_on';
end
$$;

-- Where a task goes that names no project: the service's to the installation's own, a person's to their only one.
-- Raises PT400.
create function private.usual_project() returns uuid
language plpgsql stable set search_path = ''
as $$
declare
    v_person uuid := private.person();
    v_ids uuid[];
begin
    if v_person is null then
        return '00000000-0000-0000-0000-000000000000';
    end if;
    v_ids := array(select id from public.projects where user_id = v_person order by created_at, id limit 20);
    if cardinality(v_ids) = 1 then
        return v_ids[1];
    end if;
    raise exception '%', case cardinality(v_ids) when 0 then 'is missing, and you have no project yet; make one first'
        else 'is missing; your projects are ' || array_to_string(v_ids, ', ') end
        using errcode = 'PT400', column = 'project_id';
end
$$;

-- A row out of JSON. Raises PT400.
create function private.task_of(p_entry jsonb) returns public.tasks
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    if jsonb_typeof(p_entry) is distinct from 'object' or coalesce(p_entry ->> 'task_type', '') = '' then
        raise exception 'every task needs one' using errcode = 'PT400', column = 'task_type';
    end if;
    if jsonb_typeof(p_entry -> 'params') is distinct from 'object' then
        raise exception 'must be a JSON object like {"prompt": "…"}' using errcode = 'PT400', column = 'params';
    end if;
    v_task.id := coalesce(private.id_of(p_entry ->> 'id', 'id'), gen_random_uuid());
    v_task.task_type := p_entry ->> 'task_type';
    v_task.params := p_entry -> 'params';
    v_task.dependant_on := private.distinct_ids(private.ids_of(p_entry -> 'dependant_on'));
    v_task.project_id := coalesce(private.id_of(p_entry ->> 'project_id', 'project_id'), private.usual_project());
    v_task.parent_id := private.id_of(p_entry ->> 'parent_id', 'parent_id');
    v_task.child_key := p_entry ->> 'child_key';
    v_task.priority := coalesce((p_entry ->> 'priority')::bigint, 0);
    v_task.run_after := (p_entry ->> 'run_after')::timestamptz;
    v_task.paused := coalesce((p_entry ->> 'paused')::boolean, false);
    return v_task;
exception when data_exception then
    raise exception 'task %: %', p_entry ->> 'id', sqlerrm using errcode = 'PT400';
end
$$;

-- Refuse projects, parents and existing rows of others.
create function private.check_owner(p_task public.tasks) returns void
language plpgsql set search_path = ''
as $$
declare
    v_project_id uuid;
begin
    if not exists (select from public.projects where id = p_task.project_id)
        or not private.may_use(p_task.project_id) then
        raise exception 'there is no project % of yours', p_task.project_id
            using errcode = 'PT403', column = 'project_id';
    end if;
    select project_id into v_project_id from public.tasks where id = p_task.id;
    if found and not private.may_use(v_project_id) then
        raise exception 'task % exists already and belongs to somebody else', p_task.id
            using errcode = 'PT403', column = 'id';
    end if;
    if p_task.parent_id is not null and not private.is_service() and not exists (
        select from public.tasks where id = p_task.parent_id and private.may_use(project_id)) then
        raise exception 'there is no task % of yours', p_task.parent_id using errcode = 'PT403', column = 'parent_id';
    end if;
end
$$;

-- Refuse what could never run.
create function private.check_dependencies(p_tasks public.tasks[]) returns void
language plpgsql set search_path = ''
as $$
declare
    v_bad record;
begin
    select task.id, task.task_type, needed.id as needed_id, found.status into v_bad
    from unnest(p_tasks) with ordinality as task, lateral unnest(task.dependant_on) as needed (id)
    left join public.tasks as found on found.id = needed.id and private.may_use(found.project_id)
    where not exists (select from public.tasks as stored where stored.id = task.id)
        and not exists (select from unnest(p_tasks) as beside where beside.id = needed.id)
        and coalesce(found.status, 'Failed') in ('Failed', 'Cancelled')
    order by task.ordinality limit 1;
    if not found then
        return;
    end if;
    if v_bad.status is null then
        raise exception 'there is no task %; add it first, or in the same call', v_bad.needed_id
            using errcode = 'PT400', column = 'dependant_on';
    end if;
    raise exception 'task % is %, so % % could never run; retry that task first, or depend on another',
        v_bad.needed_id, v_bad.status, v_bad.task_type, v_bad.id using errcode = 'PT400', column = 'dependant_on';
end
$$;

-- Refuse rows that would wait for themselves. A circle needs a row that waits for a later one: one of these.
create function private.check_circles(p_ids uuid[]) returns void
language plpgsql set search_path = ''
as $$
declare
    v_id uuid := private.on_a_circle(array(
        select task.id from public.tasks as task, unnest(task.dependant_on) as needed (id)
            join public.tasks as later on later.id = needed.id
        where task.id = any (p_ids) and later.seq >= task.seq
        union
        select parent_id from public.tasks where id = any (p_ids) and parent_id is not null
        union
        select id from public.tasks
        where dependant_on && p_ids and dependant_on <> '{}' and status = 'Queued' and id <> all (p_ids)));
begin
    if v_id is not null then
        raise exception 'the tasks would wait for each other: %', private.circle_through(v_id)
            using errcode = 'PT400', column = 'dependant_on';
    end if;
end
$$;

-- Insert the rows that do not exist yet. Returns all ids in order.
create function private.insert_tasks(p_entries jsonb) returns uuid[]
language plpgsql set search_path = ''
as $$
declare
    v_tasks public.tasks[];
    v_task public.tasks;
    v_added uuid[];
begin
    if jsonb_typeof(p_entries) is distinct from 'array' then
        raise exception 'must be an array of tasks' using errcode = 'PT400', column = 'tasks';
    end if;
    select coalesce(array_agg(private.task_of(entry) order by place), '{}') into v_tasks
    from jsonb_array_elements(p_entries) with ordinality as listed (entry, place);
    foreach v_task in array v_tasks loop
        perform private.check_owner(v_task);
    end loop;
    perform private.check_dependencies(v_tasks);
    begin
        with added as (
            insert into public.tasks (
                id, task_type, params, dependant_on, project_id, priority, parent_id, child_key, run_after, paused)
            select id, task_type, params, dependant_on, project_id, priority, parent_id, child_key, run_after, paused
            from unnest(v_tasks) with ordinality order by ordinality
            on conflict (id) do nothing returning id
        )
        select coalesce(array_agg(id), '{}') into v_added from added;
    exception when integrity_constraint_violation then
        raise exception 'a task cannot be added: %', sqlerrm using errcode = 'PT400', column = 'child_key';
    end;
    perform private.check_circles(v_added);
    return array(select id from unnest(v_tasks) with ordinality order by ordinality);
end
$$;
