-- How rows get into the queue, leave it and come back. All inside the caller's transaction.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- adding -------------------------------------------------------------------------------------------------------

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
    v_task.project_id := coalesce(
        private.id_of(p_entry ->> 'project_id', 'project_id'), '00000000-0000-0000-0000-000000000000');
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
    if not exists (select from public.projects where id = p_task.project_id) or not private.may_use(p_task.project_id) then
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
    v_circle text;
begin
    select private.circle_through(id) into v_circle
    from (
        select task.id from public.tasks as task, unnest(task.dependant_on) as needed (id)
            join public.tasks as later on later.id = needed.id
        where task.id = any (p_ids) and later.seq >= task.seq
        union
        select parent_id from public.tasks where id = any (p_ids) and parent_id is not null
        union
        select id from public.tasks
        where dependant_on && p_ids and dependant_on <> '{}' and status = 'Queued' and id <> all (p_ids)
    ) as suspect (id)
    where private.waits_for_itself(id) limit 1;
    if v_circle is not null then
        raise exception 'the tasks would wait for each other: %', v_circle
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

-- -- claiming -----------------------------------------------------------------------------------------------------

-- Rows that nothing of their own holds back. What holds their owner back are columns: only those asked for cost time.
-- Scalar subqueries, so that a claim walks tasks_claim and stops at the first rows that fit.
create view private.claimable as
select task.*,
    coalesce((select run_type from public.task_types where name = task.task_type), 'gpu') as run_type,
    (select project.user_id is null
        or ((person.credits is null or person.credits > 0)
            and coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false')
     from public.projects as project left join public.users as person on person.id = project.user_id
     where project.id = task.project_id) as in_cloud,
    (select project.user_id is null
        or coalesce(person.settings #>> '{ui,generationMethods,onComputer}', 'true') <> 'false'
     from public.projects as project left join public.users as person on person.id = project.user_id
     where project.id = task.project_id) as on_computer
from public.tasks as task
where task.status = 'Queued' and not task.paused and jsonb_typeof(task.params) = 'object'
    and (task.run_after is null or task.run_after <= clock_timestamp())
    and (task.dependant_on = '{}' or not exists (
        select from unnest(task.dependant_on) as needed (id)
        left join public.tasks as found on found.id = needed.id
        where found.status is distinct from 'Complete'))
    and coalesce((select is_active from public.task_types where name = task.task_type), true);

-- The projects of people who have as many tasks running as they may.
create function private.full_projects() returns uuid[]
language sql stable set search_path = ''
as $$
    select coalesce(array_agg(project.id), '{}')
    from (
        select person.id
        from public.tasks as task join public.projects as project on project.id = task.project_id
        join public.users as person on person.id = project.user_id
        where task.status = 'In Progress' and not task.waiting and not private.is_orchestrator(task.task_type)
        group by person.id having count(*) >= person.max_in_progress
        union
        select id from public.users where max_in_progress = 0
    ) as busy join public.projects as project on project.user_id = busy.id
$$;

-- Take rows: highest priority first; within a priority those of the loaded model, then the oldest. Rows that another
-- claim is just taking are passed by. p_person: the person whose own worker asks, null for one of the service.
create function private.claim(
    p_worker_id text, p_lease interval, p_limit bigint, p_loaded_model text, p_task_types text[], p_run_type text,
    p_person uuid, p_unfenced boolean, p_same_model_only boolean
) returns setof public.tasks
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
as $$
declare
    v_closed uuid[] := case when p_person is null then private.full_projects() else '{}' end;
    v_own uuid[] := array(select id from public.projects where user_id = p_person);
    v_warm boolean := p_loaded_model is not null and (p_same_model_only or private.may_prefer(p_worker_id));
    v_priority bigint;
    v_picked uuid[];
    v_taken uuid[] := '{}';
begin
    while cardinality(v_taken) < p_limit loop
        if v_warm then
            -- the next priority at which anything can be had
            select max(priority) into v_priority from (
                select priority from private.claimable
                where (v_priority is null or priority < v_priority)
                    and (p_task_types is null or task_type = any (p_task_types))
                    and (p_run_type is null or run_type = p_run_type)
                    and (not p_same_model_only or model = p_loaded_model)
                    and project_id <> all (v_closed) and (p_person is null or project_id = any (v_own))
                    and case when p_person is null then in_cloud else on_computer end
                order by priority desc limit 1) as top;
            exit when v_priority is null;
            select coalesce(array_agg(id order by created_at, seq), '{}') into v_picked from (
                select id, created_at, seq from private.claimable
                where model = p_loaded_model and priority = v_priority
                    and (p_task_types is null or task_type = any (p_task_types))
                    and (p_run_type is null or run_type = p_run_type)
                    and project_id <> all (v_closed) and (p_person is null or project_id = any (v_own))
                    and case when p_person is null then in_cloud else on_computer end
                order by priority desc, created_at, seq
                limit p_limit - cardinality(v_taken) for update skip locked) as picked;
            v_taken := v_taken || private.take(v_picked, p_worker_id, p_lease, p_unfenced);
            continue when p_same_model_only;
        end if;
        select coalesce(array_agg(id order by priority desc, created_at, seq), '{}') into v_picked from (
            select id, priority, created_at, seq from private.claimable
            where (not v_warm or priority = v_priority)
                and (p_task_types is null or task_type = any (p_task_types))
                and (p_run_type is null or run_type = p_run_type)
                and project_id <> all (v_closed) and (p_person is null or project_id = any (v_own))
                and case when p_person is null then in_cloud else on_computer end
            order by priority desc, created_at, seq
            limit p_limit - cardinality(v_taken) for update skip locked) as picked;
        v_taken := v_taken || private.take(v_picked, p_worker_id, p_lease, p_unfenced);
        exit when not v_warm;
    end loop;
    if p_loaded_model is not null and cardinality(v_taken) > 0 then
        perform private.count_warm(p_worker_id, p_person, case when v_warm then p_loaded_model end, v_taken);
    end if;
    return query select task.* from unnest(v_taken) with ordinality as taken (id, place)
        join public.tasks as task on task.id = taken.id order by taken.place;
end
$$;

-- The update of a claim, on rows that the caller has locked. Returns their ids as given.
create function private.take(p_ids uuid[], p_worker_id text, p_lease interval, p_unfenced boolean) returns uuid[]
language sql set search_path = ''
as $$
    with taken as (
        update public.tasks set status = 'In Progress', worker_id = p_worker_id, claimed_at = clock_timestamp(),
            lease_expires_at = clock_timestamp() + p_lease, run_after = null, progress = null,
            generation_started_at = coalesce(generation_started_at, clock_timestamp()), unfenced = p_unfenced,
            updated_at = clock_timestamp()
        where id = any (p_ids) returning id, claim_number
    )
    insert into public.task_events (task_id, name, worker_id, claim_number)
    select id, 'claimed', p_worker_id, claim_number from taken;
    select p_ids
$$;

-- A worker that always found rows of its model would pass the others by for ever: after 8 such rows in a row it takes
-- the oldest.
create function private.may_prefer(p_worker_id text) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce((select warm_streak < 8 from public.workers where id = p_worker_id), true)
$$;

create function private.count_warm(p_worker_id text, p_person uuid, p_model text, p_taken uuid[]) returns void
language plpgsql set search_path = ''
as $$
declare
    v_warm bigint;
begin
    select case when bool_and(model is not distinct from p_model) then count(*) else 0 end into v_warm
    from public.tasks where id = any (p_taken);
    insert into public.workers as worker (id, user_id, warm_streak, current_model)
    values (p_worker_id, p_person, v_warm, p_model)
    on conflict (id) do update
        set warm_streak = case when excluded.warm_streak = 0 then 0 else worker.warm_streak + excluded.warm_streak end;
end
$$;

-- -- back into the queue ------------------------------------------------------------------------------------------

-- Queue a running row again, or cancel it when that was asked for meanwhile. `p_burned` attempts are counted.
create function private.requeue(
    p_task public.tasks, p_event text, p_burned bigint default 0, p_delay interval default null,
    p_message text default null, p_error_class text default null
) returns public.task_status
language plpgsql set search_path = ''
as $$
begin
    perform private.record(p_task.id, p_event, p_task.worker_id, p_task.claim_number, p_message);
    if p_task.cancel_requested then
        perform private.settle(private.end_tasks(array[p_task.id], 'Cancelled'));
        return 'Cancelled';
    end if;
    update public.tasks set status = 'Queued', worker_id = null, claimed_at = null, attempts = attempts + p_burned,
        run_after = clock_timestamp() + p_delay, error_message = coalesce(p_message, error_message),
        error_class = coalesce(p_error_class, error_class), updated_at = clock_timestamp()
    where id = p_task.id;
    return 'Queued';
end
$$;

-- End a running row as Failed, or as Cancelled when that was asked for.
create function private.fail(p_task public.tasks, p_message text, p_error_class text) returns public.task_status
language plpgsql set search_path = ''
as $$
declare
    v_status public.task_status := case when p_task.cancel_requested then 'Cancelled' else 'Failed' end;
begin
    update public.tasks set attempts = attempts + 1 where id = p_task.id;
    perform private.settle(private.end_tasks(array[p_task.id], v_status, p_message, p_error_class));
    return v_status;
end
$$;

-- -- rescue -------------------------------------------------------------------------------------------------------

-- Take back the rows whose lease ran out. Returns how many. p_person: only that person's.
create function private.rescue_expired(p_max_attempts bigint, p_person uuid) returns bigint
language plpgsql set search_path = '' set jit = off
as $$
declare
    v_task public.tasks;
    v_death text;
    v_count bigint := 0;
begin
    if not exists (select from public.tasks
                   where status = 'In Progress' and not waiting and lease_expires_at <= clock_timestamp()) then
        return 0;
    end if;
    perform private.alone();
    for v_task in
        select * from public.tasks
        where status = 'In Progress' and not waiting and lease_expires_at <= clock_timestamp()
            and (p_person is null or project_id in (select id from public.projects where user_id = p_person))
        order by seq for update skip locked
    loop
        v_count := v_count + 1;
        v_death := format('worker %s stopped renewing its lease', v_task.worker_id);
        if v_task.attempts + 1 < p_max_attempts or v_task.cancel_requested then
            perform private.requeue(v_task, 'rescued', 1, null, v_death, 'worker_died');
        else
            perform private.poison(v_task, v_death);
        end if;
    end loop;
    return v_count;
end
$$;

create function private.poison(p_task public.tasks, p_death text) returns void
language plpgsql set search_path = ''
as $$
declare
    v_died bigint;
begin
    perform private.record(p_task.id, 'rescued', p_task.worker_id, p_task.claim_number, p_death);
    select count(*) into v_died from public.task_events
    where task_id = p_task.id and name = 'rescued' and id > (
        select coalesce(max(id), 0) from public.task_events where task_id = p_task.id and name = 'queued');
    perform private.fail(p_task,
        format('a worker died %s time(s) while it ran this task, the last was %s; given up after %s attempt(s)',
            v_died, p_task.worker_id, p_task.attempts + 1),
        'poison');
end
$$;

-- Fail queued rows whose params nobody could read. Returns how many rows ended.
create function private.end_unreadable() returns bigint
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
    v_count bigint := 0;
begin
    if not exists (select from public.tasks where status = 'Queued' and jsonb_typeof(params) <> 'object') then
        return 0;
    end if;
    perform private.alone();
    for v_task in
        select * from public.tasks where status = 'Queued' and jsonb_typeof(params) <> 'object' for update skip locked
    loop
        v_count := v_count + 1 + private.settle(private.end_tasks(array[v_task.id], 'Failed',
            format('params: must be a JSON object like {"prompt": "…"}, not %s', left(v_task.params::text, 80)),
            'bad_input'));
    end loop;
    return v_count;
end
$$;

-- Rows that will never go on by themselves. Only rows written from outside get there.
create view private.stuck as
-- because what they wait for, or their parent, did not succeed: settle that again
select distinct 'cause' as kind, needed.id, null::uuid as missing
from public.tasks as task, unnest(task.dependant_on) as dependency (id)
join public.tasks as needed on needed.id = dependency.id
where task.status = 'Queued' and task.dependant_on <> '{}' and needed.status in ('Failed', 'Cancelled')
union
select 'cause', parent.id, null
from public.tasks as task join public.tasks as parent on parent.id = task.parent_id
where task.status = 'Queued' and task.parent_id is not null and parent.status in ('Failed', 'Cancelled')
union all
select 'missing', task.id, dependency.id
from public.tasks as task, unnest(task.dependant_on) as dependency (id)
where task.status = 'Queued' and task.dependant_on <> '{}'
    and not exists (select from public.tasks as needed where needed.id = dependency.id)
union all
select 'childless', parent.id, null
from public.tasks as parent
where parent.status = 'In Progress' and parent.waiting and not exists (
    select from public.tasks as child where child.parent_id = parent.id and child.status in ('Queued', 'In Progress'))
union all
-- a circle has a row that waits for a later one
select 'circle', task.id, null
from public.tasks as task, unnest(task.dependant_on) as dependency (id)
join public.tasks as later on later.id = dependency.id
where task.status = 'Queued' and task.dependant_on <> '{}' and later.status = 'Queued' and later.seq >= task.seq
    and private.waits_for_itself(task.id);

-- End them. Returns how many rows ended.
create function private.end_stuck() returns bigint
language plpgsql set search_path = '' set jit = off
as $$
declare
    v_stuck record;
    v_ended uuid[];
    v_count bigint := 0;
begin
    if not exists (select from private.stuck) then
        return 0;
    end if;
    perform private.alone();
    loop
        select * into v_stuck from private.stuck order by kind limit 1;
        exit when not found;
        if v_stuck.kind = 'cause' then
            v_ended := array[v_stuck.id];
        elsif v_stuck.kind = 'childless' then
            v_ended := case when private.end_parent(v_stuck.id) then array[v_stuck.id] else '{}' end;
        else
            v_ended := private.end_tasks(array[v_stuck.id], 'Failed', case v_stuck.kind
                when 'missing' then
                    format('Not run, because task %s, on which it depends, does not exist', v_stuck.missing)
                else format('Not run, because tasks depend on each other in a circle: %s',
                    private.circle_through(v_stuck.id)) end,
                'dependency');
        end if;
        v_count := v_count + private.settle(v_ended)
            + case when v_stuck.kind = 'cause' then 0 else cardinality(v_ended) end;
    end loop;
    return v_count;
end
$$;
