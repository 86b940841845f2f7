-- What every row obeys, whoever writes it, and the small parts that the other files are made of.
--
-- Errors that the functions raise, for Edge Functions and clients to map (PostgREST answers with the number by itself):
--   PT400  bad input; COLUMN names the field at fault
--   PT403  the caller may not do that
--   PT404  there is no such row, or the caller does not see it
--   PT409  the claim is stale: the row was claimed again, ended or released, or the write carries no claim number
--   PT422  a change of status that does not exist; Complete and Cancelled are final
-- Postgres adds its own: 23514 a check (phantom rows), 42501 no privilege, 40P01/40001 try again.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- who asks -----------------------------------------------------------------------------------------------------

-- Inside a SECURITY DEFINER function current_user is the owner, but the setting `role` still names who called.
create function private.is_service() returns boolean
language sql stable set search_path = ''
as $$
    select pg_has_role(
        coalesce(nullif(current_setting('role', true), 'none'), session_user::text)::name,
        'service_role', 'USAGE')
$$;

-- The person on whose behalf the caller acts; null for the service.
create function private.person() returns uuid
language plpgsql stable set search_path = ''
as $$
begin
    if private.is_service() then
        return null;
    end if;
    if auth.uid() is null then
        raise exception 'no person is logged in' using errcode = 'PT403';
    end if;
    return auth.uid();
end
$$;

-- Whether the caller may use the project.
create function private.may_use(p_project_id uuid) returns boolean
language sql stable set search_path = ''
as $$
    select private.is_service()
        or exists (select from public.projects where id = p_project_id and user_id = auth.uid())
$$;

-- -- text and time ------------------------------------------------------------------------------------------------

-- YYYY-MM-DDTHH:MM:SS.mmmZ
create function private.iso(p_time timestamptz) returns text
language sql stable set search_path = ''
as $$
    select to_char(p_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

create function private.task_json(p_task public.tasks) returns jsonb
language sql stable set search_path = ''
as $$
    select to_jsonb(p_task) - '{seq,unreadable,orchestrator_id,owner_id,passed_over,passed_over_since}'::text[] || jsonb_build_object(
        'created_at', private.iso(p_task.created_at),
        'updated_at', private.iso(p_task.updated_at),
        'generation_started_at', private.iso(p_task.generation_started_at),
        'generation_processed_at', private.iso(p_task.generation_processed_at),
        'claimed_at', private.iso(p_task.claimed_at),
        'lease_expires_at', private.iso(p_task.lease_expires_at),
        'run_after', private.iso(p_task.run_after))
$$;

-- An id out of JSON. Raises PT400 rather than 22P02.
create function private.id_of(p_text text, p_field text) returns uuid
language plpgsql immutable set search_path = ''
as $$
begin
    return p_text::uuid;
exception when invalid_text_representation then
    raise exception '% is not a UUID', quote_literal(p_text) using errcode = 'PT400', column = p_field;
end
$$;

create function private.model_of(p_params jsonb) returns text
language sql immutable set search_path = ''
as $$
    select value #>> '{}'
    from unnest(array[p_params -> 'model_name', p_params #> '{orchestrator_details,model_name}', p_params -> 'model'])
        with ordinality as named (value, place)
    where jsonb_typeof(value) = 'string' and value <> '""'
    order by place limit 1
$$;

create function private.is_orchestrator(p_task_type text) returns boolean
language sql immutable set search_path = ''
as $$
    -- different_pose: the older name of different_perspective_orchestrator
    select right(p_task_type, 13) = '_orchestrator' or p_task_type = 'different_pose'
$$;

-- The orchestrator that a row without parent_id names in its params, by id or by run; null when none of that project is
-- open. A row without such a name costs no look into the table.
create function private.orchestrator_of(p_params jsonb, p_project_id uuid) returns uuid
language plpgsql stable set search_path = ''
as $$
declare
    v_name text;
begin
    foreach v_name in array array[p_params ->> 'orchestrator_task_id_ref',
        p_params #>> '{orchestrator_details,orchestrator_task_id}',
        p_params #>> '{originalParams,orchestrator_details,orchestrator_task_id}',
        p_params ->> 'orchestrator_task_id']
    loop
        if v_name ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' and exists (
            select from public.tasks where id = v_name::uuid and project_id = p_project_id
                and status in ('Queued', 'In Progress') and private.is_orchestrator(task_type)) then
            return v_name::uuid;
        end if;
    end loop;
    if p_params ->> 'orchestrator_run_id' is null then
        return null;
    end if;
    return (
        select id from public.tasks
        where project_id = p_project_id and status = 'In Progress' and private.is_orchestrator(task_type)
            and params #>> '{orchestrator_details,run_id}' = p_params ->> 'orchestrator_run_id'
        order by created_at desc limit 1);
end
$$;

-- Refuse JSON that Postgres keeps in a few bytes and nobody could read: 1e130000 is 130 KB as text, a thousand levels are
-- too deep for clients. The answer of a claim holds the row, so every claim would fail. Raises PT400.
create function private.check_json(p_value jsonb, p_column text) returns void
language plpgsql immutable set search_path = ''
as $$
declare
    v_fault text := case
        when p_value @? 'strict $.**{100 to last}' then 'is nested more than 100 levels deep'
        when p_value @? 'strict $.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))'
            then 'holds a number beyond 1e308'
        when length(p_value::text) > 10 * 1024 * 1024 then 'is longer than 10 MB' end;
begin
    if v_fault is not null then
        raise exception '%', v_fault using errcode = 'PT400', column = p_column;
    end if;
end
$$;

-- Refuse a person's row that waits for the task of somebody else: it would tell them how that ends, and why.
-- SECURITY DEFINER: those tasks are hidden from them.
create function private.check_dependencies_are_own(p_ids uuid[]) returns void
language plpgsql stable security definer set search_path = ''
as $$
declare
    v_id uuid;
begin
    select id into v_id from public.tasks where id = any (p_ids) and not private.may_use(project_id) limit 1;
    if found then
        raise exception 'there is no task %', v_id using errcode = 'PT400', column = 'dependant_on';
    end if;
end
$$;

create function private.record(
    p_task_id uuid, p_name text, p_worker_id text default null, p_claim_number bigint default null,
    p_detail text default null
) returns void
language sql set search_path = ''
as $$
    insert into public.task_events (task_id, name, worker_id, claim_number, detail)
    values (p_task_id, p_name, p_worker_id, p_claim_number, left(p_detail, 500))
$$;

create function private.owner_of(p_project_id uuid) returns uuid
language sql stable set search_path = ''
as $$
    select coalesce((select user_id from public.projects where id = p_project_id), p_project_id)
$$;

-- -- triggers -----------------------------------------------------------------------------------------------------

-- A row that is inserted: a front end gives task_type and params, the rest is derived.
create function private.complete_new_task() returns trigger
language plpgsql set search_path = ''
as $$
begin
    new.claim_number := case when new.status = 'In Progress' then 1 else 0 end;
    new.owner_id := private.owner_of(new.project_id);
    perform private.check_json(new.params, 'params');
    if jsonb_typeof(new.params) = 'object' then
        new.model := coalesce(new.model, private.model_of(new.params));
        new.orchestrator_id := case when new.parent_id is null and not private.is_orchestrator(new.task_type)
            then private.orchestrator_of(new.params, new.project_id) end;
        if new.priority = 0 and jsonb_typeof(new.params -> 'priority') = 'number'
            and new.params ->> 'priority' ~ '^-?[0-9]{1,9}$' then
            new.priority := (new.params ->> 'priority')::bigint;
        end if;
    end if;
    new.dependant_on := private.distinct_ids(new.dependant_on);
    if new.dependant_on <> '{}' then
        perform private.check_dependencies_are_own(new.dependant_on);
    end if;
    return new;
end
$$;

-- Without nulls and repetitions, in their order.
create function private.distinct_ids(p_ids uuid[]) returns uuid[]
language sql immutable set search_path = ''
as $$
    select coalesce(array_agg(id order by place), '{}')
    from (select id, min(place) as place from unnest(p_ids) with ordinality as listed (id, place)
          where id is not null group by id) as found
$$;

create trigger tasks_complete_new before insert on public.tasks
for each row execute function private.complete_new_task();

-- SECURITY DEFINER: those who may add a row may not write the timeline.
create function private.record_new_task() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.record(new.id, 'queued');
    return null;
end
$$;

create trigger tasks_record_new after insert on public.tasks
for each row when (new.status = 'Queued') execute function private.record_new_task();

-- Which changes of status exist; the claim number, which counts claims and nothing else; what ends with a status.
create function private.check_change() returns trigger
language plpgsql set search_path = ''
as $$
begin
    new.seq := old.seq;
    new.parent_id := old.parent_id;
    new.orchestrator_id := old.orchestrator_id;
    new.claim_number := old.claim_number;
    if new.project_id <> old.project_id then
        new.owner_id := private.owner_of(new.project_id);
    end if;
    if new.dependant_on is distinct from old.dependant_on then
        new.dependant_on := private.distinct_ids(new.dependant_on);
    end if;
    if new.progress is distinct from old.progress then
        perform private.check_json(new.progress, 'progress');
    end if;
    if new.result_data is distinct from old.result_data then
        perform private.check_json(new.result_data, 'result_data');
    end if;
    if new.status = old.status then
        return new;
    end if;
    if not (case old.status
        when 'Queued' then new.status in ('In Progress', 'Failed', 'Cancelled')
        when 'In Progress' then true
        when 'Failed' then new.status = 'Queued'
        else false end) then
        raise exception 'task % is %, it cannot become %', old.id, old.status, new.status
            using errcode = 'PT422', hint = 'A Complete or Cancelled task is final; a Failed one can be queued again.';
    end if;
    if new.status = 'In Progress' then
        new.claim_number := old.claim_number + 1;
    else
        new.lease_expires_at := null;
        new.waiting := false;
    end if;
    if new.status in ('Complete', 'Failed', 'Cancelled') then
        new.generation_processed_at := coalesce(new.generation_processed_at, clock_timestamp());
    end if;
    return new;
end
$$;

create trigger tasks_check_change before update on public.tasks
for each row execute function private.check_change();

-- A project that changes hands takes its open tasks along.
create function private.hand_over_tasks() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    update public.tasks set owner_id = private.owner_of(new.id)
    where project_id = new.id and status in ('Queued', 'In Progress', 'Failed');
    return null;
end
$$;

create trigger projects_hand_over_tasks after update of user_id on public.projects
for each row when (new.user_id is distinct from old.user_id) execute function private.hand_over_tasks();

-- JSON that the service reads with other rows. The column is the trigger's argument.
create function private.check_column() returns trigger
language plpgsql set search_path = ''
as $$
begin
    perform private.check_json(to_jsonb(new) -> tg_argv[0], tg_argv[0]);
    return new;
end
$$;

create trigger users_check_settings before insert or update of settings on public.users
for each row execute function private.check_column('settings');

create trigger workers_check_metadata before insert or update of metadata on public.workers
for each row execute function private.check_column('metadata');
